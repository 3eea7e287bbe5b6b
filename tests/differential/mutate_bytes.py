"""Mutations that know nothing of the format: what disks, copies and cut-off writes do."""

from __future__ import annotations

from random import Random

ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
LENGTHS = (1, 1, 2, 4, 8, 16, 64)
NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    8,
    16,
    127,
    128,
    255,
    256,
    4095,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutate_bytes(rng: Random, data: bytes, other: bytes) -> bytes:
    """A few random changes; `other` is where foreign bytes come from."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not raw:
            break
        rng.choice(_CHANGES)(rng, raw, other)
    return bytes(raw)


def odd_number(rng: Random, value: int) -> int:
    """A number that is near the given one, or at the edge of some size."""
    near = value + rng.choice((-8, -4, -1, 1, 4, 8))
    return rng.choice((near, near, value * 2, value // 2, value ^ (1 << rng.randrange(64)), rng.choice(NUMBERS)))


def _flip(rng: Random, raw: bytearray, other: bytes) -> None:
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def _set(rng: Random, raw: bytearray, other: bytes) -> None:
    raw[rng.randrange(len(raw))] = rng.choice((*ODD_BYTES, rng.randrange(256)))


def _run(rng: Random, raw: bytearray, other: bytes) -> None:
    at, length = rng.randrange(len(raw)), rng.choice(LENGTHS)
    raw[at : at + length] = bytes([rng.choice((0, 0xFF))]) * min(length, len(raw) - at)


def _number(rng: Random, raw: bytearray, other: bytes) -> None:
    at, width = rng.randrange(len(raw)), rng.choice((1, 2, 4, 8))
    old = int.from_bytes(raw[at : at + width], "little")
    new = odd_number(rng, old) % (1 << 8 * width)
    raw[at : at + width] = new.to_bytes(width, "little")[: len(raw) - at]


def _cut(rng: Random, raw: bytearray, other: bytes) -> None:
    del raw[rng.randrange(len(raw)) :]


def _cut_front(rng: Random, raw: bytearray, other: bytes) -> None:
    del raw[: rng.choice(LENGTHS)]


def _delete(rng: Random, raw: bytearray, other: bytes) -> None:
    at = rng.randrange(len(raw))
    del raw[at : at + rng.choice(LENGTHS)]


def _insert(rng: Random, raw: bytearray, other: bytes) -> None:
    at, length = rng.randrange(len(raw) + 1), rng.choice(LENGTHS)
    raw[at:at] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))


def _repeat(rng: Random, raw: bytearray, other: bytes) -> None:
    at = rng.randrange(len(raw))
    raw[at:at] = raw[at : at + rng.choice(LENGTHS)]


def _splice(rng: Random, raw: bytearray, other: bytes) -> None:
    source = rng.choice((bytes(raw), other)) or b"\0"
    start, at = rng.randrange(len(source)), rng.randrange(len(raw))
    piece = source[start : start + rng.choice((*LENGTHS, 256, len(source)))]
    raw[at : at + rng.choice((0, len(piece)))] = piece


def _append(rng: Random, raw: bytearray, other: bytes) -> None:
    raw += rng.choice((b"\0", bytes(64), other))


_CHANGES = (
    _flip, _flip, _flip, _set, _set, _run, _number, _number, _cut, _cut_front, _delete, _insert, _repeat, _splice, _append,
)  # fmt: skip
