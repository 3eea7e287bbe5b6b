"""weights/misspelt-tensor: told by a module that is unlike the others for one name that is almost theirs."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ckpt_rules.testing import run_rule
from ckpt_rules_weights.misspelt import MisspeltTensor


def model():
    return nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))


@pytest.fixture
def saved(tmp_path):
    """`saved(old, new)`: findings on weights of which one has another name."""

    def build(*names, more=()):
        tensors = {k: v for k, v in model().state_dict().items() if k not in names}
        tensors |= {new: torch.zeros(2) for new in more}
        if names:
            tensors[names[1]] = torch.zeros(2)
        save_file(tensors, tmp_path / "model.safetensors")
        return [(f.place.path, f.place.tensor, f.message) for f in run_rule(MisspeltTensor(), tmp_path).findings]

    return build


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("1.weight", "1.weightx", "weight"),
        ("1.weight", "1.wieght", "weight"),
        ("3.bias", "3.bia", "bias"),
        ("2.bias", "2.xbias", "bias"),
    ],
)
def test_a_slip(old, new, meant, saved):
    (found,) = saved(old, new)
    assert found[:2] == ("model.safetensors", new)
    leaf = new.partition(".")[2]
    assert f"no other tensor is called '{leaf}', and {new[0]} has no '{meant}', unlike similar modules" in found[2]
    renamed = {new if k == old else k: v for k, v in model().state_dict().items()}
    with pytest.raises(RuntimeError, match="Missing key"):
        model().load_state_dict(renamed)


@pytest.mark.parametrize(
    "names",
    [(), ("0.weight", "0.weights"), ("0.weight", "0.weight1"), ("1.weight", "1.weight_g"), ("1.weight", "1.kernel")],
)
def test_other_names(names, saved):
    assert saved(*names) == []


def test_a_name_more_in_a_module_that_has_its_own(saved):
    assert saved(more=["1.weightx", "scale", "4.bias_k"]) == []


def test_what_is_read_is_what_was_written(saved, tmp_path):
    saved()
    assert load_file(tmp_path / "model.safetensors").keys() == model().state_dict().keys()


def test_a_prefix_on_one_tensor_parts_its_module(tmp_path):
    tensors = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)).state_dict()
    tensors = {f"net.{name}": value for name, value in tensors.items()}
    renamed = {"my_net.2.weight" if name == "net.2.weight" else name: v for name, v in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    found = run_rule(MisspeltTensor(), tmp_path).assert_one(path="model.safetensors", tensor="my_net.2.weight")
    assert found.message.startswith(
        "my_net.2 has only weight, and net.2 has everything that similar modules have except that"
    )
    save_file({**tensors, "ema.net.2.weight": torch.zeros(3, 8)}, tmp_path / "model.safetensors")
    run_rule(MisspeltTensor(), tmp_path).assert_passed()


def test_a_number_that_ends_with_another_is_no_prefix(tmp_path):
    whole = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12))).state_dict()
    parted = {name: value for name, value in whole.items() if name not in ("1.weight", "11.bias")}
    save_file(parted, tmp_path / "model.safetensors")
    run_rule(MisspeltTensor(), tmp_path).assert_passed()
