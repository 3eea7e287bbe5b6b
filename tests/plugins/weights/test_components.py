"""weights/shape-vs-config for models of diffusers: each really saved, its configuration changed, and refused by diffusers."""

from __future__ import annotations

import json

import diffusers
import pytest

from ckpt_rules import verify
from ckpt_rules_weights.shapes import ShapeVsConfig

pytestmark = pytest.mark.filterwarnings("ignore")

UNET = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
UP = {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")}
PLAIN = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
MODELS = {
    "UNet2DModel": {**UNET, **PLAIN, "in_channels": 3, "out_channels": 3},
    "UNet2DConditionModel": {**UNET, **CROSS, **UP},
    "ControlNetModel": {
        **{k: v for k, v in UNET.items() if k != "sample_size"},
        **CROSS,
        "conditioning_embedding_out_channels": (4, 8),
    },
    "AutoencoderKL": {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    },
    "FluxTransformer2DModel": {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 8,
        "in_channels": 4,
        "axes_dims_rope": (2, 2, 4),
    },
    "SD3Transformer2DModel": {
        "sample_size": 8,
        "num_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 8,
        "in_channels": 4,
    },
}
CHANGES = [
    ("UNet2DModel", {"in_channels": 6}, "conv_in.weight", "has shape [8, 3, 3, 3] but config.json implies [8, 6, ?, ?]"),
    ("UNet2DConditionModel", {"in_channels": 8}, "conv_in.weight", "has shape [8, 4, 3, 3] but config.json implies [8, 8, ?, ?]"),
    ("UNet2DConditionModel", {"out_channels": 8}, "conv_out.weight", "has shape [4, 8, 3, 3] but config.json implies [8, 8, ?, ?]"),
    ("UNet2DConditionModel", {"cross_attention_dim": 24}, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
     "has shape [8, 12] but config.json implies [?, 24] (and 6 more like it)"),
    ("ControlNetModel", {"in_channels": 9}, "conv_in.weight", "has shape [8, 4, 3, 3] but config.json implies [8, 9, ?, ?]"),
    ("AutoencoderKL", {"latent_channels": 16}, "decoder.conv_in.weight", "has shape [16, 4, 3, 3] but config.json implies [16, 16, ?, ?]"),
    ("FluxTransformer2DModel", {"in_channels": 8}, "x_embedder.weight", "has shape [16, 4] but config.json implies [16, 8]"),
    ("SD3Transformer2DModel", {"joint_attention_dim": 20}, "context_embedder.weight", "has shape [16, 12] but config.json implies [16, 20]"),
]  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    """A tiny model of one class of diffusers, in a directory below the checkpoint or in the checkpoint itself."""

    def make(name, folder="", options=None, **changes):
        path = tmp_path / folder
        getattr(diffusers, name)(**MODELS[name] | (options or {})).save_pretrained(path)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changes))
        return tmp_path

    return make


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_own_configuration(saved, run_rule, name):
    run_rule(ShapeVsConfig(), saved(name)).assert_passed()


def test_text_of_another_size_in_each_block(saved, run_rule):
    path = saved("UNet2DConditionModel", options={"cross_attention_dim": (12, 20)})
    run_rule(ShapeVsConfig(), path).assert_passed()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"cross_attention_dim": [12, 24]}))
    run_rule(ShapeVsConfig(), path).assert_one(
        tensor="down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        message="has shape [16, 20] but config.json implies [?, 24]",
    )


@pytest.mark.parametrize(("name", "changes", "tensor", "message"), CHANGES)
def test_a_configuration_of_another_model(saved, run_rule, name, changes, tensor, message):
    path = saved(name, **changes)
    with pytest.raises((ValueError, RuntimeError)):
        getattr(diffusers, name).from_pretrained(path)
    found = [f for f in run_rule(ShapeVsConfig(), path).findings if f.place.tensor == tensor]
    assert [f.place.path for f in found] == ["diffusion_pytorch_model.safetensors"]
    assert message in found[0].message


@pytest.mark.parametrize("folder", ["unet", "unet_ema"])
def test_components_of_a_training_checkpoint(saved, folder):
    path = saved("UNet2DConditionModel", folder, in_channels=8)
    (path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]}))
    found = [f for f in verify(path).findings if f.rule == "weights/shape-vs-config"]
    assert [f.place.path for f in found] == [f"{folder}/diffusion_pytorch_model.safetensors"]
    assert f"{folder}/config.json implies [8, 8, ?, ?]" in found[0].message


@pytest.mark.parametrize("value", [None, "x", [], {}, -1, 0, True, 1e400, [None]])
@pytest.mark.parametrize("key", ["in_channels", "block_out_channels", "cross_attention_dim"])
def test_sizes_of_any_type_imply_nothing(saved, run_rule, key, value):
    assert run_rule(ShapeVsConfig(), saved("UNet2DConditionModel", **{key: value})).findings == ()
