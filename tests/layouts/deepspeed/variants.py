"""What is trained for the fixtures: model, configuration and number of ranks of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One save directory.

    model:     of models.py
    zero:      DeepSpeed's `zero_optimization`
    more:      the rest of its configuration
    ranks:     processes
    halfway:   whether there is a save halfway, too
    tag:       of the last save
    least_lr:  with which the warmup begins; DeepSpeed's is 0 for the second update, too
    overflows: steps whose gradients overflow
    excluded:  whether frozen parameters are left out
    fused:     whether the optimizer is treated as one for a GPU
    universal: whether the last save is replaced by its universal form
    then:      ranks that continue from the universal form of the last save, and make the only save that is kept
    """

    model: str = "normed"
    zero: Mapping[str, object] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)
    ranks: int = 2
    halfway: bool = False
    tag: str | None = None
    least_lr: float = 0.0
    overflows: tuple[int, ...] = ()
    excluded: bool = False
    universal: bool = False
    fused: bool = False
    then: int | None = None


BF16 = {"bf16": {"enabled": True}}
DYNAMIC = {"fp16": {"enabled": True, "initial_scale_power": 8, "hysteresis": 1, "loss_scale_window": 100}}
STATIC = {"fp16": {"enabled": True, "loss_scale": 128}}
SUMS_IN_BF16 = {"data_types": {"grad_accum_dtype": "bf16"}}
SUMS_IN_FP32 = {"data_types": {"grad_accum_dtype": "fp32"}}
IN_THE_HOST = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
TORCHS_ADAM = {"zero_force_ds_cpu_optimizer": False}
TWO_SHARES = {"tensor_parallel": {"autotp_size": 2, "partition_config": {"use_default_specs": False, "layer_specs": [
    {"patterns": [r"0\.weight$"], "partition_type": "column"}, {"patterns": [r"2\.weight$"], "partition_type": "row"}
]}}}  # fmt: skip

VARIANTS = {
    "zero0": Variant(halfway=True),
    "zero1": Variant(zero={"stage": 1}),
    "zero2": Variant(zero={"stage": 2}, halfway=True),
    "zero3": Variant(zero={"stage": 3}, halfway=True),
    "frozen": Variant("frozen", {"stage": 2}),
    "bf16": Variant("plain", {"stage": 1}, BF16),
    "moe": Variant("experts"),
    "pipeline": Variant("pipeline"),
    "universal": Variant(zero={"stage": 1}, universal=True),
    "named": Variant(zero={"stage": 1}, tag="best"),
    "fp16": Variant("plain", {}, DYNAMIC, halfway=True, least_lr=1e-4, overflows=(1, 3)),
    "fp16_fused": Variant("plain", {}, DYNAMIC, halfway=True, least_lr=1e-4, overflows=(1, 3), fused=True),
    "fp16_static": Variant("plain", {}, STATIC),
    "fp16_zero2": Variant("plain", {"stage": 2}, DYNAMIC, halfway=True, least_lr=1e-4, overflows=(1, 3)),
    "fp16_zero3": Variant("plain", {"stage": 3}, DYNAMIC, least_lr=1e-4, overflows=(1, 3)),
    "bf16_zero0": Variant("plain", {}, {**BF16, **SUMS_IN_BF16}),
    "bf16_in_fp32": Variant("plain", {"stage": 1}, {**BF16, **SUMS_IN_FP32}, halfway=True),
    "bf16_zero3": Variant("plain", {"stage": 3}, BF16),
    "moe_zero1": Variant("experts", {"stage": 1}),
    "moe_zero2": Variant("experts", {"stage": 2}, halfway=True),
    "moe_copies": Variant("copies", {"stage": 2}),
    "moe_four": Variant("experts", {"stage": 1}, ranks=4),
    "moe_bf16": Variant("experts", {"stage": 2}, BF16),
    "shares": Variant("shares", ranks=2),
    "shares_zero1": Variant("shares", {"stage": 1}, ranks=4, halfway=True),
    "shares_bf16": Variant("shares", {"stage": 1}, BF16, ranks=2),
    "autotp": Variant("plain", {"stage": 1}, {**BF16, **TWO_SHARES}),
    "frozen_zero3": Variant("frozen", {"stage": 3}),
    "excluded": Variant("frozen", {"stage": 2}, excluded=True),
    "excluded_zero3": Variant("frozen", {"stage": 3}, excluded=True),
    "offload": Variant(zero={"stage": 2, **IN_THE_HOST}, more=TORCHS_ADAM),
    "pipeline_zero1": Variant("pipeline", {"stage": 1}, ranks=4, halfway=True),
    "pipeline_bf16": Variant("pipeline", {"stage": 1}, BF16),
    "first": Variant(zero={"stage": 1}, overflows=(2, 3, 4)),
    "fewer_ranks": Variant(zero={"stage": 1}, then=1),
    "universal_zero3": Variant("plain", {"stage": 3}, universal=True),
    "universal_bf16": Variant("plain", {"stage": 1}, BF16, universal=True),
    "universal_fp16": Variant("plain", {"stage": 2}, DYNAMIC, least_lr=1e-4, overflows=(1, 3), universal=True),
    "pipeline_again": Variant("pipeline", {"stage": 1}, BF16, then=2),
    "universal_pipeline": Variant("pipeline", {"stage": 1}, BF16, universal=True),
}
