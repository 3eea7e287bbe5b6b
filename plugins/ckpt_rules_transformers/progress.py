"""The Trainer's arithmetic: from `global_step`, `epoch` and the arguments of the run to batches, and where a resume starts.

B batches are an epoch, A of them an update, U = ceil(B / A) updates an epoch. `epoch` is e + (batches done in it) / B.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Progress,
    Recorded,
    ResumePlan,
    is_count,
    sound_counts,
    updates_of,
)
from ckpt_rules_peft.public import adapters, configuration, starts_anew
from ckpt_rules_transformers.arguments import FILE, Arguments, arguments
from ckpt_rules_transformers.sharded import STATE, contradictions_of_zero, is_epoch, updates_in

_NEAR = 1e-6
_MOST_TRIED = 4
_LOGGED = 50


@dataclass(frozen=True, slots=True)
class EpochLength:
    """Updates in an epoch, and batches where they can be told as well."""

    updates: int
    batches: int | None


def read_recorded(checkpoint: Checkpoint) -> tuple[Recorded, ...]:
    """The counters of trainer_state.json and the plan of the run; `epoch`, a fraction, is compared by `contradictions`."""
    values, found = checkpoint.state.values, []
    for name, key in (
        ("global_step", "global_step"),
        ("total_steps", "max_steps"),
        ("total_epochs", "num_train_epochs"),
    ):
        if values.get(key) is not None:
            found.append(Recorded(name, values[key], STATE, key))
    accumulation = arguments(checkpoint).values.get("gradient_accumulation_steps")
    if accumulation is not None:
        found.append(Recorded("gradient_accumulation", accumulation, FILE, "gradient_accumulation_steps"))
    return tuple(found)


def read_progress(checkpoint: Checkpoint) -> Progress:
    """How far training got; FactUnavailable where the global step is absent or impossible."""
    sound_counts(checkpoint.recorded, updates_of(checkpoint))
    values, run = checkpoint.state.values, arguments(checkpoint)
    step = values.get("global_step")
    if not is_count(step):
        raise FactUnavailable(f"{STATE} records no global_step", path=STATE)
    planned = values.get("max_steps")
    epochs = values.get("num_train_epochs")
    # FSDP's shards come without training_args.bin, and without it nobody knows how many batches make an update.
    found = _placed(int(step), epoch_length(values, run), run) if run.values else None
    return Progress(
        global_step=int(step),
        accumulation=run.accumulation,
        expected_updates=updates_in(checkpoint, int(step)),
        planned_updates=int(planned) if is_count(planned) and planned else None,
        planned_epochs=int(epochs) if is_count(epochs) and epochs and not planned else None,
        exact=True,
        plan=_with_encoder(checkpoint, _plan(int(step), planned, found, run), planned),
        **(found.facts() if found else {}),  # type: ignore[arg-type]
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where in the data a global step lies: epochs that are finished, and batches of the next."""

    epoch: int
    step: int
    batches: int | None

    def facts(self) -> dict[str, object]:
        """The fields of `Progress`, whose epochs are 1-based."""
        complete = self.step == 0 and self.epoch > 0
        done = None if self.batches is None else self.epoch * self.batches + self.step
        return {
            "epoch": self.epoch if complete else self.epoch + 1,
            "step": self.step,
            "total_batches": self.batches,
            "complete": complete,
            "batches_done": done,
        }


def _placed(step: int, length: EpochLength | None, run: Arguments) -> _Placed | None:
    if length is None:
        return None
    epochs, rest = divmod(step, length.updates)
    return _Placed(epochs, rest * run.accumulation, length.batches)


def epoch_length(values: Mapping[object, object], run: Arguments) -> EpochLength | None:
    """From the plan where it was made in epochs, else from the fractions in `epoch` and the log; None where none tells."""
    steps, epochs = values.get("max_steps"), run.values.get("num_train_epochs")
    by_epochs = run.values.get("max_steps") in (None, -1, 0)
    planned = None
    if by_epochs and is_count(epochs) and epochs and is_count(steps) and steps and steps % epochs == 0:
        planned = int(steps // epochs)
    batches = next((b for entry in _moments(values) if (b := _batches(*entry, run.accumulation, planned))), None)
    if planned:
        return EpochLength(planned, planned if run.accumulation == 1 else batches)
    return EpochLength(max(math.ceil(batches / run.accumulation), 1), batches) if batches else None


def _moments(values: Mapping[object, object]) -> Iterator[tuple[int, float]]:
    """Steps and the epochs they were at: that of the save, then those of the log, last first."""
    history = values.get("log_history")
    entries = [e for e in history if isinstance(e, Mapping)] if isinstance(history, list) else []
    pairs = [
        (values.get("global_step"), values.get("epoch")),
        *((e.get("step"), e.get("epoch")) for e in entries[:-_LOGGED:-1]),
    ]
    for step, epoch in pairs:
        if is_count(step) and step and is_epoch(epoch) and epoch > 0:
            yield int(step), float(epoch)


def _batches(step: int, epoch: float, accumulation: int, planned: int | None) -> int | None:
    """The one number of batches in an epoch that gives this step this fraction; None where none or several do."""
    finished = math.floor(epoch + _NEAR)
    fraction = epoch - finished
    guess = round(step / epoch)
    tried = [planned] if planned else range(max(1, guess - _MOST_TRIED), guess + _MOST_TRIED + 1)
    found = set()
    for updates in tried:
        rest = (step - finished * updates) * accumulation
        if abs(fraction) < _NEAR:
            if rest == 0 and accumulation == 1:
                found.add(updates)
        elif rest > 0:
            batches = round(rest / fraction)
            fits = abs(rest / batches - fraction) < _NEAR if batches else False
            if fits and max(math.ceil(batches / accumulation), 1) == updates:
                found.add(batches)
    return found.pop() if len(found) == 1 else None


def contradictions(checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
    """What DeepSpeed counted against the global step, and the global step against `epoch`."""
    return (*contradictions_of_zero(checkpoint), *_of_epoch(checkpoint))


def _of_epoch(checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
    """An `epoch` that is not a number, or not the one that the global step implies."""
    values, run = checkpoint.state.values, arguments(checkpoint)
    step, epoch = values.get("global_step"), values.get("epoch")
    if epoch is None or not is_count(step):
        return ()
    if not is_epoch(epoch) or epoch < 0:
        return (Contradiction(STATE, "epoch", f"epoch is {str(epoch)[:40]!r}, which is not a number of epochs"),)
    steps, epochs = values.get("max_steps"), run.values.get("num_train_epochs")
    by_epochs = run.values.get("max_steps", 0) in (-1, 0)
    if not (by_epochs and is_count(epochs) and epochs and is_count(steps) and steps):
        return ()
    updates = steps / epochs
    implied = step / updates
    if run.is_on("ignore_data_skip") and epoch < implied:
        return ()  # a run that was resumed within an epoch counts that one's batches again
    # Within an epoch the last update may be made of fewer batches, which moves the fraction by less than one update.
    if abs(implied - epoch) > 1 / updates + _NEAR:
        sentence = (
            f"epoch is {epoch:g}, but global_step {int(step):,} at {updates:g} updates per epoch ({int(steps):,} "
            f"for {epochs:g} epochs) is epoch {implied:.4g}"
        )
        return (Contradiction(STATE, "epoch", sentence),)
    return ()


def _plan(step: int, planned: object, placed: _Placed | None, run: Arguments) -> ResumePlan:
    if is_count(planned) and planned and step >= planned:
        return ResumePlan(f"nothing is left to train: update {step:,} of {int(planned):,} is made", from_update=step)
    start = ResumePlan(from_update=step, unit="update", planned=int(planned) if is_count(planned) else None)
    if placed is None:
        return replace(start, sentence="", also="; the new run's batch size tells which epoch and batch that is")
    epoch, total = placed.epoch + 1, placed.batches
    if placed.step == 0:
        return replace(start, sentence="", epoch=epoch, trained=total)
    if run.is_on("ignore_data_skip"):
        again = f": its first {placed.step:,} batches are trained again, because ignore_data_skip is on"
        return replace(start, sentence="", epoch=epoch, trained=total, also=again)
    left = None if total is None else max(total - placed.step, 0)
    of_epoch = "" if total is None else f" of {total:,}"
    skipped = f"the first {placed.step:,}{of_epoch} batches are skipped"
    also = f", in epoch {epoch:,}: {skipped}"
    return replace(start, sentence="", epoch=epoch, skipped=placed.step, trained=left, also=also)


def _with_encoder(checkpoint: Checkpoint, plan: ResumePlan, planned: object) -> ResumePlan:
    is_over = is_count(planned) and planned and (plan.from_update or 0) >= planned
    if not is_over and any(starts_anew(configuration(checkpoint, folder)) for folder in checkpoint.fact(adapters)):
        return replace(
            plan, sentence=f"{plan.sentence}; the prompt encoder is reinitialised: PEFT saves only its output"
        )
    return plan
