"""weights/adapter-vocabulary: adapters for which tokens were added, really trained, saved and loaded by PEFT."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from ckpt_rules import Status, verify
from ckpt_rules_peft.vocabulary import AdapterVocabulary

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, ADDED = 64, 3


@pytest.fixture
def base(tmp_path):
    """A base model, in the directory beside which the adapters are saved."""
    config = LlamaConfig(
        vocab_size=ROWS, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base):
    """An adapter with a tokenizer that has so many tokens more than the base model."""

    def make(added=ADDED, keep="auto", targets=("q_proj",), **options):
        model = LlamaForCausalLM.from_pretrained(base)
        if added:
            model.resize_token_embeddings(ROWS + added, mean_resizing=False)
        path = base.parent / f"adapter-{len(list(base.parent.iterdir()))}"
        peft = get_peft_model(model, LoraConfig(r=2, target_modules=list(targets), task_type="CAUSAL_LM", **options))
        peft.save_pretrained(path, save_embedding_layers=keep)
        tokens = {str(i): {"content": f"<NEW{i}>", "special": True} for i in range(ROWS, ROWS + added)}
        (path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens}))
        return path

    return make


def loaded(base, adapter, rows=None):
    model = LlamaForCausalLM.from_pretrained(base)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter)


def test_an_adapter_without_new_tokens(adapter, run_rule):
    run_rule(AdapterVocabulary(), adapter(added=0)).assert_passed()
    assert verify(adapter(added=0), ruleset="inference").findings == []


@pytest.mark.parametrize("modules", [None, ["embed_tokens", "lm_head"]])
def test_rows_that_the_base_model_does_not_have(base, adapter, run_rule, modules):
    path = adapter(modules_to_save=modules)
    with pytest.raises(RuntimeError, match=r"shape torch.Size\(\[67, 16\]\)"):
        loaded(base, path)
    assert loaded(base, path, ROWS + ADDED)
    run_rule(AdapterVocabulary(), path).assert_one(
        path="adapter_model.safetensors",
        severity="warning",
        message="the adapter's embeddings have 67 rows, but the base model in ../base has 64: loading fails",
    )


def test_rows_that_were_not_saved(base, adapter, run_rule):
    path = adapter(keep=False)
    with pytest.raises(IndexError):
        loaded(base, path)(input_ids=torch.tensor([[ROWS + 1]]))
    run_rule(AdapterVocabulary(), path).assert_one(
        path="tokenizer_config.json",
        message="gives the token '<NEW66>' the id 66, the base model in ../base has 64 rows, and the adapter stores no embeddings",
    )


def test_tokens_that_only_tokenizer_json_lists(adapter, run_rule):
    path = adapter(keep=False)
    (path / "tokenizer_config.json").unlink()
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 64, "content": "<NEW64>"}, {"id": 3}]}))
    run_rule(AdapterVocabulary(), path).assert_one(path="tokenizer.json", message="the token '<NEW64>' the id 64")


def test_lora_on_the_embeddings(base, adapter, run_rule):
    run_rule(AdapterVocabulary(), adapter(added=0, keep=False, targets=("embed_tokens",))).assert_passed()
    path = adapter(keep=False, targets=("embed_tokens",))
    with pytest.raises(RuntimeError, match="size mismatch"):
        loaded(base, path)
    run_rule(AdapterVocabulary(), path).assert_one(
        tensor="base_model.model.model.embed_tokens.lora_embedding_A",
        message="the adapter's embeddings have 67 rows, but the base model in ../base has 64",
    )


def test_tokens_within_the_padding_of_the_base_model(adapter, run_rule):
    path = adapter(added=0)
    tokens = {str(ROWS - 1): {"content": "<PAD>"}}
    (path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens}))
    run_rule(AdapterVocabulary(), path).assert_passed()


def test_a_base_model_elsewhere(adapter, run_rule, base):
    path = adapter(keep=False)
    base.rename(base.parent / "other")
    assert run_rule(AdapterVocabulary(), path).status is Status.SKIPPED


@pytest.mark.parametrize("text", ["", "[]", "{", '{"vocab_size": "x"}', '{"text_config": 3}', '{"vocab_size": 1e400}'])
def test_a_base_model_whose_configuration_says_nothing(adapter, run_rule, base, text):
    path = adapter(keep=False)
    (base / "config.json").write_text(text)
    assert run_rule(AdapterVocabulary(), path).status is Status.SKIPPED


@pytest.mark.parametrize("tokens", [[], {"a": 1}, {"99": {"content": ["x"]}}, {"9" * 40: {}}, None])
def test_tokens_of_any_type(adapter, run_rule, tokens):
    path = adapter(keep=False)
    (path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens}))
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": [1, {"id": "x"}, {"id": True}]}))
    assert run_rule(AdapterVocabulary(), path).status in (Status.PASSED, Status.FAILED)
