"""What both forms share: the arguments of the run, the counters, and the tracker file beside the save."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    DataLoaders,
    EntryKind,
    FactUnavailable,
    Layout,
    Pointer,
    Progress,
    Recorded,
    ResumePlan,
    Severity,
    conventions,
    is_count,
    options,
    own_name,
    plain,
)
from ckpt_rules_megatron import loaders

TRACKER = conventions.pointers.MEGATRON
NAME = re.compile(r"iter_0*(\d{1,12})")
_BRIDGES_TRACKER = "latest_train_state.pt"
RELEASE = "release"
_SILENT = "without --exit-on-missing-checkpoint, Megatron only warns and starts from random weights"


class Megatron(Layout):
    """Counters and tracker, which both forms keep in the same way."""

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The iteration, and the planned end."""
        state = checkpoint.state
        return recorded(state.values, state.path)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the iteration."""
        state = checkpoint.state
        if not is_count(state.values.get("iteration")):
            raise FactUnavailable(f"{state.path} holds no iteration", path=state.path, blocked=True)
        return progress(state.values)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Samples against iterations."""
        state = checkpoint.state
        return contradictions(state.values, state.path)

    def dataloaders(self, checkpoint: Checkpoint) -> DataLoaders:
        """A file for each data-parallel rank, wherever in the save it lies, or beside it."""
        state = checkpoint.state
        return loaders.dataloaders(checkpoint, arguments(state.values), state.path)

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """The tracker beside `iter_N`."""
        return pointers(checkpoint)


def arguments(values: Mapping[object, object]) -> Mapping[object, object]:
    """The run's arguments, pickled as a Namespace or saved as a dictionary."""
    return options(values.get("args"))


def is_begun(values: Mapping[object, object]) -> bool:
    """Whether any iteration was made: a model that was converted stands at iteration 0, or names none."""
    step = values.get("iteration")
    return is_count(step) and step > 0


def recorded(values: Mapping[object, object], path: str) -> tuple[Recorded, ...]:
    """The iteration, and the planned end."""
    found = []
    if values.get("iteration") is not None:
        found.append(Recorded("global_step", values["iteration"], path, "iteration"))
    planned = arguments(values).get("train_iters")
    if is_count(planned) and planned:
        found.append(Recorded("total_steps", planned, path, "args.train_iters"))
    return tuple(found)


def progress(values: Mapping[object, object]) -> Progress:
    """By the iteration; the data continue where the samples consumed say."""
    step, args = values.get("iteration"), arguments(values)
    done = int(step) if is_count(step) else 0
    samples, planned = args.get("consumed_train_samples"), args.get("train_iters")
    return Progress(
        global_step=done,
        expected_updates=None if counts_rollouts(args) else done,
        planned_updates=int(planned) if is_count(planned) and planned else None,
        plan=plan_after(done, samples),
    )


def plan_after(done: int, samples: object) -> ResumePlan:
    """After so many iterations, and samples where they are recorded."""
    where = f", after {int(samples):,} samples" if is_count(samples) else ""
    return ResumePlan(from_update=done, unit="iteration", also=f"{where}; Megatron keeps no epochs")


def contradictions(values: Mapping[object, object], path: str) -> tuple[Contradiction, ...]:
    """Samples consumed against iterations, where the batch never grew; and against the scheduler, which counts samples."""
    args, found = arguments(values), []
    step, samples, batch = values.get("iteration"), args.get("consumed_train_samples"), args.get("global_batch_size")
    if not is_count(samples) or counts_rollouts(args):
        return ()
    constant = args.get("rampup_batch_size") in (None, [], 0)
    if constant and is_count(step) and is_count(batch) and samples != step * batch:
        words = (
            f"{int(samples):,} samples were consumed, but {int(step):,} iterations of {int(batch):,} are "
            f"{int(step * batch):,}"
        )
        found.append(Contradiction(path, "args.consumed_train_samples", words))
    scheduler = values.get("opt_param_scheduler")
    steps = plain(scheduler.get("num_steps")) if isinstance(scheduler, Mapping) else None
    size = int(batch) if constant and is_count(batch) and batch else 1
    if is_count(steps) and steps != samples and not (_may_skip(values) and _is_skipped(int(samples - steps), size)):
        words = f"the scheduler is at {int(steps):,} samples, but {int(samples):,} were consumed"
        found.append(Contradiction(path, "opt_param_scheduler.num_steps", words))
    return tuple(found)


def counts_rollouts(args: Mapping[object, object]) -> bool:
    """Whether an iteration is a rollout, as slime counts them: of several updates, and without a count of samples."""
    return args.get("num_rollout") is not None


def _is_skipped(missing: int, batch: int) -> bool:
    """Whether so many samples can be those of iterations whose update was skipped, which the scheduler does not count."""
    return missing > 0 and missing % batch == 0


def _may_skip(values: Mapping[object, object]) -> bool:
    """Whether updates are skipped without harm: where gradients overflow under a loss scale, and where the run was told to."""
    args = arguments(values)
    told = args.get("iterations_to_skip"), args.get("skipped_train_samples")
    return args.get("fp16") is True or any(told) or _has_scaler(values.get("optimizer"), 0)


def _has_scaler(value: object, depth: int) -> bool:
    """Whether an optimizer, or one of several that are chained, keeps a gradient scaler."""
    if isinstance(value, list | tuple):
        return any(_has_scaler(inner, depth) for inner in value)
    if not isinstance(value, Mapping):
        return False
    return "grad_scaler" in value or (depth < 1 and any(_has_scaler(inner, depth + 1) for inner in value.values()))


def pointers(checkpoint: Checkpoint) -> tuple[Pointer, ...]:
    """The tracker beside the save, from which Megatron knows what to load."""
    here = own_name(checkpoint)
    own = NAME.fullmatch(here)
    if own is None:
        return ()
    path, said = f"../{TRACKER}", checkpoint.files.small_text(f"../{TRACKER}")
    if fault := checkpoint.files.small_text_fault(path):
        why = _SILENT if fault.endswith("not a file") else "Megatron stops, or starts from scratch"
        return (Pointer(path, "", exists=False, why=why, fault=fault),)
    if said is None and checkpoint.files.sibling(_BRIDGES_TRACKER) is not None:
        return ()
    if said is None:
        return (Pointer(path, "", exists=False, why=_SILENT, severity=Severity.WARNING),)
    if said == RELEASE:
        return (Pointer(path, said, _is_there(checkpoint, RELEASE), _SILENT),)
    if not said.isdecimal():
        return (Pointer(path, said[:40], exists=False, why="Megatron stops with 'Invalid metadata file'"),)
    names = [here, *checkpoint.listing.siblings]
    numbers = {int(m[1][:18]): name for name in names if (m := NAME.fullmatch(name))}
    newest = max(numbers)
    newer = here if numbers[newest] == here and int(said[:18]) < newest else None
    return (Pointer(path, said, int(said[:18]) in numbers, _SILENT, newer=newer),)


def _is_there(checkpoint: Checkpoint, name: str) -> bool:
    entry = checkpoint.files.sibling(name)
    return entry is not None and entry.kind is EntryKind.DIRECTORY
