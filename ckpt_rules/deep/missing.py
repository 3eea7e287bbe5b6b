"""What a pass over all bytes can't look at: files whose tensors or entries could not be located, or read to their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ckpt_rules.deep.kernels import itemsize
from ckpt_rules.deep.locate import archive_of, find_tensors, is_zip, items_by_file, parts_of, tensors_in
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Content, Entry, EntryKind
from ckpt_rules.facts.tensors import ReadProblem, SafetensorsFile, TensorInfo, TorchFile
from ckpt_rules.readers.sniff import expected_format

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.values import BytesRead, Wanted

_FORMATS = ("safetensors", "torch")
_HOLDS_NO_TENSOR = "not-torch"
_STANDS_IN = frozenset({Content.HTML, Content.XML, Content.LFS_POINTER, Content.ZEROS})


def missed(checkpoint: Checkpoint, wanted: Wanted, read: BytesRead) -> dict[str, str]:
    """Every file that the pass could not look at as a whole for what is wanted of it, and why."""
    found = dict(read.unread)
    if wanted.measures:
        lost = (
            block.path
            for tensor in checkpoint.fact(find_tensors)
            for block in tensor.blocks
            if block not in read.values
        )
        found = dict.fromkeys(lost, "too many of its tensors overlap") | checkpoint.fact(unlocated) | found
    return checkpoint.fact(unlisted) | found if wanted.checksums else found


def unlocated(checkpoint: Checkpoint) -> dict[str, str]:
    """Files that should hold tensors of which not all could be located, and why. A fact.

    What has no place by its nature does not count: elements that are packed or have gaps, tensors without storage.
    """
    found: dict[str, str] = {}
    for entry in checkpoint.listing:
        expected = expected_format(entry.name)
        if expected is not None and expected.name in _FORMATS and (why := _why(checkpoint, entry, expected.name)):
            found[entry.path] = why
    for metadata in checkpoint.files.metadata_files:
        for path, why in _in_distributed(checkpoint, metadata):
            found.setdefault(path, why)
    return found


def unlisted(checkpoint: Checkpoint) -> dict[str, str]:
    """Zip archives of which not all entries are known, and why. A fact."""
    found = {}
    for entry in checkpoint.listing:
        if entry.kind is EntryKind.FILE and is_zip(checkpoint, entry.path):
            archive = archive_of(checkpoint, entry.path)
            why = "it can't be read" if archive is None else _fatal(archive.problems)
            if why is not None:
                found[entry.path] = why
    return found


def _why(checkpoint: Checkpoint, entry: Entry, file_format: str) -> str | None:
    if entry.kind is EntryKind.DIRECTORY:
        return None
    if entry.kind is not EntryKind.FILE or not entry.size:
        return entry.error or ("it is empty" if entry.kind is EntryKind.FILE else f"it is a {entry.kind.value}")
    head = checkpoint.files.sniff(entry.path)
    if entry not in checkpoint.files.of_format(file_format):
        # A file of another format has tensors of its own, or none: what has taken the place of one is meant here.
        return head.error or (
            f"its content is a stand-in, {head.content.value}" if head.content in _STANDS_IN else None
        )
    try:
        return _lost_in(checkpoint, entry.path, file_format)
    except FactUnavailable as absent:
        return absent.reason.partition(": ")[2] or absent.reason


def _lost_in(checkpoint: Checkpoint, path: str, file_format: str) -> str | None:
    file: SafetensorsFile | TorchFile
    if file_format == "safetensors":
        file = checkpoint.files.safetensors(path)
        tensors: Iterable[tuple[str, TensorInfo]] = file.tensors.items()
    else:
        file = checkpoint.files.torch_file(path)
        tensors = tensors_in(file.value)
    return _fatal(file.problems) or next((why for name, t in tensors if (why := _lost(name, t, file.size))), None)


def _fatal(problems: tuple[ReadProblem, ...]) -> str | None:
    return next((p.message for p in problems if p.fatal and p.code != _HOLDS_NO_TENSOR), None)


def _lost(name: str, tensor: TensorInfo, size: int) -> str | None:
    """Why a tensor that has bytes in its file is not to be found there."""
    width = itemsize(tensor.dtype)
    if not tensor.nbytes or width is None:
        return None
    if tensor.offset is None:
        return f"the bytes of {name} can't be located" if tensor.storage is not None else None
    end = tensor.offset + tensor.first * (tensor.nbytes // tensor.numel) + tensor.nbytes
    return f"it has {size:,} bytes, and {name} ends at byte {end:,}" if end > size else None


def _in_distributed(checkpoint: Checkpoint, metadata: str) -> Iterator[tuple[str, str]]:
    try:
        known = checkpoint.files.distributed(metadata)
    except FactUnavailable as absent:
        yield metadata, absent.reason.partition(": ")[2] or absent.reason
        return
    if known.problem is not None:
        yield metadata, known.problem.message
    for item in known.items:
        if not checkpoint.listing.has_file(item.path):
            yield item.path, "it is missing"
    for path, items in items_by_file(checkpoint, metadata).items():
        parts = parts_of(checkpoint, path, items)
        if len(parts) < len(items):
            yield path, "it can't be read"
        for item, part in zip(items, parts, strict=False):
            broken = next((p.message for p in part.problems if p.fatal), None)
            if item.name in known.tensors and broken is not None:
                yield path, f"the chunk of {item.name} can't be read: {broken}"
