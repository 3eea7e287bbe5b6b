"""Where the elements of a checkpoint's tensors and the entries of its archives lie, known from headers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_rules.deep.kernels import itemsize
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Content, EntryKind
from ckpt_rules.facts.tensors import DTYPE_BITS, Opaque, TensorInfo
from ckpt_rules.facts.values import Block, Located, ZipMember

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.distributed import StoredItem
    from ckpt_rules.facts.tensors import Archive, TorchFile

_MOST_NESTED = 64


def find_tensors(checkpoint: Checkpoint) -> tuple[Located, ...]:
    """Every tensor in a checkpoint's files; one with several names comes by each of them. A fact."""
    safetensors = [t for e in checkpoint.files.of_format("safetensors") for t in _in_safetensors(checkpoint, e.path)]
    torch = [t for e in checkpoint.files.of_format("torch") for t in _in_torch_file(checkpoint, e.path)]
    return (*safetensors, *torch, *(t for path in _metadata(checkpoint) for t in _in_distributed(checkpoint, path)))


def zip_members(checkpoint: Checkpoint) -> tuple[ZipMember, ...]:
    """Every entry of a zip archive that lies in its file as it is and has a checksum. A fact."""
    alone = [e.path for e in checkpoint.listing if e.kind is EntryKind.FILE and is_zip(checkpoint, e.path)]
    found = [m for path in alone for m in _members(archive_of(checkpoint, path), 0)]
    for metadata in _metadata(checkpoint):
        for path, items in items_by_file(checkpoint, metadata).items():
            for item, archive in zip(items, _archives(checkpoint, path, items), strict=False):
                found += _members(archive, item.offset)
    return tuple(dict.fromkeys(found))


def _in_safetensors(checkpoint: Checkpoint, path: str) -> Iterator[Located]:
    try:
        file = checkpoint.files.safetensors(path)
    except FactUnavailable:
        return
    for name, tensor in file.tensors.items():
        yield Located(path, name, tensor.dtype, tensor.shape, _blocks(path, tensor, file.size))


def _in_torch_file(checkpoint: Checkpoint, path: str) -> Iterator[Located]:
    try:
        file = checkpoint.files.torch_file(path)
    except FactUnavailable:
        return
    for name, tensor in tensors_in(file.value):
        blocks = _blocks(path, tensor, file.size, big_endian=file.byteorder == "big")
        yield Located(path, name, tensor.dtype, tensor.shape, blocks, strides=tensor.strides)


def _in_distributed(checkpoint: Checkpoint, metadata: str) -> Iterator[Located]:
    """The tensors of a distributed checkpoint, whose chunks are files by torch.save one behind the other."""
    known = checkpoint.files.distributed(metadata).tensors
    blocks: dict[str, list[tuple[StoredItem, TensorInfo, Block]]] = defaultdict(list)
    for path, items in items_by_file(checkpoint, metadata).items():
        for item, part in zip(items, parts_of(checkpoint, path, items), strict=False):
            for name, tensor in tensors_in(part.value):
                moved = tensor._replace(offset=None if tensor.offset is None else tensor.offset + item.offset)
                found = _blocks(path, moved, item.offset + part.size, big_endian=part.byteorder == "big")
                if item.name not in known:
                    whole = f"{item.name}.{name}" if name else item.name
                    yield Located(path, whole, tensor.dtype, tensor.shape, found, strides=tensor.strides)
                elif not name and found and tensor.strides is None:
                    blocks[item.name].append((item, tensor, found[0]))
    for name, chunks in blocks.items():
        shape = known[name].shape
        item, tensor, _ = chunks[0]
        placed = all(len(i.corner) == len(t.shape) == len(shape) for i, t, _ in chunks)
        yield Located(
            item.path,
            name,
            known[name].dtype,
            shape,
            tuple(block for _, _, block in chunks),
            tuple(i.corner for i, _, _ in chunks) if placed else (),
            tuple(t.shape for _, t, _ in chunks),
        )


def _blocks(path: str, tensor: TensorInfo, size: int, *, big_endian: bool = False) -> tuple[Block, ...]:
    """The one block of a tensor that fills it; none where its place is unknown, past the end, or has gaps."""
    if tensor.offset is None or not tensor.nbytes or itemsize(tensor.dtype) is None or _has_gaps(tensor):
        return ()
    start = tensor.offset + tensor.first * DTYPE_BITS[tensor.dtype] // 8
    return (Block(path, start, tensor.nbytes, tensor.dtype, big_endian),) if start + tensor.nbytes <= size else ()


def _has_gaps(tensor: TensorInfo) -> bool:
    """Whether the elements do not fill the range that they reach over, or lie in it twice."""
    expected = 1
    for step, size in sorted(zip(tensor.strides or (), tensor.shape, strict=False)):
        if size != 1 and step != expected:
            return True
        expected *= size
    return False


def tensors_in(value: object) -> Iterator[tuple[str, TensorInfo]]:
    """Every tensor in a value, by the keys that lead to it; whatever is reached twice comes by the first way."""
    seen: set[int] = set()

    def walk(part: object, name: str, depth: int) -> Iterator[tuple[str, TensorInfo]]:
        if isinstance(part, TensorInfo):
            yield name, part
            return
        children = _children(part)
        if children is None or depth > _MOST_NESTED or id(part) in seen:
            return
        seen.add(id(part))
        for key, child in children:
            yield from walk(child, f"{name}.{key}" if name else str(key), depth + 1)

    return walk(value, "", 0)


def _children(part: object) -> Iterable[tuple[object, object]] | None:
    if isinstance(part, Mapping):
        return part.items()
    if isinstance(part, list | tuple | set | frozenset):
        return enumerate(part)
    if isinstance(part, Opaque):
        state = part.state.items() if isinstance(part.state, Mapping) else enumerate([part.state])
        return [*enumerate(part.args), *part.kwargs.items(), *enumerate(part.items), *part.pairs, *state]
    return None


def _metadata(checkpoint: Checkpoint) -> list[str]:
    """The metadata files of distributed checkpoints that can be interpreted."""
    found = []
    for path in checkpoint.files.metadata_files:
        try:
            if checkpoint.files.distributed(path).problem is None:
                found.append(path)
        except FactUnavailable:
            continue
    return found


def items_by_file(checkpoint: Checkpoint, metadata: str) -> dict[str, list[StoredItem]]:
    """The entries of each file that is there."""
    found: dict[str, list[StoredItem]] = defaultdict(list)
    for item in checkpoint.files.distributed(metadata).items:
        if checkpoint.listing.has_file(item.path):
            found[item.path].append(item)
    return found


def parts_of(checkpoint: Checkpoint, path: str, items: list[StoredItem]) -> tuple[TorchFile, ...]:
    """What lies at each of these entries of a distributed checkpoint's file; nothing where it can't be read."""
    try:
        return checkpoint.files.torch_parts(path, tuple((i.offset, i.nbytes) for i in items))
    except FactUnavailable:
        return ()


def _archives(checkpoint: Checkpoint, path: str, items: list[StoredItem]) -> tuple[Archive, ...]:
    try:
        return checkpoint.files.archive_parts(path, tuple((i.offset, i.nbytes) for i in items))
    except FactUnavailable:
        return ()


def archive_of(checkpoint: Checkpoint, path: str) -> Archive | None:
    """The directory of a zip file; None where it can't be read."""
    try:
        return checkpoint.files.archive(path)
    except FactUnavailable:
        return None


def is_zip(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a file is one zip archive."""
    head = checkpoint.files.sniff(path)
    # What ranks of a distributed checkpoint wrote holds many archives, of which a directory at the end lists the last.
    return head.content is Content.ZIP and not path.endswith(".distcp")


def _members(archive: Archive | None, start: int) -> Iterator[ZipMember]:
    """The entries of an archive that begins at byte `start` of its file."""
    if archive is None:
        return
    for entry in archive.entries:
        if entry.crc and entry.stored and entry.offset is not None and entry.offset + entry.nbytes <= archive.size:
            yield ZipMember(archive.path, entry.name, start + entry.offset, entry.nbytes, entry.crc)
