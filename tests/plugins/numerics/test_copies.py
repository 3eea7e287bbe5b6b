"""numerics/replicas-differ: tied pairs, and tensors that tensor-parallel ranks share."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules.testing import CheckpointDir
from ckpt_rules_numerics.copies import ReplicasDiffer

TIED = {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}


@pytest.fixture
def pair():
    torch.manual_seed(4)
    embedding = torch.randn(32, 16)
    return {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding.clone(),
        "model.norm.weight": torch.ones(16),
    }


class TestTiedPair:
    def test_the_same_values_twice_pass(self, pair, weights, run_rule):
        run_rule(ReplicasDiffer(), weights(pair, config=TIED)).assert_passed()

    def test_one_value_that_differs_is_enough(self, pair, weights, run_rule):
        pair["lm_head.weight"][5, 5] += 1e-3
        found = run_rule(ReplicasDiffer(), weights(pair, config=TIED)).assert_one(
            path="model.safetensors",
            tensor="lm_head.weight",
            message="lm_head.weight and model.embed_tokens.weight hold different values",
        )
        assert found.data["embedding"] == "model.embed_tokens.weight"

    def test_in_another_dtype_they_can_not_be_compared(self, pair, weights, run_rule):
        pair["lm_head.weight"] = pair["lm_head.weight"].bfloat16()
        run_rule(ReplicasDiffer(), weights(pair, config=TIED)).assert_passed()

    @pytest.mark.parametrize("config", [{"tie_word_embeddings": False}, {}])
    def test_an_untied_pair_may_differ(self, pair, weights, run_rule, config):
        pair["lm_head.weight"] += 1
        run_rule(ReplicasDiffer(), weights(pair, config=config)).assert_skipped("no tensor is stored in several copies")


class TestTensorParallelRanks:
    @pytest.fixture
    def ranks(self, tmp_path):
        """Three ranks of Megatron's old format: norms whole, the rest split."""

        def make(change=lambda rank, model: None):
            for rank in range(3):
                torch.manual_seed(rank)
                split = {"attention.dense.weight": torch.randn(8, 4), "mlp.dense_h_to_4h.bias": torch.randn(4)}
                model = {**split, "input_layernorm.weight": torch.ones(8), "attention.dense.bias": torch.zeros(8)}
                change(rank, model)
                folder = tmp_path / f"mp_rank_{rank:02}"
                folder.mkdir(exist_ok=True)
                torch.save({"model": model, "iteration": 10}, folder / "model_optim_rng.pt")
            return CheckpointDir(tmp_path)

        return make

    def test_what_each_keeps_whole_must_agree(self, ranks, run_rule):
        run_rule(ReplicasDiffer(), ranks()).assert_passed()

    @pytest.mark.parametrize("name", ["input_layernorm.weight", "attention.dense.bias"])
    def test_a_rank_that_differs_is_named(self, ranks, run_rule, name):
        def change(rank, model):
            if rank == 1:
                model[name][3] += 0.5

        found = run_rule(ReplicasDiffer(), ranks(change)).assert_one(
            path="mp_rank_01/model_optim_rng.pt",
            tensor=f"model.{name}",
            message=f"the tensor-parallel ranks hold different values of model.{name}",
        )
        assert found.data["paths"] == ["mp_rank_01/model_optim_rng.pt"]
        assert (found.data["differing"], found.data["shared"]) == (1, 2)
