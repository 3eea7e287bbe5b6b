"""Flips single bits in clean checkpoints of each format and notes which rules see it: the table of docs/integrity.md.

`python -m tests.deep.bit_flips` writes the table again.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules import seal, verify
from ckpt_rules.deep.facts import located_tensors
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.testing import build_plain_torch

PAGE = Path(__file__).parents[2] / "docs" / "integrity.md"
PART = re.compile(r"(?<=<!-- bit flips -->\n)(?P<table>.*?)(?=<!-- end of bit flips -->)", re.DOTALL)
MOST = 16
"""Bits tried of a region of any length, spread over it."""

SIGN = [(3, 7)]
HIGHEST_EXPONENT = [(3, 6)]
OTHER_EXPONENT = [(3, 5), (3, 4), (3, 3), (3, 2), (3, 1), (3, 0), (2, 7)]
MANTISSA = [(2, 6), (2, 3), (2, 0), (1, 4), (0, 7), (0, 0)]
OF_A_NUMBER = {
    "sign of a weight": SIGN,
    "highest exponent bit of a weight": HIGHEST_EXPONENT,
    "another exponent bit of a weight": OTHER_EXPONENT,
    "mantissa of a weight": MANTISSA,
}


@dataclass(frozen=True)
class Class:
    """Bits of one kind in one file: as (byte, bit)."""

    format: str
    what: str
    path: str
    bits: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Row:
    """What became of the flips of one class.

    seen:   how many of them a deep run without a seal reports
    rules:  the rules that did
    sealed: how many `integrity/digest` reports where the checkpoint is sealed
    """

    kind: Class
    seen: int
    rules: tuple[str, ...]
    sealed: int


def rows(home: Path) -> Iterator[Row]:
    """Every class of every format."""
    for folder, classes in _checkpoints(home):
        clean = _found(folder)
        assert not clean, f"{folder} is clean and {clean} says otherwise"
        for kind in classes:
            yield _tried(folder, kind)


def _checkpoints(home: Path) -> Iterator[tuple[Path, list[Class]]]:
    plain = Path(build_plain_torch(home / "plain").path)
    yield plain, [*_safetensors(plain), *_zip(plain)]
    legacy = Path(build_plain_torch(home / "legacy", legacy=True).path)
    yield legacy, list(_legacy(legacy))
    distributed = home / "distributed"
    torch.manual_seed(1)
    state = {"model": {"layer.weight": torch.randn(32, 16) * 0.02, "layer.bias": torch.zeros(32)}, "step": 3}
    # A relative path, for it becomes a part of `.metadata`.
    with warnings.catch_warnings(), contextlib.chdir(home):
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=distributed.name, no_dist=True)
    yield distributed, list(_distributed(distributed))


def _safetensors(folder: Path) -> Iterator[Class]:
    name, path = "safetensors", "model.safetensors"
    raw = (folder / path).read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    text = len(raw[:end].rstrip(b" "))
    yield Class(name, "length of the header", path, _spread(0, 8))
    yield Class(name, "header", path, _spread(8, text))
    if text < end:
        yield Class(name, "padding of the header", path, _spread(text, end))
    yield from _numbers(folder, name, path)


def _zip(folder: Path) -> Iterator[Class]:
    name, path = "torch.save", "training_state.pth"
    with zipfile.ZipFile(folder / path) as archive:
        spans = [(i, *_content(archive, i)) for i in archive.infolist()]
        directory = archive.start_dir
    first = spans[0][0]
    pickle = next((start, stop) for info, start, stop in spans if info.filename.endswith("data.pkl"))
    storage, start, _ = next(span for span in spans if "/data/" in span[0].filename)
    padding = storage.header_offset + 30 + len(storage.filename)
    yield Class(
        name, "header of an entry", path, _spread(first.header_offset, first.header_offset + 30 + len(first.filename))
    )
    yield Class(name, "alignment of an entry", path, _spread(padding + 4, start))
    yield Class(name, "pickle", path, _spread(*pickle))
    yield Class(name, "directory", path, _spread(directory, (folder / path).stat().st_size))
    yield from _numbers(folder, name, path)


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, int]:
    archive.fp.seek(info.header_offset + 26)
    lengths = archive.fp.read(4)
    start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return start, start + info.compress_size


def _legacy(folder: Path) -> Iterator[Class]:
    name, path = "torch.save before 1.6", "training_state.pth"
    offsets = sorted(b.offset for t in located_tensors(checkpoint_at(folder)) if t.path == path for b in t.blocks)
    yield Class(name, "pickles", path, _spread(0, offsets[0] - 8))
    yield Class(name, "number of elements", path, _spread(offsets[0] - 8, offsets[0]))
    yield from _numbers(folder, name, path)


def _distributed(folder: Path) -> Iterator[Class]:
    name, path = "distributed checkpoint", "__0_0.distcp"
    item = next(i for i in checkpoint_at(folder).files.distributed().items if i.name == "model.layer.weight")
    block = next(t.blocks[0] for t in located_tensors(checkpoint_at(folder)) if t.name == "model.layer.weight")
    yield Class(name, ".metadata", ".metadata", _spread(0, (folder / ".metadata").stat().st_size))
    yield Class(name, "headers and pickle of a chunk", path, _spread(item.offset, block.offset))
    yield Class(name, "directory of a chunk", path, _spread(block.offset + block.nbytes, item.offset + item.nbytes))
    yield from _numbers(folder, name, path)


def _numbers(folder: Path, name: str, path: str) -> Iterator[Class]:
    """Bits of the first, a middle and the last element of a matrix of float32 weights in a file."""
    blocks = [
        t.blocks[0]
        for t in located_tensors(checkpoint_at(folder))
        if len(t.shape) == 2
        and t.dtype == "float32"
        and t.blocks
        and t.blocks[0].path == path
        and "exp_avg" not in t.name
    ]
    if not blocks:  # the training state: its moments stand for weights
        blocks = [
            t.blocks[0]
            for t in located_tensors(checkpoint_at(folder))
            if t.name.endswith("exp_avg") and len(t.shape) == 2
        ]
    block = blocks[0]
    elements = [block.offset, block.offset + block.nbytes // 8 * 4, block.offset + block.nbytes - 4]
    for what, bits in OF_A_NUMBER.items():
        told = what if "exp_avg" not in path and path != "training_state.pth" else what.replace("weight", "moment")
        yield Class(name, told, path, tuple((element + byte, bit) for element in elements for byte, bit in bits))


def _spread(start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Bits spread evenly over bytes `start` to `stop`."""
    count = min(MOST, 8 * (stop - start))
    return tuple(
        (start + bit // 8, bit % 8)
        for bit in (8 * (stop - start) * i // count + i % 8 for i in range(count))
        if start + bit // 8 < stop
    )


def _tried(folder: Path, kind: Class) -> Row:
    seen, rules, sealed = 0, set(), 0
    for byte, bit in kind.bits:
        found = _found(_flipped(folder, kind.path, byte, bit))
        rules |= found
        seen += bool(found)
        damaged = _flipped(folder, kind.path, byte, bit, with_seal=True)
        sealed += verify(damaged, select="integrity/digest", ruleset="deep").verdict == "failed"
    return Row(kind, seen, tuple(sorted(rules)), sealed)


def _flipped(folder: Path, path: str, byte: int, bit: int, *, with_seal: bool = False) -> Path:
    copy = folder.with_name(f"{folder.name}-flipped")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    if with_seal:
        seal(copy)
    raw = bytearray((copy / path).read_bytes())
    raw[byte] ^= 1 << bit
    (copy / path).write_bytes(raw)
    return copy


def _found(folder: Path) -> set[str]:
    return {f.rule for f in verify(folder, ruleset="deep").findings if f.severity != "info"}


def table(found: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| format | a flipped bit in the | seen without a seal | by | seen with a seal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in found:
        kind, bits = row.kind, len(row.kind.bits)
        shown = ", ".join(f"`{r}`" for r in row.rules) or "nothing: a changed value can't be told from a trained one"
        lines.append(f"| {kind.format} | {kind.what} | {row.seen} of {bits} | {shown} | {row.sealed} of {bits} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """The table as the page has it."""
    found = PART.search(PAGE.read_text("utf-8"))
    assert found, f"{PAGE} has no place for the table"
    return found["table"].strip() + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        new = table(list(rows(Path(home))))
    PAGE.write_text(PART.sub(lambda _: f"\n{new}\n", PAGE.read_text("utf-8")), encoding="utf-8")
    sys.stdout.write(new)
