"""weights/not-loadable: what from_pretrained finds weights and model by, where no layout asks for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, conventions

weight_files = conventions.weight_files
_WEIGHTS = re.compile(r"(?:model|pytorch_model)[\w.\-]*\.(?:safetensors|bin)")
_DESCRIBES = ("config.json", "modules.json")
_COPY = "copy it from where the model was saved"


class NotLoadable(Rule):
    """A file that from_pretrained needs to find the weights or build the model is missing.

    ## What it checks
    If the weights are named as `save_pretrained` names them: the index of shards; and `config.json`, if a tokenizer
    shows that it is a transformers model. If there is the configuration of a transformers or diffusers model, or of an
    adapter: that the weights have a name that its loader looks for (`model.safetensors`,
    `diffusion_pytorch_model.safetensors`, `adapter_model.safetensors`, the same as `.bin`, or an index); a variant,
    such as `model.fp16.safetensors`, is information only. Checkpoints to resume from are not checked: trainers know
    their model, and the layout says what they need.

    ## Why it matters
    `from_pretrained` fails. The author of the model has the file in a cache and does not notice.

    ## How to repair
    Save the model again into an empty directory, with its tokenizer, and compare the lists of files.
    """

    id = "weights/not-loadable"
    tags = frozenset({"load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file that is missing."""
        required = {name for requirement in checkpoint.requirements for name in requirement.names}
        for path in sorted(set(_indexes(checkpoint)) - required):
            words = f"{path} is missing: from_pretrained needs it to find the shards"
            yield Problem(message=words, place=Place(path=path), help=_COPY)
        if _lacks_configuration(checkpoint) and "config.json" not in required:
            words = "config.json is missing: from_pretrained builds the model from it (there is a tokenizer with the weights)"
            yield Problem(message=words, place=Place(path="config.json"), help=_COPY, severity=Severity.WARNING)
        if not _is_resumed(checkpoint):
            yield from _misnamed(checkpoint)


def _indexes(checkpoint: Checkpoint) -> Iterator[str]:
    """The index of each set of shards that has none."""
    for entry in checkpoint.listing.files():
        shard = _shard(entry.name)
        if shard and int(shard["count"]) > 1:
            torchtunes = shard["suffix"] == "bin" and shard["stem"] == "model"
            stem = "pytorch_model" if torchtunes else shard["stem"]
            index = f"{entry.path.removesuffix(entry.name)}{stem}.{shard['suffix']}{weight_files.INDEX}"
            if not checkpoint.listing.has_file(index):
                yield index


def _shard(name: str) -> re.Match[str] | None:
    return weight_files.TRANSFORMERS_SHARD.fullmatch(name) or weight_files.DIFFUSERS_SHARD.fullmatch(name)


def _lacks_configuration(checkpoint: Checkpoint) -> bool:
    listing = checkpoint.listing
    if not listing.has_file("tokenizer_config.json") or any(map(listing.has_file, _DESCRIBES)):
        return False
    return any(_WEIGHTS.fullmatch(e.path) for e in listing.files())


def _is_resumed(checkpoint: Checkpoint) -> bool:
    """Whether a trainer loads the weights together with a training state."""
    try:
        return bool(checkpoint.state.values)
    except FactUnavailable as absent:
        return absent.blocked


def _misnamed(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Weights beside a configuration under names that its loader does not look for."""
    try:
        weights = checkpoint.weights
    except FactUnavailable:
        return  # weights/missing speaks of it
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in weights.files:
        folder, _, name = file.path.rpartition("/")
        by_folder[f"{folder}/" if folder else ""].append(name)
    for folder, names in by_folder.items():
        wanted = _looked_for(checkpoint, folder, names)
        indexes = [f"{name}{weight_files.INDEX}" for name in wanted]
        if not wanted or any(checkpoint.listing.has_file(folder + name) for name in (*wanted, *indexes)):
            continue
        if any(map(_shard, names)):
            continue  # without their index, which is reported above
        yield _under_another_name(folder + names[0], names[0], wanted)


def _looked_for(checkpoint: Checkpoint, folder: str, names: list[str]) -> tuple[str, ...]:
    """The names that the loader of a folder's configuration knows; () where it is nobody's."""
    if all(name.startswith("adapter_model") for name in names):
        return ()
    if checkpoint.listing.has_file(f"{folder}{weight_files.ADAPTER_CONFIG}"):
        return weight_files.ADAPTER
    config = _values(checkpoint, f"{folder}config.json")
    if isinstance(config.get("_class_name"), str) and "_diffusers_version" in config:
        return weight_files.DIFFUSERS
    if isinstance(config.get("model_type"), str) and isinstance(config.get("architectures"), list):
        return weight_files.TRANSFORMERS if config.get("transformers_weights") is None else ()
    return ()


def _under_another_name(path: str, name: str, wanted: tuple[str, ...]) -> Problem:
    stems = "|".join(each.partition(".")[0] for each in wanted)
    variant = re.fullmatch(rf"(?:{stems})\.([\w-]+)\.(?:safetensors|bin)", name)
    if variant:
        return Problem(
            message=f"the weights exist only as the variant '{variant[1]}': from_pretrained fails unless that "
            "variant is requested",
            place=Place(path=path),
            help=f"load them with variant='{variant[1]}', and document this in the model card",
            severity=Severity.INFO,
        )
    return Problem(
        message=f"the weights are in {name}, but from_pretrained looks for {wanted[0]}, {wanted[1]} or an index of "
        "shards: it fails",
        place=Place(path=path),
        help=f"rename it to {wanted[0] if name.endswith('.safetensors') else wanted[1]}",
    )


def _values(checkpoint: Checkpoint, path: str) -> Mapping[str, object]:
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return {}
    return values if isinstance(values, Mapping) else {}
