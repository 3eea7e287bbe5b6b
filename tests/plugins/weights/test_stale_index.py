"""An index of an earlier save beside the same weights in one file: which of the two is loaded depends on the loader."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from ckpt_rules import Severity, verify
from ckpt_rules.testing import CheckpointDir
from ckpt_rules_files.copies import DuplicateFormat
from ckpt_rules_weights.shards import MissingShard

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"
CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
)


def llama(value):
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        model.model.norm.weight.fill_(value)
    return model


@pytest.fixture
def export(tmp_path):
    """Shards of an old export with their index, and the newer weights in one file."""
    ck = CheckpointDir(tmp_path / "export", with_torch=True)
    llama(1.0).save_pretrained(ck.path, max_shard_size="20KB")
    shards = sorted(p.name for p in ck.path.glob("model-*"))
    assert shards[0] == FIRST
    llama(2.0).save_pretrained(tmp_path / "new")
    (tmp_path / "new" / WHOLE).rename(ck / WHOLE)
    return ck


def loaded(ck):
    return LlamaForCausalLM.from_pretrained(ck.path).model.norm.weight[0].item()


def test_shards_that_are_there_are_another_copy(export, run_rule):
    assert loaded(export) == 2.0
    found = run_rule(DuplicateFormat(), export).assert_one(
        path=FIRST,
        message=f"loaders read {WHOLE} and ignore {FIRST}, which loaders that use {INDEX} (vLLM, diffusers) read",
    )
    assert found.severity is Severity.WARNING
    assert run_rule(MissingShard(), export).findings == ()


def test_shards_that_are_gone(export, run_rule):
    export.remove(FIRST)
    assert loaded(export) == 2.0
    found = run_rule(MissingShard(), export).assert_one(
        path=INDEX,
        message=f"the index names 2 shards, but 1 of them is missing ({FIRST}); transformers loads {WHOLE} instead",
    )
    assert found.severity is Severity.WARNING
    assert run_rule(DuplicateFormat(), export).findings == ()
    export.remove("model-00002-of-00002.safetensors")
    run_rule(MissingShard(), export).assert_one(path=INDEX, message="names 2 shards, but 2 of them are missing")


def test_either_alone_is_clean(export, run_rule, tmp_path):
    shards = export.copy(tmp_path / "shards").remove(WHOLE)
    for name in (INDEX, *(p.name for p in export.path.glob("model-*"))):
        export.remove(name)
    for ck in (export, shards):
        for rule in (DuplicateFormat(), MissingShard()):
            assert run_rule(rule, ck).findings == ()


def test_an_index_that_names_the_one_file_is_fine(export, run_rule):
    for path in export.path.glob("model-*"):
        path.unlink()
    names = load_file(export / WHOLE)
    export.write_json(INDEX, {"metadata": {}, "weight_map": dict.fromkeys(names, WHOLE)})
    for rule in (DuplicateFormat(), MissingShard()):
        assert run_rule(rule, export).findings == ()


class TestDiffusers:
    """It goes by the index wherever there is one."""

    NAME = "diffusion_pytorch_model"

    @pytest.fixture
    def unet(self, tmp_path):
        blocks = {"block_out_channels": (16,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
        model = UNet2DModel(**blocks, layers_per_block=1, norm_num_groups=8, sample_size=8)
        ck = CheckpointDir(tmp_path / "unet", with_torch=True)
        model.save_pretrained(ck.path, max_shard_size="60KB")
        with torch.no_grad():
            model.conv_in.bias.fill_(7.0)
        save_file(model.state_dict(), ck / f"{self.NAME}.safetensors")
        return ck

    def test_shards_that_are_there_are_loaded(self, unet, run_rule):
        assert UNet2DModel.from_pretrained(unet.path).conv_in.bias[0].item() != 7.0
        run_rule(DuplicateFormat(), unet).assert_one(
            path=f"{self.NAME}.safetensors",
            message=f"which loaders that do not use {self.NAME}.safetensors.index.json read",
        )

    def test_it_stops_where_they_are_gone(self, unet):
        gone = sorted(p.name for p in unet.path.glob("*-of-*"))
        for name in gone:
            unet.remove(name)
        with pytest.raises(OSError, match="required according to the checkpoint index"):
            UNet2DModel.from_pretrained(unet.path)
        errors = [f for f in verify(str(unet.path), ruleset="inference").findings if f.severity == "error"]
        assert [(f.rule, f.place.path) for f in errors] == [("weights/missing-shard", name) for name in gone]
