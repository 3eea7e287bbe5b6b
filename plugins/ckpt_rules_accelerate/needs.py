"""What `load_state` can't do without where FSDP or DeepSpeed keeps model and optimizer, in forms of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Requirement
from ckpt_rules_dcp.public import Parts, find_parts, first_paths, missing_parts, purposes_of, uncommitted, why_elsewhere
from ckpt_rules_deepspeed.public import Saved, requirements_of, saved_in, saves_inside

_TAG = re.compile(r"pytorch_model(?:_(\d{1,3}))?")
_ABSENT = "without it load_state can't load the {} of FSDP, and stops"
_UNFINISHED = (
    "it is written last, so the {} was never saved as a whole, and load_state stops with CheckpointException; a copy with "
    "`cp *` leaves it out"
)


def zero_saves(checkpoint: Checkpoint) -> tuple[Saved, ...]:
    """DeepSpeed's saves, one for each model, in the directories `pytorch_model`, `pytorch_model_1` and so on.

    One that ought to be there and is not comes without files.
    """
    found = {saved.folder.rstrip("/"): saved for saved in checkpoint.fact(saves_inside)}
    tags = [m for tag in (*found, checkpoint.files.small_text("latest") or "") if (m := _TAG.fullmatch(tag))]
    last = max((int(m[1] or 0) for m in tags), default=-1)
    names = [f"pytorch_model_{number}" if number else "pytorch_model" for number in range(last + 1)]
    return tuple(found.get(name) or saved_in(checkpoint, f"{name}/") for name in names)


def sharded_requirements(checkpoint: Checkpoint, *, model_elsewhere: bool) -> tuple[Requirement, ...]:
    """Model and optimizer of FSDP, or DeepSpeed's own.

    model_elsewhere: whether hooks of the script save the model themselves
    """
    saves = checkpoint.fact(zero_saves)
    if saves:
        return tuple(needed for saved in saves for needed in requirements_of(checkpoint, saved))
    return tuple(_of_fsdp(checkpoint, checkpoint.fact(find_parts), model_elsewhere))


def _of_fsdp(checkpoint: Checkpoint, parts: Parts, model_elsewhere: bool) -> Iterator[Requirement]:
    for kind, number in missing_parts(parts):
        if kind == "optimizer" or not model_elsewhere:
            yield Requirement(first_paths(parts, kind, number), _ABSENT.format(kind), purposes=purposes_of(kind))
    for kind, path in uncommitted(checkpoint, parts):
        why, elsewhere = _UNFINISHED.format(kind), why_elsewhere(checkpoint, path)
        yield Requirement((path,), why, purposes=purposes_of(kind), elsewhere=elsewhere)
