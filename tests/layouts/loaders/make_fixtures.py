"""Saves with data loaders of torchdata that keep their state, and resumes: `make fixtures` writes fixtures/ and fixtures/resumed.json.

accelerate/ are directories of `save_state`, of a training loader and one for evaluation, lightning/ files by Lightning; each within an
epoch, in its last batch, and after it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import lightning as pl
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader

FIXTURES = Path(__file__).parent / "fixtures"
BATCHES = 6
NUMBERS = [torch.full((4,), float(i)) for i in range(2 * BATCHES)]
NAMES = {"epoch=0-step=4.ckpt": "mid", "epoch=0-step=6.ckpt": "last", "end-epoch=0-step=6.ckpt": "end"}


class Stream(torch.utils.data.IterableDataset):
    """The same numbers without a length."""

    def __iter__(self):
        return iter(NUMBERS)


def prepared(workers: int):
    config = DataLoaderConfiguration(use_stateful_dataloader=True)
    accelerator = Accelerator(cpu=True, dataloader_config=config, gradient_accumulation_steps=1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    train = torch.utils.data.DataLoader(NUMBERS, batch_size=2, num_workers=workers)
    check = torch.utils.data.DataLoader(NUMBERS, batch_size=4)
    return accelerator, accelerator.prepare(model, optimizer, train, check)


def with_accelerate(out: Path, workers: int) -> dict[str, object]:
    """Save within the second epoch, in its last batch and after it, with an evaluation before each."""
    accelerator, (model, optimizer, train, check) = prepared(workers)
    for epoch in range(2):
        for index, batch in enumerate(train):
            with accelerator.accumulate(model):
                accelerator.backward(model(batch).pow(2).mean())
                optimizer.step()
                optimizer.zero_grad()
            if epoch and index in (3, BATCHES - 1):
                for _ in check:
                    pass
                accelerator.save_state(str(out / ("mid" if index == 3 else "last")))
    accelerator.save_state(str(out / "end"))
    seen = {}
    for save in ("mid", "last", "end"):
        again, (_, _, loader, _) = prepared(workers)
        again.load_state(str(out / save))
        given = [batch[:, 0].tolist() for batch in loader]
        seen[save] = {"first": given[:1], "batches": len(given), "step": again.step}
    return seen


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.seen: list[list[object]] = []

    def training_step(self, batch, index):
        self.seen.append([self.trainer.current_epoch, index, batch[:, 0].tolist()])
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def trainer(callbacks):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=callbacks, enable_checkpointing=bool(callbacks), **quiet
    )


def with_lightning(out: Path, data, workers: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as work:
        mid = ModelCheckpoint(work, every_n_train_steps=2, save_top_k=-1, save_on_train_epoch_end=False)
        end = ModelCheckpoint(work, filename="end-{epoch}-{step}", save_top_k=-1, every_n_epochs=1)
        trainer([mid, end]).fit(Net(), StatefulDataLoader(data, batch_size=2, num_workers=workers))
        seen = {}
        for source, name in NAMES.items():
            net = Net()
            loader = StatefulDataLoader(data, batch_size=2, num_workers=workers)
            trainer([]).fit(net, loader, ckpt_path=Path(work) / source, weights_only=False)
            out.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(work) / source, out / f"{name}.ckpt")
            seen[f"{name}.ckpt"] = {"first": net.seen[:1], "batches": len(net.seen)}
    return seen


def main() -> None:
    warnings.simplefilter("ignore")
    shutil.rmtree(FIXTURES, ignore_errors=True)
    seen = {"accelerate": with_accelerate(FIXTURES / "accelerate", 0)}
    seen["accelerate-workers"] = with_accelerate(FIXTURES / "accelerate-workers", 1)
    seen["lightning"] = with_lightning(FIXTURES / "lightning", NUMBERS, 0)
    seen["lightning-workers"] = with_lightning(FIXTURES / "lightning-workers", NUMBERS, 1)
    seen["lightning-stream"] = with_lightning(FIXTURES / "lightning-stream", Stream(), 0)
    (FIXTURES / "resumed.json").write_text(json.dumps(seen, indent=1) + "\n")


if __name__ == "__main__":
    main()
