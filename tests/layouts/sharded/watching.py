"""What a Trainer does with each batch, noted so that a resumed run can be compared with one that was never broken off."""

from __future__ import annotations

from collections.abc import Callable

from transformers import Trainer, TrainerCallback

SAVED = (2, 4, 8)


class Saves(TrainerCallback):
    """Saves after these updates alone."""

    def __init__(self, *updates: int):
        self.updates = updates

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step in self.updates


def watched(trainer: Trainer, counters: Callable[[], dict[str, object]]) -> list[dict[str, object]]:
    """Of each batch that it will train: the updates made before, the samples by their first tokens, and what `counters` says."""
    batches: list[dict[str, object]] = []
    original = trainer.training_step

    def step(model, inputs, *rest):
        samples = inputs["input_ids"][:, 0].tolist()
        batches.append({"global_step": trainer.state.global_step, "samples": samples, **counters()})
        return original(model, inputs, *rest)

    trainer.training_step = step
    return batches
