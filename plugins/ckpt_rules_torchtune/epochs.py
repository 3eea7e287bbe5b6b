"""The directories of epochs beside one recipe state: which is the newest, and whether it is of the same epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, Contradiction, FactUnavailable, Progress, ResumePlan, conventions, is_count

weight_files = conventions.weight_files

STATE = "recipe_state/recipe_state.pt"
SETTINGS = "torchtune_config.yaml"
ADAPTER = "adapter_model.pt"
_FOLDER = re.compile(r"(epoch_(\d{1,9}))/.+")
_SCHEDULE = "the LoRA recipe for one device (0.6.1) starts the learning rate's schedule again, unless max_steps_per_epoch cuts each epoch short"


def folders(checkpoint: Checkpoint) -> dict[int, str]:
    """`epoch_E` by its number, counted from 0; empty ones left out."""
    found = (_FOLDER.fullmatch(e.path) for e in checkpoint.listing.files())
    return dict(sorted({int(match[2]): match[1] for match in found if match}.items()))


def newest(checkpoint: Checkpoint) -> str:
    """The directory of the last epoch; FactUnavailable where there is none."""
    found = folders(checkpoint)
    if not found:
        raise FactUnavailable("there is no directory of an epoch")
    return found[max(found)]


def shards(checkpoint: Checkpoint, folder: str) -> tuple[str, ...]:
    """Files with whole weights in a directory."""
    inside = (e.path for e in checkpoint.listing.files() if e.path.startswith(f"{folder}/"))
    return tuple(sorted(path for path in inside if _is_shard(path.rpartition("/")[2])))


def _is_shard(name: str) -> bool:
    match = weight_files.TRANSFORMERS_SHARD.fullmatch(name)
    return match is not None and match["stem"] == "model"


def has_adapters(checkpoint: Checkpoint) -> bool:
    """Whether any epoch has one, in whatever form."""
    names = {ADAPTER, *weight_files.ADAPTER, weight_files.ADAPTER_CONFIG}
    return any(e.name in names for e in checkpoint.listing.files() if _FOLDER.fullmatch(e.path))


def one_optimizer(value: object) -> dict[str, object] | None:
    """The optimizers of single parameters as one, the parameters in their order; None where it is one already."""
    if not isinstance(value, Mapping) or "param_groups" in value or not value:
        return None
    each = [part for part in value.values() if isinstance(part, Mapping) and "param_groups" in part]
    if len(each) != len(value):
        return None
    states = [part.get("state") for part in each]
    inner = {i: next(iter(s.values())) for i, s in enumerate(states) if isinstance(s, Mapping) and s}
    groups = each[0].get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], Mapping) else {}
    return {"state": inner, "param_groups": [{**first, "params": list(range(len(each)))}]}


def trained_only(value: object) -> dict[str, object] | None:
    """An optimizer without the parameters that have no state; None where it is not an optimizer or none has any."""
    state = value.get("state") if isinstance(value, Mapping) else None
    groups = value.get("param_groups") if isinstance(value, Mapping) else None
    if not isinstance(state, Mapping) or not state or not isinstance(groups, list):
        return None
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups):
        return None
    kept = [{**group, "params": [i for i in group["params"] if is_count(i) and i in state]} for group in groups]
    return {"state": state, "param_groups": kept}


def standing(checkpoint: Checkpoint, done: int, total: int | None) -> Progress:
    """Where a recipe continues: with the epoch after those of the recipe state, and what weights it should be given."""
    found = folders(checkpoint)
    adapters, last = has_adapters(checkpoint), max(found, default=done - 1)
    notes = (_SCHEDULE,) if adapters and checkpoint.state.values.get("max_steps_per_epoch") is None else ()
    if total and last + 1 >= total and done < total:
        sentence = (
            f"all {total:,} epochs are trained, and torchtune keeps no state of the last: a resume trains epoch {done + 1:,} again, "
            f"with the optimizer as it was before"
        )
        plan = ResumePlan(sentence, done + 1)
        return Progress(epoch=total, step=0, complete=True, planned_epochs=total, notes=notes, plan=plan)
    taken = "the adapter" if adapters else "the weights"
    named = "" if adapters else ", which checkpoint_files must name"
    plan = ResumePlan(epoch=done + 1, also=f", with {taken} of epoch_{last}{named}")
    return Progress(epoch=done, step=0, complete=True, planned_epochs=total, notes=notes, plan=plan)


def contradictions(checkpoint: Checkpoint, done: object, total: object) -> tuple[Contradiction, ...]:
    """The recipe state is written after the weights of the same epoch, and not after the last epoch."""
    if not is_count(done):
        return ()
    run, found = int(done), folders(checkpoint)
    if is_count(total) and 0 < int(total) <= run:
        sentence = f"epochs_run is {run:,} of {int(total):,}, and torchtune writes no recipe state after the last epoch"
        return (Contradiction(STATE, "epochs_run", sentence),)
    last = max(found, default=run - 1)
    ended = is_count(total) and last + 1 == int(total)
    if last + 1 == run or (ended and run == last):
        return ()
    sentence = f"epochs_run is {run:,}, but the newest weights, epoch_{last}, belong to epochs_run {last + 1:,}"
    return (Contradiction(STATE, "epochs_run", sentence),)
