"""Which of the tensors that a known class looks for are not among the weights, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, FactUnavailable, Weights, conventions
from ckpt_rules_weights.architectures import is_draft
from ckpt_rules_weights.expected_names import EXPERT, Expectation, Wanted, expectation
from ckpt_rules_weights.quantised import is_quantised

_LOADED = re.compile(r"(?:model|pytorch_model)(?:[.-][\w.-]+)?\.(?:safetensors|bin)")
# What engines for inference make of several matrices, to load the model by themselves.
_FUSED = frozenset(
    {"qkv_proj", "gate_up_proj", "W_pack", "Wqkv", "c_attn", "query_key_value", "w13_weight", "qkv", "wqkv"}
)
_WRAPPERS = (conventions.wrappers.COMPILED, conventions.wrappers.CHECKPOINTED, conventions.wrappers.FSDP)
_INSIDE = re.compile(rf"(?:base_layer\.|modules_to_save\.default\.|{'|'.join(map(re.escape, _WRAPPERS))})")
_PROBES, _SAMPLED = 12, 500
_FEW = 3


@dataclass(frozen=True, slots=True)
class Absent:
    """What the weights lack of what a class looks for.

    wanted:  how many tensors it looks for
    prefix:  what stands before their names where a loader does not expect it; '' where wrappers' own names stand inside of them
    hidden:  tensors that lie under such a name: what is wanted, and the name in the file
    lost:    the others that are not there
    gone:    the numbers of layers of which nothing is there
    others:  names in the files that the class does not look for

    whole_kinds: whether there is a tensor that every layer should have and none has
    """

    cls: str
    wanted: int
    prefix: str
    hidden: tuple[tuple[Wanted, str], ...]
    lost: tuple[Wanted, ...]
    gone: frozenset[int]
    others: tuple[str, ...]
    whole_kinds: bool


def absent_names(checkpoint: Checkpoint) -> Absent:
    """What is missing by the names of a known class; FactUnavailable where its names are not known, or not asked for."""
    return checkpoint.fact(_absent_names)


def resumes_by_itself(checkpoint: Checkpoint) -> bool:
    """Whether the save is of a loop that loads the weights into whatever model it has, by whatever names it gave them."""
    if checkpoint.layout.loads_as_configured:
        return False
    try:
        return bool(checkpoint.optimizers)
    except FactUnavailable as absent:
        return absent.blocked


def loadable(checkpoint: Checkpoint) -> tuple[Weights, Mapping[str, object]]:
    """Whole weights that from_pretrained would load, and config.json; FactUnavailable for adapters and quantised weights."""
    weights, config = checkpoint.weights, checkpoint.config
    if config.path != "config.json" or not (
        "architectures" in config.values or "transformers_version" in config.values
    ):
        raise FactUnavailable("there is no config.json of a transformers model")
    if weights.parts or not all(_LOADED.fullmatch(f.path) and not f.key for f in weights.files):
        raise FactUnavailable("the weights are not where from_pretrained looks for them")
    if checkpoint.listing.has_file("adapter_config.json"):
        raise FactUnavailable(
            "there is an adapter in the same directory, so from_pretrained takes the base model's weights from "
            "elsewhere"
        )
    if is_quantised(weights, config.values, checkpoint):
        raise FactUnavailable("quantised weights have different tensor names")
    return weights.complete(), config.values


def _absent_names(checkpoint: Checkpoint) -> Absent:
    weights, config = loadable(checkpoint)
    if is_draft(config):
        raise FactUnavailable("a draft model has only some of the tensors of the model type that its config.json names")
    if config.get("auto_map"):
        raise FactUnavailable("the model class is custom code (auto_map), so its tensor names are not known")
    looked_for = expectation(config)
    if looked_for is None:
        raise FactUnavailable("config.json names no class whose tensor names are known")
    found = {looked_for.normalised(name): name for _, name, _ in weights.items()}
    used: set[str] = set()
    lost = [w for wanted in looked_for.wanted for w in _lost(looked_for, wanted, found, used)]
    others = {name: spelt for name, spelt in found.items() if name not in used}
    if lost and _are_fused(looked_for, others):
        raise FactUnavailable("several matrices are fused into one, as inference engines do")
    prefix, hidden = _hidden(looked_for, lost, others)
    seen, explained = {spelt for _, spelt in hidden}, {id(w) for w, _ in hidden}
    lost = [w for w in lost if id(w) not in explained]
    return Absent(
        cls=looked_for.cls,
        wanted=looked_for.tensors,
        prefix=prefix,
        hidden=hidden,
        lost=tuple(lost),
        gone=_gone(looked_for.wanted, lost),
        others=tuple(name for name in others.values() if name not in seen),
        whole_kinds=_are_whole_kinds(looked_for.wanted, lost),
    )


def _are_fused(looked_for: Expectation, others: Iterable[str]) -> bool:
    """Whether there are matrices that hold several of those that are wanted."""
    own = {part for wanted in looked_for.wanted for name in wanted.names for part in name.split(".") if part in _FUSED}
    return any(part in _FUSED and part not in own for name in others for part in name.split("."))


def _lost(looked_for: Expectation, wanted: Wanted, found: Container[str], used: set[str]) -> Iterator[Wanted]:
    """What is not there of a tensor that is wanted, or of those of all experts; what is there is noted."""
    before, _, after = wanted.names[0].partition(EXPERT)
    for expert in range(wanted.tensors):
        name = wanted.names[0] if wanted.experts is None else f"{before}{expert}{after}"
        if name in found:  # as it nearly always is
            used.add(name)
            continue
        one = wanted if wanted.experts is None else wanted.of_expert(expert)
        other = next((n for n in looked_for.variants(one) if n in found), None)
        if other is None:
            yield one
        else:
            used.add(other)


def _gone(all_wanted: Iterable[Wanted], lost: Iterable[Wanted]) -> frozenset[int]:
    there: Counter[int | None] = Counter()
    for wanted in all_wanted:
        there[wanted.layer] += wanted.tensors
    there.subtract(w.layer for w in lost)
    return frozenset(layer for layer, count in there.items() if layer is not None and not count)


def _are_whole_kinds(all_wanted: Iterable[Wanted], lost: Iterable[Wanted]) -> bool:
    there: Counter[str] = Counter()
    for wanted in all_wanted:
        there[wanted.kind] += wanted.tensors if wanted.layer is not None else 0
    there.subtract(w.kind for w in lost if w.layer is not None)
    return any(not there[kind] for kind in {w.kind for w in lost if w.layer is not None})


def _hidden(
    looked_for: Expectation, lost: list[Wanted], others: Mapping[str, str]
) -> tuple[str, tuple[tuple[Wanted, str], ...]]:
    """The prefix under which most of the lost tensors lie, and those; wrappers' own names may stand inside of theirs."""
    plain = {_INSIDE.sub("", name): spelt for name, spelt in others.items()}
    some = lost[:: max(1, len(lost) // _SAMPLED)]
    prefixes = _prefixes(looked_for, some, plain)
    best = max(prefixes, key=lambda prefix: len(_under(prefix, looked_for, some, plain)), default="")
    hidden = _under(best, looked_for, lost, plain)
    return (best, hidden) if len(hidden) >= (_FEW if best else 1) else ("", ())


def _under(
    prefix: str, looked_for: Expectation, lost: Iterable[Wanted], names: Mapping[str, str]
) -> tuple[tuple[Wanted, str], ...]:
    """Those of the lost tensors that lie under a prefix, and their names in the files."""
    found = ((w, next((prefix + v for v in looked_for.variants(w) if prefix + v in names), None)) for w in lost)
    return tuple((wanted, names[name]) for wanted, name in found if name is not None)


def _prefixes(looked_for: Expectation, lost: list[Wanted], names: Iterable[str]) -> list[str]:
    """What may stand before the names, the most frequent first; '' for names that differ inside."""
    probes = {name for wanted in lost[:: max(1, len(lost) // _PROBES)] for name in wanted.names}
    ends = tuple(probes | {name.removeprefix(f"{looked_for.prefix}.") for name in probes})
    found: Counter[str] = Counter()
    for name in names if ends else ():
        if name.endswith(ends):
            found.update({name[: -len(end)] for end in ends if name.endswith(f".{end}") or name == end})
    return sorted(found, key=lambda prefix: (-found[prefix], len(prefix), prefix))[:_PROBES]
