"""Files that Lightning wrote after `fit` had ended, and what it really does from there."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules import inspect, verify

BATCHES = 6

pytestmark = pytest.mark.slow


class Loader:
    """As many batches as an epoch has; one that keeps its place where asked to."""

    def __init__(self):
        self.given = self.first = 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        self.given, self.first = self.first, 0
        while self.given < BATCHES:
            self.given += 1
            yield torch.full((1, 1), float(self.given - 1))


class Stateful(Loader):
    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.first = state["given"]


@pytest.fixture
def trained(tmp_path):
    """`trained(Loader, None, max_steps=8)`: a file written after the end of `fit`, and each batch as (epoch, index, first value)."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(1, 1), []

        def training_step(self, batch, index):
            self.seen.append((self.trainer.current_epoch, index, float(batch)))
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def train(loader, path, **plan):
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        trainer, module = lightning.Trainer(accelerator="cpu", **quiet, **plan), Module()
        trainer.fit(module, loader(), ckpt_path=path)
        file = tmp_path / f"at-{trainer.global_step}.ckpt"
        trainer.save_checkpoint(file)
        return file, module.seen

    return train


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", [Loader, Stateful])
def test_it_ended_within_an_epoch(trained, loader):
    ended, _ = trained(loader, None, max_steps=8)
    assert verify(ended, strict=True).passed
    plan = inspect(ended).resume
    place = "where the data loader left off" if loader is Stateful else "and with the data from their start"
    assert plan.sentence == (
        "training had ended within epoch 2, after batch 2 of 6; a resume treats that epoch as complete and starts epoch 3 at its "
        f"first batch; with max_steps, Lightning 2.6.6 starts it after batch 2, {place}"
    )
    assert (plan.epoch, plan.skipped, plan.trained, plan.from_update) == (3, 0, 6, 8)
    _, seen = trained(loader, ended, max_epochs=3)
    assert (seen[0], len(seen)) == ((2, 0, 0.0), 6)
    later, seen = trained(loader, ended, max_steps=11)
    assert (seen[0], len(seen)) == ((2, 2, 2.0 if loader is Stateful else 0.0), 3)
    assert verify(later, strict=True).passed
    assert "after batch 5;" in inspect(later).resume.sentence.replace(" of 6", "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", [Loader, Stateful])
def test_it_ended_with_an_epoch(trained, loader):
    ended, _ = trained(loader, None, max_epochs=2)
    assert verify(ended, strict=True).passed
    plan = inspect(ended).resume
    more = (
        ""
        if loader is Stateful
        else "; with max_steps, Lightning 2.6.6 first trains one more batch of the completed epoch"
    )
    assert plan.sentence == f"epoch 2 is complete; training starts epoch 3 at its first batch{more}"
    _, seen = trained(loader, ended, max_steps=15)
    assert seen[0][1:] == ((0, 0.0) if loader is Stateful else (BATCHES, 0.0))


@pytest.mark.filterwarnings("ignore")
def test_an_epoch_that_was_cut_short_says_nothing_of_the_length_of_the_next(trained):
    ended, _ = trained(Loader, None, max_steps=2)
    later, _ = trained(Loader, ended, max_steps=5)
    assert "had ended within epoch 2, after batch 5; a resume" in inspect(later).resume.sentence  # and not "5 of 2"
    assert verify(later, strict=True).passed
