"""previous/tensor-set and previous/shape-or-dtype: a model that is no longer the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Place, Problem, Rule, TensorInfo
from ckpt_rules_previous.saves import called, listed

_MOST = 10
_KEPT = 1000


class TensorSet(Rule):
    """The weights have other names than in the save before.

    ## What it checks
    That each weight of the earlier save is there, and no other.

    ## Why it matters
    The saves of one run hold one model. A weight that has gone starts at random when training resumes, wherever the
    loader is not strict; one that was added says that another model was saved, or the same one through another wrapper.

    ## How to repair
    Compare the two (`ckpt-rules diff`), and resume from the earlier save if this one lacks weights. Names that all
    carry a new prefix come from a wrapper (`module.`, `_orig_mod.`) that the save did not take off.
    """

    id = "previous/tensor-set"
    tags = frozenset({"previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for all names."""
        name = called(checkpoint.previous)
        before, after = _both(checkpoint)
        gone, new = [n for n in before if n not in after], [n for n in after if n not in before]
        if gone or new:
            said = [f"{len(gone):,} of {len(before):,} weights of {name} are gone: {listed(gone)}"] if gone else []
            said += [f"{len(new):,} of {len(after):,} are new: {listed(new)}"] if new else []
            yield Problem(
                message="; ".join(said),
                place=_place(checkpoint, new[0] if new else None),
                help=f"see `ckpt-rules diff`; resume from {name} if weights are missing here",
                data={"gone": gone[:_KEPT], "new": new[:_KEPT], "previous": name},
            )


class ShapeOrDtype(Rule):
    """A weight has another shape or dtype than in the save before.

    ## What it checks
    Shape and dtype of each weight that both saves hold.

    ## Why it matters
    Within a run neither changes. A tensor of another shape is of another model, or a shard that was not gathered;
    another dtype has lost precision, or takes memory that nobody planned for, and the optimizer's state no longer fits
    it.

    ## How to repair
    Resume from the earlier save. If the change was meant (a larger vocabulary, a cast for release), keep the result out
    of the directory of the run.
    """

    id = "previous/shape-or-dtype"
    tags = frozenset({"previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each of the first ten weights; the last says how many there are."""
        name = called(checkpoint.previous)
        before, after = _both(checkpoint)
        odd = [n for n in before if n in after and _form(before[n]) != _form(after[n])]
        for weight in odd[:_MOST]:
            yield Problem(
                message=f"it is {_form(after[weight])}, but was {_form(before[weight])} in the previous save, "
                f"{name}; {len(odd):,} of {len(before):,} weights differ like this",
                place=_place(checkpoint, weight),
                help=f"resume from {name}; if the change was intended, keep the result out of the run's directory",
                data={
                    "before": {"dtype": before[weight].dtype, "shape": list(before[weight].shape)},
                    "after": {"dtype": after[weight].dtype, "shape": list(after[weight].shape)},
                    "tensors": len(odd),
                    "previous": name,
                },
            )


def _both(checkpoint: Checkpoint) -> tuple[Mapping[str, TensorInfo], Mapping[str, TensorInfo]]:
    return checkpoint.previous.weights.complete().tensors, checkpoint.weights.complete().tensors


def _form(tensor: TensorInfo) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"


def _place(checkpoint: Checkpoint, tensor: str | None) -> Place:
    """The weight in its file; without one, the first file of weights."""
    files = checkpoint.weights.files
    if tensor is None:
        return Place(path=files[0].path if files else ".")
    return Place(path=next(f.path for f in files if tensor in f.tensors), tensor=tensor)
