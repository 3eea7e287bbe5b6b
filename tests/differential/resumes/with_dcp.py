"""torch.distributed.checkpoint: an application's state as PyTorch's tutorial saves it, and flat entries as torchtitan does."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from tests.differential.resumes import tiny
from tests.differential.resumes.observed import (
    Observation,
    flat,
    of_optimizer,
    of_scheduler,
    of_weights,
    seed_everything,
)

_STEP = 3


class App:
    """Model, optimizer and the step, as one stateful object."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def state_dict(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self.training.model, self.training.optimizer)
        return {"model": model, "optim": optimizer, "step": self.training.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import set_state_dict

        set_state_dict(
            self.training.model,
            self.training.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optim"],
        )
        self.training.step = state["step"]


class Optimizer:
    """The optimizer alone, its state flattened to one entry for each parameter and field."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def state_dict(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(flatten_optimizer_state_dict=True)
        return get_optimizer_state_dict(self.training.model, self.training.optimizer, options=options)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        options = StateDictOptions(flatten_optimizer_state_dict=True)
        set_optimizer_state_dict(self.training.model, self.training.optimizer, state, options=options)


class Place:
    """Where the run is."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.training.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.training.step = state["step"]


class Training:
    """What a training script holds."""

    def __init__(self, seed: int, *, scheduled: bool) -> None:
        seed_everything(seed)
        self.model = tiny.model()
        self.optimizer = tiny.optimizer(self.model)
        self.scheduler = tiny.scheduler(self.optimizer) if scheduled else None
        self.step = 0

    def go(self, steps: int) -> None:
        """Make some updates; the batch follows from the step."""
        data = tiny.rows()
        for _ in range(steps):
            at = self.step * tiny.BATCH % len(data)
            tiny.loss(self.model(data[at : at + tiny.BATCH])).backward()
            self.optimizer.step()
            if self.scheduler:
                self.scheduler.step()
            self.optimizer.zero_grad()
            self.step += 1

    def look(self) -> Observation:
        """All that it holds."""
        return (
            of_weights(self.model)
            | of_optimizer(self.optimizer, self.model.named_parameters())
            | of_scheduler(self.scheduler)
            | flat("step", self.step)
        )


class _WithDcp:
    scheduled: bool

    def __init__(self, folder: str) -> None:
        logging.disable(logging.WARNING)
        warnings.filterwarnings("ignore")
        self.folder = folder

    def make(self) -> str:
        """Train up to the save; its path."""
        import torch.distributed.checkpoint as dcp

        training = Training(1, scheduled=self.scheduled)
        training.go(_STEP)
        path = os.path.join(self.folder, "run", f"step-{_STEP}")
        dcp.save(self.parts(training), checkpoint_id=path, no_dist=True)
        return path

    def resume(self, path: str) -> Observation:
        """What there is before the first step from a save, and after the second."""
        import torch.distributed.checkpoint as dcp

        training = Training(2, scheduled=self.scheduled)
        self.load(dcp, training, path)
        seen = training.look()
        training.go(2)
        return seen | {f"then/{name}": value for name, value in training.look().items()}

    def load(self, dcp: Any, training: Training, path: str) -> None:
        """Load a save into what a script has just built."""
        dcp.load(self.parts(training), checkpoint_id=path, no_dist=True)

    def parts(self, training: Training) -> dict[str, Any]:
        raise NotImplementedError


class WithAppState(_WithDcp):
    """`dcp.save({"app": AppState(model, optimizer)})`."""

    name, scheduled = "dcp-appstate", False

    def parts(self, training: Training) -> dict[str, Any]:
        return {"app": App(training)}


class WithFlatEntries(_WithDcp):
    """The model's and the optimizer's entries, a scheduler and a step, each under its own name."""

    name, scheduled = "dcp-flat", True

    def load(self, dcp: Any, training: Training, path: str) -> None:
        parts = self.parts(training)
        dcp.load(parts, checkpoint_id=path, no_dist=True)
        training.model.load_state_dict(parts["model"])

    def parts(self, training: Training) -> dict[str, Any]:
        return {
            "model": training.model.state_dict(),
            "optimizer": Optimizer(training),
            "lr_scheduler": training.scheduler,
            "train_state": Place(training),
        }
