"""The rulesets inference and publish: what each asks for, what it does not, and the words of its verdict."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from ckpt_rules import verify

CONFIG = {"model_type": "mlp", "vocab_size": 8, "_name_or_path": "acme/tiny"}


@pytest.fixture
def model(tmp_path):
    """A directory that is fit to be published."""
    save_file({"embed.weight": torch.ones(8, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def found(path, ruleset):
    return [(f.rule, f.place.path, f.severity.value) for f in verify(path, ruleset=ruleset).findings]


def test_a_clean_model_is_fit_for_both_and_not_to_be_resumed(model):
    assert (found(model, "inference"), found(model, "publish")) == ([], [])
    assert verify(model, ruleset="inference").reason == "safe to load"
    assert verify(model, ruleset="publish").reason == "safe to publish"
    assert verify(model).reason.startswith("not safe to resume: 1 error")


def test_an_optimizer_is_not_for_others(model):
    torch.save({"state": {}, "param_groups": []}, model / "optimizer.pt")
    assert found(model, "inference") == []
    assert found(model, "publish") == [("publish/training-state", "optimizer.pt", "error")]
    assert verify(model, ruleset="publish").reason == "not safe to publish: 1 error"


def test_pickled_weights(model):
    (model / "model.safetensors").unlink()
    torch.save({"embed.weight": torch.ones(8, 4)}, model / "pytorch_model.bin")
    assert found(model, "inference") == []
    assert found(model, "publish") == [("publish/pickled-weights", "pytorch_model.bin", "error")]


def test_wrapper_prefixes_are_errors_there(model):
    save_file({"_orig_mod.embed.weight": torch.ones(8, 4)}, model / "model.safetensors")
    assert found(model, "inference") == [("weights/wrapper-prefix", "model.safetensors", "warning")]
    assert found(model, "publish") == [("weights/wrapper-prefix", "model.safetensors", "error")]


def test_a_tokenizer_is_missed_where_there_is_a_vocabulary(model):
    (model / "tokenizer.json").unlink()
    assert found(model, "publish") == [("publish/no-tokenizer", "config.json", "warning")]
    (model / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert found(model, "publish") == []


@pytest.mark.parametrize("path", ["/home/ann/llama", "./out", "../x", "C:\\models", "~/m"])
def test_paths_of_this_machine(model, path):
    (model / "config.json").write_text(json.dumps({**CONFIG, "_name_or_path": path}))
    assert found(model, "publish") == [("publish/local-path", "config.json", "warning")]


def test_an_adapter_whose_base_is_a_path_is_of_no_use_to_others(tmp_path):
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q"], "base_model_name_or_path": "/data/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        "base_model.model.q.lora_A.weight": torch.ones(2, 4),
        "base_model.model.q.lora_B.weight": torch.ones(4, 2),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert found(tmp_path, "inference") == []
    assert found(tmp_path, "publish") == [("publish/local-path", "adapter_config.json", "error")]


def test_a_damaged_file_fails_each(model):
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-5])
    for ruleset, reason in (("inference", "not safe to load: 1 error"), ("publish", "not safe to publish: 1 error")):
        report = verify(model, ruleset=ruleset)
        assert [f.rule for f in report.findings] == ["weights/broken-safetensors"]
        assert report.reason == reason


def test_nothing_is_there(tmp_path):
    assert verify(tmp_path / "no", ruleset="inference").reason == "there is nothing to load: 1 error"
    assert verify(tmp_path / "no", ruleset="publish").reason == "there is nothing to publish: 1 error"


def test_the_purpose_is_inherited_and_checked(model, tmp_path):
    team = tmp_path / "team.yaml"
    team.write_text("extends: [inference]\nexclude: [weights/unindexed]\n")
    assert verify(model, ruleset=team).reason == "safe to load"
    team.write_text("extends: [default]\npurpose: lode\n")
    with pytest.raises(Exception, match="lode"):
        verify(model, ruleset=team)


class TestNotLoadable:
    def test_shards_without_their_index(self, model):
        (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
        save_file({"head.weight": torch.ones(2, 4)}, model / "model-00002-of-00002.safetensors")
        expected = [("weights/not-loadable", "model.safetensors.index.json", "error")]
        assert (found(model, "inference"), found(model, "publish")) == (expected, expected)

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
    @pytest.mark.parametrize("text", ['{"a": ', "[1]"])
    def test_a_tokenizer_that_is_no_dictionary(self, model, name, text):
        (model / name).write_text(text)
        assert ("state/unreadable", name, "error") in found(model, "publish")

    def test_a_model_with_a_tokenizer_and_no_configuration(self, model):
        (model / "tokenizer_config.json").write_text("{}")
        (model / "config.json").unlink()
        assert found(model, "inference") == [("weights/not-loadable", "config.json", "warning")]

    def test_a_component_of_a_pipeline_without_its_configuration(self, tmp_path):
        (tmp_path / "unet").mkdir()
        save_file({"w": torch.ones(2, 2)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
        (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
        assert found(tmp_path, "publish") == [("files/missing-required", "unet/config.json", "error")]


class TestNames:
    """Each loader looks for the weights under names of its own, and stops where there are none."""

    def llama(self, tmp_path, name):
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        LlamaForCausalLM(config).save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").rename(tmp_path / name)
        return tmp_path

    @pytest.mark.parametrize(
        "name", ["weights.safetensors", "model_final.safetensors", "diffusion_pytorch_model.safetensors"]
    )
    @pytest.mark.parametrize("ruleset", ["inference", "publish"])
    def test_transformers(self, tmp_path, name, ruleset):
        model = self.llama(tmp_path, name)
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            LlamaForCausalLM.from_pretrained(model)
        (finding,) = [f for f in verify(model, ruleset=ruleset).findings if f.severity == "error"]
        assert (finding.rule, str(finding.place)) == ("weights/not-loadable", name)
        assert (
            f"the weights are in {name}, but from_pretrained looks for model.safetensors, pytorch_model.bin or"
            in finding.message
        )

    def test_a_variant_is_loaded_where_it_is_asked_for(self, tmp_path):
        model = self.llama(tmp_path, "model.fp16.safetensors")
        assert LlamaForCausalLM.from_pretrained(model, variant="fp16")
        assert found(model, "inference") == [("weights/not-loadable", "model.fp16.safetensors", "info")]
        assert verify(model, ruleset="inference").reason == "safe to load"

    def test_the_usual_name(self, tmp_path):
        assert found(self.llama(tmp_path, "model.safetensors"), "inference") == []

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")
    def test_an_adapter(self, tmp_path):
        model = self.llama(tmp_path / "base", "model.safetensors")
        peft = get_peft_model(LlamaForCausalLM.from_pretrained(model), LoraConfig(target_modules=["q_proj"], r=2))
        peft.save_pretrained(tmp_path / "adapter")
        assert found(tmp_path / "adapter", "inference") == []
        (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "lora.safetensors")
        assert found(tmp_path / "adapter", "inference")[0][1:] == ("adapter_config.json", "error")

    def test_diffusers(self, tmp_path):
        blocks = {"block_out_channels": (16,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
        UNet2DModel(**blocks, layers_per_block=1, norm_num_groups=8, sample_size=8).save_pretrained(tmp_path)
        assert found(tmp_path, "inference") == []
        (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "model.safetensors")
        with pytest.raises(OSError, match="no file named"):
            UNet2DModel.from_pretrained(tmp_path)
        assert found(tmp_path, "inference") == [("weights/not-loadable", "model.safetensors", "error")]

    def test_a_configuration_of_ones_own_says_nothing(self, tmp_path):
        model = self.llama(tmp_path, "weights.safetensors")
        (model / "config.json").write_text('{"model_type": "mine", "hidden": 4}')
        assert found(model, "inference") == []


def test_the_optimizer_in_the_file_of_the_weights(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    state = {
        "epoch": 1,
        "step": 0,
        "total_batches": 5,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    findings = found(tmp_path / "checkpoint.pt", "publish")
    assert ("publish/training-state", "checkpoint.pt", "error") in findings
    assert ("publish/pickled-weights", "checkpoint.pt", "error") in findings
