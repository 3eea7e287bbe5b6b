"""Checkpoints whose values are one's own."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules.testing import CheckpointDir


@pytest.fixture
def weights(tmp_path):
    """A directory with `model.safetensors` of the given tensors, and `config.json` and `optimizer.pt` where they are given."""

    def make(tensors, *, config=None, optimizer=None):
        folder = tmp_path / "ck"
        folder.mkdir(exist_ok=True)
        save_file(tensors, folder / "model.safetensors")
        checkpoint = CheckpointDir(folder)
        if config is not None:
            checkpoint.write_json("config.json", config)
        if optimizer is not None:
            torch.save(optimizer, folder / "optimizer.pt")
        return checkpoint

    return make


@pytest.fixture
def healthy():
    """Weights as training leaves them."""
    torch.manual_seed(3)
    return {"embed.weight": torch.randn(32, 16), "layer.weight": torch.randn(16, 16), "layer.bias": torch.zeros(16)}
