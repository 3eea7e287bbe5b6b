"""numerics/non-finite: NaN and infinity in any dtype, at any element, in any format."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules.testing import CheckpointDir
from ckpt_rules_numerics.finite import NonFinite

DTYPES = ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]
SAVERS = {
    "model.safetensors": save_file,
    "model.pt": torch.save,
    "legacy.pth": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
}
# torch writes 8-bit numbers into its old format and can't read them back.
SAVED = [(f, d) for f in SAVERS for d in DTYPES if f != "legacy.pth" or "float8" not in d]


@pytest.fixture
def saved(tmp_path):
    """One tensor in a file of each format, so that its name says which."""

    def make(tensor, file="model.safetensors", name="layer.weight"):
        SAVERS[file]({name: tensor}, tmp_path / file)
        return CheckpointDir(tmp_path)

    return make


@pytest.mark.parametrize("index", [(0, 0), (17, 23), (39, 29)], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("file", "dtype"), SAVED)
def test_nan_is_found_at_its_index(saved, run_rule, dtype, index, file):
    tensor = torch.ones(40, 30)
    tensor[index] = math.nan
    tensor = tensor.to(getattr(torch, dtype))
    checkpoint = saved(tensor, file)
    found = run_rule(NonFinite(), checkpoint).assert_one(
        path=file,
        tensor="layer.weight",
        message=f"1 of 1,200 values are not finite (1 NaN); the first is at [{index[0]}, {index[1]}]",
    )
    assert (found.data["index"], found.data["nan"], found.data["dtype"]) == (list(index), 1, dtype)
    size = tensor.element_size()
    code = (checkpoint / file).read_bytes()[found.place.offset :][:size]
    assert code == tensor[index].reshape(1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("file", SAVERS)
def test_finite_values_pass(saved, run_rule, file):
    run_rule(NonFinite(), saved(torch.randn(40, 30), file)).assert_passed()


def test_infinities_of_both_signs_are_counted_apart(saved, run_rule):
    tensor = torch.ones(10)
    tensor[[2, 5]], tensor[7] = math.inf, -math.inf
    found = run_rule(NonFinite(), saved(tensor)).assert_one(message="3 of 10 values are not finite (2 inf, 1 -inf)")
    assert (found.data["inf"], found.data["-inf"]) == (2, 1)


def test_the_optimizer_is_looked_at_too(make_checkpoint, run_rule):
    checkpoint = make_checkpoint()
    run_rule(NonFinite(), checkpoint).assert_passed()
    key = "optimizer_state_dict.state[0].exp_avg"

    def spoil(state):
        moment = state["optimizer_state_dict"]["state"][0]["exp_avg"]
        moment[0, 1] = math.nan
        return state

    checkpoint.edit("training_state.pth", spoil)
    run_rule(NonFinite(), checkpoint).assert_one(
        path="training_state.pth", tensor=key.replace("[0]", ".0"), message="the first is at [0, 1]"
    )


def test_after_ten_tensors_the_rest_are_counted(saved, run_rule, tmp_path):
    save_file(
        {f"layers.{i:02}.weight": torch.full((2, 2), math.nan) for i in range(25)}, tmp_path / "model.safetensors"
    )
    findings = run_rule(NonFinite(), CheckpointDir(tmp_path)).findings
    assert len(findings) == 11
    assert findings[-1].message == (
        "15 more of its tensors (25 in total) contain values that are not finite, layers.10.weight first"
    )
    assert findings[-1].data["names"] == [f"layers.{i:02}.weight" for i in range(10, 25)]


def test_a_tensor_with_two_names_is_one_problem(tmp_path, run_rule):
    shared = torch.full((3, 3), math.nan)
    torch.save({"embed.weight": shared, "lm_head.weight": shared}, tmp_path / "model.pt")
    run_rule(NonFinite(), CheckpointDir(tmp_path)).assert_one(path="model.pt", tensor="embed.weight")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("callbacks.best_model_score", torch.tensor(math.inf)),
        ("attn_mask", torch.full((4, 4), -math.inf).triu(1)),
        ("decoder.bias", torch.full((4, 4), -math.inf).triu(1)),
        ("quant.mask_value", torch.tensor([-math.inf, 1.0])),
        ("act.min_val", torch.full((3,), math.inf)),
        ("ids", torch.tensor([2**62, 5])),
    ],
)
def test_infinities_that_are_meant_pass(saved, run_rule, name, tensor):
    run_rule(NonFinite(), saved(tensor, name=name)).assert_passed()


def test_nan_is_never_meant(saved, run_rule):
    run_rule(NonFinite(), saved(torch.tensor([math.nan, -math.inf]), name="attn_mask")).assert_one(tensor="attn_mask")


def test_without_a_tensor_it_is_skipped(tmp_path, run_rule):
    (tmp_path / "notes.txt").write_text("nothing")
    run_rule(NonFinite(), CheckpointDir(tmp_path)).assert_skipped("there are no tensors whose values can be read")
