"""numerics/non-finite: NaN and infinity, wherever numbers are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ckpt_rules import Checkpoint, Measure, Measured, Place, Problem, Reads, Rule, Values, Wanted, measured_tensors
from ckpt_rules_numerics.tensors import each_once, indexed, of_numbers

_MOST = 10
_RUNNING_EXTREMES = ("min_val", "max_val")


class NonFinite(Rule):
    """A tensor holds NaN or infinity.

    ## What it checks
    Every value of every floating-point and complex tensor in the files, of weights, optimizer and everything else.
    Intended infinities are accepted: a best score that nothing has beaten yet (no dimensions), masks (by their name, or
    where all finite values are 0), and the extremes of observers that have seen nothing (`min_val`, `max_val`).

    ## Why it matters
    One NaN in a weight spreads through the whole model with the first forward pass; one in a moment of the optimizer
    does so with the first update. The loss is NaN from there on, and nothing shows where it began.

    ## How to repair
    Resume from the last save without one, with a lower learning rate or gradient clipping, or skip the batch that
    caused it.
    """

    id = "numerics/non-finite"
    tags = frozenset({"numerics", "resume"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The range of every tensor."""
        return Wanted(Measure.RANGE)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each of the first ten tensors of a file, and one for the rest of them."""
        bad: dict[str, list[Measured]] = defaultdict(list)
        for measured in of_numbers(each_once(measured_tensors(checkpoint, Measure.RANGE))):
            if measured.values.non_finite and not _is_meant(measured):
                bad[measured.tensor.path].append(measured)
        for path, found in bad.items():
            yield from map(_problem, found[:_MOST])
            if len(found) > _MOST:
                yield _rest(path, found[_MOST:], len(found))


def _is_meant(measured: Measured) -> bool:
    values, name = measured.values, measured.tensor.name.lower()
    if values.nan:
        return False
    is_mask = "mask" in name or (values.smallest == values.largest == 0 and not values.above)
    return not measured.tensor.shape or is_mask or name.endswith(_RUNNING_EXTREMES)


def _problem(measured: Measured) -> Problem:
    tensor, values, spot = measured
    where = f"; the first is at {indexed(spot.index)}" if spot and tensor.shape else ""
    return Problem(
        message=f"{values.non_finite:,} of {values.numel:,} values are not finite ({_kinds(values)}){where}",
        place=Place(path=spot.path if spot else tensor.path, tensor=tensor.name, offset=spot.offset if spot else None),
        help="resume from the last save whose values are all finite; check the loss and the gradients before this save",
        data={
            "dtype": tensor.dtype,
            "values": values.numel,
            "nan": values.nan,
            "inf": values.above,
            "-inf": values.below,
            "index": list(spot.index) if spot else None,
        },
    )


def _kinds(values: Values) -> str:
    counts = (("NaN", values.nan), ("inf", values.above), ("-inf", values.below))
    return ", ".join(f"{count:,} {kind}" for kind, count in counts if count)


def _rest(path: str, rest: Iterable[Measured], tensors: int) -> Problem:
    names = [m.tensor.name for m in rest]
    return Problem(
        message=f"{len(names):,} more of its tensors ({tensors:,} in total) contain values that are not finite, "
        f"{names[0]} first",
        place=Place(path=path, tensor=names[0]),
        help="resume from the last save whose values are all finite",
        data={"tensors": tensors, "names": names[:1000]},
    )
