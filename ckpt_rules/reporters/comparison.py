"""A comparison for people: first the answer in one line, then each section that differs, the largest changes first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_rules.printable import printable, sentence
from ckpt_rules.reporters.inspection import COLUMN, size, value
from ckpt_rules.reporters.style import Style

if TYPE_CHECKING:
    from ckpt_rules.comparison import Comparison, FileChange, TensorChange, ValueChange

LISTED = 10
"""Changes of one section that are listed unless all are asked for."""

_ROUNDING = 1e-12
"""What sums of products of the same numbers may lack."""

_HEADS = ("by", "cosine", "largest", "values")
_WIDTHS = (9, 8, 8, 6)
"""The first is wider than any share, so that rows of the table begin with a space."""
_ADDED, _REMOVED, _NOT_COMPARED = "added", "removed", "not compared"


def render(found: Comparison, style: Style | None = None, *, verbose: bool = False) -> str:
    """The text; `verbose` lists every change."""
    style = style or Style()
    most = None if verbose else LISTED
    lines = style.wrapped(_answer(found))
    for label, said, rows in _sections(found):
        first, *rest = style.wrapped(said, " " * COLUMN)
        lines += ["", style.paint(f"{label:<{COLUMN}}", "bold") + first[COLUMN:], *rest]
        for row in _listed(rows, most):
            lines += (
                style.wrapped(row, f"{' ' * COLUMN}  ", " " * COLUMN) if row[0] != " " else [f"{' ' * COLUMN}{row}"]
            )
    for notice in found.notices:
        lines += ["", *style.wrapped(f"{notice.severity.value}: {sentence(notice.message)}")]
    return "\n".join(lines) + "\n"


def _answer(found: Comparison) -> str:
    names = f"{printable(found.checkpoints[0])} and {printable(found.checkpoints[1])}"
    looked = "" if found.values else "; their values were not compared"
    if found.differ and found.not_compared:
        looked = f"; {_unknown(found)} could not be compared"
    if found.differ:
        return f"{names} differ in {_joined(_differing(found))}{looked}"
    if found.not_compared:
        return f"no difference between {names} was found, and {_unknown(found)} could not be compared"
    one = f"{_number(found.tensors.same, 'tensor')}"
    return f"{names} are the same: {one}{'' if found.pattern != '*' else ', and all files'}{looked}"


def _unknown(found: Comparison) -> str:
    files = sum(c.change.value == _NOT_COMPARED for c in found.files)
    counts = [(files, "file"), (found.not_compared - files, "tensor")]
    return _joined([_number(count, noun) for count, noun in counts if count])


def _differing(found: Comparison) -> list[str]:
    files = [c for c in found.files if c.change.value != _NOT_COMPARED]
    tensors = [c for c in found.tensors.changes if c.change.value != _NOT_COMPARED]
    weights = [c for c in tensors if c.weight]
    said = [_number(len(files), "file")] if files else []
    if weights:
        share = "" if found.tensors.relative is None else f" (by {_percent(found.tensors.relative)} of their norm)"
        said.append(f"{_number(len(weights), 'weight')}{share}")
    if others := len(tensors) - len(weights):
        said.append(_number(others, "other tensor"))
    return [*said, *(f"the {section}" for section in found.sections)]


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sections(found: Comparison) -> Iterator[tuple[str, str, list[str]]]:
    """Label, summary and rows of each section that differs."""
    if len(set(found.layouts)) > 1:
        yield "layout", f"{found.layouts[0]}, then {found.layouts[1]}", []
    if found.files:
        yield "files", _counted(found.files), [_file(change) for change in found.files]
    for label, weight in (("weights", True), ("tensors", False)):
        if changes := [c for c in found.tensors.changes if c.weight is weight]:
            yield label, _tensors_said(found, changes, weight=weight), _tensor_rows(changes)
    for section, values in found.sections.items():
        yield section, f"{_number(len(values), 'value')} changed", [_value(change) for change in values]


def _counted(changes: Sequence[FileChange] | Sequence[TensorChange]) -> str:
    counts = Counter(change.change.value for change in changes)
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def _tensors_said(found: Comparison, changes: Sequence[TensorChange], *, weight: bool) -> str:
    together = ""
    if weight and found.tensors.relative is not None:
        cosine = "" if found.tensors.cosine is None else f", cosine {_cosine(found.tensors.cosine)}"
        together = f"; together by {_percent(found.tensors.relative)} of their norm{cosine}"
    return _counted(changes) + together


def _tensor_rows(changes: Sequence[TensorChange]) -> list[str]:
    ordered = sorted(changes, key=_weightiness)
    listed = [f"{_name(c)}: {_form(c)}" for c in ordered if c.difference is None]
    return listed + [_row(c) for c in ordered if c.difference is not None]


def _name(change: TensorChange) -> str:
    """A weight by its name in the model, another tensor by its file and its name there."""
    path = change.paths[1] or change.paths[0]
    return printable(change.tensor if change.weight or path is None else f"{path}, {change.tensor}")


def _weightiness(change: TensorChange) -> float:
    """Sorts the largest relative change first; one from zero is beyond any."""
    return -(math.inf if change.relative is None else change.relative)


def _row(change: TensorChange) -> str:
    by = "from 0" if change.relative is None else _percent(change.relative)
    cosine = "" if change.cosine is None else _cosine(change.cosine)
    largest = "" if change.largest is None else f"{change.largest:.3g}"
    share = _percent(min(1.0, (change.differing or 0) / (change.numel or 1)))
    odd = f", {change.not_finite:,} not finite" if change.not_finite else ""
    cast = f", {change.dtypes[0]} -> {change.dtypes[1]}" if change.dtypes[0] != change.dtypes[1] else ""
    return f"{_cells((by, cosine, largest, share))}  {_name(change)}{cast}{odd}"


def _cells(texts: Sequence[str]) -> str:
    return "  ".join(f"{text:>{width}}" for text, width in zip(texts, _WIDTHS, strict=True))


def _form(change: TensorChange) -> str:
    one, other = (
        f"{dtype} [{', '.join(map(str, shape or ()))}]"
        for dtype, shape in zip(change.dtypes, change.shapes, strict=True)
    )
    if change.change.value in (_ADDED, _REMOVED):
        return f"{change.change.value}, {other if change.change.value == _ADDED else one}"
    said = change.change.value if one == other else f"{one} -> {other}"
    if change.note:
        return (
            f"{said}, {printable(change.note)}"
            if change.change.value == _NOT_COMPARED
            else f"{said}, values not compared"
        )
    return said if change.differing is None else f"{said}, {_number(change.differing, 'value')} changed"


def _file(change: FileChange) -> str:
    before, after = change.nbytes
    if before is None or after is None:
        return f"{printable(change.path)}: {change.change.value}, {size(before or after or 0)}"
    if change.note:
        return f"{printable(change.path)}: {change.change.value}, {printable(change.note)}"
    grown = f"{before:,} -> {after:,} bytes" if before != after else f"other content, {before:,} bytes"
    return f"{printable(change.path)}: {grown}"


def _value(change: ValueChange) -> str:
    before, after = change.values
    shown = [printable(v, limit=400) if isinstance(v, str) else value(v) for v in (before, after)]
    return f"{printable(change.name)}: {shown[0]} -> {shown[1]}"


def _listed(rows: list[str], most: int | None) -> list[str]:
    """The first rows, a heading above those of the table, and how many more there are."""
    shown = rows if most is None else rows[:most]
    more = [f"and {len(rows) - len(shown):,} more (--verbose lists them)"] if len(rows) > len(shown) else []
    table = next((number for number, row in enumerate(shown) if row[0] == " "), None)
    head = [] if table is None else [_cells(_HEADS)]
    return [*shown[:table], *head, *(shown[table:] if table is not None else []), *more]


def _percent(share: float) -> str:
    """A share: `0.31 %`, `1.2e+03 %`."""
    return f"{share * 100:.3g} %" if share < 9.99 else f"{share * 100:.2g} %"


def _cosine(cosine: float) -> str:
    """Six digits, rounded such that only equal directions have a cosine of 1."""
    return "<1" if 0.999999 < cosine < 1 - _ROUNDING else f"{cosine:.6g}"


def _number(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
