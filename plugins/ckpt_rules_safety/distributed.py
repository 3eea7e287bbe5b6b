"""The pickles in a distributed checkpoint: objects that its `.distcp` files keep beside the tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, TorchFile, is_count

_METADATA = ".metadata"
_BYTES = "BytesStorageMetadata"


def object_files(checkpoint: Checkpoint) -> Iterator[TorchFile]:
    """The objects of each distributed checkpoint, which a load unpickles without restraint; tensors are loaded weights-only.

    Each comes with the path of its file, and with the name of the object in its streams.
    """
    for entry in checkpoint.listing.files(_METADATA):
        folder = f"{entry.parent}/" if entry.parent else ""
        for path, items in _objects(checkpoint, entry.path).items():
            names, spans = zip(*((name, span) for name, span in items), strict=True)
            try:
                parts = checkpoint.torch_parts(f"{folder}{path}", spans)
            except FactUnavailable:
                continue
            yield from (_named(part, name) for part, name in zip(parts, names, strict=True))


def _named(part: TorchFile, name: str) -> TorchFile:
    globals_ = tuple(g._replace(stream=f"{name}: {g.stream}") for g in part.globals)
    # A pickle says nothing of the file that it lies in; what is wrong with that file is its own layout's business.
    return replace(part, value=None, globals=globals_, problems=(), nested=tuple(f"{name}: {n}" for n in part.nested))


def _objects(checkpoint: Checkpoint, path: str) -> Mapping[str, list[tuple[str, tuple[int, int]]]]:
    """Name, first byte and length of each object, by the file that it lies in; nothing where the metadata is no metadata."""
    found: dict[str, list[tuple[str, tuple[int, int]]]] = defaultdict(list)
    try:
        metadata = _state(checkpoint.torch_file(path).value)
    except FactUnavailable:
        return found
    kinds, places = metadata.get("state_dict_metadata"), metadata.get("storage_data")
    if not isinstance(kinds, Mapping) or not isinstance(places, Mapping):
        return found
    for index, info in places.items():
        name, place = _state(index).get("fqn"), _state(info)
        kind = kinds.get(name) if isinstance(name, str) else None
        if not isinstance(kind, Opaque) or not kind.type.endswith(_BYTES):
            continue
        file, start, nbytes = (place.get(key) for key in ("relative_path", "offset", "length"))
        if isinstance(file, str) and is_count(start) and is_count(nbytes):
            found[file].append((str(name), (int(start), int(nbytes))))
    return found


def _state(value: object) -> Mapping[object, object]:
    state = value.state if isinstance(value, Opaque) else None
    return state if isinstance(state, Mapping) else {}
