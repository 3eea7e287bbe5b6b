"""The `weights/` family: each rule with checkpoints that pass and one for each way to fail."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ckpt_rules import Severity, Status, verify
from ckpt_rules_weights.broken import BrokenSafetensors, BrokenTorchFile
from ckpt_rules_weights.content import EmptyTensors, Missing, NoTensors
from ckpt_rules_weights.layers import LayerGap
from ckpt_rules_weights.names import WrapperPrefix
from ckpt_rules_weights.shapes import ShapeVsConfig
from ckpt_rules_weights.shards import DuplicateTensor, IndexTotal, MissingShard, Unindexed
from ckpt_rules_weights.storage import MixedDtypes, StorageBloat

STATE, WEIGHTS, CONFIG, INDEX = "training_state.pth", "model.safetensors", "config.json", "model.safetensors.index.json"
ALL = [
    BrokenSafetensors, BrokenTorchFile, DuplicateTensor, EmptyTensors, IndexTotal, LayerGap, Missing, MissingShard,
    MixedDtypes, NoTensors, ShapeVsConfig, StorageBloat, Unindexed, WrapperPrefix,
]  # fmt: skip


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("weights", ["safetensors", "bin", "sharded", "sharded-bin"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_clean_checkpoint_yields_nothing(make_checkpoint, run_rule, rule, weights, dtype):
    result = run_rule(rule(), make_checkpoint(weights=weights, dtype=dtype))
    assert result.status is Status.PASSED or result.reason == "the weights have no index"


def shards(ck) -> list[str]:
    return sorted(p.name for p in ck.path.iterdir() if "-of-" in p.name)


class TestBrokenFiles:
    def test_weights_cut_short_say_by_how_much(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        size = (ck / WEIGHTS).stat().st_size
        found = run_rule(BrokenSafetensors(), ck.truncate(WEIGHTS, keep=size - 100)).assert_one(
            path=WEIGHTS, message="it was cut short by 100", data={"code": "cut-short"}
        )
        assert found.place.offset == size - 100

    def test_a_header_that_claims_more_than_any_disk(self, make_checkpoint, run_rule):
        ck = make_checkpoint().replace(WEIGHTS, (1 << 63).to_bytes(8, "little") + b'{"a":1}')
        run_rule(BrokenSafetensors(), ck).assert_one(path=WEIGHTS, message="9,223,372,036,854,775,808 bytes")

    def test_offsets_that_overlap_name_the_tensor(self, make_checkpoint, run_rule):
        def shift(header):
            _, second, *_ = sorted((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])
            begin, end = header[second]["data_offsets"]
            header[second]["data_offsets"] = [begin - 4, end - 4]

        found = run_rule(BrokenSafetensors(), make_checkpoint().edit_header(WEIGHTS, shift)).findings
        assert {"overlap", "hole"} == {f.data["code"] for f in found}
        assert all(f.place.path == WEIGHTS and f.place.tensor for f in found)

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_a_torch_file_cut_short(self, make_checkpoint, run_rule, legacy):
        ck = make_checkpoint(legacy=legacy).truncate(STATE, keep=0.7)
        run_rule(BrokenTorchFile(), ck).assert_one(path=STATE, message="cut short")

    def test_a_state_of_zeros(self, make_checkpoint, run_rule):
        run_rule(BrokenTorchFile(), make_checkpoint().zero(STATE)).assert_one(path=STATE, data={"code": "not-torch"})

    def test_a_zip_directory_that_is_overwritten(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        at = (ck / STATE).read_bytes().index(b"PK\x01\x02")
        run_rule(BrokenTorchFile(), ck.zero(STATE, at, 4)).assert_one(
            path=STATE, data={"code": "directory"}, message=f"byte {at:,}"
        )


class TestMissing:
    def test_no_weights_at_all(self, make_checkpoint, run_rule):
        run_rule(Missing(), make_checkpoint(weights=None)).assert_one(path=".", message="there are no model weights")

    def test_an_adapter_configuration_without_the_adapter(self, make_checkpoint, run_rule):
        ck = make_checkpoint().write_json("adapter_config.json", {"peft_type": "LORA"})
        run_rule(Missing(), ck).assert_one(path="adapter_config.json", message="no adapter weights")
        ck.write_safetensors("adapter_model.safetensors", {"lora_A.weight": torch.ones(2, 2)})
        run_rule(Missing(), ck).assert_passed()

    @pytest.mark.parametrize("name", ["epoch=1-step=8.ckpt", "0/__0_0.distcp", "model.keras"])
    def test_a_directory_of_no_known_layout_may_keep_them_elsewhere(self, tmp_path, run_rule, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"state_dict": {"w": torch.ones(2)}}, tmp_path / name)
        (tmp_path / "notes.txt").write_text("x")
        run_rule(Missing(), tmp_path).assert_skipped(f"no known layout says whether {name} holds the weights")

    @pytest.mark.parametrize(
        ("name", "content"),
        {
            "state": b"PK\x03\x04" + bytes(60),  # torch.save with no suffix
            "checkpoint_5": b"\x82\xa6params\x80\xa4step\x05",  # flax
            "ckpt-5.data-00000-of-00001": bytes(range(256)),  # tensorflow
            "weights.pdparams": b"\x80\x04}.",  # paddle
            "model.pkl.zst": b"\x28\xb5\x2f\xfd" + bytes(60),
        }.items(),
    )
    def test_a_file_of_any_name_that_is_no_text_may_hold_them(self, tmp_path, run_rule, name, content):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "notes.txt").write_text("x")
        run_rule(Missing(), tmp_path).assert_skipped(f"no known layout says whether {name} holds the weights")

    def test_text_holds_none(self, tmp_path, run_rule):
        (tmp_path / "README.md").write_text("# A model\n")
        (tmp_path / "state").write_text('{"step": 3}')
        run_rule(Missing(), tmp_path).assert_one(message="there are no model weights")

    def test_a_directory_of_no_known_layout_without_any(self, tmp_path, run_rule):
        torch.save({}, tmp_path / "rng_state_0.pth")
        run_rule(Missing(), tmp_path).assert_one(message="there are no model weights")

    def test_damaged_weights_are_there(self, make_checkpoint, run_rule):
        run_rule(Missing(), make_checkpoint().truncate(WEIGHTS, keep=0.5)).assert_passed()


class TestHollow:
    def test_the_safetensors_file_of_40_bytes(self, make_checkpoint, run_rule):
        ck = make_checkpoint().write_safetensors(WEIGHTS, {}, {"format": "pt"})
        run_rule(NoTensors(), ck).assert_one(path=WEIGHTS, message="holds no tensor")

    def test_an_empty_dictionary_in_a_bin_file(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="bin").write_torch("pytorch_model.bin", {})
        run_rule(NoTensors(), ck).assert_one(path="pytorch_model.bin", message="holds no tensor")

    def test_placeholders_of_zero3(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda tensors: {k: torch.zeros(0) for k in tensors})
        found = run_rule(EmptyTensors(), ck).assert_one(path=WEIGHTS, message="21 of 21 tensors have no element")
        assert found.data == {"empty": 21, "tensors": 21}

    def test_an_empty_buffer_is_no_weight(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda t: t | {"model.attn.kv_cache": torch.zeros(0, 4)})
        run_rule(EmptyTensors(), ck).assert_passed()


class TestShards:
    @pytest.mark.parametrize("weights", ["sharded", "sharded-bin"])
    def test_a_shard_that_is_not_there(self, make_checkpoint, run_rule, weights):
        ck = make_checkpoint(weights=weights)
        gone = shards(ck)[1]
        found = run_rule(MissingShard(), ck.remove(gone)).assert_one(
            path=gone, message=f"{gone} is missing; the index places"
        )
        assert "tensors there" in found.message

    def test_a_shard_without_a_tensor_that_the_index_promises(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        shard = shards(ck)[0]
        name = "model.embed_tokens.weight"
        holder = next(s for s in shards(ck) if name.encode() in (ck / s).read_bytes())
        ck.edit(holder, lambda tensors: {k: v for k, v in tensors.items() if k != name})
        run_rule(MissingShard(), ck).assert_one(path=holder, tensor=name, message="the shard lacks 1 of the")
        assert shard

    @pytest.mark.parametrize("outside", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors"])
    def test_a_name_that_leads_out_is_never_followed(self, make_checkpoint, run_rule, outside):
        ck = make_checkpoint(weights="sharded")
        ck.edit(INDEX, lambda index: {**index, "weight_map": {**index["weight_map"], "lm_head.weight": outside}})
        run_rule(MissingShard(), ck).assert_one(path=INDEX, message=f"'{outside}', which points outside the checkpoint")

    def test_a_stray_file_beside_the_index(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded").write_safetensors("extra.safetensors", {"x": torch.ones(1)})
        run_rule(Unindexed(), ck).assert_one(
            path="extra.safetensors", severity=Severity.WARNING, message="is not listed in"
        )

    def test_a_whole_shard_that_the_index_leaves_out(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        gone = shards(ck)[1]
        ck.edit(INDEX, lambda i: {**i, "weight_map": {k: v for k, v in i["weight_map"].items() if v != gone}})
        run_rule(Unindexed(), ck).assert_one(path=gone, severity=Severity.ERROR, message="a shard of the same family")

    def test_a_tensor_that_the_index_leaves_out(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        ck.edit(
            INDEX, lambda i: {**i, "weight_map": {k: v for k, v in i["weight_map"].items() if k != "lm_head.weight"}}
        )
        run_rule(Unindexed(), ck).assert_one(tensor="lm_head.weight", message="1 tensors are not listed in")

    def test_a_total_that_is_not_the_sum(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        ck.set_key(INDEX, "metadata.total_size", 12345)
        found = run_rule(IndexTotal(), ck).assert_one(
            path=INDEX, key="metadata.total_size", message="gives a total size of 12,345 bytes"
        )
        assert found.data["announced"] == 12345
        ck.set_key(INDEX, "metadata.total_size", "many")
        run_rule(IndexTotal(), ck).assert_one(message="'many', which is not a number of bytes")
        ck.drop_key(INDEX, "metadata")
        run_rule(IndexTotal(), ck).assert_passed()

    def test_one_name_in_two_shards(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        first, second = shards(ck)[:2]
        name, value = next(iter(load_file(ck / first).items()))
        ck.edit(second, lambda tensors: tensors | {name: value})
        run_rule(DuplicateTensor(), ck).assert_one(path=second, tensor=name, message=f"1 tensors are also in {first}")

    def test_a_missing_shard_blocks_what_needs_the_whole(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        gone = shards(ck)[1]
        for rule in (IndexTotal(), LayerGap()):
            run_rule(rule, ck.remove(gone) if (ck / gone).exists() else ck).assert_skipped(
                "is missing", blocked_by=gone
            )


class TestNames:
    @pytest.mark.parametrize(
        ("prefix", "wrapper"),
        [
            ("_orig_mod.", "torch.compile"),
            ("module.", "data parallel"),
            ("_fsdp_wrapped_module.", "FSDP"),
            ("base_model.model.base_model.model.", "PEFT, applied twice"),
        ],
    )
    def test_every_name_carries_a_wrapper(self, make_checkpoint, run_rule, prefix, wrapper):
        ck = make_checkpoint().edit(WEIGHTS, lambda tensors: {prefix + k: v for k, v in tensors.items()})
        run_rule(WrapperPrefix(), ck).assert_one(
            path=WEIGHTS, severity=Severity.WARNING, message=f"21 of 21 tensor names contain '{prefix}' ({wrapper})"
        )
        run_rule(WrapperPrefix(allowed=(prefix,)), ck).assert_passed()

    @pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
    def test_inside_a_training_state_the_loop_that_wrote_it_wraps_again(self, make_checkpoint, run_rule, prefix):
        ck = make_checkpoint(one_file=True)
        ck.edit(
            "checkpoint.pt",
            lambda s: s | {"model_state_dict": {prefix + k: v for k, v in s["model_state_dict"].items()}},
        )
        run_rule(WrapperPrefix(), ck).assert_one(path="checkpoint.pt", key="model_state_dict", severity=Severity.INFO)

    def test_a_submodule_that_is_called_module(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(WEIGHTS, lambda tensors: tensors | {"module.head.weight": torch.ones(2)})
        run_rule(WrapperPrefix(), ck).assert_passed()


class TestLayers:
    def test_a_layer_that_is_gone(self, make_checkpoint, run_rule):
        ck = make_checkpoint(config={"num_hidden_layers": 4})
        ck.edit(WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if ".layers.1." not in k})
        run_rule(LayerGap(), ck).assert_one(
            path=WEIGHTS,
            tensor="model.layers.1",
            message="model.layers has layers numbered up to 3, but lacks 1 of them: 1",
            data={"missing": [1]},
        )

    def test_fewer_layers_than_the_configuration_says(self, make_checkpoint, run_rule):
        ck = make_checkpoint().set_key(CONFIG, "num_hidden_layers", 32)
        run_rule(LayerGap(), ck).assert_one(
            message="model.layers has 2 layers, but the configuration says num_hidden_layers = 32",
            data={"found": 2, "expected": 32},
        )

    @pytest.mark.parametrize(("predictors", "findings"), [(0, 1), (1, 0)])
    def test_a_layer_that_predicts_further_tokens_lies_behind_the_others(
        self, make_checkpoint, run_rule, predictors, findings
    ):
        ck = make_checkpoint(config={"num_hidden_layers": 4})
        ck.set_key(CONFIG, "num_hidden_layers", 3).set_key(CONFIG, "num_nextn_predict_layers", predictors)
        assert len(run_rule(LayerGap(), ck).findings) == findings

    def test_numbers_in_a_sequential_have_gaps_by_nature(self, make_checkpoint, run_rule):
        model = torch.nn.ModuleDict(
            {
                "layers": torch.nn.Sequential(
                    *[torch.nn.Linear(2, 2) if i % 2 == 0 else torch.nn.ReLU() for i in range(7)]
                )
            }
        )
        ck = make_checkpoint().remove(CONFIG).write_safetensors(WEIGHTS, model.state_dict())
        run_rule(LayerGap(), ck).assert_passed()


class TestShapes:
    @pytest.mark.parametrize(
        ("key", "value", "tensor"),
        [
            ("vocab_size", 17, "model.embed_tokens.weight"),
            ("intermediate_size", 20, "model.layers.0.mlp.gate_proj.weight"),
            ("num_key_value_heads", 2, "model.layers.0.self_attn.k_proj.weight"),
            ("head_dim", 8, "model.layers.0.self_attn.q_proj.weight"),
        ],
    )
    def test_a_configuration_of_another_model(self, make_checkpoint, run_rule, key, value, tensor):
        found = run_rule(ShapeVsConfig(), make_checkpoint().set_key(CONFIG, key, value)).findings
        assert tensor in {f.place.tensor for f in found}
        assert all(f.place.path == WEIGHTS and "config.json implies" in f.message for f in found)

    def test_the_numbers_are_in_the_message(self, make_checkpoint, run_rule):
        found = run_rule(ShapeVsConfig(), make_checkpoint().set_key(CONFIG, "vocab_size", 17)).findings
        assert [(f.place.tensor, f.message) for f in found] == [
            ("lm_head.weight", "the tensor has shape [16, 8] but config.json implies [17, 8]"),
            ("model.embed_tokens.weight", "the tensor has shape [16, 8] but config.json implies [17, 8]"),
        ]

    def test_an_unknown_architecture_is_asked_for_its_embedding_only(self, make_checkpoint, run_rule):
        ck = make_checkpoint().set_key(CONFIG, "model_type", "ours").set_key(CONFIG, "hidden_size", 999)
        run_rule(ShapeVsConfig(), ck).assert_passed()
        ck.set_key(CONFIG, "vocab_size", 20)
        run_rule(ShapeVsConfig(), ck).assert_one(tensor="model.embed_tokens.weight", message="[20, ?]")

    def test_quantised_weights_need_a_word_in_the_configuration(self, make_checkpoint, run_rule):
        ck = make_checkpoint().edit(
            WEIGHTS, lambda t: t | {"model.layers.0.mlp.up_proj.qweight": torch.zeros(2, 2, dtype=torch.int32)}
        )
        run_rule(ShapeVsConfig(), ck).assert_one(
            tensor="model.layers.0.mlp.up_proj.qweight", message="1 tensors are quantised"
        )
        run_rule(ShapeVsConfig(), ck.set_key(CONFIG, "quantization_config", {"bits": 4})).assert_passed()


class TestStorage:
    def test_layers_in_two_dtypes_are_worth_a_word(self, make_checkpoint, run_rule):
        name = "model.layers.1.mlp.up_proj.weight"
        ck = make_checkpoint().edit(WEIGHTS, lambda t: t | {name: t[name].to(torch.bfloat16)})
        run_rule(MixedDtypes(), ck).assert_one(
            tensor=name, severity=Severity.INFO, message="model.layers.*.mlp.up_proj.weight has several dtypes"
        )

    def test_norms_are_kept_in_a_wider_dtype(self, make_checkpoint, run_rule):
        name = "model.layers.1.input_layernorm.weight"
        ck = make_checkpoint(dtype="bfloat16").edit(WEIGHTS, lambda t: t | {name: t[name].float()})
        run_rule(MixedDtypes(), ck).assert_passed()

    def test_scales_of_quantised_weights_have_a_dtype_of_their_own(self, make_checkpoint):
        def quantised(tensors):
            found = dict(tensors)
            for name in [n for n in tensors if n.endswith("_proj.weight")]:
                scale = tensors[name].float().abs().amax(dim=1, keepdim=True) / 127
                found |= {name: (tensors[name].float() / scale).round().to(torch.int8), f"{name}_scale": scale}
            return found

        ck = make_checkpoint(dtype="bfloat16").edit(WEIGHTS, quantised)
        ck.set_key(CONFIG, "quantization_config", {"quant_method": "compressed-tensors", "bits": 8})
        report = verify(ck.path, ruleset="inference", strict=True)
        assert (report.passed, report.findings) == (True, [])

    def test_a_row_that_drags_its_matrix(self, make_checkpoint, run_rule):
        big = torch.zeros(1024, 1024)
        ck = make_checkpoint(weights="bin").edit("pytorch_model.bin", lambda t: t | {"row": big[0]})
        run_rule(StorageBloat(), ck).assert_one(
            tensor="row",
            message="takes 4,096 bytes, but its storage takes 4,194,304",
            data={"used": 4096, "stored": 4194304},
        )

    def test_views_that_fill_their_storage(self, make_checkpoint, run_rule):
        fused = torch.zeros(1024, 1024)
        ck = make_checkpoint(weights="bin").edit(
            "pytorch_model.bin", lambda t: t | dict(zip("qkv", fused.split(342), strict=True))
        )
        run_rule(StorageBloat(), ck).assert_passed()


def test_healthy_models_of_many_kinds_yield_nothing(make_checkpoint, run_rule):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(10, 4)
    head = torch.nn.Linear(4, 10, bias=False)
    head.weight = embedding.weight
    models = {
        "convolutions": torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
        ),
        "tied": torch.nn.ModuleDict({"embed": embedding, "head": head}),
        "half norms": torch.nn.ModuleDict(
            {"layers": torch.nn.ModuleList([torch.nn.TransformerEncoderLayer(4, 2, 8) for _ in range(3)])}
        ),
        "recurrent": torch.nn.LSTM(4, 4, num_layers=2),
    }
    for name, model in models.items():
        for file in ("pytorch_model.bin", "model.pt"):
            ck = make_checkpoint(f"{name}-{file}", weights=None).remove(CONFIG)
            torch.save(model.state_dict(), ck / file)
            for rule in ALL:
                result = run_rule(rule(), ck)
                assert result.findings == (), (name, file, rule.id)
