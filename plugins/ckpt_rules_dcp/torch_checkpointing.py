"""torch_checkpointing's directories: a file for each item and rank, `model_0.pt`; torchtitan may save with it in DCP's place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Field,
    Layout,
    ModelConfig,
    Opaque,
    OptimizerState,
    Progress,
    RankFiles,
    Ranks,
    Recorded,
    Requirement,
    ResumePlan,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    TensorInfo,
    TrainingState,
    WeightFile,
    Weights,
    dictionary,
    dictionary_or_empty,
    is_count,
    plain,
    state_dicts,
)
from ckpt_rules_dcp import saved

_METADATA, _PROGRESS = "metadata.pkl", "train_state_0.pt"
_ITEMS = {
    "model": "the model's share",
    "optimizer": "the optimizer's share",
    "lr_scheduler": "the schedule",
    "dataloader": "the position in the data",
    "train_state": "the progress",
}
_FILE = re.compile(rf"({'|'.join(_ITEMS)})_(\d{{1,6}})\.pt")
_KIND = {item: Sign.file(re.compile(rf"{item}_\d{{1,6}}\.pt")) for item in _ITEMS}
_REST = tuple(sign for item, sign in _KIND.items() if item != "train_state")
_FIRST_RANK, _MAP = Sign.file(re.compile(rf"(?:{'|'.join(_ITEMS)})_0+\.pt")), Sign.file(_METADATA)
_COMPARED = 16
"""Ranks whose counters are compared with the first one's."""

_OF_EACH_GROUP = frozenset({"_last_lr", "base_lrs"})
_STOPS = "the load stops with FileNotFoundError: Missing file"
_WHY_METADATA = (
    "torchtitan does not recognise the directory as a checkpoint, and the shards can't be loaded on another number "
    "of ranks"
)
_DTENSOR = ("torch._utils._rebuild_wrapper_subclass", "torch.distributed.tensor.DTensor")


class TorchCheckpointing(Layout):
    """`<item>_<rank>.pt`; `metadata.pkl` where tensors are sharded."""

    name = "torch-checkpointing"
    title = "torch_checkpointing directory"
    signatures = (
        Signature(must=(_FIRST_RANK, _KIND["train_state"]), may=(*_REST, _MAP), least=1),
        Signature(must=(_FIRST_RANK, _MAP), may=tuple(_KIND.values()), least=1),
    )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Model, optimizer and progress; all that torchtitan keeps where it wrote this; metadata of what is sharded."""
        found = _items(checkpoint)
        needed = [
            Requirement(
                (f"{item}_0.pt",), _STOPS, purposes=TO_RESUME_OR_LOAD if item == "model" else frozenset({"resume"})
            )
            for item in _needed(checkpoint)
            if item not in found
        ]
        if _is_sharded(checkpoint):
            needed.append(Requirement((_METADATA,), _WHY_METADATA, Severity.WARNING))
        return tuple(needed)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of the first rank: all of them, or its shards, of which the full shapes are on record."""
        path = "model_0.pt"
        values = dictionary(checkpoint, path)
        file = checkpoint.files.torch_file(path)
        sharded = {str(k): t for k, v in values.items() if (t := _whole(v))}
        if sharded:
            return Weights((WeightFile(path, "dcp", sharded),))
        tensors = {str(k): v for k, v in values.items() if isinstance(v, TensorInfo)}
        if not tensors:
            raise FactUnavailable(f"{path} holds no weights")
        return Weights((WeightFile(path, "torch", tensors, problems=file.problems),))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """None."""
        raise FactUnavailable("torch_checkpointing saves no configuration of the model")

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The progress of the first rank; the others' are compared with it."""
        fields = (Field("global_step", ("step",), Severity.ERROR, "torchtitan stops with KeyError: 'step'"),)
        return TrainingState(_PROGRESS, dictionary(checkpoint, _PROGRESS), fields)

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """That of the first rank, put together from its entries."""
        path = "optimizer_0.pt"
        return state_dicts.optimizer(_folded(dictionary(checkpoint, path)), path, "")

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """That of the first rank; where the optimizer lies flat, its groups are no longer distinguished, and their rates not compared."""
        path = "lr_scheduler_0.pt"
        values = dictionary(checkpoint, path)
        if "param_groups" not in dictionary_or_empty(checkpoint, "optimizer_0.pt"):
            values = {key: value for key, value in values.items() if key not in _OF_EACH_GROUP}
        return state_dicts.scheduler(values, path, "")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The step."""
        state = checkpoint.state
        value = plain(state.values.get("step"))
        return () if value is None else (Recorded("global_step", value, state.path, "step"),)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """In steps, each an update."""
        recorded = checkpoint.recorded
        if not recorded:
            raise FactUnavailable("no step is recorded")
        if not is_count(recorded[0].value):
            raise FactUnavailable(f"step in {_PROGRESS} is not valid", path=_PROGRESS, blocked=True)
        step = int(recorded[0].value)
        own = "dataloader" in _items(checkpoint)
        where = "where its data loader was" if own else "where the script's own data loader says"
        plan = ResumePlan(from_update=step, unit="step", also=f", with the data {where}")
        return Progress(global_step=step, expected_updates=step, exact=_is_of_torchtitan(checkpoint), plan=plan)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """What other ranks' optimizers and schedules have counted, against the first one's."""
        return tuple(_differing(checkpoint))

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """Every rank writes each item."""
        found = _items(checkpoint)
        expected = max([_data_ranks(checkpoint), *(max(files) + 1 for files in found.values())])
        families = [
            RankFiles(_ITEMS[item], f"{item}_{{}}.pt", files, f"that rank's load stops: {_STOPS}", expected=expected)
            for item, files in found.items()
        ]
        steps = (_step_of(checkpoint, path) for path in found.get("train_state", {}).values())
        return Ranks((), tuple(families), tuple(step for step in steps if step))


def _items(checkpoint: Checkpoint) -> dict[str, dict[int, str]]:
    """The files of each item, by rank."""
    found: dict[str, dict[int, str]] = {}
    for entry in checkpoint.listing.files():
        if match := _FILE.fullmatch(entry.path):
            found.setdefault(match[1], {})[int(match[2])] = entry.path
    return {item: found[item] for item in _ITEMS if item in found}


def _needed(checkpoint: Checkpoint) -> tuple[str, ...]:
    """All that torchtitan saved, for it loads all of it; others may keep less."""
    return tuple(_ITEMS) if _is_of_torchtitan(checkpoint) else ("model", "optimizer", "train_state")


def _is_of_torchtitan(checkpoint: Checkpoint) -> bool:
    return "ntokens_seen" in dictionary_or_empty(checkpoint, _PROGRESS)


def _is_sharded(checkpoint: Checkpoint) -> bool:
    return any(
        _whole(value)
        for path in ("model_0.pt", "optimizer_0.pt")
        for value in dictionary_or_empty(checkpoint, path).values()
    )


def _whole(value: object) -> TensorInfo | None:
    """A sharded tensor at its full shape; None of anything else."""
    if not isinstance(value, Opaque) or (value.type, *value.args[:1]) != _DTENSOR or len(value.args) < 3:
        return None
    dtype, shape = value.args[1:3]
    if not isinstance(dtype, str) or not isinstance(shape, tuple | list) or not all(is_count(n) for n in shape):
        return None
    return TensorInfo(dtype.removeprefix("torch."), tuple(int(n) for n in shape if is_count(n)), 0)


def _folded(values: Mapping[object, object]) -> object:
    """An optimizer's `state_dict`, which torchtitan keeps flat."""
    if "param_groups" in values:
        return values
    return saved.folded({str(name): _whole(value) or value for name, value in values.items()})


def _data_ranks(checkpoint: Checkpoint) -> int:
    """Ranks that share the data, of which there can't be more than ranks; 0 where nothing says so."""
    value = dictionary_or_empty(checkpoint, "dataloader_0.pt").get("world_size")
    return int(value) if is_count(value) and value < 10**6 else 0


def _step_of(checkpoint: Checkpoint, path: str) -> Recorded | None:
    value = plain(dictionary_or_empty(checkpoint, path).get("step"))
    return Recorded("step", value, path, "step") if is_count(value) else None


def _differing(checkpoint: Checkpoint) -> Iterator[Contradiction]:
    found = _items(checkpoint)
    for item, count in (("optimizer", _updates), ("lr_scheduler", _last_epoch)):
        files = found.get(item, {})
        first = count(checkpoint, files[0]) if 0 in files else None
        for rank in sorted(files)[1:_COMPARED]:
            other = count(checkpoint, files[rank])
            if first is not None and other is not None and other != first:
                sentence = (
                    f"{item}_{rank}.pt has counted {other:,} updates, and {item}_0.pt {first:,}: they are from "
                    "different saves"
                )
                yield Contradiction(files[rank], "", sentence)


def _updates(checkpoint: Checkpoint, path: str) -> int | None:
    """The most that any parameter has counted."""
    steps = (plain(v) for k, v in dictionary_or_empty(checkpoint, path).items() if str(k).endswith(".step"))
    return max((int(step) for step in steps if is_count(step)), default=None)


def _last_epoch(checkpoint: Checkpoint, path: str) -> int | None:
    value = plain(dictionary_or_empty(checkpoint, path).get("last_epoch"))
    return int(value) if is_count(value) else None
