"""What Megatron-core keeps beside the sharded tensors: common.pt, or from version 0.19 on the item `common_state` of DCP."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, StoredItem, conventions
from ckpt_rules_megatron.common import arguments

COMMON, MARKER, METADATA = "common.pt", "metadata.json", conventions.distributed.METADATA
_ITEM = "common_state/shard_0_1"
_RNG = "rng_state/"
_GENERATORS = {
    "random_rng_state": "python",
    "np_rng_state": "numpy",
    "torch_rng_state": "torch",
    "cuda_rng_state": "cuda",
}


def folder_of(checkpoint: Checkpoint) -> str:
    """Where Megatron's files lie: NeMo keeps them in `weights/`."""
    listing = checkpoint.listing
    nemo = any(listing.get(f"weights/{name}") for name in (COMMON, MARKER, METADATA))
    return "weights/" if nemo and listing.get(COMMON) is None else ""


def sharded(checkpoint: Checkpoint) -> DistributedMetadata:
    """DCP's metadata; FactUnavailable, blocked, where it is not there or is not valid."""
    path = f"{folder_of(checkpoint)}{METADATA}"
    if checkpoint.listing.get(path) is None:
        raise FactUnavailable(f"there is no {path}", path=path, blocked=True)
    metadata = checkpoint.files.distributed(path)
    if metadata.problem is not None:
        raise FactUnavailable(f"{path} can't be interpreted", path=path, blocked=True)
    return metadata


def common_state(checkpoint: Checkpoint) -> tuple[str, Mapping[object, object]]:
    """The file that holds the values that are not sharded, and the values. A fact.

    As Megatron-core does, common.pt is taken where there is one.
    """
    path = f"{folder_of(checkpoint)}{COMMON}"
    if checkpoint.listing.get(path) is not None:
        return path, _dictionary(checkpoint.files.contents(path), path, path)
    item = _item(checkpoint)
    if item is None:
        raise FactUnavailable(f"there is no {path}, and {METADATA} lists no common_state")
    value = _object(checkpoint, item)
    first = value[0] if isinstance(value, list | tuple) and value else value
    return item.path, _dictionary(first, item.path, f"the item common_state in {item.path}")


def needs_common_file(checkpoint: Checkpoint) -> bool:
    """Whether common.pt has to be there, as up to Megatron-core 0.18: nothing else holds the values."""
    try:
        return _item(checkpoint) is None
    except FactUnavailable:
        return False  # .metadata is reported, and would say which form this is


def generators(checkpoint: Checkpoint) -> tuple[str, frozenset[str]] | None:
    """The file with the first rank's random-number states, and of which generators; None where no rank's were saved."""
    metadata = sharded(checkpoint)
    first = min((name for name in metadata.objects if name.startswith(_RNG)), default=None)
    if first is None:
        return None
    item = next(metadata.items.of({first}), None)
    if item is None:
        return None
    value = _object(checkpoint, item)
    while isinstance(value, list | tuple) and value:
        value = value[0]
    held = value if isinstance(value, Mapping) else {}
    return item.path, frozenset(name for key, name in _GENERATORS.items() if held.get(key) is not None)


def saves_generators(values: Mapping[object, object]) -> bool:
    """Whether the arguments say that random-number states are saved, so that Megatron stops where they are not."""
    return arguments(values).get("no_save_rng") is False


def _item(checkpoint: Checkpoint) -> StoredItem | None:
    metadata = sharded(checkpoint)
    return next(metadata.items.of({_ITEM}), None) if _ITEM in metadata.objects else None


def _object(checkpoint: Checkpoint, item: StoredItem) -> object:
    (part,) = checkpoint.files.torch_parts(item.path, ((item.offset, item.nbytes),))
    fatal = next((p for p in part.problems if p.fatal), None)
    if fatal or not part.readable:
        why = f": {fatal.message}" if fatal else ""
        raise FactUnavailable(f"{item.name} in {item.path} can't be read{why}", path=item.path, blocked=True)
    return part.value


def _dictionary(value: object, path: str, what: str) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise FactUnavailable(f"{what} holds no dictionary", path=path, blocked=True)
    return value
