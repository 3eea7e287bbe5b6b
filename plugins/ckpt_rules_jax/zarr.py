"""Arrays of zarr, versions 2 and 3, by their `.zarray` or `zarr.json`: which chunks there are, and how each is packed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ckpt_rules import DTYPE_BITS

DESCRIBES = (".zarray", "zarr.json")
MOST_CHUNKS = 100_000
_V2_DTYPE = re.compile(r"[<>|][biufc](\d{1,4})")
_SEPARATORS = (".", "/")
_LARGEST, _MOST_SIDES = 1 << 62, 32


@dataclass(frozen=True, slots=True)
class Shards:
    """Version 3: a chunk holds `inner` smaller ones, and ends with their places: 16 bytes for each, and a checksum if `crc`."""

    inner: int
    crc: bool


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """One array.

    name:    what its keys begin with, `params.w`
    chunks:  how many there are along each dimension
    prefix, separator: how the keys of chunks are made of their numbers
    nbytes:  of an unpacked chunk, or of an inner one; None where the dtype is not known
    codec:   `zstd`, `none`, or None for one that is not looked into
    """

    name: str
    chunks: tuple[int, ...]
    prefix: str
    separator: str
    nbytes: int | None
    codec: str | None
    shards: Shards | None = None

    def chunk_keys(self) -> Iterator[str]:
        """The keys of its chunks, the first hundred thousand."""
        first = f"{self.name}/" if self.name else ""
        for number in range(min(prod(self.chunks), MOST_CHUNKS)):
            index, rest = [], number
            for side in reversed(self.chunks):
                rest, place = divmod(rest, side)
                index.append(str(place))
            numbers = self.separator.join(reversed(index))
            yield first + (
                f"{self.prefix}{self.separator}{numbers}" if self.prefix and index else numbers or self.prefix
            )


def array_of(name: str, values: object) -> ZarrArray | None:
    """The array that a JSON value describes; None where it is not valid."""
    if not isinstance(values, Mapping):
        return None
    return _version_3(name, values) if values.get("zarr_format") == 3 else _version_2(name, values)


def _version_2(name: str, values: Mapping[str, object]) -> ZarrArray | None:
    sides = _sides(values.get("shape"), chunk := values.get("chunks"))
    if sides is None:
        return None
    dtype = values.get("dtype")
    code = _V2_DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    item = int(code[1]) if code else _itemsize(dtype)
    packer = values.get("compressor")
    codec = "none" if packer is None else "zstd" if isinstance(packer, Mapping) and packer.get("id") == "zstd" else None
    if values.get("filters"):
        codec = None
    separator = values.get("dimension_separator", ".")
    if separator not in _SEPARATORS:
        return None
    return ZarrArray(name, sides or (1,), "", str(separator), _nbytes(chunk, item), codec)


def _version_3(name: str, values: Mapping[str, object]) -> ZarrArray | None:
    grid, encoding = _settings(values.get("chunk_grid")), values.get("chunk_key_encoding")
    sides = _sides(values.get("shape"), outer := grid.get("chunk_shape"))
    if sides is None or not isinstance(encoding, Mapping) or encoding.get("name") != "default":
        return None
    separator = _settings(encoding).get("separator", "/")
    if separator not in _SEPARATORS:
        return None
    codecs, inner, shards = values.get("codecs"), outer, None
    if isinstance(codecs, list) and len(codecs) == 1 and _name(codecs[0]) == "sharding_indexed":
        settings = _settings(codecs[0])
        codecs, inner = settings.get("codecs"), settings.get("chunk_shape")
        shards = _shards(outer, inner, settings)
        if shards is None:
            codecs = None
    nbytes = _nbytes(inner, _itemsize(values.get("data_type")))
    return ZarrArray(name, sides, "c", str(separator), nbytes, _codec(codecs), shards)


def _shards(outer: object, inner: object, settings: Mapping[str, object]) -> Shards | None:
    sides, index = _sides(outer, inner), settings.get("index_codecs")
    names = [_name(c) for c in index] if isinstance(index, list) else None
    if sides is None or names not in (["bytes"], ["bytes", "crc32c"]) or settings.get("index_location", "end") != "end":
        return None
    return Shards(prod(sides), len(names) == 2)


def _codec(codecs: object) -> str | None:
    names = [_name(c) for c in codecs] if isinstance(codecs, list) else []
    return {("bytes",): "none", ("bytes", "zstd"): "zstd"}.get(tuple(map(str, names)))


def _name(codec: object) -> object:
    return codec.get("name") if isinstance(codec, Mapping) else None


def _settings(value: object) -> Mapping[str, object]:
    found = value.get("configuration") if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _sides(shape: object, chunk: object) -> tuple[int, ...] | None:
    """How many chunks there are along each dimension; None where the two are not valid."""
    if not (isinstance(shape, list) and isinstance(chunk, list) and len(shape) == len(chunk) <= _MOST_SIDES):
        return None
    if not all(type(n) is int and 0 <= n < _LARGEST for n in (*shape, *chunk)) or 0 in chunk:
        return None
    return tuple(-(-whole // part) for whole, part in zip(shape, chunk, strict=True))


def _itemsize(dtype: object) -> int | None:
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    return bits // 8 if bits and not bits % 8 else None


def _nbytes(chunk: object, item: int | None) -> int | None:
    return prod(chunk) * item if isinstance(chunk, list) and item and all(type(n) is int for n in chunk) else None
