"""numerics/master-vs-model: what DeepSpeed itself saved, and copies of it in which weights and masters part."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules.opening import checkpoint_at
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.testing import CheckpointDir
from ckpt_rules_numerics.masters import MasterVsModel

FIXTURES = Path(__file__).parents[2] / "layouts" / "deepspeed" / "fixtures"
TWO_RANKS = ["zero1", "zero2", "bf16", "frozen"]
MANY_FILES = ["moe_zero2", "moe_four", "pipeline_zero1", "autotp", "universal_bf16"]


@pytest.fixture
def saved(tmp_path):
    """A copy of a save, and where its masters lie."""

    def make(name):
        tag = "global_step4_universal" if name.startswith("universal") else "global_step4"
        folder = tmp_path / name / tag
        shutil.copytree(FIXTURES / name / tag, folder)
        masters = checkpoint_at(folder, installed_plugins().layouts).masters
        return CheckpointDir(folder), masters

    return make


@pytest.mark.parametrize("name", TWO_RANKS + MANY_FILES)
def test_what_deepspeed_saved_agrees_to_the_bit(saved, run_rule, name):
    checkpoint, masters = saved(name)
    assert len(masters) >= 2
    run_rule(MasterVsModel(), checkpoint).assert_passed()


@pytest.mark.parametrize("name", TWO_RANKS)
def test_every_parameter_is_compared_with_its_own_elements(saved, run_rule, name):
    checkpoint, masters = saved(name)
    for number, master in enumerate(masters):
        damaged = checkpoint.copy(f"{checkpoint.path}-{number}")
        part = master.parts[-1]
        damaged.flip_bit(part.path, part.offset + part.nbytes - 1, 6)  # the highest exponent bit of its last element
        found = run_rule(MasterVsModel(), damaged).assert_one(
            path=master.weight.path,
            tensor=master.name,
            offset=master.weight.offset,
            message=f"1 of {len(masters)} weights differ from the optimizer's float32 copies after rounding: {master.name}",
        )
        assert (found.data["count"], found.data["of"]) == (1, len(masters))


@pytest.mark.parametrize("name", MANY_FILES)
def test_experts_layers_and_shares_have_masters_of_their_own(saved, run_rule, name):
    checkpoint, masters = saved(name)
    assert len({m.weight.path for m in masters}) > 1 or name == "universal_bf16"
    for number, master in enumerate(masters):
        damaged = checkpoint.copy(f"{checkpoint.path}-{number}")
        part = master.parts[-1]
        damaged.flip_bit(part.path, part.offset + part.nbytes - 1, 6)
        found = run_rule(MasterVsModel(), damaged).assert_one(path=master.weight.path, tensor=master.name)
        assert (found.data["count"], found.data["master_path"]) == (1, master.parts[0].path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("moe_zero2", "layer_0_expert_1_mp_rank_00_model_states.pt"),
        ("pipeline_zero1", "layer_01-model_states.pt"),
    ],
)
def test_an_expert_or_a_layer_of_another_step(saved, run_rule, name, path):
    checkpoint, _ = saved(name)
    shutil.copy(FIXTURES / name / "global_step2" / path, checkpoint / path)
    run_rule(MasterVsModel(), checkpoint).assert_one(path=path)


def test_a_parameter_that_two_ranks_share_is_put_together(saved):
    _, masters = saved("frozen")
    shared = [m for m in masters if len(m.parts) > 1]
    assert shared
    assert {len({part.path for part in m.parts}) for m in shared} == {2}


def test_weights_of_another_step_are_named_all(saved, run_rule):
    checkpoint, masters = saved("zero2")
    older = FIXTURES / "zero2" / "global_step2" / "mp_rank_00_model_states.pt"
    shutil.copy(older, checkpoint / "mp_rank_00_model_states.pt")
    found = run_rule(MasterVsModel(), checkpoint).assert_one(path="mp_rank_00_model_states.pt")
    assert found.data["of"] == len(masters)
    assert found.data["count"] > len(masters) / 2


def test_a_flip_that_rounding_swallows_is_none(saved, run_rule):
    checkpoint, masters = saved("bf16")
    part = masters[0].parts[0]
    assert masters[0].weight.dtype == "bfloat16"
    values = torch.frombuffer(bytearray((checkpoint / part.path).read_bytes()), dtype=torch.uint8)
    low = int.from_bytes(bytes(values[part.offset : part.offset + 2].tolist()), "little")
    bit = 0 if low % 0x8000 > 2 else 3  # far from half-way between two bfloat16 numbers
    checkpoint.flip_bit(part.path, part.offset, bit)
    run_rule(MasterVsModel(), checkpoint).assert_passed()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zero3", "there are no weights that have float32 master copies"),
        ("moe", "there are no weights that have float32 master copies"),
    ],
)
def test_where_there_is_one_copy_only_it_is_skipped(run_rule, name, reason):
    run_rule(MasterVsModel(), FIXTURES / name / "global_step4").assert_skipped(reason)


def test_elsewhere_it_is_skipped(make_checkpoint, run_rule):
    run_rule(MasterVsModel(), make_checkpoint()).assert_skipped("the layout plain-torch has no float32 master copies")
