"""Weights against their configuration and tokenizer: size, dtype, head, rows for tokens; and what lies beside them."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import verify
from ckpt_rules.testing import run_rule
from ckpt_rules_files.mixtures import MixedArtifacts
from ckpt_rules_safety.missing_modules import MissingModule
from ckpt_rules_weights.config_fields import BadConfigField
from ckpt_rules_weights.config_rules import DtypeVsConfig, SizeVsConfig, Tied
from ckpt_rules_weights.vocabulary import VocabRows

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 32, "num_hidden_layers": 2, "tie_word_embeddings": False, "dtype": "float32",
}  # fmt: skip


def tensors(dtype=torch.float32, layers=2):
    found = {"model.embed_tokens.weight": (64, 16), "lm_head.weight": (64, 16), "model.norm.weight": (16,)}
    for n in range(layers):
        name = f"model.layers.{n}."
        found |= {
            f"{name}self_attn.{p}_proj.weight": s
            for p, s in (("q", (16, 16)), ("k", (8, 16)), ("v", (8, 16)), ("o", (16, 16)))
        }
        found |= {
            f"{name}mlp.{p}_proj.weight": s for p, s in (("gate", (32, 16)), ("up", (32, 16)), ("down", (16, 32)))
        }
    return {name: torch.ones(shape, dtype=dtype) for name, shape in found.items()}


@pytest.fixture
def model(tmp_path):
    """`model(tensors, dtype="float16")`: a directory of these tensors and a configuration with these changes."""

    def write(given=None, **config):
        save_file(given or tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **config}))
        return tmp_path

    return write


@pytest.mark.parametrize("rule", [SizeVsConfig(), DtypeVsConfig(), Tied()])
def test_a_whole_model_passes(model, rule):
    run_rule(rule, model()).assert_passed()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dtype", "float3", "dtype in config.json is 'float3', which is not a torch dtype"),
        ("torch_dtype", "", "torch_dtype in config.json is '', which is not a torch dtype"),
        ("vocab_size", "64", "vocab_size in config.json is '64', expected a number"),
        ("vocab_size", {}, "vocab_size in config.json is {}, expected a number"),
        ("head_dim", [], "head_dim in config.json is [], expected a number"),
        ("head_dim", math.inf, "head_dim in config.json is inf, expected a number"),
        ("rope_parameters", "default", "rope_parameters in config.json is 'default', expected a dictionary"),
        (
            "rope_parameters",
            [{"rope_type": "default"}],
            "rope_parameters in config.json is [{'rope_type': 'default'}], expected a dictionary",
        ),
        ("rope_scaling", 99, "rope_scaling in config.json is 99, expected a dictionary"),
    ],
)
def test_a_field_that_no_configuration_is_built_from(field, value, said, model):
    from transformers import AutoConfig

    found = run_rule(BadConfigField(), model(**{field: value})).assert_one(path="config.json", severity="error")
    assert found.place.key == field
    assert said in found.message
    if field != "torch_dtype" or value:
        with pytest.raises(Exception):  # noqa: B017, PT011 - each has an error of its own
            AutoConfig.from_pretrained(model(**{field: value}))


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"dtype": "torch.bfloat16"}, {"torch_dtype": "auto"}, {"dtype": None}, {"num_key_value_heads": [1, 2]},
        {"num_hidden_layers": {"vision": 5, "language": 9}}, {"head_dim": None},
        {"rope_scaling": None}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ],
)  # fmt: skip
def test_fields_that_some_models_have(fields, model):
    run_rule(BadConfigField(), model(**fields)).assert_passed()


def test_several_head_sizes_of_which_one_is_rotated(model):
    from transformers import AutoConfig

    path = model(head_dim=[16], rope_theta=1e4)
    found = run_rule(BadConfigField(), path).assert_one(path="config.json", key="head_dim", severity="error")
    assert "head_dim in config.json is [16], expected a number" in found.message
    with pytest.raises(Exception, match="head_dim"):
        AutoConfig.from_pretrained(path)
    run_rule(BadConfigField(), model(head_dim=[16])).assert_passed()


def test_several_vocabularies_that_a_token_is_compared_with(model):
    from transformers import AutoConfig

    path = model(vocab_size=[64], eos_token_id=2)
    found = run_rule(BadConfigField(), path).assert_one(path="config.json", key="vocab_size", severity="error")
    assert "vocab_size in config.json is [64], expected a number" in found.message
    with pytest.raises(Exception, match=r"expected int|not supported between"):
        AutoConfig.from_pretrained(path)
    own = {"auto_map": {"AutoConfig": "configuration.Config"}}
    run_rule(BadConfigField(), model(vocab_size=[64], eos_token_id=2, **own)).assert_passed()


def test_a_config_of_somebody_else(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": "large", "dtype": "mixed"}))
    save_file(tensors(), tmp_path / "model.safetensors")
    run_rule(BadConfigField(), tmp_path).assert_passed()


def test_a_fraction_of_the_model(model):
    few = {n: t for n, t in tensors().items() if "layers" not in n and "head" not in n}
    found = run_rule(SizeVsConfig(), model(few)).assert_one(path="model.safetensors", severity="error")
    assert found.data == {"found": 64 * 16 + 16, "implied": 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32) + 2 * 64 * 16}


def test_half_a_model_of_another_family_is_not_judged(model):
    run_rule(SizeVsConfig(), model(model_type="mamba")).assert_skipped("the size of this model family is not known")


def test_another_dtype(model):
    found = run_rule(DtypeVsConfig(), model(tensors(torch.float16))).assert_one(
        path="config.json", key="dtype", severity="info"
    )
    assert found.data == {"stored": "float16", "config": "float32"}


def test_norms_in_another_dtype_are_healthy(model):
    mixed = tensors(torch.bfloat16) | {"model.norm.weight": torch.ones(16)}
    run_rule(DtypeVsConfig(), model(mixed, dtype="bfloat16")).assert_passed()


def test_a_head_that_can_not_be_the_embedding_it_is_tied_to(model):
    resized = tensors() | {"lm_head.weight": torch.ones(72, 16)}
    found = run_rule(Tied(), model(resized, tie_word_embeddings=True)).assert_one(
        path="model.safetensors", tensor="lm_head.weight", severity="warning"
    )
    assert found.data == {"head": [72, 16], "embedding": [64, 16]}


def test_a_tied_head_that_is_stored_all_the_same(model):
    run_rule(Tied(), model(tie_word_embeddings=True)).assert_passed()


def test_a_head_of_an_unknown_family_may_be_tied_to_something_else(model):
    resized = tensors() | {"lm_head.weight": torch.ones(72, 16)}
    result = run_rule(Tied(), model(resized, tie_word_embeddings=True, model_type="ours"))
    assert (result.status, result.findings) == ("skipped", ())


def test_integers_with_scales_in_another_dtype_are_healthy(model):
    quantised = {}
    for name, tensor in tensors().items():
        values = torch.randn(tensor.shape) * 30
        quantised[name] = values.to(torch.int8 if "_proj" in name else torch.bfloat16)
        if "_proj" in name:
            quantised[f"{name}_scale"] = torch.rand(tensor.shape[0], 1) + 0.5
    path = model(quantised, dtype="bfloat16", quantization_config={"quant_method": "compressed-tensors"})
    report = verify(path, ruleset="inference", select=["numerics/*", "weights/*"], strict=True)
    assert (report.passed, report.findings) == (True, []), report.findings


@pytest.mark.parametrize("rule", [SizeVsConfig(), DtypeVsConfig(), Tied()])
def test_quantised_weights_are_left_alone(model, rule):
    run_rule(rule, model(quantization_config={"bits": 4})).assert_skipped("quantised")


def test_a_head_that_is_nowhere(model):
    headless = {n: t for n, t in tensors().items() if n != "lm_head.weight"}
    run_rule(Tied(), model(headless)).assert_one(path="config.json", key="tie_word_embeddings", severity="error")
    run_rule(Tied(), model(headless, model_type="ours")).assert_one(key="tie_word_embeddings", severity="warning")
    run_rule(Tied(), model(headless, tie_word_embeddings=True)).assert_skipped()
    run_rule(Tied(), model(headless, architectures=["LlamaModel"])).assert_skipped()


class TestVocabRows:
    @pytest.mark.parametrize("highest", [10, 63])
    def test_tokens_that_have_rows(self, model, highest):
        path = model()
        (path / "added_tokens.json").write_text(json.dumps({"<a>": highest}))
        run_rule(VocabRows(), path).assert_passed()

    def test_a_token_without_a_row(self, model):
        path = model()
        (path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"64": {"content": "<pad>"}}}))
        found = run_rule(VocabRows(), path).assert_one(path="tokenizer_config.json", message="'<pad>' the id 64")
        assert found.data == {"highest": 64, "rows": 64}

    @pytest.mark.parametrize("value", [3, [], {"added_tokens_decoder": [1]}, {"added_tokens_decoder": {"x": 1}}])
    def test_values_of_the_wrong_kind(self, model, value):
        path = model()
        (path / "tokenizer_config.json").write_text(json.dumps(value))
        run_rule(VocabRows(), path).assert_skipped()


def test_a_model_and_an_adapter_in_one_directory(model):
    path = model()
    run_rule(MixedArtifacts(), path).assert_passed()
    save_file({"base_model.model.q.lora_A.weight": torch.ones(2, 4)}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text("{}")
    run_rule(MixedArtifacts(), path).assert_one(path="adapter_model.safetensors", severity="warning")


class TestMissingModule:
    def test_classes_of_a_project_that_is_not_here(self, tmp_path, monkeypatch):
        module = tmp_path / "acme_project_models.py"
        module.write_text("class Args:\n    pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        import acme_project_models  # type: ignore[import-not-found]

        ck = tmp_path / "ck"
        ck.mkdir()
        args = acme_project_models.Args()
        torch.save({"epoch": 1, "model": {"w": torch.ones(2)}, "optimizer": {}, "args": args}, ck / "checkpoint.pt")
        run_rule(MissingModule(), ck).assert_passed()
        monkeypatch.undo()
        del sys.modules["acme_project_models"]
        from ckpt_rules_safety import missing_modules

        missing_modules._is_found.cache_clear()
        result = run_rule(MissingModule(), ck)
        assert result.assert_one(path="checkpoint.pt", severity="info").data == {"module": "acme_project_models"}
