"""A layer that lacks a tensor which all other layers of its stack have: what can be said where a model's names are not known."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem
from ckpt_rules_weights.architectures import is_draft
from ckpt_rules_weights.quantised import is_quantised

_STACK = re.compile(
    r"(?P<stack>(?:[^\d]*?\.)?(?:(?:(?:single_)?transformer_|res|encoder_|decoder_)?(?:layers?|blocks?)|h))\.(?P<number>\d{1,5})\."
    r"(?P<part>.+)"
)
_ATTENTION = re.compile(r"(?:^|\.)\w*(?:attn|attention)\w*(?:\.|$)", re.IGNORECASE)
# Of these no layer does without one that the others have, if it has the module around it. (Values and keys may be shared.)
_CORE = re.compile(
    r"(?:q|o|out|gate|up|down|query|dense|qkv|c_attn|c_fc|c_proj|fc1|fc2|w1|w2|w3|Wqkv|Wo|Wi|to_q|to_out|in_proj|query_key_value"
    r"|dense_h_to_4h|dense_4h_to_h|linear1|linear2)(?:_proj|_lin)?"
)
_EACH = re.compile(r".*_(?:freq|frequency|period|interval|step|steps|every|stride|pattern|offset)(?:_.*)?")
_FEWEST, _ALTERNATING = 3, 4
_LISTED = 8


def odd_layers(checkpoint: Checkpoint) -> Iterator[Problem]:
    """One problem for each stack of layers in which one lacks what all others have."""
    weights = checkpoint.weights.complete()
    config = _config(checkpoint)
    if is_quantised(weights, config, checkpoint):
        raise FactUnavailable("quantised weights have different tensor names")
    if any(part in f.path for f in weights.files for part in ("adapter", "lora")):
        raise FactUnavailable("an adapter may cover only some layers")
    if is_draft(config):
        raise FactUnavailable("the layers of a draft model differ from each other")
    shared = {name for f in weights.files for name in f.metadata}
    for stack, layers in _stacks(checkpoint).items():
        for group in _groups(layers, config):
            yield from _odd_one(checkpoint, stack, layers, group, shared)


def _config(checkpoint: Checkpoint) -> Mapping[str, object]:
    try:
        return checkpoint.config.values
    except FactUnavailable:
        return {}


def _stacks(checkpoint: Checkpoint) -> Mapping[str, Mapping[int, set[str]]]:
    """The names inside of each layer, by its number and the name of its stack."""
    stacks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for _, name, _ in checkpoint.weights.items():
        m = _STACK.match(name)
        if m and "lora_" not in name:
            stacks[m["stack"]][int(m["number"])].add(m["part"])
    return stacks


def _groups(layers: Mapping[int, set[str]], config: Mapping[str, object]) -> list[list[int]]:
    """The layers that the configuration does not distinguish by lists and steps of their numbers."""
    inner = config.get("text_config")
    settings = [*config.items(), *(inner.items() if isinstance(inner, Mapping) else ())]
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for layer in sorted(layers):
        groups[tuple(_kind_of(layer, max(layers) + 1, key, value) for key, value in settings)].append(layer)
    return list(groups.values())


def _kind_of(layer: int, count: int, key: object, value: object) -> object:
    if isinstance(value, list):
        if len(value) == count:
            return repr(value[layer])
        if all(type(n) is int for n in value):
            return layer in value
    if type(value) is int and value > 1 and isinstance(key, str) and _EACH.fullmatch(key):
        return layer % value
    return None


def _odd_one(
    checkpoint: Checkpoint, stack: str, layers: Mapping[int, set[str]], group: list[int], shared: set[str]
) -> Iterator[Problem]:
    if len(group) < _FEWEST:
        return
    sets = Counter(frozenset(layers[n]) for n in group)
    usual, count = sets.most_common(1)[0]
    if len(sets) != 2 or count != len(group) - 1:
        return
    odd = next(n for n in group if layers[n] != usual)
    missing = sorted(usual - layers[odd])
    names = [f"{stack}.{odd}.{part}" for part in missing]
    if layers[odd] - usual or shared & set(names) or not _is_a_loss(missing, layers[odd], usual, odd, group):
        return
    file = next(f for f, name, _ in checkpoint.weights.items() if name.startswith(f"{stack}.{odd}."))
    shown = ", ".join(missing[:_LISTED]) + (" …" if len(missing) > _LISTED else "")
    yield Problem(
        message=f"{stack}.{odd} lacks {len(missing):,} of the {len(usual):,} tensors that all {count:,} other layers "
        "of the same kind have:"
        f" {shown}",
        place=Place(path=file.path, tensor=names[0], key=file.key or None),
        help="copy the missing tensors from where the model was saved, or save the model again",
        data={"layer": odd, "missing": missing[:1000], "siblings": count},
    )


def _is_a_loss(missing: list[str], there: set[str], usual: frozenset[str], odd: int, group: list[int]) -> bool:
    """Whether no model is built so.

    The first and last layer often do without something, and of three the middle one may be of another kind: there the rest of
    the module must be left. Elsewhere it is enough that it is a layer with attention.
    """
    if all(_is_left_over(name, there) for name in missing):
        return True
    inside = odd not in (group[0], group[-1]) and len(group) >= _ALTERNATING
    return (
        inside and any(_ATTENTION.search(name) for name in usual) and all(_keeps_its_module(n, there) for n in missing)
    )


def _is_left_over(name: str, there: set[str]) -> bool:
    """Whether its module can't be without it: a matrix whose bias is there, or one that belongs to those beside it."""
    module, _, leaf = name.rpartition(".")
    if leaf == "weight" and f"{module}.bias" in there:
        return True
    above, _, part = module.rpartition(".")
    return (
        leaf == "weight"
        and bool(above)
        and bool(_CORE.fullmatch(part))
        and any(n.startswith(f"{above}.") for n in there)
    )


def _keeps_its_module(name: str, there: set[str]) -> bool:
    """Whether there is something of the numbered part that it lies in: stages have as many blocks as they like."""
    numbered = re.match(r".*\.\d+\.", f".{name}")
    return numbered is None or any(f".{n}".startswith(numbered[0]) for n in there)
