"""weights/adapter: whether the adapter file holds what its configuration promises, and nothing that it forgets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    TensorInfo,
    WeightFile,
    find_weights,
    is_count,
)
from ckpt_rules_peft.layout import CONFIG, WEIGHTS, adapters, inside

_PREFIX = "base_model.model."
_A, _B = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")
_PARTS = (*_A, *_B, "lora_magnitude_vector")
_ADDED_BY_PEFT = frozenset({"classifier", "score", "qa_outputs"})
_EXPRESSION = re.compile(r"[*+?\[\](){}|\\]")
_NARROWING = ("exclude_modules", "layers_to_transform")
_SHOWN = 3


class Adapter(Rule):
    """The adapter weights do not match adapter_config.json.

    ## What it checks
    For LoRA and DoRA: each `lora_A` has a `lora_B`; their rank is the configuration's `r`, or the value in its
    `rank_pattern` for the module; every module in the file is one that `target_modules` names, and every name there is
    in the file; each of `modules_to_save` is in the file; no name has anything before PEFT's own `base_model.model.`.
    For prompt tuning: the embeddings have `num_virtual_tokens` rows of `token_dim`. A `target_modules` that is a
    regular expression is not evaluated; one in `rank_pattern` allows its rank everywhere.

    ## Why it matters
    A configuration that names fewer modules than the file holds silently drops the weights of the others. One that
    names more, or other ranks, leaves untrained adapters that have no effect, or fails with a size mismatch.

    ## How to repair
    Take both files from the same save. A name in `target_modules` that the base model does not have (a list made for
    several models) does no harm.
    """

    id = "weights/adapter"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each way in which the two disagree."""
        for folder in checkpoint.fact(adapters) or ("",):
            yield from _compared(_config(checkpoint, inside(folder, CONFIG)), _file(checkpoint, folder), folder)


def _compared(config: Mapping[str, object], file: WeightFile, folder: str) -> Iterator[Problem]:
    kind = config.get("peft_type")
    if kind == "LORA":
        yield from _lora(config, file, inside(folder, CONFIG))
    elif kind in ("PROMPT_TUNING", "P_TUNING"):
        yield from _prompt(config, file)
    else:
        raise FactUnavailable(f"adapters of type {str(kind)[:40]!r} are not compared with their configuration")


def _config(checkpoint: Checkpoint, path: str) -> Mapping[str, object]:
    if checkpoint.listing.get(path) is None:
        raise FactUnavailable(f"there is no {path}")
    config = checkpoint.files.contents(path)
    if not isinstance(config, Mapping):
        raise FactUnavailable(f"{path} does not contain a dictionary", path=path, blocked=True)
    return config


def _file(checkpoint: Checkpoint, folder: str) -> WeightFile:
    weights = find_weights(checkpoint, folder)
    copies = [weights.files, *weights.alternatives]
    file = next((f for copy in copies for f in copy if f.path in {inside(folder, name) for name in WEIGHTS}), None)
    if file is None or any(p.fatal for p in file.problems):
        path = file.path if file else None
        raise FactUnavailable("the adapter's weights can't be read", path=path, blocked=path is not None)
    return file


@dataclass(frozen=True, slots=True)
class _Module:
    """The parts of one adapted module, by `lora_A`, `lora_B`, …, each with its tensor's full name."""

    name: str
    parts: Mapping[str, tuple[str, TensorInfo]]


def _lora(config: Mapping[str, object], file: WeightFile, path: str) -> Iterator[Problem]:
    foreign = _foreign_prefix(file)
    if foreign is not None:
        yield foreign
        return
    modules = _modules(file)
    yield from _halves(modules, file)
    if not config.get("target_parameters"):  # their rank is that of one expert, the tensor holds all
        yield from _ranks(config, modules, file)
    yield from _targets(config, modules, file, path)
    yield from _saved(config, file, path)


def _foreign_prefix(file: WeightFile) -> Problem | None:
    """Something before the names that PEFT looks for, which finds none of them then."""
    found = {n: before for n in file.tensors if (before := n.partition(_PREFIX)[0]) and _PREFIX in n}
    if not found:
        return None
    name, prefix = next(iter(found.items()))
    words = f"{len(found):,} of {len(file.tensors):,} names have {prefix!r} before '{_PREFIX}', such as {name}: PEFT does not "
    return Problem(
        message=f"{words}find them, so the adapter starts untrained and has no effect",
        place=Place(path=file.path, tensor=name),
        help="strip the prefix from the names",
        data={"prefix": prefix, "tensors": len(found)},
    )


def _modules(file: WeightFile) -> list[_Module]:
    found: dict[str, dict[str, tuple[str, TensorInfo]]] = {}
    for name, tensor in file.tensors.items():
        words = name.removeprefix(_PREFIX).split(".")
        part = next((w for w in words if w in _PARTS), None)
        if part is not None:
            found.setdefault(".".join(words[: words.index(part)]), {})[part] = (name, tensor)
    return [_Module(name, parts) for name, parts in found.items()]


def _halves(modules: Iterable[_Module], file: WeightFile) -> Iterator[Problem]:
    for module in modules:
        for ones, others in ((_A, _B), (_B, _A)):
            for one, other in zip(ones, others, strict=True):
                if one in module.parts and other not in module.parts:
                    name = module.parts[one][0]
                    words = f"{module.name} has a {one} and no {other}: PEFT leaves {other} as it was initialised"
                    yield _problem(words, file.path, tensor=name)


def _ranks(config: Mapping[str, object], modules: Iterable[_Module], file: WeightFile) -> Iterator[Problem]:
    usual, pattern = config.get("r"), config.get("rank_pattern")
    pattern = pattern if isinstance(pattern, Mapping) else {}
    unread = {v for k, v in pattern.items() if is_count(v) and _EXPRESSION.search(str(k))}
    wrong: dict[tuple[int, int], list[str]] = {}
    for module in modules:
        rank = next((v for k, v in pattern.items() if _names(str(k).strip("^$"), module.name)), usual)
        for part, (name, tensor) in module.parts.items():
            dimension = 0 if part in _A else 1
            found = tensor.shape[dimension] if part in (*_A, *_B) and len(tensor.shape) > 1 else None
            if found is not None and is_count(rank) and found != rank and found not in unread:
                wrong.setdefault((found, int(rank)), []).append(name)
    for (found, rank), names in wrong.items():
        more = f" and {len(names) - 1:,} more tensors" if len(names) > 1 else ""
        words = f"{names[0]}{more} have rank {found}, but {CONFIG} says {rank}: loading fails with a size mismatch"
        yield _problem(words, file.path, tensor=names[0], data={"rank": found, "config": rank, "tensors": len(names)})


def _targets(config: Mapping[str, object], modules: list[_Module], file: WeightFile, path: str) -> Iterator[Problem]:
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets) or config.get("target_parameters"):
        return
    named = {m.name: m for m in modules if any(_names(t, m.name) for t in targets)}
    ties = config.get("ensure_weight_tying") is True
    dropped = [m for m in modules if m.name not in named and not (ties and _is_tied(m, named.values()))]
    if dropped:
        shown = ", ".join(m.name for m in dropped[:_SHOWN]) + (" …" if len(dropped) > _SHOWN else "")
        words = f"{len(dropped):,} of {len(modules):,} adapted modules match nothing in target_modules of {CONFIG} and are dropped "
        name = next(iter(dropped[0].parts.values()))[0]
        yield _problem(f"{words}silently: {shown}", file.path, tensor=name, data={"modules": len(dropped)})
    idle = [t for t in targets if not any(_names(t, m.name) for m in modules)]
    if idle and not any(config.get(key) for key in _NARROWING):
        shown = ", ".join(idle[:_SHOWN]) + (" …" if len(idle) > _SHOWN else "")
        words = f"target_modules names {shown}, but {file.path} has no tensors for them: if the base model has these modules, they start "
        yield _problem(
            f"{words}as untrained adapters that have no effect", path, key="target_modules", severity=Severity.INFO,
            data={"modules": idle[:100]},
        )  # fmt: skip


def _is_tied(module: _Module, named: Iterable[_Module]) -> bool:
    """Whether it is the output embedding of an input embedding that is named: the same two matrices, each turned over."""
    own = [module.parts[part][1].shape[::-1] for part in ("lora_B", "lora_A") if part in module.parts]
    both = ([m.parts[p][1].shape for p in ("lora_embedding_A", "lora_embedding_B") if p in m.parts] for m in named)
    return len(own) == 2 and own in both


def _saved(config: Mapping[str, object], file: WeightFile, path: str) -> Iterator[Problem]:
    wanted = config.get("modules_to_save")
    if not isinstance(wanted, list):
        return
    inside = {f".{name}" for name in file.tensors}
    absent = [w for w in wanted if isinstance(w, str) and not any(f".{w}." in name for name in inside)]
    # PEFT itself asks for every usual name of a classification head, of which a model has one.
    serious = [w for w in absent if w not in _ADDED_BY_PEFT] or (absent if len(absent) == len(wanted) else [])
    if serious:
        words = f"modules_to_save names {', '.join(serious[:_SHOWN])}, but {file.path} has no tensors for them: their trained weights are lost"
        yield _problem(words, path, key="modules_to_save", data={"modules": serious[:100]})


def _prompt(config: Mapping[str, object], file: WeightFile) -> Iterator[Problem]:
    tokens, dim = config.get("num_virtual_tokens"), config.get("token_dim")
    submodules = config.get("num_transformer_submodules") or 1
    tensor = file.tensors.get("prompt_embeddings")
    if tensor is None or not (is_count(tokens) and is_count(dim) and is_count(submodules)):
        raise FactUnavailable("the adapter has no prompt embeddings, or its configuration does not give their sizes")
    expected = (int(tokens * submodules), int(dim))
    if tensor.shape != expected:
        words = f"prompt_embeddings has the shape {list(tensor.shape)}, but {CONFIG} says {list(expected)}"
        yield _problem(words, file.path, tensor="prompt_embeddings", data={"shape": list(tensor.shape)})


def _names(target: str, module: str) -> bool:
    """Whether a name in the configuration is that of a module: all of it, or its end from a dot on."""
    return module == target or module.endswith(f".{target}") or target.removeprefix(_PREFIX) == module


def _problem(
    message: str,
    path: str,
    *,
    tensor: str | None = None,
    key: str | None = None,
    severity: Severity | None = None,
    data: Mapping[str, object] | None = None,
) -> Problem:
    help_ = f"take {CONFIG} and the adapter's weights from the same save"
    return Problem(
        message=message,
        place=Place(path=path, tensor=tensor, key=key),
        help=help_,
        severity=severity,
        data=dict(data or {}),
    )
