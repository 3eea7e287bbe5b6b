"""What torch accepts in a zip archive and another reader understands otherwise: the places where things are hidden.

torch goes by the central directory alone. Python's `zipfile`, scanners and unpackers look at the entries' own headers, at
the order of the entries, and at what lies between and behind them.
"""

from __future__ import annotations

import re

from ckpt_rules.readers.damage import ProblemLog

AMBIGUOUS, TRAVERSAL, COMPRESSED, PACKED = "ambiguous", "traversal", "compressed", "packed"

ENCRYPTED_OR_PATCHED = 0x2061
SEE_ZIP64 = 0xFFFFFFFF
_NUMBERS_FOLLOW = 0x8  # checksum and sizes stand behind the content, and the header holds zeros
_DESCRIPTOR_NBYTES = 24

_OUTSIDE = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:")

Listed = tuple[bytes, int, int, int, int, int, int, int]
"""What the directory says of one entry: name, flags, method, CRC, sizes packed and not, attributes, header offset."""


def note_contradiction(
    name: str, at: int, listed: Listed, own: tuple[int, ...], own_name: bytes, log: ProblemLog
) -> None:
    """Note what an entry's own header, its fields `own`, says otherwise than the directory."""
    raw_name, flags, method, crc, packed, nbytes, _, _ = listed
    _, _, own_flags, own_method, _, _, *own_numbers, _, _ = own
    if own_name != raw_name:
        message = f"the entry's own header calls it '{own_name.decode('utf-8', 'replace')}'"
    elif own_method != method:
        message = f"the entry's own header gives the compression method {own_method}, the directory {method}"
    elif (own_flags ^ flags) & ENCRYPTED_OR_PATCHED:
        message = "the entry's own header and the directory differ in whether it is encrypted"
    elif not own_flags & _NUMBERS_FOLLOW and SEE_ZIP64 not in own_numbers and own_numbers != [crc, packed, nbytes]:
        said = f"checksum 0x{own_numbers[0]:08x} and {own_numbers[1]:,} bytes"
        message = f"the entry's own header gives {said}, the directory 0x{crc:08x} and {packed:,}"
    else:
        return
    log.add(AMBIGUOUS, message, at, name, fatal=False)


def note_strays(spans: list[tuple[str, int, int]], directory: int, log: ProblemLog) -> None:
    """Note bytes before and between entries, each a name with its first byte and the one behind it."""
    end = 0
    for name, begin, behind in sorted(spans, key=lambda span: span[1]):
        _note_gap(end, begin, f"before '{name}'", log)
        end = behind
    _note_gap(end, directory, "before the zip directory", log)


def note_rest(nbytes: int, size: int, log: ProblemLog) -> None:
    """Note bytes that follow the end record."""
    if nbytes:
        log.add(AMBIGUOUS, f"{nbytes:,} bytes follow the end of the zip archive", size - nbytes, fatal=False)


def _note_gap(end: int, start: int, where: str, log: ProblemLog) -> None:
    most = _DESCRIPTOR_NBYTES if end else 0
    if start - end > most:
        message = f"{start - end:,} bytes {where} belong to no entry of the zip archive"
        log.add(AMBIGUOUS, message, end, fatal=False)


def note_name(name: str, at: int, log: ProblemLog) -> None:
    """Note a name that leads out of the directory into which the archive is unpacked."""
    suspicious = ".." in name or name[:1] in ("/", "\\") or name[1:2] == ":"  # the expression takes three times as long
    if suspicious and _OUTSIDE.search(name):
        log.add(TRAVERSAL, f"unpacked, the entry '{name}' would land outside of its directory", at, name, fatal=False)
