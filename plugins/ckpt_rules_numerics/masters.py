"""numerics/master-vs-model: the weights that are saved against the float32 copies that the optimizer continues from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import Cast, Checkpoint, FactUnavailable, Master, Place, Problem, Reads, Rule, Wanted, read_all
from ckpt_rules_numerics.tensors import listed


class MasterVsModel(Rule):
    """The optimizer's float32 master weights do not match the saved weights.

    ## What it checks
    If an optimizer keeps a float32 copy of weights that are also saved (DeepSpeed's ZeRO 1 and 2, its bf16 optimizer,
    with experts and pipelines, and its universal checkpoints): that each copy, rounded to the dtype of the weight, is
    bit-for-bit equal to the weight.

    ## Why it matters
    The first update after a resume overwrites the weights with the rounded masters. If the two are from different
    steps, training continues with a different model than the one that was evaluated; if one of them was damaged, so is
    the model from then on.

    ## How to repair
    Take all files from one save. If the weights were replaced on purpose, resume without the optimizer states, or with
    `load_from_fp32_weights: false`, which makes new masters from the weights.
    """

    id = "numerics/master-vs-model"
    tags = frozenset({"numerics", "optimizer", "resume"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The checksums of the weights, and of the masters after the cast."""
        try:
            masters = checkpoint.masters
        except FactUnavailable:
            return Wanted()
        return Wanted(casts=frozenset(cast for master in masters for cast in _pair(master)))

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file of weights."""
        masters = checkpoint.masters
        known = read_all(checkpoint, self.wanted(checkpoint)).casts
        bad: dict[str, list[Master]] = defaultdict(list)
        count: dict[str, int] = defaultdict(int)
        for master in masters:
            weight, copy = (known.get(cast) for cast in _pair(master))
            if weight is not None and copy is not None:
                count[master.weight.path] += 1
                if weight != copy:
                    bad[master.weight.path].append(master)
        if not count:
            raise FactUnavailable("no master copy could be read")
        for path, found in bad.items():
            yield _problem(path, found, count[path])


def _pair(master: Master) -> tuple[Cast, Cast]:
    dtype = master.weight.dtype
    return Cast((master.weight,), dtype), Cast(master.parts, dtype)


def _problem(path: str, found: list[Master], count: int) -> Problem:
    names = [master.name for master in found]
    return Problem(
        message=f"{len(names):,} of {count:,} weights differ from the optimizer's float32 copies after rounding: "
        f"{listed(names)}",
        place=Place(path=path, tensor=names[0], offset=found[0].weight.offset),
        help="take all files from one save; if the weights were replaced on purpose, resume without the optimizer "
        "states",
        data={"tensors": names[:1000], "count": len(names), "of": count, "master_path": found[0].parts[0].path},
    )
