"""An inspection for people: what the checkpoint is, and where training will start, in lines of 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ckpt_rules.printable import printable, sentence
from ckpt_rules.reporters.style import Style

if TYPE_CHECKING:
    from ckpt_rules.inspection.model import (
        Inspection,
        ModelSummary,
        OptimizerSummary,
        ProgressSummary,
        ResumeSummary,
        RngSummary,
        ScalerSummary,
        SchedulerSummary,
        WeightsSummary,
    )

COLUMN = 12
NAMED = 4
"""Files or learning rates that are named; more are counted."""


def render(inspection: Inspection, style: Style | None = None) -> str:
    """Labels to the left, facts to the right; a part that is not available says why in its place."""
    style = style or Style()
    lines: list[str] = []
    for label, text in _rows(inspection):
        first, *rest = style.wrapped(text, " " * COLUMN)
        lines += [style.paint(f"{label:<{COLUMN}}", "bold") + first[COLUMN:], *rest]
    for notice in inspection.notices:
        lines += ["", *style.wrapped(f"{notice.severity.value}: {sentence(notice.message)}")]
    return "\n".join(lines) + "\n"


def _rows(found: Inspection) -> Iterator[tuple[str, str]]:
    signs = ", ".join(printable(s) for s in found.layout.signs)
    truncated = f"; not all were listed: {sentence(found.files.truncated)}" if found.files.truncated else ""
    yield "checkpoint", printable(found.checkpoint)
    yield "layout", found.layout.title + (f", recognised by {signs}" if signs else "")
    yield "files", f"{_number(found.files.count, 'file')}, {size(found.files.nbytes)}{truncated}"
    for name, tell in _PARTS.items():
        part = getattr(found, name)
        why = sentence(found.unavailable.get(name, "no reason given"))
        texts = [f"not known: {why}"] if part is None else list(tell(part)) or ["nothing is recorded"]
        if name == "scheduler" and found.schedulers:
            texts = [f"{_place(each)}: {text}" for each in found.schedulers for text in _scheduler(each)]
        yield from zip([name, *[""] * (len(texts) - 1)], texts, strict=True)


def _progress(found: ProgressSummary) -> Iterator[str]:
    if found.epoch is not None:
        yield f"epoch {found.epoch:,}{_planned(found.planned_epochs)}, {_within_epoch(found)}"
    counted = [
        ("global step", found.global_step, found.planned_updates),
        ("batches so far", found.batches_done, None),
        ("optimizer updates expected", found.expected_updates, None),
    ]
    said = [f"{what} {value:,}{_planned(planned)}" for what, value, planned in counted if value is not None]
    said += [f"{found.accumulation:,} batches per update"] if found.accumulation != 1 else []
    if said:
        yield ", ".join(said)
    yield from (f"note: {sentence(note)}" for note in found.notes)


def _within_epoch(found: ProgressSummary) -> str:
    if found.complete:
        return f"complete{f' ({found.total_batches:,} batches)' if found.total_batches else ''}"
    if found.step is None:
        return "how much of it is done is not recorded"
    share = "" if found.fraction is None else f" ({found.fraction:.1%})".replace("%", " %")
    total = f" of {found.total_batches:,}" if found.total_batches is not None else ""
    return f"{found.step:,}{total} batches done{share}"


def _planned(planned: int | None) -> str:
    return f" of {planned:,} planned" if planned is not None else ""


def _resume(found: ResumeSummary) -> Iterator[str]:
    yield sentence(found.sentence)


def _optimizer(found: OptimizerSummary) -> Iterator[str]:
    updates = "no count of updates" if found.updates is None else _number(found.updates, "update")
    yield f"{printable(found.kind)}, {updates}, {_rates('learning rate', found.lrs)}"
    state = "" if found.states == found.parameters else f", state for {found.states:,} of them"
    yield f"{_number(found.parameters, 'parameter')} in {_number(found.groups, 'group')}{state}"


def _scheduler(found: SchedulerSummary) -> Iterator[str]:
    yield (
        f"{printable(found.kind)}, {value(found.last_epoch)} steps, {_rates('learning rate', found.last_lr)}, "
        f"{_rates('base', found.base_lrs)}"
    )


def _place(found: SchedulerSummary) -> str:
    return printable(f"{found.path}, key {found.key}" if found.key else found.path)


def _scaler(found: ScalerSummary) -> Iterator[str]:
    yield (
        f"loss scale {value(found.scale)}, {value(found.growth_tracker)} updates since it changed"
        if found.enabled
        else "disabled"
    )


def _rng(found: RngSummary) -> Iterator[str]:
    yield ", ".join(printable(s) for s in found.sources) or "no generator's state"


def _model(found: ModelSummary) -> Iterator[str]:
    where = f"{found.path}, key {found.key}" if found.key else found.path
    names = [value(v) for v in (found.model_type, found.architectures) if v]
    yield f"{', '.join(names) or 'not named'} ({printable(where)})"


def _weights(found: WeightsSummary) -> Iterator[str]:
    total = found.parameters or 1
    shares = [f"{printable(d)} {n / total:.1%}".replace("%", " %") for d, n in found.dtypes.items()]
    only = f" of {printable(next(iter(found.dtypes)))}" if len(shares) == 1 else ""
    yield f"{found.parameters:,} parameters in {_number(found.tensors, 'tensor')}{only}, {size(found.nbytes)}"
    if len(shares) > 1:
        yield ", ".join(shares)
    yield _files(found.files) + (f", listed in {printable(found.index)}" if found.index else "")
    if found.others:
        yield f"passed over by the loader: {_files(found.others)}"


_PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "progress": _progress,
    "resume": _resume,
    "optimizer": _optimizer,
    "scheduler": _scheduler,
    "scaler": _scaler,
    "rng": _rng,
    "model": _model,
    "weights": _weights,
}


def _files(paths: Sequence[str]) -> str:
    named = ", ".join(printable(p) for p in paths[:NAMED])
    return f"{named} and {len(paths) - NAMED:,} more" if len(paths) > NAMED else named


def _rates(what: str, rates: Sequence[object]) -> str:
    if not rates:
        return f"{what} not recorded"
    texts = list(dict.fromkeys(map(value, rates)))
    more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return f"{what} {', '.join(texts[:NAMED])}{more}"


def value(stored: object) -> str:
    """A stored value in few characters: `0.000958877`, `1,200`, `not recorded`."""
    if stored is None:
        return "not recorded"
    if isinstance(stored, bool):
        return str(stored)
    if isinstance(stored, int):
        return f"{stored:,}"
    if isinstance(stored, float):
        return f"{stored:,.0f}" if stored.is_integer() and abs(stored) < 1e15 else f"{stored:.6g}"
    if isinstance(stored, list | tuple):
        return ", ".join(map(value, stored[:NAMED]))
    return printable(str(stored), limit=80)


def size(nbytes: int) -> str:
    """Bytes in decimal units: `475 MB`, `1.43 GB`."""
    amount, unit = float(nbytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{nbytes:,} bytes" if unit == "bytes" else f"{amount:.3g} {unit}"


def _number(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
