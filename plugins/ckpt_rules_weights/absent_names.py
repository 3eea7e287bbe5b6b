"""Which of the tensors that a known class looks for are not among the weights, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, FactUnavailable, Weights
from ckpt_rules_weights.expected_names import Expectation, Wanted, expectation

_LOADED = re.compile(r"(?:model|pytorch_model)(?:[.-][\w.-]+)?\.(?:safetensors|bin)")
_QUANTISED = re.compile(
    r".*\.(?:qweight|qzeros|SCB|W_q|weight_packed|weight_scale|weight_scale_inv|input_scale|weight\.\w+|weight:_\w+)"
)
_DECLARES = ("quantization_config", "compression_config", "quantization")
_DECLARING_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")
# What engines for inference make of several matrices, to load the model by themselves.
_FUSED = frozenset(
    {"qkv_proj", "gate_up_proj", "W_pack", "Wqkv", "c_attn", "query_key_value", "w13_weight", "qkv", "wqkv"}
)
_INSIDE = re.compile(
    r"(?:base_layer|modules_to_save\.default|_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\."
)
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


def is_quantised(weights: Weights, config: Mapping[str, object], checkpoint: Checkpoint) -> bool:
    """Whether the weights are packed under names of their own."""
    if any(config.get(key) is not None for key in _DECLARES) or any(map(checkpoint.listing.has_file, _DECLARING_FILES)):
        return True
    return any(_QUANTISED.fullmatch(name) for _, name, _ in weights.items())


def resumes_by_itself(checkpoint: Checkpoint) -> bool:
    """Whether the save is of a loop that loads the weights into whatever model it has, by whatever names it gave them."""
    if checkpoint.layout.name == "transformers-trainer":
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
        raise FactUnavailable("there is no config.json of a model of transformers")
    if weights.parts or not all(_LOADED.fullmatch(f.path) and not f.key for f in weights.files):
        raise FactUnavailable("the weights do not lie where from_pretrained looks for them")
    if checkpoint.listing.has_file("adapter_config.json"):
        raise FactUnavailable(
            "with an adapter beside them, from_pretrained takes the base model's weights from elsewhere"
        )
    if is_quantised(weights, config.values, checkpoint):
        raise FactUnavailable("quantised weights have names of their own")
    return weights.complete(), config.values


def _absent_names(checkpoint: Checkpoint) -> Absent:
    weights, config = loadable(checkpoint)
    if "draft_vocab_size" in config:
        raise FactUnavailable("a draft has only some of the tensors of the model whose model_type it bears")
    if config.get("auto_map"):
        raise FactUnavailable("the class is in a file of its own (auto_map), and so are its names")
    looked_for = expectation(config)
    if looked_for is None:
        raise FactUnavailable("config.json names no class whose tensors are known by name")
    found = {looked_for.normalised(name): name for _, name, _ in weights.items()}
    used: set[str] = set()
    lost = []
    for wanted in looked_for.wanted:
        name = next((n for n in looked_for.variants(wanted) if n in found), None)
        if name is None:
            lost.append(wanted)
        else:
            used.add(name)
    others = {name: spelt for name, spelt in found.items() if name not in used}
    if lost and _are_fused(looked_for, others):
        raise FactUnavailable("several matrices are fused into one, as engines for inference do")
    prefix, hidden = _hidden(looked_for, lost, others)
    seen, explained = {spelt for _, spelt in hidden}, {id(w) for w, _ in hidden}
    lost = [w for w in lost if id(w) not in explained]
    return Absent(
        cls=looked_for.cls,
        wanted=len(looked_for.wanted),
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


def _gone(all_wanted: Iterable[Wanted], lost: Iterable[Wanted]) -> frozenset[int]:
    wanted, missing = (Counter(w.layer for w in which if w.layer is not None) for which in (all_wanted, lost))
    return frozenset(layer for layer, count in missing.items() if layer is not None and count == wanted[layer])


def _are_whole_kinds(all_wanted: Iterable[Wanted], lost: Iterable[Wanted]) -> bool:
    wanted, missing = (Counter(w.kind for w in which if w.layer is not None) for which in (all_wanted, lost))
    return any(count == wanted[kind] for kind, count in missing.items())


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
