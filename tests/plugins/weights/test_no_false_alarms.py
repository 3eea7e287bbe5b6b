"""Healthy checkpoints that once raised a finding, and holes that once passed: each stays as it should be."""

from __future__ import annotations

import json

import pytest
import torch

from ckpt_rules import Status
from ckpt_rules_files.content import Empty, Placeholder
from ckpt_rules_files.families import IncompleteFamily
from ckpt_rules_weights.content import EmptyTensors, Missing, NoTensors
from ckpt_rules_weights.layers import LayerGap
from ckpt_rules_weights.shapes import ShapeVsConfig
from ckpt_rules_weights.shards import DuplicateTensor, IndexTotal, MissingShard

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
ONE = torch.ones(2, 2)


@pytest.fixture
def weights_of(make_checkpoint):
    """A checkpoint with these tensors and this configuration."""

    def make(tensors, **config):
        ck = make_checkpoint().write_safetensors(WEIGHTS, tensors)
        return ck.write_json(CONFIG, config)

    return make


def test_layers_within_blocks_are_not_the_blocks(weights_of, run_rule):
    t5 = {
        f"{half}.block.{b}.layer.{n}.SelfAttention.q.weight": ONE.clone()
        for half, layers in (("encoder", 2), ("decoder", 3))
        for b in range(4)
        for n in range(layers)
    }
    run_rule(LayerGap(), weights_of(t5, num_layers=4, num_decoder_layers=4)).assert_passed()
    short = {k: v for k, v in t5.items() if "encoder.block.3" not in k}
    run_rule(LayerGap(), weights_of(short, num_layers=4, num_decoder_layers=4)).assert_one(
        message="encoder.block has 3 layers"
    )


def test_convolutions_between_activations_are_no_layers(weights_of, run_rule):
    blocks = {f"blocks.{n}.conv.weight": ONE.clone() for n in (0, 2, 3, 5)}
    run_rule(LayerGap(), weights_of(blocks)).assert_passed()


def test_an_adapter_may_be_on_a_few_layers(weights_of, run_rule):
    lora = {f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.weight": ONE.clone() for n in (5, 7)}
    run_rule(LayerGap(), weights_of(lora, num_hidden_layers=32)).assert_passed()


def test_a_pickled_module_keeps_its_tensors_elsewhere(make_checkpoint, run_rule):
    ck = make_checkpoint(weights=None)
    torch.save(torch.nn.Linear(2, 2), ck / "model.pt")
    assert run_rule(NoTensors(), ck).findings == ()


def test_states_and_buffers_may_be_empty(weights_of, run_rule):
    run_rule(
        EmptyTensors(), weights_of({"w.weight": ONE, "w._extra_state": torch.zeros(0), "history": torch.zeros(0)})
    ).assert_passed()


@pytest.mark.parametrize("name", ["best_model.safetensors", "model/model.safetensors"])
def test_weights_of_another_name_or_in_a_directory_below(make_checkpoint, run_rule, name):
    ck = make_checkpoint()
    (ck / name).parent.mkdir(exist_ok=True)
    (ck / WEIGHTS).rename(ck / name)
    assert run_rule(Missing(), ck).findings == ()


def test_an_unknown_family_may_pad_its_vocabulary(weights_of, run_rule):
    run_rule(ShapeVsConfig(), weights_of({"wte.weight": torch.ones(64, 4)}, vocab_size=50)).assert_passed()


def test_an_index_may_name_files_from_here(make_checkpoint, run_rule):
    ck = make_checkpoint(weights="sharded")
    ck.edit(INDEX, lambda i: i | {"weight_map": {k: f"./{v}" for k, v in i["weight_map"].items()}})
    run_rule(MissingShard(), ck).assert_passed()


def test_the_ranks_of_the_second_node(make_checkpoint, run_rule):
    ck = make_checkpoint()
    for rank in range(8, 16):
        ck.write_torch(f"rng_state_{rank}.pth", {"cpu": torch.get_rng_state()})
    run_rule(IncompleteFamily(), ck).assert_passed()


def test_files_that_loggers_and_idle_ranks_leave_empty(make_checkpoint, run_rule):
    ck = make_checkpoint()
    for name in ("wandb/summary.json", "__2_0.distcp"):
        (ck / name).parent.mkdir(exist_ok=True)
        ck.replace(name, b"")
    run_rule(Empty(), ck).assert_passed()


def test_a_total_may_count_tied_tensors_once(make_checkpoint, run_rule):
    ck = make_checkpoint(weights=None)
    tied = torch.ones(4, 4)
    ck.write_torch("pytorch_model-00001-of-00001.bin", {"a.weight": tied, "b.weight": tied})
    weight_map = dict.fromkeys(("a.weight", "b.weight"), "pytorch_model-00001-of-00001.bin")
    ck.write_json("pytorch_model.bin.index.json", {"metadata": {"total_size": 64}, "weight_map": weight_map})
    run_rule(IndexTotal(), ck).assert_passed()


def test_two_models_beside_each_other_share_names(make_checkpoint, run_rule):
    ck = make_checkpoint(weights=None)
    for name in ("generator", "discriminator"):
        ck.write_safetensors(f"{name}.safetensors", {"w": ONE})
    assert run_rule(DuplicateTensor(), ck).status is Status.SKIPPED


@pytest.mark.parametrize("weight_map", [None, [], {"w": 3}])
def test_an_index_without_a_map_is_reported_at_the_index(make_checkpoint, run_rule, weight_map):
    ck = make_checkpoint(weights="sharded").write_json(INDEX, {"weight_map": weight_map})
    run_rule(MissingShard(), ck).assert_one(path=INDEX, key="weight_map", message="has no `weight_map`")


def test_a_directory_of_directories_is_no_checkpoint(tmp_path, run_rule):
    (tmp_path / "ck" / "foo").mkdir(parents=True)
    (tmp_path / "ck" / "foo" / "x.txt").write_text("x")
    run_rule(Missing(), tmp_path / "ck").assert_one(message="there are no model weights")


def test_a_link_into_nowhere_is_reported_as_that_alone(make_checkpoint, run_rule):
    ck = make_checkpoint(weights=None)
    (ck / WEIGHTS).symlink_to("/nowhere/blob")
    run_rule(Missing(), ck).assert_skipped("can't be read", blocked_by=WEIGHTS)


def test_a_configuration_that_is_a_servers_answer(make_checkpoint, run_rule):
    ck = make_checkpoint().replace(CONFIG, json.dumps({"error": "Entry not found"}))
    run_rule(Placeholder(), ck).assert_one(path=CONFIG, message="a JSON error message")
