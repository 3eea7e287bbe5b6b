"""What the kit builds is what a trainer would have written: no rule finds fault with it, and the real loaders take it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ckpt_rules import Severity, inspect, verify
from ckpt_rules.testing import build_plain_torch

STATE = "training_state.pth"

BUILDS = [
    {},
    {"weights": "bin"},
    {"weights": "sharded"},
    {"weights": "sharded-bin", "legacy": True},
    {"dtype": "bfloat16", "optimizer": "SGD", "optimizer_options": {"momentum": 0.9}},
    {"dtype": "float16", "scaler": True},
    {"optimizer": "SGD"},
    {"optimizer": "Adam", "scheduler": "lambda"},
    {"scheduler": "step"},
    {"one_file": True},
    {"one_file": True, "legacy": True},
    {"epoch": 2, "total_batches": 1270},
    {"epoch": 3, "step": 500, "total_batches": 1270},
    {"accumulation": 4, "total_batches": 40},
    {"global_step": False},
    {"config": {"num_hidden_layers": 3, "tie_word_embeddings": True}},
    {"state_file": "checkpoint.pt"},
]
WITH_TORCH_ONLY = [{"optimizer": "Adafactor"}, {"optimizer": "RMSprop"}, {"scheduler": "plateau"}]
ALL = [(o, t) for o in BUILDS for t in (True, False)] + [(o, True) for o in WITH_TORCH_ONLY]


@pytest.mark.parametrize(("options", "with_torch"), ALL, ids=str)
def test_what_is_built_yields_no_finding_in_a_strict_run(tmp_path, options, with_torch):
    report = verify(build_plain_torch(tmp_path / "ck", with_torch=with_torch, **options), strict=True)
    assert [(f.rule, f.message) for f in report.findings if f.severity is not Severity.INFO] == []
    assert report.passed


@pytest.mark.parametrize("options", BUILDS, ids=str)
def test_without_torch_the_same_files_hold_the_same_keys_dtypes_shapes_and_counters(tmp_path, options):
    theirs = build_plain_torch(tmp_path / "theirs", with_torch=True, **options)
    ours = build_plain_torch(tmp_path / "ours", with_torch=False, **options)
    assert sorted(p.name for p in ours.path.iterdir()) == sorted(p.name for p in theirs.path.iterdir())
    for path in theirs.path.iterdir():
        assert outline(loaded(ours / path.name)) == outline(loaded(path)), path.name


def loaded(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def outline(value):
    """A value with its tensors as dtype and shape; those without dimensions, which are counters, as their number."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.item() if value.dim() == 0 else value.shape)
    if isinstance(value, dict):
        return {k: outline(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(outline, value))
    return value


def test_optimizer_and_scheduler_count_the_updates_that_the_counters_imply(tmp_path):
    state = torch.load(build_plain_torch(tmp_path / "ck", epoch=3, step=500, total_batches=1270) / STATE)
    assert state["global_step"] == 3040
    assert {s["step"].item() for s in state["optimizer_state_dict"]["state"].values()} == {3040}
    assert state["scheduler_state_dict"]["last_epoch"] == 3040
    assert state["scheduler_state_dict"]["_step_count"] == 3041


def test_the_learning_rate_is_the_one_that_stepping_the_scheduler_would_have_set(tmp_path):
    ck = build_plain_torch(tmp_path / "ck", total_batches=30, planned_updates=100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    for _ in range(60):
        optimizer.step()
        scheduler.step()
    group = torch.load(ck / STATE)["optimizer_state_dict"]["param_groups"][0]
    assert group["lr"] == pytest.approx(scheduler.get_last_lr()[0])


def test_updates_move_optimizer_and_scheduler_but_not_the_counters(tmp_path):
    state = torch.load(build_plain_torch(tmp_path / "ck", updates=7) / STATE)
    assert (state["epoch"], state["global_step"]) == (2, 20)
    assert state["optimizer_state_dict"]["state"][0]["step"].item() == 7
    assert state["scheduler_state_dict"]["last_epoch"] == 7


def test_a_build_is_the_same_each_time_and_touches_no_global_generator(tmp_path):
    before = torch.get_rng_state()
    one, two = (build_plain_torch(tmp_path / name) for name in ("a", "b"))
    assert torch.equal(torch.get_rng_state(), before)
    for path in one.path.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


@pytest.mark.parametrize("with_torch", [True, False], ids=["torch", "no torch"])
def test_the_weights_of_two_steps_differ_so_that_swapping_them_is_a_damage(tmp_path, with_torch):
    one, two = (build_plain_torch(tmp_path / str(e), epoch=e, with_torch=with_torch) for e in (1, 2))
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()


def test_the_saved_rng_state_without_torch_is_one_that_torch_continues_from(tmp_path):
    state = torch.load(build_plain_torch(tmp_path / "ck", with_torch=False) / STATE, weights_only=True)
    generator = torch.Generator()
    generator.set_state(state["rng_state"]["torch"])
    assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=torch.Generator().manual_seed(1254)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "gguf"}, "weights='gguf': choose safetensors, bin, sharded, sharded-bin or None"),
        ({"scheduler": "warm"}, "there is no scheduler 'warm': choose cosine, lambda, step, plateau or None"),
        ({"optimizer": "Lion"}, "torch.optim has no 'Lion'"),
        (
            {"with_torch": False, "optimizer": "Adafactor"},
            "without torch the kit builds AdamW, Adam, SGD, not Adafactor",
        ),
        ({"with_torch": False, "rng": "numpy"}, "without torch the kit can't save NumPy's random state"),
    ],
    ids=str,
)
def test_an_option_that_does_not_exist_is_named_with_those_that_do(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build_plain_torch(tmp_path / "ck", **options)


def test_a_build_is_inspected_as_what_it_says(tmp_path):
    seen = inspect(build_plain_torch(tmp_path / "ck", epoch=3, step=500, total_batches=1270))
    assert seen.layout.name == "plain-torch"
    assert seen.optimizer.updates == 3040
