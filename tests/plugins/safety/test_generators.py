"""state/needs-unsafe-load: files of random-number states that a script of one's own keeps beside the rest."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules import verify


@pytest.fixture(params=["plain", "dcp"])
def checkpoint(tmp_path, request):
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    if request.param == "plain":
        state = {"epoch": 2, "global_step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, tmp_path / "checkpoint.pt")
    else:
        state = {"model": model.state_dict(), "optim": optimizer.state_dict(), "train_state": {"step": 1}}
        dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    return tmp_path


def found(path):
    return [f for f in verify(path).findings if f.severity != "info"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["rng_rank0.pt", "rng.pth", "random_states_0.pt"])
def test_numpys_state_in_a_file_that_torch_refuses(checkpoint, name):
    states = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002
    torch.save(states, checkpoint / name)
    (problem,) = found(checkpoint)
    assert (problem.rule, problem.place.path, problem.severity) == ("state/needs-unsafe-load", name, "warning")
    assert "numpy.ndarray" in problem.data["globals"]


@pytest.mark.filterwarnings("ignore")
def test_torchs_state_alone(checkpoint):
    torch.save({"torch": torch.get_rng_state(), "python": random.getstate()}, checkpoint / "rng_rank0.pt")
    assert found(checkpoint) == []
