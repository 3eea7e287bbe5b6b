"""weights/missing-tensor: names that the model must have, and the weights do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_weights.absent_names import Absent, absent_names, loadable, resumes_by_itself
from ckpt_rules_weights.config_rules import Tied
from ckpt_rules_weights.expected_names import Wanted
from ckpt_rules_weights.layers import LayerGap
from ckpt_rules_weights.names import wrappers_of
from ckpt_rules_weights.siblings import odd_layers

_RANDOM = "from_pretrained initialises {} randomly and only logs it"
_ALIKE = 0.9
_LISTED = 8
_COMPARED = 1000


class MissingTensor(Rule):
    """The weights lack a tensor that the model looks for.

    ## What it checks
    If config.json names a class of a common transformers architecture: that the weights hold every tensor that the
    class looks for, in the base model, in each layer and in the head, and the value head that `value_head_prefix` names
    there. Alternative names that a loader understands are accepted: the base model's without its prefix, old spellings,
    a head that is tied to the embedding. If the architecture is not known: that no layer lacks a tensor that all other
    layers have, if those layers agree.

    Not checked are adapters, quantised weights, the fused matrices of inference engines, and a training loop's custom
    model that has other tensors in all layers. Layers that are missing entirely are reported by `weights/layer-gap`,
    prefixes of wrappers by `weights/wrapper-prefix`, a head that is not tied by `weights/tied`.

    ## Why it matters
    `from_pretrained` and the Trainer randomly initialise what they do not find, and training continues from a model
    that has lost part of what it learned.

    ## How to repair
    Save the model again with `save_pretrained`, or rename the tensors: strip a prefix that a wrapper has left, or merge
    an adapter before saving. If the weights are of another class, take those that match the configuration.
    """

    id = "weights/missing-tensor"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for a foreign prefix, and one for each kind of tensor that is missing."""
        yield from _value_head(checkpoint)
        try:
            absent = absent_names(checkpoint)
        except FactUnavailable as unknown:
            if unknown.blocked:
                raise
            yield from odd_layers(checkpoint)
            return
        if not absent.hidden and absent.whole_kinds and resumes_by_itself(checkpoint):
            yield from odd_layers(checkpoint)  # the loop's own model is not the one in config.json
            return
        yield from _under_a_prefix(checkpoint, absent)
        lost = _not_reported_elsewhere(checkpoint, absent)
        if 2 * len(lost) > absent.wanted:
            yield _renamed(checkpoint, absent, lost)
            return
        if any(w.layer in absent.gone for w in lost):
            yield _gone_layers(checkpoint, absent)
        kinds: dict[str, list[Wanted]] = {}
        for wanted in lost:
            if wanted.layer not in absent.gone:
                kinds.setdefault(wanted.kind, []).append(wanted)
        for members in kinds.values():
            yield _missing(checkpoint, absent, members)


def _under_a_prefix(checkpoint: Checkpoint, absent: Absent) -> Iterator[Problem]:
    if not absent.hidden:
        return
    wanted, name = absent.hidden[0]
    path = _file_of(checkpoint, name)
    if any(part in name for part in wrappers_of(checkpoint, path)):
        return
    where = (
        f"have {absent.prefix!r} before their names"
        if absent.prefix
        else "have a PEFT-specific part inside their names"
    )
    yield Problem(
        message=f"{_share(len(absent.hidden), absent.wanted)} tensors that {absent.cls} looks for {where}, such as "
        f"{name} "
        f"for {wanted.names[0]}; {_RANDOM.format('them')}",
        place=Place(path=path, tensor=name),
        help="save the unwrapped model (call `merge_and_unload` first for a PEFT model), or strip the prefix from "
        "the names",
        severity=Severity.WARNING if resumes_by_itself(checkpoint) else None,
        data={"prefix": absent.prefix, "tensors": len(absent.hidden), "wanted": absent.wanted},
    )


def _not_reported_elsewhere(checkpoint: Checkpoint, absent: Absent) -> list[Wanted]:
    """What is lost, without whole layers and heads of which other rules speak, or that other weights stand for."""
    lost = list(absent.lost)
    if absent.gone and any(LayerGap().check(checkpoint)):
        lost = [w for w in lost if w.layer not in absent.gone]
    if any(w.head for w in lost) and _heads_are_elsewhere(checkpoint, absent):
        lost = [w for w in lost if not w.head]
    return lost


def _heads_are_elsewhere(checkpoint: Checkpoint, absent: Absent) -> bool:
    """Whether another rule reports the head, or the class in config.json need not be the one that was saved."""
    if checkpoint.listing.has_file("modules.json"):  # of sentence-transformers, which loads the base model
        return True
    if absent.others and resumes_by_itself(checkpoint):
        return True
    try:
        return any(Tied().check(checkpoint))
    except FactUnavailable:
        return False


def _renamed(checkpoint: Checkpoint, absent: Absent, lost: list[Wanted]) -> Problem:
    there = f"; the weights have other names, such as {absent.others[0]}" if absent.others else ""
    path = _file_of(checkpoint, absent.others[0] if absent.others else "")
    return Problem(
        message=f"{_share(len(lost), absent.wanted)} tensors that {absent.cls} looks for are missing, such as "
        f"{lost[0].names[0]}{there}; {_RANDOM.format('them')}",
        place=Place(path=path, tensor=lost[0].names[0]),
        help="rename the tensors to the names that the class in config.json uses, or add the configuration that "
        "matches these weights",
        data={"tensors": len(lost), "wanted": absent.wanted},
    )


def _missing(checkpoint: Checkpoint, absent: Absent, members: list[Wanted]) -> Problem:
    first = members[0].names[0]
    more = f" and {len(members) - 1:,} more of its kind" if len(members) > 1 else ""
    verb = "are" if more else "is"
    like = get_close_matches(first, absent.others[:_COMPARED], n=1, cutoff=_ALIKE)
    other = f" ({like[0]} is present, but that name is not known)" if like else ""
    return Problem(
        message=f"{first}{more} {verb} missing, which {absent.cls} looks for{other}; "
        f"{_RANDOM.format('them' if more else 'it')}",
        place=Place(path=_file_near(checkpoint, members[0]), tensor=first),
        help="copy the tensor from where the model was saved, or save the model again with save_pretrained",
        data={"tensors": len(members), "names": [w.names[0] for w in members[:_LISTED]]},
    )


def _gone_layers(checkpoint: Checkpoint, absent: Absent) -> Problem:
    layers = sorted(absent.gone)
    shown = ", ".join(map(str, layers[:_LISTED])) + (" …" if len(layers) > _LISTED else "")
    first = next(w.names[0] for w in absent.lost if w.layer == layers[0])
    return Problem(
        message=f"{len(layers):,} layers that {absent.cls} looks for are missing entirely: {shown}; "
        f"{_RANDOM.format('them')}",
        place=Place(path=checkpoint.weights.files[0].path, tensor=first),
        help="find the shard or pipeline stage that contains them",
        data={"layers": layers[:_COMPARED]},
    )


def _share(count: int, whole: int) -> str:
    return f"all {whole:,}" if count == whole else f"{count:,} of the {whole:,}"


def _value_head(checkpoint: Checkpoint) -> Iterator[Problem]:
    """The head of a reward model or critic, which config.json gives a name of its own."""
    try:
        weights, config = loadable(checkpoint)
    except FactUnavailable:
        return
    name = _name_of_value_head(config)
    if name and not any(n == name or n.endswith(f".{name}") for n in weights.tensors):
        yield Problem(
            message=f"{name} is missing; config.json names it as the value head, which will be initialised randomly",
            place=Place(path=weights.files[0].path, tensor=name),
            help="copy the tensor from where the model was saved, or save the model with its head",
        )


def _name_of_value_head(config: Mapping[str, object]) -> str | None:
    """As OpenRLHF and TRL call it; a model that generates text may bear what is said of the critic beside it."""
    named = config.get("architectures")
    classes = [str(name) for name in named] if isinstance(named, list) else []
    if any(name.endswith("WithValueHead") for name in classes):
        return "v_head.summary.weight"
    prefix = config.get("value_head_prefix")
    generates = any(name.endswith("ForCausalLM") for name in classes)
    return f"{prefix}.weight" if isinstance(prefix, str) and prefix and classes and not generates else None


def _file_of(checkpoint: Checkpoint, name: str) -> str:
    files = checkpoint.weights.files
    return next((f.path for f in files if name in f.tensors), files[0].path)


def _file_near(checkpoint: Checkpoint, wanted: Wanted) -> str:
    """The file that holds others of its layer, or the first."""
    files = checkpoint.weights.files
    inside = "" if wanted.layer is None else f".{wanted.layer}."
    if inside and len(files) > 1:
        stack = wanted.kind.partition(".*.")[0].rpartition(".")[2]
        return next((f.path for f in files if any(f"{stack}{inside}" in name for name in f.tensors)), files[0].path)
    return files[0].path
