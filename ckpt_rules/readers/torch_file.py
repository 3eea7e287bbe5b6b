"""Files that `torch.save` wrote, read without running any of it and without their tensors' bytes.

Zip files (torch >= 1.6): `<root>/data.pkl` refers to storages `<root>/data/<key>`. Legacy files: five pickles (magic
number, protocol, system information, the object, storage keys), then each storage as an element count and its bytes.
Source: torch/serialization.py, caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import DTYPE_BITS, GlobalRef, ReadProblem, TorchFile
from ckpt_rules.readers.pickle_machine import MAX_NBYTES, Unpickled, unpickle
from ckpt_rules.readers.torch_objects import Storage, Stored, TorchBuilder
from ckpt_rules.readers.zip_directory import DEFLATED, STORED, ZipDirectory, ZipEntry, read_zip_directory
from ckpt_rules.storage import Source

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_LEGACY_PICKLES = ("magic number", "protocol", "system information", "object", "storage keys")
_COUNT_NBYTES = 8
_MAX_RECORD_NBYTES = 64


def read_torch_file(source: Source, path: str) -> TorchFile:
    """What a file holds that is named or looks like one of torch's."""
    head = source.read(0, 4)
    if head.startswith(b"PK"):
        return _read_zip(source, path)
    return _read_legacy(source, path)


def _broken(source: Source, path: str, container: str, problems: Sequence[ReadProblem]) -> TorchFile:
    return TorchFile(path, source.size, container, None, readable=False, problems=tuple(problems))


def _read_zip(source: Source, path: str) -> TorchFile:
    directory = read_zip_directory(source)
    if not directory.entries:
        nothing = ReadProblem("no-pickle", "the zip archive holds nothing")
        return _broken(source, path, "zip", directory.problems or (nothing,))
    root = directory.entries[0].name.partition("/")[0]
    # torch looks names up without regard to case.
    entries = {e.name.lower(): e for e in directory.entries}
    prefix = f"{root}/".lower()
    container = "torchscript" if f"{prefix}constants.pkl" in entries else "zip"
    problems = [*directory.problems, *_strays(directory, root)]
    try:
        raw, base = _content(source, entries.get(f"{prefix}data.pkl"), root)
        order = _records(source, entries, prefix)
    except FormatError as error:
        code = "no-pickle" if error.offset is None else "record"
        return _broken(source, path, container, [*problems, ReadProblem(code, error.reason, error.offset)])

    def locate(key: str) -> Stored | None:
        entry = entries.get(f"{prefix}data/{key}".lower())
        return None if entry is None else Stored(entry.data if entry.method == STORED else None, entry.nbytes)

    builder = TorchBuilder(locate, source.read, byteorder=order)
    result = unpickle(raw, builder, stream=f"{root}/data.pkl", base=base)
    problems += [*result.problems, *builder.problems]
    return TorchFile(
        path, source.size, container, result.value, result.globals, result.protocol, result.readable, tuple(problems)
    )


def _strays(directory: ZipDirectory, root: str) -> list[ReadProblem]:
    """Entries outside of the archive's one top folder, which torch refuses."""
    stray = next((e for e in directory.entries if e.name.partition("/")[0] != root), None)
    if stray is None:
        return []
    message = f"the entry '{stray.name}' lies outside of the folder '{root}' that holds all others"
    return [ReadProblem("directory", message, stray.header, stray.name)]


def _content(source: Source, entry: ZipEntry | None, root: str) -> tuple[bytes, int]:
    """The bytes of the pickle, and where they start in the file."""
    if entry is None:
        raise FormatError(f"the zip archive has no '{root}/data.pkl', where torch.save keeps the object")
    if entry.data is None:
        raise FormatError(f"the pickle '{entry.name}' can't be found in the file", entry.header)
    if entry.nbytes > MAX_NBYTES or entry.packed > MAX_NBYTES:
        raise FormatError(
            f"the pickle '{entry.name}' takes {entry.nbytes:,} bytes, more than the {MAX_NBYTES:,} read", entry.data
        )
    return _bytes_of(source, entry, entry.data), entry.data


def _bytes_of(source: Source, entry: ZipEntry, at: int) -> bytes:
    """The content of a small entry, decompressed where torch would do so."""
    raw = source.read(at, entry.packed)
    if entry.method == DEFLATED:
        raw = _inflated(raw, entry)
    elif entry.method != STORED:
        raise FormatError(f"'{entry.name}' is compressed with method {entry.method}, which torch can't read", at)
    if len(raw) != entry.nbytes:
        raise FormatError(f"'{entry.name}' has {len(raw):,} bytes where {entry.nbytes:,} are announced", at)
    return raw


def _inflated(raw: bytes, entry: ZipEntry) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, entry.nbytes + 1)
    except zlib.error as error:
        raise FormatError(f"'{entry.name}' can't be decompressed: {error}", entry.data) from None


def _records(source: Source, entries: dict[str, ZipEntry], prefix: str) -> str:
    """The byte order, `little` or `big`, once the small records that torch reads before the pickle make sense."""
    version = entries.get(f"{prefix}version") or entries.get(f"{prefix}.data/version")
    if version is None:
        raise FormatError(f"the zip archive has no '{prefix}version', which torch.save always writes")
    serial = entries.get(f"{prefix}.data/serialization_id")
    if serial and serial.data and not source.read(serial.data, min(serial.packed, 64)).isascii():
        raise FormatError(f"the record '{serial.name}' is no text", serial.data)
    order = "little"
    for entry in (
        version,
        *(entries.get(prefix + name) for name in (".format_version", ".storage_alignment", "byteorder")),
    ):
        if entry is None or entry.data is None or entry.nbytes > _MAX_RECORD_NBYTES:
            continue
        content = _bytes_of(source, entry, entry.data).strip()
        if entry.name.lower().endswith("byteorder"):
            if content not in (b"little", b"big"):
                raise FormatError(
                    f"the record '{entry.name}' says {content!r}, where it says little or big", entry.data
                )
            order = content.decode()
        elif not content.isdigit():
            raise FormatError(f"the record '{entry.name}' says {content!r}, where it holds a number", entry.data)
    return order


def _read_legacy(source: Source, path: str) -> TorchFile:
    raw = source.read(0, min(source.size, MAX_NBYTES))
    first = unpickle(raw, TorchBuilder(), stream=_LEGACY_PICKLES[0])
    if not first.readable or first.value != LEGACY_MAGIC:
        return _bare_pickle(source, path, raw)
    # The keys of the storages, and so their places, come after the object that refers to them: it is read twice.
    builder = TorchBuilder(locate=lambda _: Stored(None, -1))
    streams = _streams(raw, first, builder)
    if len(streams) < len(_LEGACY_PICKLES) or not streams[-1].readable:
        return _legacy_file(source, path, streams, streams[-1].problems)
    if streams[1].value != LEGACY_PROTOCOL:
        message = f"the file says that it follows protocol {streams[1].value!r}; torch knows {LEGACY_PROTOCOL:,} only"
        return _legacy_file(source, path, streams, [ReadProblem("not-torch", message, first.end)])
    places, problems = _places(source, streams[-1], builder.storages)
    builder = TorchBuilder(places.get, source.read)
    again = unpickle(raw, builder, stream=_LEGACY_PICKLES[3], start=streams[2].end)
    return _legacy_file(source, path, [*streams[:3], again, streams[4]], [*problems, *builder.problems])


def _streams(raw: bytes, first: Unpickled, builder: TorchBuilder) -> list[Unpickled]:
    """The five pickles, up to the first that breaks."""
    streams = [first]
    for name in _LEGACY_PICKLES[1:]:
        if not streams[-1].readable:
            break
        streams.append(unpickle(raw, builder, stream=name, start=streams[-1].end))
    return streams


def _places(
    source: Source, keys: Unpickled, storages: dict[str, Storage]
) -> tuple[dict[str, Stored], list[ReadProblem]]:
    """Where each storage lies: an element count of 8 bytes, then the elements, in the order of the keys."""
    places: dict[str, Stored] = {}
    problems: list[ReadProblem] = []
    at = keys.end
    for key in keys.value if isinstance(keys.value, list) else []:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            problems.append(
                ReadProblem("storage-size", f"the storage '{key}' belongs to no tensor, so its size is unknown", at)
            )
            break
        count = int.from_bytes(source.read(at, _COUNT_NBYTES), "little", signed=True)
        itemsize = DTYPE_BITS[storage.dtype] // 8 if storage.dtype else 1
        nbytes = count * itemsize
        if at + _COUNT_NBYTES > source.size or (nbytes == storage.nbytes and at + _COUNT_NBYTES + nbytes > source.size):
            message = (
                f"the file was cut short: the storage '{key}' of {storage.nbytes:,} bytes starts at byte {at:,}, and the "
                f"file ends at {source.size:,}"
            )
            problems.append(ReadProblem("cut-short", message, at, key))
            break
        places[key] = Stored(at + _COUNT_NBYTES, nbytes)
        if nbytes != storage.nbytes:
            break  # the builder reports the size; what follows can't be found
        at += _COUNT_NBYTES + nbytes
    missing = (
        {k: Stored(None, s.nbytes) for k, s in storages.items() if k not in places}
        if problems or len(places) < len(storages)
        else {}
    )
    return missing | places, problems


def _legacy_file(source: Source, path: str, streams: list[Unpickled], problems: Sequence[ReadProblem]) -> TorchFile:
    found: tuple[GlobalRef, ...] = tuple(g for s in streams for g in s.globals)
    whole = len(streams) == len(_LEGACY_PICKLES) and all(s.readable for s in streams)
    value = streams[3].value if whole else None
    return TorchFile(path, source.size, "legacy", value, found, streams[-1].protocol, whole, tuple(problems))


def _bare_pickle(source: Source, path: str, raw: bytes) -> TorchFile:
    if not raw.startswith(b"\x80"):
        message = "the file is neither a zip archive nor a pickle, so torch.save did not write it"
        return _broken(source, path, "unknown", [ReadProblem("not-torch", message, 0)])
    result = unpickle(raw, TorchBuilder(), stream="pickle")
    problems = list(result.problems)
    if not problems and not path.lower().endswith((".pkl", ".pickle")):
        message = (
            "the file is a bare pickle without torch's magic number: pickle.dump wrote it, and torch.load refuses it"
        )
        problems.append(ReadProblem("not-torch", message, 0))
    if result.readable and result.end < source.size:
        message = f"{source.size - result.end:,} bytes follow the end of the pickle"
        problems.append(ReadProblem("trailing-data", message, result.end, fatal=False))
    return TorchFile(
        path, source.size, "pickle", result.value, result.globals, result.protocol, result.readable, tuple(problems)
    )
