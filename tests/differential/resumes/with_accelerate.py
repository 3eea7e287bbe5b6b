"""Accelerate: `save_state` after three batches, and two steps from it."""

from __future__ import annotations

import os
from typing import Any

from tests.differential.resumes import tiny
from tests.differential.resumes.observed import (
    Observation,
    draw,
    flat,
    of_generators,
    of_optimizer,
    of_scheduler,
    of_weights,
    seed_everything,
)

_STEP = 3


class Counters:
    """What a script registers to have its place saved."""

    def __init__(self) -> None:
        self.step, self.epoch = 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step, self.epoch = state["step"], state["epoch"]


class WithAccelerate:
    """Eight batches an epoch, saved after three."""

    name = "accelerate"

    def __init__(self, folder: str) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DataLoaderConfiguration

        self.folder = folder
        self.accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))

    def make(self) -> str:
        """Train up to the save; its path."""
        loader, counters = self._prepared(seed=1)
        for batch in [batch for batch, _ in zip(loader, range(_STEP), strict=False)]:
            self._step(batch, counters)
        return str(self.accelerator.save_state(os.path.join(self.folder, "run", f"step_{_STEP}")))

    def resume(self, path: str) -> Observation:
        """What there is before the first step from a save, and after the second."""
        loader, counters = self._prepared(seed=2)
        self.accelerator.load_state(path)
        batches = iter(self.accelerator.skip_first_batches(loader, counters.step))
        seen = self._look(counters)
        for _ in range(2):
            batch = next(batches)
            seen |= flat(f"batch/{counters.step}", batch)
            self._step(batch, counters)
        return seen | {f"then/{name}": value for name, value in self._look(counters).items()}

    def _prepared(self, seed: int) -> tuple[Any, Counters]:
        import torch

        seed_everything(seed)
        self.accelerator.free_memory()
        self.accelerator._custom_objects.clear()
        model, counters = tiny.model(), Counters()
        optimizer = tiny.optimizer(model)
        loader = torch.utils.data.DataLoader(tiny.rows(), batch_size=tiny.BATCH, shuffle=True)
        parts = self.accelerator.prepare(model, optimizer, loader, tiny.scheduler(optimizer))
        self.model, self.optimizer, loader, self.scheduler = parts
        self.accelerator.register_for_checkpointing(counters)
        return loader, counters

    def _step(self, batch: Any, counters: Counters) -> None:
        self.accelerator.backward(tiny.loss(self.model(batch)))
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        draw()
        counters.step += 1

    def _look(self, counters: Counters) -> Observation:
        return (
            of_weights(self.model)
            | of_optimizer(self.optimizer.optimizer, self.model.named_parameters())
            | of_scheduler(self.scheduler)
            | of_generators()
            | flat("counters", counters.state_dict())
        )
