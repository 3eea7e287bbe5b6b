"""numerics/ema-is-model, and NaN in a moving average."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import Status
from ckpt_rules_numerics.ema import EmaIsModel
from ckpt_rules_numerics.finite import NonFinite

UPDATES = 120


def trained(updates=UPDATES, decay=0.99, lr=1e-3):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.SiLU(), torch.nn.Linear(16, 8))
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    average = {k: v.clone() for k, v in net.state_dict().items()}
    for _ in range(updates):
        optimizer.zero_grad()
        net(torch.randn(4, 8)).pow(2).mean().backward()
        optimizer.step()
        for name, value in net.state_dict().items():
            average[name].lerp_(value, 1 - decay)
    return net, optimizer, average


@pytest.fixture
def diffusers(tmp_path):
    """`unet/` and `unet_ema/`, as the training scripts of diffusers save them."""

    def make(copied, updates=UPDATES, lr=1e-3, **options):
        net, optimizer, average = trained(updates, lr=lr)
        if copied:
            net.load_state_dict(average)  # copy_to for the evaluation, and no restore
        save = tmp_path / f"checkpoint-{updates}"
        config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.42.1"}
        counted = {"decay": 0.9999, "optimization_step": updates, "update_after_step": 0, **options}
        for folder, tensors, values in (("unet", net.state_dict(), config), ("unet_ema", average, config | counted)):
            (save / folder).mkdir(parents=True)
            save_file(tensors, save / folder / "diffusion_pytorch_model.safetensors")
            (save / folder / "config.json").write_text(json.dumps(values))
        torch.save(optimizer.state_dict(), save / "optimizer.bin")
        return save

    return make


def test_an_average_of_its_own(diffusers, run_rule):
    run_rule(EmaIsModel(), diffusers(copied=False)).assert_passed()


def test_an_average_that_was_copied_over_the_weights(diffusers, run_rule):
    run_rule(EmaIsModel(), diffusers(copied=True)).assert_one(
        path="unet_ema/diffusion_pytorch_model.safetensors",
        tensor="0.bias",
        severity="warning",
        message="all 4 tensors of the moving average are bit-for-bit equal to weights of the model after 120 updates",
    )


@pytest.mark.parametrize("options", [
    {"updates": 20}, {"update_after_step": 100}, {"optimization_step": 5}, {"decay": 0.0}, {"lr": 0.0},
])  # fmt: skip
def test_it_has_not_begun_or_has_no_memory(diffusers, run_rule, options):
    assert run_rule(EmaIsModel(), diffusers(copied=True, **options)).findings == ()


@pytest.mark.parametrize("key", ["ema_state_dict", "ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_in_one_file(tmp_path, run_rule, key, prefix):
    net, optimizer, average = trained()
    for copied in (False, True):
        weights = net.state_dict() if copied else average
        shadow = {f"{prefix}{name}": tensor.clone() for name, tensor in weights.items()}
        state = {"step": UPDATES, "epoch": 1, "model_state_dict": net.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {key: shadow}, tmp_path / "checkpoint.pth")
        result = run_rule(EmaIsModel(), tmp_path)
        if copied:
            result.assert_one(
                path="checkpoint.pth", message="all 4 tensors of the moving average are bit-for-bit equal to weights"
            )
        else:
            result.assert_passed()


def test_nothing_to_compare(tmp_path, run_rule):
    net, optimizer, _ = trained(3)
    torch.save({"step": 3, "model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pth")
    assert run_rule(EmaIsModel(), tmp_path).status is Status.SKIPPED


class TestNan:
    def test_in_a_state_dict(self, tmp_path, run_rule):
        net, optimizer, average = trained(3)
        state = {"step": 3, "model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
        torch.save(state | {"ema_state_dict": average}, tmp_path / "checkpoint.pth")
        run_rule(NonFinite(), tmp_path).assert_passed()
        average["2.weight"][1] = float("nan")
        torch.save(state | {"ema_state_dict": average}, tmp_path / "checkpoint.pth")
        run_rule(NonFinite(), tmp_path).assert_one(
            tensor="ema_state_dict.2.weight", message="16 of 128 values are not finite (16 NaN); the first is at [1, 0]"
        )

    def test_in_a_pickled_module_as_ultralytics_saves_it(self, tmp_path, run_rule):
        net, optimizer, _ = trained(3)
        average = copy.deepcopy(net).half()
        options = {"epochs": 5, "amp": True}
        for poisoned in (False, True):
            if poisoned:
                average[0].weight.data[0] = float("nan")
            state = {"epoch": 0, "model": None, "ema": average, "updates": 3, "optimizer": optimizer.state_dict()}
            torch.save(state | {"train_args": options}, tmp_path / "last.pt")
            result = run_rule(NonFinite(), tmp_path)
            if poisoned:
                result.assert_one(
                    path="last.pt", message="8 of 128 values are not finite (8 NaN); the first is at [0, 0]"
                )
            else:
                result.assert_passed()
