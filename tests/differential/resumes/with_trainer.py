"""The transformers Trainer: a save in the middle of its first epoch, and two steps from it."""

from __future__ import annotations

import os
from typing import Any

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

_STEP, _PLANNED, _ROWS = 3, 8, 8
_COUNTERS = ("global_step", "epoch", "max_steps", "num_train_epochs", "best_metric", "best_global_step")


class WithTrainer:
    """Four batches an epoch, two epochs, saved after three steps."""

    name = "trainer"

    def __init__(self, folder: str) -> None:
        import transformers
        from transformers import LlamaConfig

        transformers.logging.set_verbosity_error()
        self.folder = folder
        self.config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        self.rows = [{"input_ids": [(i * 7 + k) % 32 for k in range(6)]} for i in range(_ROWS)]
        self.going_on = self._arguments("resumed", save_strategy="steps", save_steps=1_000)

    def make(self) -> str:
        """Train up to the save; its path."""
        trainer = self._trainer(self._arguments("run", save_strategy="steps", save_steps=_STEP), seed=1, steps=_STEP)
        trainer.train()
        return os.path.join(self.folder, "run", f"checkpoint-{_STEP}")

    def resume(self, path: str) -> Observation:
        """What the Trainer has before the first step from a save, and after the second."""
        trainer = self._trainer(self.going_on, seed=2, steps=2)
        trainer.train(resume_from_checkpoint=path)
        return trainer.before | _then(_counters(trainer) | of_weights(trainer.model))

    def _arguments(self, name: str, **more: Any) -> Any:
        from transformers import TrainingArguments

        return TrainingArguments(
            output_dir=os.path.join(self.folder, name), max_steps=_PLANNED, per_device_train_batch_size=2, use_cpu=True,
            learning_rate=0.01, warmup_steps=2, logging_steps=1, report_to="none", disable_tqdm=True, **more,
        )  # fmt: skip

    def _trainer(self, arguments: Any, seed: int, steps: int) -> Any:
        from transformers import LlamaForCausalLM, PrinterCallback

        seed_everything(seed)
        trainer = _observing()(
            model=LlamaForCausalLM(self.config), args=arguments, train_dataset=self.rows, data_collator=_collate
        )
        trainer.remove_callback(PrinterCallback)
        trainer.left, trainer.before = steps, None
        return trainer


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids}


def _counters(trainer: Any) -> Observation:
    """Where it is, and what it has logged, without what the clock says."""
    counters = {name: getattr(trainer.state, name) for name in _COUNTERS}
    log = [
        {k: v for k, v in entry.items() if k != "total_flos" and not k.startswith("train_")}
        if isinstance(entry, dict)
        else entry
        for entry in trainer.state.log_history
    ]
    return flat("counters", counters | {"log": log})


def _then(seen: Observation) -> Observation:
    return {f"then/{name}": value for name, value in seen.items()}


_classes: list[type] = []


def _observing() -> type:
    """The Trainer, which here looks around before its first step and stops after some."""
    if _classes:
        return _classes[0]
    from transformers import Trainer

    class Observing(Trainer):
        left: int
        before: Observation | None

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.before is None:
                self.before = self._look(inputs)
            self.left -= 1
            draw()
            self.control.should_training_stop = self.left <= 0
            return super().training_step(model, inputs, *args, **kwargs)

        def _look(self, inputs: Any) -> Observation:
            return (
                of_weights(self.model)
                | of_optimizer(self.optimizer.optimizer, self.model.named_parameters())
                | of_scheduler(self.lr_scheduler)
                | of_generators()
                | _counters(self)
                | flat("batch", dict(inputs))
            )

    _classes.append(Observing)
    return Observing
