"""The files of one checkpoint: what its path is, what lies there, and what each file holds, read once whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from ckpt_rules.conventions.distributed import METADATA, rank_of_metadata
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.distributed import DistributedMetadata
from ckpt_rules.facts.files import Content, Entry, EntryKind, FileHead, Listing, Root, RootKind
from ckpt_rules.facts.ocdbt import OcdbtDatabase, ZstdFrame
from ckpt_rules.facts.tensors import Archive, JsonFile, SafetensorsFile, TorchFile
from ckpt_rules.limits import DEFAULT_LIMITS, MIB, Limits
from ckpt_rules.memo import Memo
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage
from ckpt_rules.readers.sniff import HEAD_NBYTES, expected_format, format_by_content, sniff
from ckpt_rules.storage import FilesOfSave, OneFile, Source, Storage, reason

P = ParamSpec("P")
T = TypeVar("T")
Spans = tuple[tuple[int, int], ...]

NO_DIRECTORY = "there is no checkpoint directory to look into"
TEXT_NBYTES = 16 * MIB
"""No list of digests is longer."""

_SMALL_NBYTES = 4096
_RANGE_NBYTES = 1 << 16


class Files:
    """What lies at a checkpoint's path. Paths are relative to it; one that begins with `../` lies beside it.

    Each file is opened, read by the reader of its format, and closed. What can't be read raises `FactUnavailable`, blocked,
    with its path. `read_errors` and `stat_now` change while the checkpoint is read; all else is read once.

    read_errors: files that the system refused to give, so far, and its words; '.' is the directory
    """

    def __init__(self, storage: Storage, limits: Limits = DEFAULT_LIMITS, memo: Memo | None = None) -> None:
        self.storage = storage
        self.budget = Budget(limits)
        self.read_errors: dict[str, str] = {}
        self._memo = memo or Memo()

    def once(self, read: Callable[Concatenate[Files, P], T], *args: P.args, **_: P.kwargs) -> T:
        """What a function of the files gives, remembered by its arguments."""
        return self._memo.get((read, args), partial(read, self, *args))

    @property
    def is_one_file(self) -> bool:
        """Whether the path is a file, which is listed as a directory that holds nothing else."""
        return isinstance(self.storage, OneFile)

    @property
    def is_in_files(self) -> bool:
        """Whether it is one file, or several, of a directory that holds others as well."""
        return isinstance(self.storage, FilesOfSave)

    @property
    def path(self) -> str:
        """The checkpoint's path, as the user named it."""
        return self.root.path

    @property
    def root(self) -> Root:
        """What the path is."""
        return self.once(_root)

    @property
    def listing(self) -> Listing:
        """Every file and directory in it; FactUnavailable where the system does not give them."""
        return self.once(_list)

    def sniff(self, path: str) -> FileHead:
        """What the first bytes of a file say that it is; FactUnavailable where it is not a regular file."""
        return self.once(_sniff, path)

    def of_format(self, file_format: str) -> list[Entry]:
        """Files whose name says that they are in a format, and whose content does not belie it.

        file_format: `safetensors`, `torch` or `json`. Files that are empty, unreadable, a stand-in or of another known
        format are left out: rules of the `files` family report those. Those at the top whose name says nothing
        (`checkpoint_20`) are in the format that their content leaves no doubt about.
        """
        return self.once(_of_format, file_format)

    def stat_now(self, path: str) -> Entry | None:
        """What lies at a path of the listing by now; None where nothing does. Looked up each time."""
        return self.storage.look_again(path)

    def sibling(self, path: str) -> Entry | None:
        """What lies at a path in the directory above the checkpoint, `step-20/.metadata`; None where nothing does."""
        return self.once(_sibling, path)

    def small_text(self, path: str) -> str | None:
        """The text of a small file, of at most 4,096 bytes, stripped; None where it is no such file."""
        return self.once(_small_text, path)[0]

    def small_text_fault(self, path: str) -> str | None:
        """Why what lies at a path is no such file, `it is a FIFO, not a file`; None where it is one, or nothing lies there."""
        return self.once(_small_text, path)[1]

    def text(self, path: str) -> str:
        """What a file of text holds, of at most 16 MiB; bytes that are no UTF-8 are kept as surrogate escapes."""
        return self.once(_text, path)

    def json(self, path: str) -> JsonFile:
        """A parsed JSON file."""
        return self.once(_json, path)

    def safetensors(self, path: str) -> SafetensorsFile:
        """The header of a safetensors file."""
        return self.once(_safetensors, path)

    def torch_file(self, path: str) -> TorchFile:
        """What a file by `torch.save` holds, read without running any of it."""
        return self.once(_torch_file, path)

    def torch_parts(self, path: str, spans: Spans) -> tuple[TorchFile, ...]:
        """What the files by `torch.save` in ranges of a file hold, offsets from there; parts of the same bytes are one."""
        return self.once(_torch_parts, path, spans)

    def contents(self, path: str) -> object:
        """What a torch or JSON file holds; FactUnavailable, blocked, where it can't be read as a whole."""
        file: JsonFile | TorchFile = self.json(path) if path.endswith(".json") else self.torch_file(path)
        fatal = next((p for p in file.problems if p.fatal), None)
        if fatal:
            raise FactUnavailable(f"{path} can't be read: {fatal.message}", path=path, blocked=True)
        return file.value

    def archive(self, path: str) -> Archive:
        """The directory of a zip file, whoever wrote it."""
        return self.once(_archive, path)

    def archive_parts(self, path: str, spans: Spans) -> tuple[Archive, ...]:
        """The directories of zip files that lie one after the other in a file; see `torch_parts`."""
        return self.once(_archive_parts, path, spans)

    def distributed(self, path: str = METADATA) -> DistributedMetadata:
        """The metadata of a distributed checkpoint.

        Of a `.metadata` that is not there, it is what the `__R.metadata` of all ranks say together, and `path` the first.
        """
        return self.once(_distributed, path)

    @property
    def metadata_files(self) -> tuple[str, ...]:
        """The metadata files of distributed checkpoints: each `.metadata`, or the `__R.metadata` of each rank."""
        return self.once(_metadata_files)

    def ocdbt(self, path: str, values: bool = True) -> OcdbtDatabase:
        """The OCDBT database whose manifest lies at a path: its keys, and where their values lie; or its files alone."""
        return self.once(_ocdbt, path, values)

    def byte_ranges(self, path: str, spans: Spans) -> tuple[bytes, ...]:
        """Ranges of a file: each from a byte on, so many bytes long, of at most 64 KiB."""
        return self.once(_byte_ranges, path, spans)

    def zstd_frames(self, path: str, spans: Spans, most: int) -> tuple[ZstdFrame, ...]:
        """The zstd frames in ranges of a file; of all of them together, at most so many blocks are walked."""
        return self.once(_zstd_frames, path, spans, most)

    def open(self, path: str) -> Source:
        """A file of the listing, to be closed by whoever asks; FactUnavailable where there is none, or it can't be opened."""
        entry = self.listing.get(path)
        if entry is None:
            raise FactUnavailable(f"there is no {path}")
        if entry.kind is not EntryKind.FILE:
            raise FactUnavailable(f"{path} can't be read: it is a {entry.kind.value}", path=path, blocked=True)
        try:
            return self.storage.open(path)
        except OSError as error:
            raise self.refused(path, error) from None

    def read(self, path: str, reader: Callable[[Source, str, Budget], T]) -> T:
        """What a reader makes of a file."""
        try:
            with self.open(path) as source:
                return reader(source, path, self.budget)
        except OSError as error:
            raise self.refused(path, error) from None

    def refused(self, path: str, error: OSError) -> FactUnavailable:
        """That the system did not give a file, or the directory '.'; it is noted in `read_errors`."""
        words = self.read_errors.setdefault(path, reason(error))
        what = "the directory can't be listed" if path == "." else f"{path} can't be read"
        return FactUnavailable(f"{what}: {words}", path=path, blocked=True)


def _root(files: Files) -> Root:
    return files.storage.root()


def _list(files: Files) -> Listing:
    if files.root.kind is not RootKind.DIRECTORY:
        raise FactUnavailable(NO_DIRECTORY, path=".", blocked=True)
    try:
        return files.storage.list()
    except OSError as error:
        raise files.refused(".", error) from None


def _sniff(files: Files, path: str) -> FileHead:
    try:
        with files.open(path) as source:
            head = source.read(0, HEAD_NBYTES)
            return FileHead(sniff(head, source.size), head, source.size)
    except FactUnavailable as absent:
        if not absent.blocked:
            raise
        return FileHead(Content.BINARY, error=absent.reason.partition(": ")[2] or absent.reason)
    except OSError as error:
        return FileHead(Content.BINARY, error=reason(error))


def _of_format(files: Files, file_format: str) -> list[Entry]:
    return [e for e in files.listing if e.kind is EntryKind.FILE and _is_of(files, e, file_format)]


def _is_of(files: Files, entry: Entry, file_format: str) -> bool:
    expected = expected_format(entry.name)
    if (expected is None and entry.parent) or (expected is not None and expected.name != file_format):
        return False
    head = files.sniff(entry.path)
    if head.error is not None:
        return False
    return format_by_content(entry.name, head) == file_format if expected is None else head.content in expected.contents


def _sibling(files: Files, path: str) -> Entry | None:
    parts = path.split("/")
    return None if ".." in parts or "" in parts else files.stat_now(f"../{path}")


def _small_text(files: Files, path: str) -> tuple[str | None, str | None]:
    """The text, or why there is none."""
    entry = files.sibling(path.removeprefix("../")) if path.startswith("../") else files.listing.get(path)
    if entry is None:
        return None, None
    if entry.kind is not EntryKind.FILE:
        return None, f"it can't be read: {entry.error}" if entry.error else f"it is a {entry.kind.value}, not a file"
    if entry.size > _SMALL_NBYTES:
        return None, f"it has {entry.size:,} bytes, and no name has more than {_SMALL_NBYTES:,}"
    try:
        with files.storage.open(path) as source:
            raw = source.read(0, _SMALL_NBYTES)
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


def _text(files: Files, path: str) -> str:
    try:
        return files.read(path, _read_text)
    except Damage as damage:
        raise FactUnavailable(f"{path} can't be read: {damage}", path=path, blocked=True) from None


def _read_text(source: Source, path: str, budget: Budget) -> str:
    if source.size > TEXT_NBYTES:
        raise FactUnavailable(f"{path} is not text of at most {TEXT_NBYTES:,} bytes", path=path, blocked=True)
    budget.charge(2 * source.size, f"the text {path}")
    return source.read(0, TEXT_NBYTES).decode("utf-8", "surrogateescape")


def _json(files: Files, path: str) -> JsonFile:
    from ckpt_rules.readers.json.file import read_json

    return files.read(path, read_json)


def _safetensors(files: Files, path: str) -> SafetensorsFile:
    from ckpt_rules.readers.safetensors.file import read_safetensors

    return files.read(path, read_safetensors)


def _torch_file(files: Files, path: str) -> TorchFile:
    if (name := path.rpartition("/")[2]) == METADATA or rank_of_metadata(name) is not None:
        return files.once(_metadata, path)[0]
    from ckpt_rules.readers.torch.file import read_torch_file

    return files.read(path, read_torch_file)


def _torch_parts(files: Files, path: str, spans: Spans) -> tuple[TorchFile, ...]:
    from ckpt_rules.readers.torch.parts import read_torch_parts

    return files.read(path, lambda source, path, budget: read_torch_parts(source, path, spans, budget))


def _archive(files: Files, path: str) -> Archive:
    from ckpt_rules.readers.zip.directory import read_archive

    return files.read(path, read_archive)


def _archive_parts(files: Files, path: str, spans: Spans) -> tuple[Archive, ...]:
    from ckpt_rules.readers.torch.parts import read_archive_parts

    return files.read(path, lambda source, path, budget: read_archive_parts(source, path, spans, budget))


def _metadata(files: Files, path: str) -> tuple[TorchFile, DistributedMetadata]:
    from ckpt_rules.readers.dcp.metadata import read_metadata

    return files.read(path, read_metadata)


def _distributed(files: Files, path: str) -> DistributedMetadata:
    of_ranks = () if files.listing.get(path) else _metadata_of_ranks(files, path)
    if not of_ranks:
        return files.once(_metadata, path)[1]
    from ckpt_rules.readers.dcp.metadata import together

    return together([files.once(_metadata, each)[1] for each in of_ranks])


def _metadata_files(files: Files) -> tuple[str, ...]:
    found = [e for e in files.listing.files(f"*{METADATA}") if e.name == METADATA or _has_no_other(files, e)]
    return tuple(e.path for e in found)


def _has_no_other(files: Files, entry: Entry) -> bool:
    beside = f"{entry.path.removesuffix(entry.name)}{METADATA}"
    return rank_of_metadata(entry.name) is not None and files.listing.get(beside) is None


def _metadata_of_ranks(files: Files, path: str) -> tuple[str, ...]:
    """The `__R.metadata` beside where a `.metadata` would lie, by rank; they are read where it is not there."""
    folder, _, name = path.rpartition("/")
    if name != METADATA:
        return ()
    beside = (e for e in files.listing.files(f"__*{METADATA}") if e.parent == folder)
    ranks = {rank: e.path for e in beside if (rank := rank_of_metadata(e.name)) is not None}
    return tuple(ranks[rank] for rank in sorted(ranks))


def _ocdbt(files: Files, path: str, values: bool) -> OcdbtDatabase:
    from ckpt_rules.readers.ocdbt.manifest import read_ocdbt

    def opened(path: str) -> Source | None:
        try:
            return files.open(path)
        except FactUnavailable:
            return None

    return files.read(path, lambda source, path, budget: read_ocdbt(source, path, budget, opened, values=values))


def _byte_ranges(files: Files, path: str, spans: Spans) -> tuple[bytes, ...]:
    return files.read(path, lambda source, *_: tuple(source.read(at, min(n, _RANGE_NBYTES)) for at, n in spans))


def _zstd_frames(files: Files, path: str, spans: Spans, most: int) -> tuple[ZstdFrame, ...]:
    from ckpt_rules.readers.ocdbt.zstd_frame import walk_frame

    def read(source: Source, *_: object) -> tuple[ZstdFrame, ...]:
        left, found = most, []
        for start, nbytes in spans:
            found.append(walk_frame(partial(_range, source, start), nbytes, left))
            left -= found[-1].blocks
        return tuple(found)

    return files.read(path, read)


def _range(source: Source, start: int, offset: int, length: int) -> bytes:
    return source.read(start + offset, length)
