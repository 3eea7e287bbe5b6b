"""weights/missing-tensor: names that the model must have, by its class or by its other layers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import Severity, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_weights.config_rules import Tied
from ckpt_rules_weights.missing_tensor import MissingTensor
from ckpt_rules_weights.names import WrapperPrefix

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "vocab_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "tie_word_embeddings": False,
}  # fmt: skip
LAYER = {
    "self_attn.q_proj.weight": (16, 16),
    "self_attn.k_proj.weight": (8, 16),
    "self_attn.v_proj.weight": (8, 16),
    "self_attn.o_proj.weight": (16, 16),
    "mlp.gate_proj.weight": (32, 16),
    "mlp.up_proj.weight": (32, 16),
    "mlp.down_proj.weight": (16, 32),
    "input_layernorm.weight": (16,),
    "post_attention_layernorm.weight": (16,),
}


def llama():
    shapes = {"model.embed_tokens.weight": (64, 16), "model.norm.weight": (16,), "lm_head.weight": (64, 16)}
    shapes |= {f"model.layers.{n}.{name}": shape for n in range(3) for name, shape in LAYER.items()}
    return {name: torch.ones(shape) for name, shape in shapes.items()}


@pytest.fixture
def model(tmp_path):
    """`model(tensors, tie_word_embeddings=True)`: a directory of these tensors and a configuration with these changes."""

    def write(tensors, **config):
        save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
        (tmp_path / CONFIG).write_text(json.dumps({**LLAMA, **config}))
        return tmp_path

    return write


def without(*gone):
    return {name: tensor for name, tensor in llama().items() if name not in gone}


def under(prefix):
    return {prefix + name: tensor for name, tensor in llama().items()}


class TestKnownClass:
    @pytest.mark.parametrize(
        "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"]
    )
    def test_one_tensor(self, model, name):
        path = model(without(name))
        found = run_rule(MissingTensor(), path).assert_one(
            path=WEIGHTS,
            tensor=name,
            severity=Severity.ERROR,
            message=f"{name} is missing, which LlamaForCausalLM looks for",
        )
        assert found.data == {"tensors": 1, "names": [name]}
        assert verify(path, ruleset="inference").reason == "not safe to load: 1 error"

    def test_one_finding_for_each_kind(self, model):
        gone = [f"model.layers.{n}.mlp.{p}_proj.weight" for p in ("up", "down") for n in (0, 2)]
        up, down = run_rule(MissingTensor(), model(without(*gone))).findings
        assert (up.place.tensor, up.data["tensors"]) == (gone[0], 2)
        assert (down.place.tensor, down.data["names"]) == (gone[2], gone[2:])
        assert "model.layers.0.mlp.up_proj.weight and 1 more of its kind are missing" in up.message

    def test_a_name_that_is_alike_is_named(self, model):
        name = "model.layers.0.self_attn.k_proj.weight"
        run_rule(MissingTensor(), model({**without(name), f"{name}_x": torch.ones(8, 16)})).assert_one(
            tensor=name, message=f"({name}_x is present, but that name is not known)"
        )

    def test_the_embedding_and_the_head_that_is_tied_to_it(self, model):
        tied = model(without("model.embed_tokens.weight", "lm_head.weight"), tie_word_embeddings=True)
        run_rule(MissingTensor(), tied).assert_one(path=WEIGHTS, tensor="model.embed_tokens.weight")

    @pytest.mark.parametrize("gone", ["model.embed_tokens.weight", "lm_head.weight"])
    def test_either_of_two_that_are_tied_is_enough(self, model, gone):
        run_rule(MissingTensor(), model(without(gone), tie_word_embeddings=True)).assert_passed()

    def test_a_head_that_is_not_tied_is_reported_once_and_as_an_error(self, model):
        path = model(without("lm_head.weight"))
        run_rule(MissingTensor(), path).assert_passed()
        run_rule(Tied(), path).assert_one(path=CONFIG, key="tie_word_embeddings", severity=Severity.ERROR)

    def test_a_head_is_missed_where_the_configuration_says_nothing_of_ties(self, model):
        path = model(without("lm_head.weight"))
        config = {k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}
        (path / CONFIG).write_text(json.dumps(config))
        run_rule(MissingTensor(), path).assert_one(tensor="lm_head.weight")

    @pytest.mark.parametrize(
        ("cls", "head"), [("SequenceClassification", "score.weight"), ("TokenClassification", "score.bias")]
    )
    def test_the_head_of_another_class(self, model, cls, head):
        heads = {"score.weight": torch.ones(2, 16), "score.bias": torch.ones(2)}
        tensors = without("lm_head.weight") | heads
        run_rule(MissingTensor(), model(tensors, architectures=[f"LlamaFor{cls}"])).assert_passed()
        path = model({n: t for n, t in tensors.items() if n != head}, architectures=[f"LlamaFor{cls}"])
        run_rule(MissingTensor(), path).assert_one(path=WEIGHTS, tensor=head, severity=Severity.ERROR)

    @pytest.mark.parametrize("prefix", ["value_head", "score"])
    def test_the_value_head_that_the_configuration_names(self, model, prefix):
        config = {"architectures": ["CriticModel"], "value_head_prefix": prefix}
        headed = without("lm_head.weight") | {f"{prefix}.weight": torch.ones(1, 16)}
        run_rule(MissingTensor(), model(headed, **config)).assert_passed()
        run_rule(MissingTensor(), model(without("lm_head.weight"), **config)).assert_one(
            path=WEIGHTS, tensor=f"{prefix}.weight", message="config.json names it as the value head"
        )

    def test_the_value_head_of_trl(self, model):
        config = {"architectures": ["AutoModelForCausalLMWithValueHead"]}
        run_rule(
            MissingTensor(), model({**llama(), "v_head.summary.weight": torch.ones(1, 16)}, **config)
        ).assert_passed()
        run_rule(MissingTensor(), model(llama(), **config)).assert_one(path=WEIGHTS, tensor="v_head.summary.weight")

    def test_nothing_has_the_name_that_is_looked_for(self, model):
        renamed = {f"tensor_{n}": t for n, t in enumerate(llama().values())}
        found = run_rule(MissingTensor(), model(renamed)).assert_one(
            path=WEIGHTS,
            severity=Severity.ERROR,
            message="all 30 tensors that LlamaForCausalLM looks for are missing",
        )
        assert found.data == {"tensors": 30, "wanted": 30}

    def test_a_layer_that_is_gone_is_reported_once(self, model):
        path = model({n: t for n, t in llama().items() if ".layers.1." not in n})
        run_rule(MissingTensor(), path).assert_passed()
        assert [f.rule for f in verify(path, ruleset="inference").findings] == ["weights/layer-gap"]

    def test_all_layers_are_gone(self, model):
        few = {n: t for n, t in llama().items() if ".layers." not in n}
        run_rule(MissingTensor(), model(few)).assert_one(message="27 of the 30 tensors that LlamaForCausalLM looks for")

    def test_the_shard_that_holds_the_layer_is_named(self, model):
        path = model(without())
        tensors = without("model.layers.2.mlp.up_proj.weight")
        shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        of = {name: shards[".layers.2." in name] for name in tensors}
        for shard in shards:
            save_file({n: t for n, t in tensors.items() if of[n] == shard}, path / shard, metadata={"format": "pt"})
        (path / WEIGHTS).unlink()
        (path / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))
        run_rule(MissingTensor(), path).assert_one(path=shards[1], tensor="model.layers.2.mlp.up_proj.weight")


class TestPrefixes:
    @pytest.mark.parametrize("prefix", ["base_model.model.", "thinker.", "policy.model."])
    def test_a_foreign_prefix_is_one_finding(self, model, prefix):
        found = run_rule(MissingTensor(), model(under(prefix))).assert_one(
            path=WEIGHTS,
            tensor=f"{prefix}model.embed_tokens.weight",
            severity=Severity.ERROR,
            message=f"all 30 tensors that LlamaForCausalLM looks for have '{prefix}' before their names",
        )
        assert found.data == {"prefix": prefix, "tensors": 30, "wanted": 30}

    def test_peft_names_in_a_plain_model(self, model):
        tensors = {name.replace("q_proj.", "q_proj.base_layer."): t for name, t in under("base_model.model.").items()}
        tensors |= {
            f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}.default.weight": torch.ones(4, 4) for x in "AB"
        }
        path = model({})
        (path / WEIGHTS).unlink()
        torch.save(tensors, path / "pytorch_model.bin")
        run_rule(MissingTensor(), path).assert_one(path="pytorch_model.bin", message="all 30 tensors")

    def test_adapted_modules_that_were_not_merged(self, model):
        tensors = {name.replace("q_proj.", "q_proj.base_layer."): t for name, t in llama().items()}
        found = run_rule(MissingTensor(), model(tensors)).assert_one(
            message="3 of the 30 tensors that LlamaForCausalLM looks for"
        )
        assert found.place.tensor == "model.layers.0.self_attn.q_proj.base_layer.weight"

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
    def test_wrappers_are_the_business_of_their_own_rule(self, model, prefix):
        path = model(under(prefix))
        run_rule(MissingTensor(), path).assert_passed()
        run_rule(WrapperPrefix(), path).assert_one(path=WEIGHTS, severity=Severity.ERROR)
        report = verify(path, ruleset="inference")
        assert [f.rule for f in report.findings] == ["weights/wrapper-prefix"]

    def test_the_base_models_names_are_found_too(self, model):
        bare = {name.removeprefix("model."): t for name, t in llama().items()}
        run_rule(MissingTensor(), model(bare)).assert_passed()
        run_rule(MissingTensor(), model(llama(), architectures=["LlamaModel"])).assert_passed()

    def test_a_loop_of_ones_own_loads_by_the_names_that_it_gave(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda tensors: {f"policy.{k}": v for k, v in tensors.items()})
        run_rule(MissingTensor(), ck).assert_one(path=WEIGHTS, severity=Severity.WARNING, message="have 'policy.'")

    def test_a_loop_of_ones_own_may_have_another_model_than_the_configuration_says(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if "q_proj" not in k})
        run_rule(MissingTensor(), ck).assert_passed()

    def test_a_loop_of_ones_own_that_lost_a_tensor(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda t: {k: v for k, v in t.items() if "0.self_attn.q_proj" not in k})
        run_rule(MissingTensor(), ck).assert_one(
            path=WEIGHTS, severity=Severity.ERROR, tensor="model.layers.0.self_attn.q_proj.weight"
        )


class TestNotJudged:
    def test_quantised(self, model):
        packed = {n.replace("q_proj.weight", "q_proj.qweight"): t for n, t in llama().items()}
        run_rule(MissingTensor(), model(packed)).assert_skipped("quantised")
        run_rule(MissingTensor(), model(without(), quantization_config={"bits": 4})).assert_skipped("quantised")

    def test_fused_by_an_engine_for_inference(self, model):
        fused = {n.replace("gate_proj", "gate_up_proj"): t for n, t in llama().items() if "up_proj" not in n}
        run_rule(MissingTensor(), model(fused)).assert_passed()

    @pytest.mark.parametrize(
        "change", [{"draft_vocab_size": 32}, {"auto_map": {"AutoModel": "m.C"}}, {"architectures": ["Mine"]}]
    )
    def test_classes_of_which_the_names_are_not_known(self, model, change):
        assert run_rule(MissingTensor(), model(without("model.norm.weight"), **change)).findings == ()

    def test_sentence_transformers_load_the_base_model(self, model):
        path = model(without("lm_head.weight"))
        (path / "modules.json").write_text("[]")
        run_rule(MissingTensor(), path).assert_passed()
        run_rule(Tied(), path).assert_one(severity=Severity.WARNING)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"num_hidden_layers": n} for n in (None, "2", [], 1e300, float("nan"), -1, 2**62, True)
        ]
        + [{"architectures": a} for a in (3, {}, [None], [[]], ["LlamaForCausalLM", "Other"])]
        + [{"model_type": []}, {"tie_word_embeddings": "no"}, {"value_head_prefix": 3}, {"id2label": 3}],
    )  # fmt: skip
    def test_nonsense_in_the_configuration(self, model, wrong):
        assert run_rule(MissingTensor(), model(without(), **wrong)).findings == ()


class TestUnknownArchitecture:
    def stack(self, layers, **config):
        tensors = {
            f"net.layers.{n}.{name}": torch.ones(2)
            for n in range(layers)
            for name in ("attn.qkv.weight", "attn.qkv.bias", "attn.out.weight", "mlp.fc1.weight", "norm.weight")
        }
        return tensors | {"embed.weight": torch.ones(2)}, {"model_type": "ours", "architectures": ["Ours"], **config}

    @pytest.mark.parametrize(
        ("layers", "gone"),
        [
            (3, "net.layers.1.attn.qkv.weight"),
            (4, "net.layers.0.attn.out.weight"),
            (4, "net.layers.3.mlp.fc1.weight"),
            (5, "net.layers.2.norm.weight"),
        ],
    )
    def test_a_layer_lacks_what_all_others_have(self, model, layers, gone):
        tensors, config = self.stack(layers)
        run_rule(MissingTensor(), model(tensors, **config)).assert_passed()
        # The rest of the module is left, or the layer is one between others.
        tensors.pop(gone)
        if gone.endswith("fc1.weight"):
            tensors |= {f"net.layers.{n}.mlp.fc2.weight": torch.ones(2) for n in range(layers)}
        found = run_rule(MissingTensor(), model(tensors, **config)).assert_one(
            path=WEIGHTS, tensor=gone, severity=Severity.ERROR, message="lacks 1 of the"
        )
        assert found.data["siblings"] == layers - 1

    def test_a_block_of_a_diffusion_transformer(self, tmp_path):
        names = ("attn.to_q.weight", "attn.to_k.weight", "attn.to_out.0.weight", "ff.net.0.proj.weight")
        tensors = {f"transformer_blocks.{n}.{name}": torch.ones(2) for n in range(4) for name in names}
        tensors.pop("transformer_blocks.2.attn.to_q.weight")
        save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
        run_rule(MissingTensor(), tmp_path).assert_one(
            path="diffusion_pytorch_model.safetensors", tensor="transformer_blocks.2.attn.to_q.weight"
        )

    @pytest.mark.parametrize(
        "gone",
        [
            "net.layers.0.norm.weight",  # as in ModernBERT
            "net.layers.3.norm.weight",
            "net.layers.0.mlp.fc1.weight",  # the whole of its module
        ],
    )
    def test_the_first_and_the_last_may_do_without(self, model, gone):
        tensors, config = self.stack(4)
        tensors.pop(gone)
        run_rule(MissingTensor(), model(tensors, **config)).assert_passed()

    def test_two_that_lack_it_are_of_another_kind(self, model):
        tensors, config = self.stack(5)
        for n in (1, 3):
            tensors.pop(f"net.layers.{n}.attn.out.weight")
        run_rule(MissingTensor(), model(tensors, **config)).assert_passed()

    def test_one_that_has_something_in_its_place_is_of_another_kind(self, model):
        tensors, config = self.stack(5)
        tensors["net.layers.2.mamba.in_proj.weight"] = tensors.pop("net.layers.2.attn.qkv.weight")
        run_rule(MissingTensor(), model(tensors, **config)).assert_passed()

    @pytest.mark.parametrize(
        "hybrid",
        [
            {"layer_types": ["a", "a", "a", "full", "a"]},
            {"full_attention_interval": 4},
            {"text_config": {"sparse_layers": [3]}},
        ],
    )
    def test_the_configuration_may_tell_that_a_layer_differs(self, model, hybrid):
        tensors, config = self.stack(5, **hybrid)
        tensors.pop("net.layers.3.attn.qkv.bias")
        run_rule(MissingTensor(), model(tensors, **config)).assert_passed()


def test_a_save_of_the_trainer_that_lost_a_tensor(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**{k: v for k, v in LLAMA.items() if k not in ("architectures", "model_type")})
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    run_rule(MissingTensor(), tmp_path).assert_passed()
    tensors = load_file(tmp_path / WEIGHTS)
    tensors.pop("model.layers.0.self_attn.q_proj.weight")
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    _, info = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert list(info["missing_keys"]) == ["model.layers.0.self_attn.q_proj.weight"]
    run_rule(MissingTensor(), tmp_path).assert_one(tensor="model.layers.0.self_attn.q_proj.weight")
