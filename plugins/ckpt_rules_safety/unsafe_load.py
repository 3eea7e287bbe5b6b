"""state/needs-unsafe-load: what `torch.load` would refuse by default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, ReadProblem, Rule, Severity, TorchFile
from ckpt_rules_safety.files import matches
from ckpt_rules_safety.known_globals import REGISTERED
from ckpt_rules_safety.torch_globals import ALLOWED
from ckpt_rules_safety.unsafe_globals import danger

TORCHSCRIPT = "torchscript"
_LAST_PROTOCOL = 3
_REFUSED = "weights-only"
_SHOWN = 5
# `rng_state.pth` and `rng_state_0.pth` are the Trainer's, whose scripts let through what it saves.
_GENERATORS = re.compile(r"(?!rng_state(?:_\d+)?\.pth)(?:rng|random_states?)", re.IGNORECASE)
_OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class NeedsUnsafeLoad(Rule):
    """A file needed to resume imports globals that `torch.load` refuses by default.

    ## What it checks
    The importable names that the pickles of the training state and of the weights ask for, against the exact list that
    torch lets through with `weights_only=True`, its default since 2.6; and the pickle protocol, of which that loader reads
    2 and 3, with the opcodes for plain values; and whether the file is a TorchScript archive, which is an error where the
    state of an optimizer, a schedule or a random generator belongs. Nothing is imported or run to find out. Files that a
    trainer reads with a loader of its own, which lets through what it has saved (`rng_state.pth`, DeepSpeed's optimizer
    states; but no classes of optimizers in Megatron's `common.pt`), or does not read at all (`training_args.bin`), are left
    alone; so are names that a package lets through as it is imported, as torchao does with its optimizers' moments.

    ## Why it matters
    `torch.load` stops with `Weights only load failed … Unsupported global`. NumPy's random state, an
    `argparse.Namespace` or a NumPy number among the metrics is enough. `weights_only=False` loads the file, and
    runs whatever somebody may have put into it.

    ## How to repair
    Let those names through where the file comes from a source you trust: `with torch.serialization.safe_globals([...]):
    torch.load(path)`. Better, save plain values: `vars(args)` for a Namespace, `.item()` for NumPy numbers, `.tolist()`
    for NumPy arrays. Put names that your loader allows into the rule's option `allow`.
    """

    id = "state/needs-unsafe-load"
    severity = Severity.WARNING
    tags = frozenset({"resume", "load", "safety"})

    allow: tuple[str, ...] = Field(
        default=(), description="Further globals, as `module.name`, that the team's own loader lets through."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for path in _own_files(checkpoint):
            file = checkpoint.files.torch_file(path)
            if file.container == TORCHSCRIPT:
                yield _no_state(path)
            elif classes := _refused_there(checkpoint, file):
                yield _globals(path, classes, {})
        allowed, weights = ALLOWED.union(self.allow, REGISTERED), _weights(checkpoint)
        for path in files_of_a_resume(checkpoint):
            file = checkpoint.files.torch_file(path)
            if file.container == TORCHSCRIPT and path not in weights:
                yield _no_state(path)
            elif problem := refused_by_default(file, allowed):
                yield problem


def refused_by_default(file: TorchFile, allowed: frozenset[str] = ALLOWED) -> Problem | None:
    """What `torch.load` refuses in a file that is sound otherwise; `allowed` are the globals that it lets through."""
    if file.container == TORCHSCRIPT:
        return _script(file)
    asked = {_modern(g.module, g.name): danger(g.module, g.name) for g in file.globals if not g.reached}
    refused = sorted(asked.keys() - allowed)
    if refused:
        return _globals(file.path, refused, {name: what for name in refused if (what := asked[name])})
    if (file.protocol or 0) > _LAST_PROTOCOL:
        return _protocol(file)
    unknown = next((p for p in file.problems if p.code == _REFUSED), None)
    return _unknown(file.path, unknown) if unknown else None


def files_of_a_resume(checkpoint: Checkpoint) -> list[str]:
    """Torch files that a resume reads, state first."""
    paths: list[str] = []
    for fact in ("state", "optimizer", "scheduler", "scaler"):
        try:
            paths.append(getattr(checkpoint, fact).path)
        except FactUnavailable as absent:
            if absent.path:  # a file that is damaged, or holds something else, still asks for globals
                paths.append(absent.path)
    try:
        paths += [f.path for f in checkpoint.weights.files if f.format == "torch"]
    except FactUnavailable as absent:
        paths += [absent.path] if absent.path else []
    torch_files = {e.path for e in checkpoint.files.of_format("torch")}
    paths += _generators(checkpoint)
    found = [p for p in dict.fromkeys(paths) if p in torch_files and not _is_left_alone(checkpoint, p)]
    if not found:
        raise FactUnavailable("no torch file is needed to resume or to load the weights")
    return found


def _generators(checkpoint: Checkpoint) -> list[str]:
    """Files at the top that are named for random-number states, such as `rng_rank0.pt`."""
    tops = (e.path for e in checkpoint.files.of_format("torch") if "/" not in e.path and checkpoint.match is not None)
    return [path for path in tops if _GENERATORS.match(path)]


def _own_files(checkpoint: Checkpoint) -> list[str]:
    """Torch files that the trainer reads with a loader of its own, such as random states."""
    return [e.path for e in checkpoint.files.of_format("torch") if matches(e.path, tuple(checkpoint.layout.own_loader))]


def _refused_there(checkpoint: Checkpoint, file: TorchFile) -> list[str]:
    """Names that the trainer's own loader does not let through."""
    names = {_modern(g.module, g.name) for g in file.globals if not g.reached}
    return sorted(
        name for name in names - ALLOWED if any(fnmatchcase(name, glob) for glob in checkpoint.layout.refused)
    )


def _weights(checkpoint: Checkpoint) -> frozenset[str]:
    try:
        return frozenset(file.path for file in checkpoint.weights.files)
    except FactUnavailable:
        return frozenset()


def _is_left_alone(checkpoint: Checkpoint, path: str) -> bool:
    layout = checkpoint.layout
    return matches(path, (*layout.own_loader, *layout.unread))


def _modern(module: str, name: str) -> str:
    return f"{_OLD_NAMES.get(module, module)}.{name}"


def _globals(path: str, refused: list[str], dangers: dict[str, str]) -> Problem:
    shown = ", ".join(refused[:_SHOWN])
    more = f" and {len(refused) - _SHOWN:,} more" if len(refused) > _SHOWN else ""
    names = f"{len(refused):,} name{'' if len(refused) == 1 else 's'}"
    help_ = (
        f"load it under torch.serialization.safe_globals([...]) with {names} added, if you trust its source; or save "
        "plain Python values instead"
    )
    if dangers:
        name, what = next(iter(dangers.items()))
        help_ = f"do not let it through: {name} {what}"
    return Problem(
        message=f"torch.load refuses {path} by default: its pickle imports {shown}{more}",
        place=Place(path=path),
        help=help_,
        data={"globals": refused},
    )


def _protocol(file: TorchFile) -> Problem:
    return Problem(
        message=f"torch.load refuses {file.path} by default: it uses pickle protocol {file.protocol}, and the "
        "weights-only loader reads protocol 3 at most",
        place=Place(path=file.path),
        help="save it without the argument `pickle_protocol`",
        data={"protocol": file.protocol},
    )


def _unknown(path: str, fault: ReadProblem) -> Problem:
    return Problem(
        message=f"torch.load refuses {path} by default: {fault.message}, which its weights-only loader does not "
        "support",
        place=Place(path=path, key=fault.where, offset=fault.offset),
        help="load it with weights_only=False if you trust its source, and save it again with torch.save",
        data={"code": fault.code},
    )


def _no_state(path: str) -> Problem:
    return Problem(
        message=f"{path} is a TorchScript archive (a program) where training state should be: no trainer loads it",
        place=Place(path=path),
        help="restore the file from where the save was written; do not load it if you do not know who put it there",
        severity=Severity.ERROR,
        data={"container": TORCHSCRIPT},
    )


def _script(file: TorchFile) -> Problem:
    return Problem(
        message=f"torch.load refuses {file.path} by default: it is a TorchScript archive",
        place=Place(path=file.path),
        help="load it with torch.jit.load; to resume, save the state_dict()",
        data={"container": file.container},
    )
