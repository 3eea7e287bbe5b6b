"""A training loop that verifies a checkpoint before it resumes, and then continues exactly where it left off.

    python examples/train_and_resume.py --out runs/demo                  # trains; stop it with Ctrl-C whenever you like
    python examples/train_and_resume.py --out runs/demo                  # verifies the newest save and continues from it
    python examples/train_and_resume.py --out runs/demo --stop-after 30  # stops by itself after 30 batches

A small language model learns to count. Each save is a directory `step-N` in the plain torch layout: `model.safetensors`,
`config.json` and `training_state.pth`. `log.jsonl` records every batch: what was trained, and the loss.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import CheckpointInvalid, inspect, quick_verify_checkpoint

SMALL_LR = 0.01  # of the base learning rate: below that, what is left of training changes little
WARMUP_UPDATES = 10


@dataclass(frozen=True)
class Config:
    """What the model and its data are made of."""

    vocab_size: int = 32
    hidden_size: int = 32
    context: int = 8
    batches_per_epoch: int = 40
    batch_size: int = 8
    dropout: float = 0.1
    learning_rate: float = 3e-3
    seed: int = 0

    @property
    def samples(self) -> int:
        return self.batches_per_epoch * self.batch_size


class Model(torch.nn.Module):
    """Predicts the next number from the last few."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.embed = torch.nn.Embedding(config.vocab_size, hidden)
        self.mix = torch.nn.Linear(config.context * hidden, hidden)
        self.norm = torch.nn.LayerNorm(hidden)
        self.dropout = torch.nn.Dropout(config.dropout)
        self.head = torch.nn.Linear(hidden, config.vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed = torch.nn.functional.gelu(self.mix(self.embed(tokens).flatten(1)))
        return self.head(self.dropout(self.norm(mixed)))


class Trainer:
    """Model, optimizer, scheduler and counters: all that a checkpoint must bring back."""

    def __init__(self, config: Config, epochs: int) -> None:
        random.seed(config.seed)
        torch.manual_seed(config.seed)
        self.config, self.epochs = config, epochs
        self.planned_updates = epochs * config.batches_per_epoch
        self.model = Model(config)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.lr_factor)
        # 1-based epoch. step 0 says that it is complete, step s that its first s batches are done.
        self.epoch, self.step, self.global_step = 0, 0, 0

    def lr_factor(self, update: int) -> float:
        """Linear warm-up, then a cosine down to zero at the planned end."""
        if update < WARMUP_UPDATES:
            return (update + 1) / WARMUP_UPDATES
        done = (update - WARMUP_UPDATES) / max(1, self.planned_updates - WARMUP_UPDATES)
        return (1 + math.cos(math.pi * min(1.0, done))) / 2

    def batches(self, epoch: int) -> list[list[int]]:
        """The samples of each batch of an epoch: shuffled by the epoch's own seed, so that they can be had again."""
        generator = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
        order = torch.randperm(self.config.samples, generator=generator).tolist()
        size = self.config.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]

    def train_batch(self, samples: list[int]) -> float:
        """One forward pass, one optimizer update; the loss."""
        start = torch.tensor(samples).unsqueeze(1)
        run = (start + torch.arange(self.config.context + 1) * (1 + start % 3)) % self.config.vocab_size
        loss = torch.nn.functional.cross_entropy(self.model(run[:, :-1]), run[:, -1])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "total_batches": self.config.batches_per_epoch,
            "global_step": self.global_step,
            "num_epochs": self.epochs,
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler_state_dict": self.scheduler.state_dict(),
            "scaler_state_dict": torch.amp.GradScaler("cpu", enabled=False).state_dict(),
            "rng_state": {"python": random.getstate(), "torch": torch.get_rng_state()},
        }

    def save(self, run: Path) -> Path:
        """Write `step-N` under another name and rename it when it is whole: a killed save never looks like a finished one."""
        final = run / f"step-{self.global_step}"
        staging = run / f"{final.name}.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save_file(self.model.state_dict(), staging / "model.safetensors", metadata={"format": "pt"})
        (staging / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        torch.save(self.state(), staging / "training_state.pth")
        for file in staging.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        return final

    def load(self, checkpoint: Path) -> None:
        """Bring everything back, and check that optimizer and scheduler are where the counters say."""
        saved = json.loads((checkpoint / "config.json").read_text())
        if saved != asdict(self.config):
            raise SystemExit(
                f"{checkpoint} was trained with {saved}, and this run is configured as {asdict(self.config)}"
            )
        self.model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        state = torch.load(checkpoint / "training_state.pth", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        self.scheduler.load_state_dict(state["scheduler_state_dict"])
        self.epoch, self.step, self.global_step = state["epoch"], state["step"], state["global_step"]
        random.setstate(state["rng_state"]["python"])
        torch.set_rng_state(state["rng_state"]["torch"])
        steps = {int(s["step"]) for s in self.optimizer.state.values()}
        if steps != {self.global_step} or self.scheduler.last_epoch != self.global_step:
            raise SystemExit(
                f"{checkpoint}: the optimizer has made {sorted(steps)} updates and the scheduler "
                f"{self.scheduler.last_epoch} steps, where the counters say {self.global_step}"
            )


def newest_good_checkpoint(run: Path) -> Path | None:
    """The save with the highest step that passes verification; what is wrong with newer ones is printed.

    None where nothing was ever saved. Where every save is damaged, a human decides: to start again would overwrite them.
    """
    saves = [p for p in run.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    for save in sorted(saves, key=lambda p: int(p.name.removeprefix("step-")), reverse=True):
        try:
            quick_verify_checkpoint(save)
        except CheckpointInvalid as invalid:
            print(f"skipping {invalid}", file=sys.stderr)
        else:
            return save
    if saves:
        raise SystemExit(
            f"none of the {len(saves)} saves in {run} can be resumed; move them away to start from scratch"
        )
    return None


def resume(trainer: Trainer, run: Path) -> None:
    """Go back to the newest good save, if there is one, and say what that means."""
    checkpoint = newest_good_checkpoint(run)
    if checkpoint is None:
        print("starting from scratch")
        return
    plan = inspect(checkpoint).resume
    trainer.load(checkpoint)
    (lr,) = trainer.scheduler.get_last_lr()
    print(f"resuming from {checkpoint}: {plan.sentence if plan else 'no plan'}")
    print(f"optimizer and scheduler stand at update {trainer.global_step}; the learning rate continues at {lr:.3g}")
    if lr < SMALL_LR * trainer.config.learning_rate:
        print(
            f"warning: that is less than {SMALL_LR:.0%} of {trainer.config.learning_rate:.3g}; training on changes little"
        )


def keep_log(run: Path, updates: int) -> None:
    """Drop what was logged after the save: those batches will be trained again."""
    log = run / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    log.write_text("".join(line for line in lines if json.loads(line)["global_step"] <= updates))


def train(trainer: Trainer, run: Path, *, stop_after: int | None, save_every: int) -> None:
    """Train to the planned end, or until Ctrl-C or `stop_after` batches; save where it stops."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    previous = signal.signal(signal.SIGINT, stop)
    saved, done = trainer.global_step, 0
    try:
        with (run / "log.jsonl").open("a") as log:
            while not stopping and not (trainer.epoch == trainer.epochs and trainer.step == 0):
                if trainer.step == 0:
                    trainer.epoch += 1
                batch = trainer.step
                loss = trainer.train_batch(trainer.batches(trainer.epoch)[batch])
                trainer.global_step += 1
                trainer.step = (batch + 1) % trainer.config.batches_per_epoch
                entry = {"global_step": trainer.global_step, "epoch": trainer.epoch, "batch": batch, "loss": loss}
                log.write(json.dumps(entry) + "\n")
                log.flush()  # what a save holds must have been logged, even if we are killed right after it
                done += 1
                stopping = stopping or done == stop_after
                if trainer.global_step % save_every == 0:
                    saved = trainer.global_step
                    print(f"epoch {trainer.epoch}, batch {batch}: loss {loss:.4f}; saved {trainer.save(run)}")
    finally:
        signal.signal(signal.SIGINT, previous)
    if trainer.global_step != saved:
        print(f"{'interrupted' if stopping else 'finished'}: saved {trainer.save(run)}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=40, help="batches per epoch")
    parser.add_argument("--stop-after", type=int, help="stop, as if interrupted, after so many batches")
    parser.add_argument("--save-every", type=int, default=60, help="batches between two saves")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(Config(batches_per_epoch=options.batches), options.epochs)
    resume(trainer, options.out)
    keep_log(options.out, trainer.global_step)
    train(trainer, options.out, stop_after=options.stop_after, save_every=options.save_every)


if __name__ == "__main__":
    main()
