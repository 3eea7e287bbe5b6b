"""Rules about the names of tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, WeightFile, conventions
from ckpt_rules_weights.absent_names import absent_names, resumes_by_itself

wrappers = conventions.wrappers
_WRAPPERS = (
    (wrappers.COMPILED, "torch.compile"),
    (wrappers.FSDP, "FSDP"),
    (wrappers.CHECKPOINTED, "activation checkpointing"),
    (wrappers.FLAT_PARAMETER, "FSDP, flattened"),
    ("base_model.model.base_model.model.", "PEFT, applied twice"),
)

# What loops wrap their model in before they load a training state into it, or strip by themselves.
_WRAPPED_AGAIN = (wrappers.COMPILED, wrappers.DATA_PARALLEL)


class WrapperPrefix(Rule):
    """Tensor names contain a prefix from a wrapper around the model.

    ## What it checks
    `_orig_mod.` (torch.compile), `module.` before every name (data parallel), `_fsdp_wrapped_module.`, `_flat_param`,
    `_checkpoint_wrapped_module.`, a doubled `base_model.model.`. Inside a training state the first two are information
    only: the loop that wrote it wraps its model in the same way when it resumes. They are an error if there is a
    config.json with which `from_pretrained` or the Trainer looks for the plain names, and no training state of another
    loop.

    ## Why it matters
    An unwrapped model does not find these names. With `strict=False` the loader does not complain and the model stays
    as it was initialised.

    ## How to repair
    Save `model.module.state_dict()` or the unwrapped model; or strip the prefix when loading, as the trainer that wrote
    the file does, and list that wrapper in the option `allowed`.
    """

    id = "weights/wrapper-prefix"
    severity = Severity.WARNING
    tags = frozenset({"load"})

    allowed: tuple[str, ...] = Field(
        default=(), description="Prefixes that the team's loader strips automatically, such as `_orig_mod.`."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file and wrapper."""
        lost = _are_looked_for(checkpoint)
        for file in checkpoint.weights.files:
            found, example = _wrappers_in(file)
            for (part, wrapper), count in found.items():
                severity = Severity.INFO if file.key and part in _WRAPPED_AGAIN else None
                if part not in self.allowed:
                    yield Problem(
                        message=f"{count:,} of {len(file.tensors):,} tensor names contain '{part}' ({wrapper}), such "
                        "as "
                        f"{example[part]}; an unwrapped model does not find them",
                        place=Place(path=file.path, tensor=example[part], key=file.key or None),
                        help="save the unwrapped model, or strip the prefix when loading and list it in `allowed`",
                        severity=Severity.ERROR if lost else severity,
                        data={"prefix": part, "tensors": count},
                    )


def wrappers_of(checkpoint: Checkpoint, path: str) -> tuple[str, ...]:
    """The parts of names in a file of weights that this rule reports."""
    return tuple(part for f in checkpoint.weights.files if f.path == path for part, _ in _wrappers_in(f)[0])


def _wrappers_in(file: WeightFile) -> tuple[Counter[tuple[str, str]], dict[str, str]]:
    """How often each wrapper is in the names of a file, and a name with it."""
    found: Counter[tuple[str, str]] = Counter()
    example: dict[str, str] = {}
    for name in file.tensors:
        for part, wrapper in _WRAPPERS:
            if part in name:
                found[part, wrapper] += 1
                example.setdefault(part, name)
    plain = [n for n in file.tensors if not n.removeprefix(wrappers.COMPILED).startswith(wrappers.DATA_PARALLEL)]
    if file.tensors and not plain:
        found[wrappers.DATA_PARALLEL, "data parallel"] = len(file.tensors)
        example[wrappers.DATA_PARALLEL] = next(iter(file.tensors))
    return found, example


def _are_looked_for(checkpoint: Checkpoint) -> bool:
    """Whether a class of transformers looks for the plain names, and fills in what it does not find."""
    try:
        return bool(absent_names(checkpoint).hidden) and not resumes_by_itself(checkpoint)
    except FactUnavailable:
        return False
