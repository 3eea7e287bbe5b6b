"""Lightning: ModelCheckpoint's save in the middle of an epoch, and two steps from it."""

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


class WithLightning:
    """Eight batches an epoch, three epochs, saved after three batches."""

    name = "lightning"

    def __init__(self, folder: str) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore")
        self.folder = folder

    def make(self) -> str:
        """Train up to the save; its path."""
        module, trainer = self._fitting(seed=1, steps=_STEP)
        trainer.fit(module, _loader())
        return os.path.join(self.folder, "run")

    def resume(self, path: str) -> Observation:
        """What there is before the first step from a save, and after the second."""
        module, trainer = self._fitting(seed=2, steps=2)
        trainer.fit(module, _loader(), ckpt_path=os.path.join(path, f"epoch=0-step={_STEP}.ckpt"))
        return module.before | _counters("then/", trainer) | {f"then/{k}": v for k, v in of_weights(module).items()}

    def _fitting(self, seed: int, steps: int) -> tuple[Any, Any]:
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import ModelCheckpoint

        seed_everything(seed)
        module = _module()(width=8)
        module.left, module.before = steps, None
        folder = os.path.join(self.folder, "run" if seed == 1 else "resumed")
        saving = ModelCheckpoint(folder, every_n_train_steps=_STEP if seed == 1 else 1000, save_top_k=-1)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=3, logger=False, enable_progress_bar=False, barebones=False,
            enable_model_summary=False, callbacks=[saving], default_root_dir=self.folder,
        )  # fmt: skip
        return module, trainer


def _loader() -> Any:
    import torch

    return torch.utils.data.DataLoader(tiny.rows(), batch_size=tiny.BATCH)


def _counters(name: str, trainer: Any) -> Observation:
    loop = trainer.fit_loop
    counters = {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "batch": loop.epoch_loop.batch_progress.current.ready,
        "fit_loop": loop.epoch_progress.state_dict(),
        "batches": loop.epoch_loop.batch_progress.state_dict(),
    }
    callback = trainer.checkpoint_callback.state_dict()
    return flat(f"{name}counters", counters) | flat(f"{name}callback", callback)


_classes: list[type] = []


def _module() -> type:
    """The module, which looks around before its first step and stops after some."""
    if _classes:
        return _classes[0]
    from lightning.pytorch import LightningModule

    class Observing(LightningModule):
        left: int
        before: Observation | None

        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = tiny.model()

        def configure_optimizers(self) -> Any:
            optimizer = tiny.optimizer(self.net)
            return [optimizer], [{"scheduler": tiny.scheduler(optimizer), "interval": "step"}]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.before is None:
                self.before = self._look(batch, batch_idx)
            self.left -= 1
            self.trainer.should_stop = self.left <= 0
            return tiny.loss(self.net(batch))

        def _look(self, batch: Any, batch_idx: int) -> Observation:
            return (
                of_weights(self)
                | of_optimizer(self.trainer.optimizers[0], self.named_parameters())
                | of_scheduler(self.trainer.lr_scheduler_configs[0].scheduler)
                | _counters("", self.trainer)
                | flat("batch", batch)
                | flat("batch_idx", batch_idx)
            )

    _classes.append(Observing)
    return Observing
