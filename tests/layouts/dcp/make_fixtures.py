"""Saves that need a library which CI does without: `make fixtures` writes fixtures/zstd, compressed by torch's `ZStandard`."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._extension import ZStandard

FIXTURES = Path(__file__).parent / "fixtures"


def main() -> None:
    """A model and its optimizer after two steps, and the same from torch's own loader."""
    warnings.simplefilter("ignore")  # that it is a single process is meant so
    target = FIXTURES / "zstd" / "step-2"
    shutil.rmtree(target.parent, ignore_errors=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 2}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(target, _extensions=[ZStandard()]), no_dist=True)
    loaded = {"model": {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}}
    dcp.load(loaded, checkpoint_id=target, no_dist=True)
    assert all(torch.equal(loaded["model"][name], tensor) for name, tensor in model.state_dict().items())


if __name__ == "__main__":
    main()
