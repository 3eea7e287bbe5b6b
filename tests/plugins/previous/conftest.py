"""Two saves of one run, side by side as a trainer leaves them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ckpt_rules.testing import CheckpointDir, build_plain_torch


@pytest.fixture
def saves(tmp_path):
    """`epoch-1` and `epoch-2` of a run: 10 and 20 updates, weights and moments of their own."""
    return tuple(build_plain_torch(tmp_path / "run" / f"epoch-{epoch}", epoch=epoch) for epoch in (1, 2))


@pytest.fixture
def change_weights():
    """Change the weights of a save: `change_weights(save, lambda weights: …)`."""

    def change(save, how):
        weights = load_file(save / "model.safetensors")
        changed = how(weights)
        save_file(weights if changed is None else changed, save / "model.safetensors")

    return change


@pytest.fixture
def trained(tmp_path):
    """Saves of a small model that torch itself trained: `trained(updates=(3, 6), rate=…)`."""

    def make(
        updates=(3, 6),
        rate=lambda update: 1e-2,
        optimizer=torch.optim.AdamW,
        frozen=(),
        between=lambda model, opt: None,
    ):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("body", nn.Linear(8, 16))
        model.add_module("score", nn.Linear(16, 4))
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not name.startswith(tuple(frozen) or ("-",))
        opt = optimizer([p for p in model.parameters() if p.requires_grad], lr=rate(0))
        scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda update: rate(update) / max(rate(0), 1e-30))
        found = []
        for update in range(1, max(updates) + 1):
            opt.param_groups[0]["lr"] = rate(update - 1)
            model(torch.randn(4, 8)).square().sum().backward()
            opt.step()
            scheduler.step()
            opt.zero_grad()
            opt.param_groups[0]["lr"] = rate(update)
            if update in updates:
                found.append(_save(tmp_path / "trained" / f"step-{update}", model, opt, scheduler, update))
                between(model, opt)
        return found

    return make


def _save(folder, model, optimizer, scheduler, update):
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    state = {
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "epoch": 0,
        "step": update,
        "global_step": update,
        "total_batches": 100,
    }
    torch.save(state, folder / "training_state.pth")
    (folder / "config.json").write_text("{}")
    return CheckpointDir(folder)
