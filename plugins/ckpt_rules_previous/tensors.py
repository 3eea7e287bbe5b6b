"""previous/tensor-set and previous/shape-or-dtype: a model that is no longer the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Place, Problem, Rule, TensorInfo
from ckpt_rules_previous.saves import called, listed

_MOST = 10
_KEPT = 1000


class TensorSet(Rule):
    """The weights have different names than in the previous save.

    ## What it checks
    That this save has exactly the weights of the previous save.

    ## Why it matters
    All saves of a run contain the same model. A weight that is gone starts at random when training resumes, unless the
    loader is strict; an added weight means that another model was saved, or the same one through another wrapper.

    ## How to repair
    Compare the two (`ckpt-rules diff`), and resume from the previous save if this one lacks weights. If all names have
    a new prefix, it comes from a wrapper (`module.`, `_orig_mod.`) that was not removed before saving.
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
    """A weight has a different shape or dtype than in the previous save.

    ## What it checks
    The shape and dtype of each weight that is in both saves.

    ## Why it matters
    Within a run, neither changes. A different shape means another model, or a shard that was not gathered; a different
    dtype has lost precision or takes unplanned memory, and the optimizer's state no longer fits it.

    ## How to repair
    Resume from the previous save. If the change was intended (a larger vocabulary, a cast for release), keep the result
    out of the run's directory.
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
