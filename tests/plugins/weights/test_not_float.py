"""weights/not-float: weights that were cast to integers, or packed, with nothing that says so."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules import Severity, Status
from ckpt_rules.testing.tiny_llama import CONFIG, parameter_shapes
from ckpt_rules_weights.not_float import NotFloat

WEIGHTS = "model.safetensors"
Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def llama(make_checkpoint):
    """Weights of the kit's Llama, some cast by `cast`, under a configuration."""

    def make(cast, more=None, **config):
        weights = {name: torch.randn(shape) for name, shape in parameter_shapes(CONFIG).items()}
        ck = make_checkpoint()
        ck.write_safetensors(WEIGHTS, {n: cast(n, t).contiguous() for n, t in weights.items()} | (more or {}))
        return ck.write_json("config.json", CONFIG | config)

    return make


def only(name, dtype):
    return lambda n, t: t.to(dtype) if n == name else t


def projections(pack):
    return lambda n, t: pack(t) if "proj" in n else t


def test_floating_point_of_any_width_passes(llama, run_rule):
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        run_rule(NotFloat(), llama(lambda _, t, d=dtype: t.to(d))).assert_passed()


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint16"])
@pytest.mark.parametrize("name", ["model.norm.weight", Q])
def test_one_weight_that_is_an_integer(llama, run_rule, name, dtype):
    found = run_rule(NotFloat(), llama(only(name, getattr(torch, dtype)))).assert_one(path=WEIGHTS, tensor=name)
    assert f"is stored as {dtype}, but every weight of this architecture (llama) is floating-point" in found.message
    assert found.severity is Severity.ERROR


@pytest.mark.parametrize(("pack", "said"), [
    (lambda t: torch.zeros(t.numel() // 2, dtype=torch.int8), "of shape [64] is stored as int8 (and 13 more like it)"),
    (lambda t: torch.zeros(t.shape[0], t.shape[1] // 2, dtype=torch.uint8), "of shape [8, 8] is stored as uint8 (and 13 more"),
])  # fmt: skip
def test_packed_weights_under_plain_names(llama, run_rule, pack, said):
    ck = llama(projections(pack))
    run_rule(NotFloat(), ck).assert_one(path=WEIGHTS, message=said)
    for key in ("quantization_config", "quantization"):  # the latter is MLX's
        ck.write_json("config.json", CONFIG | {key: {"bits": 8}})
        assert run_rule(NotFloat(), ck).status is Status.SKIPPED


def test_float8_is_an_error_beside_scales_and_else_a_warning(llama, run_rule):
    cast = projections(lambda t: t.to(torch.float8_e4m3fn))
    scales = {f"{n}_scale_inv": torch.ones(1, 1) for n in parameter_shapes(CONFIG) if "proj" in n}
    message = "is stored as float8_e4m3fn (and 13 more like it), but config.json declares no quantisation"
    assert run_rule(NotFloat(), llama(cast, scales)).assert_one(message=message).severity is Severity.ERROR
    assert run_rule(NotFloat(), llama(cast)).assert_one(message=message).severity is Severity.WARNING
    assert run_rule(NotFloat(), llama(cast, dtype="float8_e4m3fn")).status is Status.SKIPPED


def test_integers_that_belong_in_a_model(llama, run_rule):
    buffers = {
        "model.embeddings.position_ids": torch.arange(8),
        "model.bn.num_batches_tracked": torch.tensor(3),
        "model.layers.0.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.int64),
        "model.layers.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "model.layers.0.mlp.tokens_per_expert": torch.zeros(4, dtype=torch.int64),
        "model.layers.0.mlp.gate_up_proj_blocks": torch.zeros(4, 4, dtype=torch.uint8),
        "d2t": torch.zeros(16, dtype=torch.int64),
    }
    run_rule(NotFloat(), llama(lambda _, t: t, buffers)).assert_passed()


def test_quantised_names_are_reported_by_another_rule(llama, run_rule):
    cast = only(Q, torch.int8)
    run_rule(NotFloat(), llama(cast, {Q.replace("weight", "SCB"): torch.ones(8)})).assert_passed()


class TestUnknownArchitecture:
    @pytest.fixture
    def model(self, make_checkpoint):
        def make(**weights):
            named = {name.replace("_", ".", name.count("_")): tensor for name, tensor in weights.items()}
            return make_checkpoint(weights=None).write_json("config.json", {}).write_safetensors(WEIGHTS, named)

        return make

    def test_all_weights(self, model, run_rule):
        whole = {"net_0_weight": torch.ones(4, 4), "net_0_bias": torch.ones(4), "steps": torch.tensor(3)}
        run_rule(NotFloat(), model(**whole)).assert_passed()
        cast = {name: tensor.long() for name, tensor in whole.items()}
        run_rule(NotFloat(), model(**cast)).assert_one(
            tensor="net.0.bias",
            message="the weight of shape [4] is stored as int64 (and 1 more like it), and none of the weights is floating-point",
        )

    def test_one_layer_unlike_its_siblings(self, model, run_rule):
        layers = {f"h_{n}_w1_weight": torch.ones(4, 4) for n in range(3)}
        run_rule(NotFloat(), model(**layers)).assert_passed()
        layers["h_1_w1_weight"] = torch.ones(4, 4, dtype=torch.int32)
        run_rule(NotFloat(), model(**layers)).assert_one(
            tensor="h.1.w1.weight",
            message="the weight of shape [4, 4] is stored as int32, but h.*.w1.weight is float32 in other layers",
        )

    def test_a_table_of_integers_of_its_own(self, model, run_rule):
        run_rule(NotFloat(), model(table_weight=torch.ones(4).long(), net_0_weight=torch.ones(4, 4))).assert_passed()
