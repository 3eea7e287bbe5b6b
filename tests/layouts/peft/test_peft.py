"""Adapters that peft saved: nothing is said of them as weights, and each disagreement with their configuration is found."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_peft.adapter import Adapter

MAKE = "peft/make.py"
Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter(copied):
    """A copy of one adapter, and what changes it."""

    class Copy:
        def __init__(self, name):
            self.path = copied(MAKE, name)

        def configure(self, **values):
            file = self.path / "adapter_config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
            return self

        def edit(self, change):
            file = self.path / "adapter_model.safetensors"
            tensors = load_file(file)
            change(tensors)
            file.unlink()
            save_file(tensors, file, metadata={"format": "pt"})
            return self

        @property
        def result(self):
            return run_rule(Adapter(), self.path)

    return Copy


@pytest.mark.parametrize("name", ["lora", "ranks", "saved", "prompt", "expressions", "narrowed", "tied"])
def test_what_peft_saves_agrees_with_itself(made, name):
    run_rule(Adapter(), made(MAKE) / name).assert_passed()
    assert inspect(made(MAKE) / name).layout.name == "peft-adapter"


def test_an_adapter_by_itself_is_nothing_to_resume_from(made):
    report = verify(made(MAKE) / "lora")
    (found,) = [f for f in report.findings if f.severity == "error"]
    assert (found.rule, found.place.path) == ("files/not-resumable", ".")
    assert found.message == "the directory holds an adapter and no training state, so training can't be resumed from it"


def test_without_its_configuration(adapter):
    path = adapter("lora").path
    (path / "adapter_config.json").unlink()
    found = [f for f in verify(path).findings if f.place.path == "adapter_config.json"]
    assert [f.rule for f in found] == ["files/missing-required"]


def test_another_rank_than_the_file_has(adapter):
    changed = adapter("lora").configure(r=8)
    changed.result.assert_one(
        path="adapter_model.safetensors", tensor=Q.format(0, "A"), message="and 7 more tensors have rank 4",
        data={"rank": 4, "config": 8, "tensors": 8},
    )  # fmt: skip


def test_a_rank_pattern_that_was_lost(adapter):
    changed = adapter("ranks").configure(rank_pattern={})
    changed.result.assert_one(tensor=Q.format(0, "A"), data={"rank": 8, "config": 4, "tensors": 2})


def test_a_rank_that_no_expression_of_the_pattern_gives(adapter):
    changed = adapter("expressions").configure(rank_pattern={r"^model.layers.0.*q_proj": 16, r"layers\.1.*v_proj": 2})
    changed.result.assert_one(tensor=Q.format(0, "A"), data={"rank": 8, "config": 4, "tensors": 2})


def test_an_output_embedding_that_is_tied_to_no_target(adapter):
    changed = adapter("tied").configure(ensure_weight_tying=False)
    changed.result.assert_one(tensor="base_model.model.lm_head.lora_A.weight", data={"modules": 1})
    changed.configure(ensure_weight_tying=True, target_modules=["lm_head"])
    changed.result.assert_one(tensor="base_model.model.model.embed_tokens.lora_embedding_A", data={"modules": 1})


def test_fewer_modules_than_the_file_holds_are_dropped_without_a_word(adapter):
    changed = adapter("lora").configure(target_modules=["v_proj"])
    changed.result.assert_one(tensor=Q.format(0, "A"), message="2 of 4 adapted modules", data={"modules": 2})


def test_more_modules_than_the_file_holds_are_information(adapter):
    changed = adapter("lora").configure(target_modules=["q_proj", "v_proj", "k_proj"])
    changed.result.assert_one(
        path="adapter_config.json", key="target_modules", severity="info", data={"modules": ["k_proj"]}
    )


def test_a_prefix_before_the_names_that_peft_looks_for(adapter):
    def under_a_composite_model(tensors):
        for name in list(tensors):
            tensors[f"thinker.{name}"] = tensors.pop(name)

    adapter("lora").edit(under_a_composite_model).result.assert_one(
        path="adapter_model.safetensors", tensor=f"thinker.{Q.format(0, 'A')}", severity="error",
        message="8 of 8 names have 'thinker.' before 'base_model.model.'", data={"prefix": "thinker.", "tensors": 8},
    )  # fmt: skip


def test_half_an_adapter(adapter):
    changed = adapter("lora").edit(lambda tensors: tensors.pop(Q.format(1, "B")))
    changed.result.assert_one(tensor=Q.format(1, "A"), message="layers.1.self_attn.q_proj has a lora_A and no lora_B")


def test_a_module_to_save_that_was_not_saved(adapter):
    changed = adapter("saved").edit(lambda tensors: tensors.pop("base_model.model.lm_head.weight"))
    changed.result.assert_one(path="adapter_config.json", key="modules_to_save", data={"modules": ["lm_head"]})


def test_one_classification_head_of_those_that_peft_asks_for(adapter):
    changed = adapter("saved").configure(modules_to_save=["lm_head", "classifier", "score"])
    changed.result.assert_passed()


def test_a_prompt_of_another_length(adapter):
    changed = adapter("prompt").configure(num_virtual_tokens=6)
    changed.result.assert_one(tensor="prompt_embeddings", data={"shape": [5, 16]})


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": 3}, {"target_modules": [1, None]}, {"r": "8"}, {"rank_pattern": [1]}, {"rank_pattern": {".*": [1]}}, {"modules_to_save": "x"},
        {"peft_type": ["LORA"]}, {"peft_type": None},
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_crash_nothing(adapter, values):
    assert adapter("lora").configure(**values).result.status != "crashed"
