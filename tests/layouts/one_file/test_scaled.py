"""Gradient scalers: of which trainer's file the saved options say that one belongs there."""

from __future__ import annotations

import sys

import pytest
import torch

from ckpt_rules import verify
from ckpt_rules.testing import build_plain_torch
from tests.layouts.one_file.stand_in import StandIn
from tests.layouts.one_file.written import FIXTURES

SCALER = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7}


@pytest.fixture(autouse=True)
def without_their_libraries(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, StandIn("mmengine", "ultralytics")])


def found(path):
    told = (f for f in verify(path).findings if f.rule.startswith("scaler/"))
    return [(f.severity.value, f.rule, f.place.path, f.place.key) for f in told]


@pytest.mark.parametrize(
    ("arguments", "scaler", "severity"),
    [
        ({"amp": True, "device": "0"}, None, "warning"),
        ({"amp": True, "device": None}, None, "warning"),
        ({"amp": True, "device": "0"}, SCALER, None),
        ({"amp": True, "device": "cpu"}, {}, None),
        ({"amp": True, "device": "cpu"}, None, None),
        ({"amp": False, "device": "0"}, None, None),
        ({"amp": "yes"}, None, None),
        (None, None, None),
    ],
)
def test_ultralytics(tmp_path, arguments, scaler, severity):
    whole = torch.load(FIXTURES / "ultralytics/interrupted/last.pt", weights_only=False)
    whole["train_args"] = {**whole["train_args"], **arguments} if arguments else arguments
    whole = {k: v for k, v in whole.items() if k != "scaler"} | ({} if scaler is None else {"scaler": scaler})
    torch.save(whole, tmp_path / "last.pt")
    assert found(tmp_path / "last.pt") == ([(severity, "scaler/missing", "last.pt", "scaler")] if severity else [])


@pytest.mark.parametrize(
    ("arguments", "scaler", "severity"),
    [
        ({"amp": True, "amp_dtype": "float16", "device": "cuda"}, None, "warning"),
        ({"amp": True, "amp_dtype": "float16", "device": "cuda"}, SCALER, None),
        ({"amp": True, "amp_dtype": "bfloat16", "device": "cuda"}, None, None),
        ({"amp": True, "amp_dtype": "float16", "device": "cpu"}, None, None),
        ({"amp": False, "device": "cuda"}, None, None),
    ],
)
def test_timm(tmp_path, arguments, scaler, severity):
    whole = torch.load(FIXTURES / "timm/run/last.pth.tar", weights_only=False)
    for name, value in arguments.items():
        setattr(whole["args"], name, value)
    torch.save(whole | ({"amp_scaler": scaler} if scaler else {}), tmp_path / "last.pth.tar")
    told = [(severity, "scaler/missing", "last.pth.tar", "amp_scaler")] if severity else []
    assert found(tmp_path / "last.pth.tar") == told


@pytest.mark.parametrize(
    ("settings", "scaler", "severity"),
    [
        ("optim_wrapper = dict(type='AmpOptimWrapper')", None, "warning"),
        ("optim_wrapper = dict(type='AmpOptimWrapper')", SCALER, None),
        ("optim_wrapper = dict(dtype='bfloat16', type='AmpOptimWrapper')", None, None),
        ("optim_wrapper = dict(type='OptimWrapper')", None, None),
    ],
)
def test_mmengine(tmp_path, settings, scaler, severity):
    whole = torch.load(FIXTURES / "mmengine/epochs/epoch_2.pth", weights_only=False)
    whole["meta"]["cfg"] += f"\n{settings}\n"
    whole["optimizer"] |= {"loss_scaler": scaler} if scaler else {}
    torch.save(whole, tmp_path / "epoch_2.pth")
    told = [(severity, "scaler/missing", "epoch_2.pth", "optimizer.loss_scaler")] if severity else []
    assert found(tmp_path / "epoch_2.pth") == told


@pytest.mark.parametrize(
    ("settings", "severity"),
    [
        ({"dtype": "float16", "device": "cuda:0"}, "info"),
        ({"dtype": "float16", "device": "cpu"}, None),
        ({"dtype": "bfloat16", "device": "cuda"}, None),
        ({"dtype": 16, "device": 0}, None),
    ],
)
def test_nanogpt_keeps_none(tmp_path, settings, severity):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "model_args": {"n_layer": 1}}
    torch.save({**state, "iter_num": 1, "best_val_loss": 1.0, "config": settings}, tmp_path / "ckpt.pt")
    assert found(tmp_path / "ckpt.pt") == ([(severity, "scaler/missing", "ckpt.pt", "scaler")] if severity else [])


@pytest.mark.parametrize(
    ("arguments", "severity"),
    [
        ({"amp": True}, "warning"),
        ({"use_amp": True, "device": "cuda"}, "warning"),
        ({"amp": True, "amp_dtype": "bfloat16"}, None),
        ({"amp": True, "device": "cpu"}, None),
        ({"amp": "O1"}, None),
        ({"amp": False, "dtype": "float32"}, None),
    ],
)
def test_a_script_of_ones_own(tmp_path, arguments, severity):
    checkpoint = build_plain_torch(tmp_path / "ck", with_torch=True)
    path = checkpoint.path / "training_state.pth"
    whole = torch.load(path, weights_only=False)
    scaler = next(key for key in whole if "scaler" in key)
    torch.save({**whole, "args": arguments}, path)
    assert found(checkpoint.path) == []
    torch.save({**{k: v for k, v in whole.items() if k != scaler}, "args": arguments}, path)
    told = [f for f in found(checkpoint.path) if f[0] != "info"]
    assert told == ([(severity, "scaler/missing", "training_state.pth", "scaler_state_dict")] if severity else [])
