"""Zip files that `torch.save` (torch >= 1.6) wrote: `<root>/data.pkl` refers to storages `<root>/data/<key>`.

Source: torch/serialization.py, caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass

from ckpt_rules.facts.tensors import TorchFile
from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.readers.pickle.enclosed import Enclosed, Window
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.pickle.repeated import Pickle
from ckpt_rules.readers.pickle.unmarked import looks_loadable
from ckpt_rules.readers.torch.cut_archive import read_cut_zip
from ckpt_rules.readers.torch.disguises import may_hold_objects
from ckpt_rules.readers.torch.objects import Stored, TorchBuilder
from ckpt_rules.readers.zip.directory import DEFLATED, LOCAL_SIGNATURE, STORED, ZipEntry, read_zip_directory
from ckpt_rules.readers.zip.methods import UNPACKED_HERE, BadEntry, unpack
from ckpt_rules.readers.zip.oddities import AMBIGUOUS, COMPRESSED, PACKED, note_name
from ckpt_rules.storage import Source

MAX_RECORD_NBYTES = 4_096
HEAD_NBYTES = 1024
NUMPY = b"\x93NUMPY"
MIN_VERSION, MAX_VERSION = 1, 10


@dataclass(frozen=True, slots=True)
class _Archive:
    """The entries by lower-case name without their folder: torch looks names up without regard to case.

    others:  further entries of a name, and those in other folders
    """

    source: Source
    root: str
    entries: dict[str, ZipEntry]
    log: ProblemLog
    budget: Budget
    others: list[ZipEntry]

    def record(self, name: str) -> bytes | None:
        """The content of a small entry; None where there is none."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.nbytes > MAX_RECORD_NBYTES:
            raise Damage("record", f"the record '{entry.name}' takes {entry.nbytes:,} bytes", entry.header, entry.name)
        return _content(self.source, entry, self.budget)

    def locate(self, key: str) -> Stored | None:
        """Where the bytes of a storage lie."""
        entry = self.entries.get(f"data/{key}".lower())
        return None if entry is None else Stored(entry.data if entry.method == STORED else None, entry.nbytes)


def read_zip(source: Source, path: str, budget: Budget) -> tuple[TorchFile, list[Enclosed]]:
    """What a zip file by torch.save holds, and what else in it a loader could be pointed at."""
    log, room = ProblemLog(), budget.room
    entries = read_zip_directory(source, log, budget)
    directory = room - budget.room
    container, result, enclosed, byteorder = "zip", None, list[Enclosed](), "little"
    if entries:
        if (begin := source.read(0, len(LOCAL_SIGNATURE))) != LOCAL_SIGNATURE:
            message = (
                f"the file begins with {begin!r} and not with a zip entry, so torch.load takes it for a bare pickle"
            )
            log.add("not-torch", message, 0)
        archive = _open(source, entries, log, budget)
        container = "torchscript" if any(_is_constants(name) for name in archive.entries) else "zip"
        result, byteorder, storages = _read_pickle(archive)
        enclosed = _others(archive, storages, is_script=container == "torchscript")
        if container == "zip" and result is not None:
            _check_compressed(archive)
    elif log.fatal:
        result = read_cut_zip(source, log, budget)
    else:
        log.add("no-pickle", "the zip archive holds nothing")
    budget.room += directory
    problems = log.all()
    if result is None:
        return TorchFile(path, source.size, container, None, readable=False, problems=problems), enclosed
    file = TorchFile(
        path,
        source.size,
        container,
        result.value,
        result.globals,
        result.protocol,
        result.readable,
        problems,
        byteorder=byteorder,
    )
    return file, [*result.enclosed, *enclosed]


def _open(source: Source, entries: list[ZipEntry], log: ProblemLog, budget: Budget) -> _Archive:
    """The entries under the archive's one top folder, that of its first entry."""
    root = entries[0].name.partition("/")[0]
    found: dict[str, ZipEntry] = {}
    others: list[ZipEntry] = []
    for entry in entries:
        note_name(entry.name, entry.header, log)
        folder, _, name = entry.name.partition("/")
        if folder != root:
            message = f"the entry '{entry.name}' lies outside of the folder '{root}' that holds all others"
            log.add("directory", message, entry.header, entry.name)
            others.append(entry)
        elif name.lower() in found:
            message = f"the zip directory lists '{entry.name}' twice, and readers differ in which they take"
            log.add(AMBIGUOUS, message, entry.header, entry.name)
            others.append(entry)
        else:
            found[name.lower()] = entry
    return _Archive(source, root, found, log, budget, others)


def _read_pickle(archive: _Archive) -> tuple[Unpickled | None, str, Collection[str]]:
    """What `data.pkl` holds, the byte order of the storages, and the names of those that it refers to."""
    log, entry = archive.log, archive.entries.get("data.pkl")
    if entry is None:
        log.add("no-pickle", f"the zip archive has no '{archive.root}/data.pkl', where torch.save keeps the object")
        return None, "little", ()
    byteorder = _check_records(archive)
    try:
        raw = _content(archive.source, entry, archive.budget)
    except Damage as damage:
        log.note(damage)
        return None, byteorder, ()
    if entry.crc and zlib.crc32(raw) != entry.crc:
        message = f"the bytes of '{entry.name}' do not have the checksum 0x{entry.crc:08x} that was stored with them"
        log.add("crc", message, entry.data, entry.name, fatal=False)
    result, storages = _unpickled(archive, raw, byteorder, entry.data or 0)
    log.extend(result.problems)
    if result.readable:
        log.extend([result.refused] if result.refused else [])
        if result.end < len(raw):
            message = f"{len(raw) - result.end:,} bytes follow the end of the pickle in '{entry.name}'"
            log.add("trailing-data", message, (entry.data or 0) + result.end, entry.name, fatal=False)
        _check_unused(archive, storages)
        _check_compressed_storages(archive, storages)
    return result, byteorder, storages


def _unpickled(archive: _Archive, raw: bytes, byteorder: str, base: int) -> tuple[Unpickled, Collection[str]]:
    """What a pickle holds, and the names of its storages."""
    budget, log, noted = archive.budget, archive.log, archive.log.all()
    pickle = Pickle(raw, archive.root, byteorder, budget, archive.source.read)
    if known := pickle.known(archive.locate):
        return known.result, known.stored
    builder = TorchBuilder(archive.locate, pickle.read, log, byteorder=byteorder, limits=budget.limits)
    budget.room -= len(raw)  # while values are built from them
    result = unpickle(raw, builder, stream=f"{archive.root}/data.pkl", budget=budget, base=base)
    budget.room += len(raw)
    if log.all() == noted:
        pickle.keep(result, {key: archive.locate(key) for key in builder.storages})
    return result, builder.storages


def _others(archive: _Archive, storages: Collection[str], *, is_script: bool) -> list[Enclosed]:
    """Entries that hold something loadable, but for `data.pkl` and the storages that it refers to."""
    known = {*_USUAL, *(f"data/{key}".lower() for key in storages)}
    entries = [*archive.others, *(entry for name, entry in archive.entries.items() if name not in known)]
    is_torch, most = "data.pkl" in archive.entries, archive.budget.limits.enclosed
    found = list[Enclosed]()
    for entry in entries:
        if entry.method not in UNPACKED_HERE and entry.nbytes:
            message = f"'{entry.name}' is compressed with method {entry.method}, which is not unpacked here"
            archive.log.add(
                PACKED, f"{message}: what a loader would run was not seen", entry.header, entry.name, fatal=False
            )
            continue
        try:
            enclosed = None if entry.data is None else _loadable(archive, entry)
        except Damage as damage:
            archive.log.add(damage.code, damage.reason, damage.offset, entry.name, fatal=False)
            continue
        if enclosed is None:
            continue
        if len(found) >= most:
            what = f"the zip archive has more than {most:,} entries beside those of torch.save that are loadable"
            archive.log.note(LimitError.past("enclosed", what))
            break
        by_design = _is_of_a_script(entry.name) if is_script else not is_torch
        found.append(enclosed._replace(usual=by_design))
    return found


def _loadable(archive: _Archive, entry: ZipEntry) -> Enclosed | None:
    """An entry that a loader could unpickle; one that is stored as it is stays in the file."""
    head = _start(archive.source, entry)
    if not looks_loadable(head, entry.nbytes) or (head.startswith(NUMPY) and not may_hold_objects(head)):
        return None
    if entry.method == STORED:
        part: bytes | Window = Window(archive.source, entry.data or 0, entry.packed)
    else:
        archive.budget.charge(entry.nbytes, f"'{entry.name}'")
        part = _content(archive.source, entry, archive.budget)
    return Enclosed(entry.name, entry.data or 0, part)


def _is_of_a_script(name: str) -> bool:
    """Whether TorchScript writes a pickle of this name beside `data.pkl`."""
    _, _, inside = name.partition("/")
    return inside == "constants.pkl" or (inside.startswith("code/") and inside.endswith(".debug_pkl"))


def _start(source: Source, entry: ZipEntry) -> bytes:
    raw = source.read(entry.data or 0, min(entry.packed, HEAD_NBYTES))
    try:
        return unpack(raw, entry.method, HEAD_NBYTES)
    except BadEntry as error:
        raise Damage("entry-header", f"'{entry.name}' can't be decompressed: {error}", entry.data) from None


def _check_compressed(archive: _Archive) -> None:
    packed = [e for e in archive.entries.values() if e.method == DEFLATED]
    if packed:
        message = (
            f"{len(packed):,} entries are compressed, such as '{packed[0].name}'; torch.save stores them as they are"
        )
        archive.log.add(COMPRESSED, message, packed[0].header, packed[0].name, fatal=False)


def _check_unused(archive: _Archive, storages: Collection[str]) -> None:
    used = {f"data/{key}".lower() for key in storages}
    unused = [e for name, e in archive.entries.items() if name.startswith("data/") and e.nbytes and name not in used]
    if unused:
        nbytes = sum(entry.nbytes for entry in unused)
        message = f"{len(unused):,} storages with {nbytes:,} bytes belong to no tensor, such as '{unused[0].name}'"
        archive.log.add("storage-unused", message, unused[0].header, unused[0].name, fatal=False)


def _check_compressed_storages(archive: _Archive, storages: Collection[str]) -> None:
    """Note storages that can't be decompressed: torch.save compresses none, so that what is read is little."""
    left = archive.budget.limits.structure * MIB
    for key in storages:
        entry = archive.entries.get(f"data/{key}".lower())
        if entry is None or entry.data is None or entry.method != DEFLATED:
            continue
        left -= entry.nbytes
        if left < 0:
            what = "the compressed storages take more than the bytes that are read"
            archive.log.note(LimitError.past("structure", what, entry.data))
            return
        try:
            _content(archive.source, entry, archive.budget)
        except Damage as damage:
            archive.log.note(damage)


def _check_records(archive: _Archive) -> str:
    """The byte order, `little` or `big`; notes what does not make sense in the small records that torch reads first."""
    byteorder = "little"
    for name, check in _RECORDS:
        try:
            content = archive.record(name)
        except Damage as damage:
            archive.log.note(damage)
            continue
        if content is not None and (wrong := check(content)):
            entry = archive.entries[name]
            archive.log.add("record", f"'{entry.name}' says {content!r:.40}, {wrong}", entry.data, entry.name)
        elif content is not None and name == "byteorder":
            byteorder = content.decode()
    if "version" not in archive.entries and ".data/version" not in archive.entries:
        message = f"the zip archive has no '{archive.root}/version', which torch.save always writes"
        archive.log.add("no-pickle", message)
    return byteorder


def _check_version(content: bytes) -> str:
    number = re.match(rb"\s*\+?([0-9]{1,19})", content)
    if number is None or not MIN_VERSION <= int(number[1]) <= MAX_VERSION:
        return f"where torch reads file formats {MIN_VERSION} to {MAX_VERSION}"
    return ""


def _check_number(content: bytes) -> str:
    return "" if content.strip().isdigit() else "where a number belongs"


def _check_byteorder(content: bytes) -> str:
    return "" if content in (b"little", b"big") else "where 'little' or 'big' belongs"


def _check_text(content: bytes) -> str:
    try:
        content.decode()
    except UnicodeDecodeError:
        return "which is not text"
    return ""


def _is_constants(name: str) -> bool:
    """Whether an entry makes an archive one of TorchScript's; torch cuts the names that it lists at a zero byte."""
    return name.partition("\0")[0] == "constants.pkl"


def _check_nothing(_: bytes) -> str:
    return ""


_RECORDS = (
    ("version", _check_version),
    (".data/version", _check_version),
    (".format_version", _check_nothing),
    (".storage_alignment", _check_number),
    ("byteorder", _check_byteorder),
    (".data/serialization_id", _check_text),
)


_USUAL = frozenset({"data.pkl", *(name for name, _ in _RECORDS)})


def _content(source: Source, entry: ZipEntry, budget: Budget) -> bytes:
    """The bytes of an entry that is not storage, decompressed where torch would do so."""
    if entry.data is None:
        raise Damage("no-pickle", f"the bytes of '{entry.name}' can't be found in the file", entry.header, entry.name)
    budget.check_size(max(entry.nbytes, entry.packed), f"'{entry.name}'")
    raw = read_exactly(source, entry.data, entry.packed, entry.name)
    try:
        raw = unpack(raw, entry.method, entry.nbytes + 1)
    except BadEntry as error:
        message = f"'{entry.name}' can't be decompressed: {error}"
        raise Damage("entry-header", message, entry.data, entry.name) from None
    if len(raw) != entry.nbytes:
        message = f"'{entry.name}' has {len(raw):,} bytes where {entry.nbytes:,} are announced"
        raise Damage("entry-header", message, entry.data, entry.name)
    return raw
