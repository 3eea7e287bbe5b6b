"""Draft models for speculative decoding: they go by the model_type of the model that they draft for, and are built otherwise."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules_weights.config_rules import SizeVsConfig, Tied
from ckpt_rules_weights.shapes import ShapeVsConfig

HIDDEN, INNER, VOCAB, DRAFT = 32, 64, 128, 48
WEIGHTS = "model.safetensors"


@pytest.fixture
def eagle3(make_checkpoint):
    """An EAGLE-3 draft: its attention reads two hidden states, its head has rows for a part of the vocabulary."""

    def make(architecture="LlamaForCausalLMEagle3", inner=INNER, head=DRAFT):
        shapes = {
            "fc.weight": (HIDDEN, 3 * HIDDEN),
            "midlayer.self_attn.q_proj.weight": (HIDDEN, 2 * HIDDEN),
            "midlayer.self_attn.k_proj.weight": (16, 2 * HIDDEN),
            "midlayer.self_attn.v_proj.weight": (16, 2 * HIDDEN),
            "midlayer.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "midlayer.mlp.gate_proj.weight": (inner, HIDDEN),
            "midlayer.mlp.up_proj.weight": (inner, HIDDEN),
            "midlayer.mlp.down_proj.weight": (HIDDEN, inner),
            "midlayer.hidden_norm.weight": (HIDDEN,),
            "norm.weight": (HIDDEN,),
            "lm_head.weight": (head, HIDDEN),
        }
        tensors = {name: torch.randn(shape).half() for name, shape in shapes.items()}
        maps = {"d2t": torch.zeros(DRAFT, dtype=torch.int64), "t2d": torch.zeros(VOCAB, dtype=torch.bool)}
        ck = make_checkpoint(architecture + str(inner + head)).write_safetensors(WEIGHTS, tensors | maps)
        return ck.write_json(
            "config.json",
            {
                "architectures": [architecture],
                "model_type": "llama",
                "hidden_size": HIDDEN,
                "intermediate_size": INNER,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "num_hidden_layers": 1,
                "vocab_size": VOCAB,
                "draft_vocab_size": DRAFT,
                "tie_word_embeddings": False,
                "torch_dtype": "float16",
            },
        )

    return make


@pytest.mark.parametrize("architecture", ["LlamaForCausalLMEagle3", "LlamaForCausalLM"])
def test_a_draft_has_shapes_of_its_own(eagle3, run_rule, architecture):
    draft = eagle3(architecture)
    run_rule(ShapeVsConfig(), draft).assert_passed()
    assert run_rule(SizeVsConfig(), draft).findings == ()
    assert run_rule(Tied(), draft).findings == ()


def test_its_head_and_feed_forward_are_compared_all_the_same(eagle3, run_rule):
    run_rule(ShapeVsConfig(), eagle3(head=DRAFT + 1)).assert_one(
        path=WEIGHTS,
        tensor="lm_head.weight",
        message=f"the tensor has shape [{DRAFT + 1}, {HIDDEN}] but config.json implies [{DRAFT}, {HIDDEN}]",
    )
    found = run_rule(ShapeVsConfig(), eagle3(inner=INNER // 2)).findings
    assert [f.place.tensor for f in found] == [f"midlayer.mlp.{n}_proj.weight" for n in ("down", "gate", "up")]
