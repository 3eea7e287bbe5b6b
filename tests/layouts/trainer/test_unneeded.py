"""What a resume of the Trainer does not need, and what is another trainer's; optimizers that keep their moments otherwise."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from ckpt_rules import verify
from tests.layouts.killing import said

TRAIN = "trainer/train.py"
SAVE = (TRAIN, "plain", "run/checkpoint-8")

pytestmark = pytest.mark.slow


def serious(path):
    return [(f.rule, f.place.path, str(f.severity)) for f in verify(path).findings if f.severity != "info"]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("generation_config.json", b'{"a":', "state/unreadable"),
        ("generation_config.json", b"[]", "state/unreadable"),
        ("generation_config.json", b"", "files/empty"),
        ("training_args.bin", b"", "files/empty"),
        ("training_args.bin", b"PK\x03\x04" + bytes(500), "weights/broken-torch-file"),
        ("training_args.bin", b"<!DOCTYPE html><html></html>", "files/placeholder"),
    ],
)
def test_damage_to_what_nothing_needs_is_a_warning(copied, name, content, rule):
    save = copied(*SAVE)
    (save / name).write_bytes(content)
    assert (rule, name, "warning") in serious(save)
    assert verify(save).passed, said(verify(save))


def test_damage_to_what_is_needed_stays_an_error(copied):
    save = copied(*SAVE)
    (save / "optimizer.pt").write_bytes(b"")
    assert ("files/empty", "optimizer.pt", "error") in serious(save)


class TestForeignState:
    def test_of_another_trainer_is_not_the_trainers(self, tmp_path):
        torch.save({"torch": torch.get_rng_state()}, tmp_path / "rng_rank0.pt")
        state = {"rollout_id": 7, "optimizer_step": 20, "dataset_cursor": {"epoch": 0, "offset": 56}}
        (tmp_path / "trainer_state.json").write_text(json.dumps(state))
        report = verify(tmp_path)
        assert report.layout.name != "transformers-trainer"
        assert not [f for f in report.findings if f.rule == "files/missing-required"], said(report)

    @pytest.mark.parametrize("state", [{}, {"global_step": None}, {"epoch": 1.0, "log_history": []}])
    def test_a_damaged_one_stays_the_trainers(self, copied, state):
        save = copied(*SAVE)
        (save / "trainer_state.json").write_text(json.dumps(state))
        assert verify(save).layout.name == "transformers-trainer"
        assert not verify(save).passed


def with_class(monkeypatch, module, name):
    """A class of a package that is not installed here, as far as pickle is concerned."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
    setattr(sys.modules[module], name, made)
    return made


@pytest.mark.parametrize("bits", [4, 8])
def test_moments_of_few_bits(copied, monkeypatch, bits):
    """torchao keeps them in tensors of a class of its own, which it lets torch.load through, and small ones as usual."""
    save = copied(*SAVE)
    packed = with_class(monkeypatch, f"torchao.optim.subclass_{bits}bit", f"OptimState{bits}bit")
    state = torch.load(save / "optimizer.pt", weights_only=False)
    large = [s for s in state["state"].values() if s["exp_avg"].dim() > 1]
    assert 0 < len(large) < len(state["state"])
    for kept in large:
        kept["exp_avg"], kept["exp_avg_sq"] = packed(), packed()
    torch.save(state, save / "optimizer.pt")
    assert serious(save) == []


def test_moments_of_a_projection(copied, monkeypatch):
    """GaLore keeps moments of fewer rows, and the projector; torch.load refuses the latter, and a resume stops there."""
    save = copied(*SAVE)
    projector = with_class(monkeypatch, "galore_torch.galore_projector", "GaLoreProjector")
    state = torch.load(save / "optimizer.pt", weights_only=False)
    for kept in state["state"].values():
        if kept["exp_avg"].dim() > 1:
            kept.update({n: kept[n][:2].clone() for n in ("exp_avg", "exp_avg_sq")}, projector=projector())
    torch.save(state, save / "optimizer.pt")
    assert serious(save) == [("state/needs-unsafe-load", "optimizer.pt", "warning")]
