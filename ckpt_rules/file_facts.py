"""The facts of single files: each opened, read by the reader of its format, and closed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ckpt_rules.conventions.distributed import METADATA, rank_of_metadata
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Content, Entry, EntryKind, FileHead
from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage
from ckpt_rules.readers.sniff import HEAD_NBYTES, expected_format, format_by_content, sniff
from ckpt_rules.storage import Source, reason

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.distributed import DistributedMetadata
    from ckpt_rules.facts.ocdbt import OcdbtDatabase, ZstdFrame
    from ckpt_rules.facts.seal import Seal
    from ckpt_rules.facts.tensors import Archive, JsonFile, SafetensorsFile, TorchFile

T = TypeVar("T")

_NOTE_NBYTES = 4096
_PIECE_NBYTES = 1 << 16
TEXT_NBYTES = 16 * MIB
"""No list of digests is longer."""


def _open(checkpoint: Checkpoint, path: str) -> Source:
    entry = checkpoint.listing.get(path)
    if entry is None:
        raise FactUnavailable(f"there is no {path}")
    if entry.kind is not EntryKind.FILE:
        raise FactUnavailable(f"{path} can't be read: it is a {entry.kind.value}", path=path, blocked=True)
    try:
        return checkpoint.storage.open(path)
    except OSError as error:
        raise refused(checkpoint, path, error) from None


def head(checkpoint: Checkpoint, path: str) -> FileHead:
    """What the first bytes of a file say that it is."""
    try:
        with _open(checkpoint, path) as source:
            head = source.read(0, HEAD_NBYTES)
            return FileHead(sniff(head, source.size), head, source.size)
    except FactUnavailable as absent:
        if not absent.blocked:
            raise
        return FileHead(Content.BINARY, error=absent.reason.partition(": ")[2] or absent.reason)
    except OSError as error:
        return FileHead(Content.BINARY, error=reason(error))


def files_in(checkpoint: Checkpoint, file_format: str) -> list[Entry]:
    """Files whose name says that they are in a format, and whose content does not belie it.

    Those at the top whose name says nothing (`checkpoint_20`) are in the format that their content leaves no doubt about.
    """
    return [e for e in checkpoint.listing if e.kind is EntryKind.FILE and _is_in(checkpoint, e, file_format)]


def _is_in(checkpoint: Checkpoint, entry: Entry, file_format: str) -> bool:
    expected = expected_format(entry.name)
    if (expected is None and entry.parent) or (expected is not None and expected.name != file_format):
        return False
    head = checkpoint.head(entry.path)
    if head.error is not None:
        return False
    return format_by_content(entry.name, head) == file_format if expected is None else head.content in expected.contents


def _read(checkpoint: Checkpoint, path: str, reader: Callable[[Source, str, Budget], T]) -> T:
    try:
        with _open(checkpoint, path) as source:
            return reader(source, path, checkpoint.budget)
    except OSError as error:
        raise refused(checkpoint, path, error) from None


def refused(checkpoint: Checkpoint, path: str, error: OSError) -> FactUnavailable:
    """The file, or the directory '.', that the system did not give; noted in `Checkpoint.read_errors`."""
    words = checkpoint.read_errors.setdefault(path, reason(error))
    what = "the directory can't be listed" if path == "." else f"{path} can't be read"
    return FactUnavailable(f"{what}: {words}", path=path, blocked=True)


def safetensors(checkpoint: Checkpoint, path: str) -> SafetensorsFile:
    """The header of a safetensors file."""
    from ckpt_rules.readers.safetensors.file import read_safetensors

    return _read(checkpoint, path, read_safetensors)


def torch_file(checkpoint: Checkpoint, path: str) -> TorchFile:
    """What a file by `torch.save` holds."""
    if (name := path.rpartition("/")[2]) == METADATA or rank_of_metadata(name) is not None:
        return checkpoint.fact(_metadata, path)[0]
    from ckpt_rules.readers.torch.file import read_torch_file

    return _read(checkpoint, path, read_torch_file)


def torch_parts(checkpoint: Checkpoint, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[TorchFile, ...]:
    """What files by `torch.save` hold that lie in one file."""
    from ckpt_rules.readers.torch.parts import read_torch_parts

    return _read(checkpoint, path, lambda source, path, budget: read_torch_parts(source, path, spans, budget))


def archive(checkpoint: Checkpoint, path: str) -> Archive:
    """The directory of a zip file."""
    from ckpt_rules.readers.zip.directory import read_archive

    return _read(checkpoint, path, read_archive)


def archive_parts(checkpoint: Checkpoint, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[Archive, ...]:
    """The directories of zip files that lie in one file."""
    from ckpt_rules.readers.torch.parts import read_archive_parts

    return _read(checkpoint, path, lambda source, path, budget: read_archive_parts(source, path, spans, budget))


def distributed(checkpoint: Checkpoint, path: str) -> DistributedMetadata:
    """The metadata of a distributed checkpoint; of a `.metadata` that is not there, what those of the ranks say together."""
    of_ranks = () if checkpoint.listing.get(path) else metadata_of_ranks(checkpoint, path)
    if not of_ranks:
        return checkpoint.fact(_metadata, path)[1]
    from ckpt_rules.readers.dcp.metadata import together

    return together([checkpoint.fact(_metadata, each)[1] for each in of_ranks])


def metadata_files(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The metadata of distributed checkpoints: each `.metadata`, and where there is none, the `__R.metadata` of each rank."""
    found = [e for e in checkpoint.listing.files(f"*{METADATA}") if e.name == METADATA or _has_no_other(checkpoint, e)]
    return tuple(e.path for e in found)


def _has_no_other(checkpoint: Checkpoint, entry: Entry) -> bool:
    beside = f"{entry.path.removesuffix(entry.name)}{METADATA}"
    return rank_of_metadata(entry.name) is not None and checkpoint.listing.get(beside) is None


def metadata_of_ranks(checkpoint: Checkpoint, path: str) -> tuple[str, ...]:
    """The `__R.metadata` beside where a `.metadata` would lie, by rank; they are read where it is not there."""
    folder, _, name = path.rpartition("/")
    if name != METADATA:
        return ()
    beside = (e for e in checkpoint.listing.files(f"__*{METADATA}") if e.parent == folder)
    ranks = {rank: e.path for e in beside if (rank := rank_of_metadata(e.name)) is not None}
    return tuple(ranks[rank] for rank in sorted(ranks))


def _metadata(checkpoint: Checkpoint, path: str) -> tuple[TorchFile, DistributedMetadata]:
    from ckpt_rules.readers.dcp.metadata import read_metadata

    return _read(checkpoint, path, read_metadata)


def note(checkpoint: Checkpoint, path: str) -> str | None:
    """The text of a short file in the checkpoint or beside it (`../latest`); None where there is none, or it can't be read."""
    return checkpoint.fact(_short_text, path)[0]


def note_fault(checkpoint: Checkpoint, path: str) -> str | None:
    """Why what lies at a path is no short text; None where it is one, or nothing lies there."""
    return checkpoint.fact(_short_text, path)[1]


def _short_text(checkpoint: Checkpoint, path: str) -> tuple[str | None, str | None]:
    entry = checkpoint.beside(path.removeprefix("../")) if path.startswith("../") else checkpoint.listing.get(path)
    if entry is None:
        return None, None
    if entry.kind is not EntryKind.FILE:
        return None, f"it can't be read: {entry.error}" if entry.error else f"it is a {entry.kind.value}, not a file"
    if entry.size > _NOTE_NBYTES:
        return None, f"it has {entry.size:,} bytes, and no name has more than {_NOTE_NBYTES:,}"
    try:
        with checkpoint.storage.open(path) as source:
            raw = source.read(0, _NOTE_NBYTES)
    except OSError as error:
        return None, f"it can't be read: {reason(error)}"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None, "it is UTF-16, and trainers read UTF-8"
    if b"\0" in raw:
        return None, f"it has a NUL at byte {raw.index(0):,}, and no name has one"
    try:
        return raw.decode("utf-8").strip(), None
    except UnicodeDecodeError as error:
        return None, f"it is not UTF-8 from byte {error.start:,} on"


def beside(checkpoint: Checkpoint, path: str) -> Entry | None:
    """What lies at a path beside the checkpoint; None where nothing does."""
    parts = path.split("/")
    return None if ".." in parts or "" in parts else checkpoint.storage.look_again(f"../{path}")


def json(checkpoint: Checkpoint, path: str) -> JsonFile:
    """A parsed JSON file."""
    from ckpt_rules.readers.json.file import read_json

    return _read(checkpoint, path, read_json)


def text(checkpoint: Checkpoint, path: str) -> str:
    """What a file of text holds; bytes that are no UTF-8 are kept as surrogate escapes."""

    def read(source: Source, path: str, budget: Budget) -> str:
        if source.size > TEXT_NBYTES:
            raise FactUnavailable(f"{path} is no text of at most {TEXT_NBYTES:,} bytes", path=path, blocked=True)
        budget.charge(2 * source.size, f"the text {path}")
        return source.read(0, TEXT_NBYTES).decode("utf-8", "surrogateescape")

    try:
        return _read(checkpoint, path, read)
    except Damage as damage:
        raise FactUnavailable(f"{path} can't be read: {damage}", path=path, blocked=True) from None


def seal(checkpoint: Checkpoint) -> Seal:
    """The seal that lies in a checkpoint; FactUnavailable, with its path where it is there and damaged."""
    from pydantic import ValidationError

    from ckpt_rules.facts.seal import SEAL_NAME, Seal

    if checkpoint.listing.get(SEAL_NAME) is None:
        raise FactUnavailable("the checkpoint has no seal")
    file = checkpoint.json(SEAL_NAME)
    fault = next((p.message for p in file.problems), None)
    if fault is None:
        try:
            return Seal.model_validate(file.value)
        except ValidationError as error:
            first = error.errors()[0]
            fault = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg'][0].lower()}{first['msg'][1:]}"
    raise FactUnavailable(f"the seal can't be read: {fault}", path=SEAL_NAME, blocked=True)


def ocdbt(checkpoint: Checkpoint, path: str, values: bool) -> OcdbtDatabase:
    """The database whose manifest lies at a path."""
    from ckpt_rules.readers.ocdbt.manifest import read_ocdbt

    def opened(path: str) -> Source | None:
        try:
            return _open(checkpoint, path)
        except FactUnavailable:
            return None

    def read(source: Source, path: str, budget: Budget) -> OcdbtDatabase:
        return read_ocdbt(source, path, budget, opened, values=values)

    return _read(checkpoint, path, read)


def pieces(checkpoint: Checkpoint, path: str, spans: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
    """Ranges of a file, each of at most 64 KiB."""

    def read(source: Source, *_: object) -> tuple[bytes, ...]:
        return tuple(source.read(at, min(n, _PIECE_NBYTES)) for at, n in spans)

    return _read(checkpoint, path, read)


def _range(source: Source, start: int, offset: int, length: int) -> bytes:
    return source.read(start + offset, length)


def zstd_frames(
    checkpoint: Checkpoint, path: str, spans: tuple[tuple[int, int], ...], most: int
) -> tuple[ZstdFrame, ...]:
    """The zstd frames that lie in ranges of a file."""
    from ckpt_rules.readers.ocdbt.zstd_frame import walk_frame

    def read(source: Source, *_: object) -> tuple[ZstdFrame, ...]:
        left, found = most, []
        for start, nbytes in spans:
            found.append(walk_frame(partial(_range, source, start), nbytes, left))
            left -= found[-1].blocks
        return tuple(found)

    return _read(checkpoint, path, read)
