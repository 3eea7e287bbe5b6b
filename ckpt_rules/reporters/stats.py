"""The values of tensors as a table for people, or as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckpt_rules.printable import printable, sentence

if TYPE_CHECKING:
    from ckpt_rules.tensor_stats.model import CheckpointStats, TensorStats

_NUMBERS = ("min", "max", "mean", "norm", "zeros", "not finite")
_FIELDS = (
    "path", "tensor", "dtype", "shape", "numel", "nan", "inf", "first", "smallest", "largest", "mean", "peak", "norm", "zeros",
    "constant", "unread",
)  # fmt: skip


def render(stats: CheckpointStats) -> str:
    """One line for each tensor, under the name of its file; numbers stand under one another."""
    rows = [_row(t) for t in stats.tensors]
    heads = ["tensor", "dtype", "shape", *_NUMBERS]
    widths = [max(map(len, column)) for column in zip(heads, *(cells for cells, _ in rows), strict=True)]
    lines = [_line(heads, widths)]
    path = None
    for tensor, (cells, note) in zip(stats.tensors, rows, strict=True):
        if tensor.path != path:
            path = tensor.path
            lines += ["", printable(path)]
        lines.append(f"{_line(cells, widths)}{note}".rstrip())
    lines += ["", _summary(stats)]
    lines += [f"not all of {printable(path)} could be read: {sentence(why)}" for path, why in stats.faults.items()]
    lines += [f"{n.severity.value}: {sentence(n.message)}" for n in stats.notices]
    return "\n".join(lines) + "\n"


def _line(cells: list[str], widths: list[int]) -> str:
    texts = [
        f"{cell:<{width}}" if i < 3 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(texts).rstrip()


def _row(tensor: TensorStats) -> tuple[list[str], str]:
    """The cells of a tensor, and what is said behind them."""
    names = [printable(tensor.tensor), tensor.dtype, "x".join(map(str, tensor.shape)) or "-"]
    if tensor.unread is not None:
        return [*names, *[""] * len(_NUMBERS)], f"  {printable(tensor.unread)}"
    zeros = "" if tensor.zeros is None else _share(tensor.zeros)
    numbers = [_number(v) for v in (tensor.smallest, tensor.largest, tensor.mean, tensor.norm)]
    where = f"  first at [{', '.join(map(str, tensor.first))}]" if tensor.first else ""
    return [*names, *numbers, zeros, f"{tensor.non_finite:,}" if tensor.non_finite else ""], where


def _number(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.5g}"


def _share(share: float) -> str:
    """A share in per cent, rounded such that only none is 0 % and only all is 100 %."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{share:.1%}".replace("%", " %")


def _summary(stats: CheckpointStats) -> str:
    elements = sum(t.numel for t in stats.tensors)
    bad = sum(1 for t in stats.tensors if t.non_finite)
    said = f"{len(stats.tensors):,} tensors, {elements:,} elements, {stats.nbytes:,} bytes read"
    whose = "1 tensor holds" if bad == 1 else f"{bad:,} tensors hold"
    if bad:
        return f"{said}; {whose} values that are not finite"
    return f"{said}; all values {'that were read ' if stats.faults else ''}are finite"


def as_csv(stats: CheckpointStats) -> Iterator[str]:
    """A heading, and one record for each tensor; a shape reads `32x16`, an index `3;5`."""
    canvas = io.StringIO()
    writer = csv.writer(canvas, lineterminator="\n")
    writer.writerow(_FIELDS)
    for tensor in stats.tensors:
        writer.writerow(map(_cell, tensor.model_dump(mode="json", include=set(_FIELDS)).items()))
        yield canvas.getvalue()
        canvas.seek(0)
        canvas.truncate()


def _cell(item: tuple[str, object]) -> object:
    key, value = item
    if isinstance(value, list):
        return ("x" if key == "shape" else ";").join(map(str, value))
    return printable(value, limit=None) if isinstance(value, str) else value
