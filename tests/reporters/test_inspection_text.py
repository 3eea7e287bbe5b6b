"""The text of `inspect`."""

from __future__ import annotations

import pytest

from ckpt_rules.inspection.model import (
    FilesSummary,
    Inspection,
    ModelSummary,
    OptimizerSummary,
    ProgressSummary,
    ResumeSummary,
    RngSummary,
    ScalerSummary,
    SchedulerSummary,
    WeightsSummary,
)
from ckpt_rules.report import LayoutSummary, Notice
from ckpt_rules.reporters.inspection import render, size, value

STATE = {"path": "training_state.pth", "key": "x"}


@pytest.fixture
def full():
    return Inspection(
        tool_version="0.1.0",
        checkpoint="runs/step-2394",
        layout=LayoutSummary(
            name="plain-torch", title="plain torch checkpoint", signs=("training_state.pth", "config.json")
        ),
        files=FilesSummary(count=5, nbytes=1_430_000_000),
        progress=ProgressSummary(
            epoch=3, step=394, total_batches=1000, complete=False, fraction=0.394, global_step=2394, accumulation=2,
            batches_done=2394, expected_updates=1197, planned_epochs=10, planned_updates=None,
            notes=("2 batches per optimizer update, inferred",),
        ),
        resume=ResumeSummary(
            sentence="epoch 3 continues: batches 0 to 393 are skipped, 394 to 999 are trained",
            epoch=3, skipped=394, trained=606, from_update=1197,
        ),
        optimizer=OptimizerSummary(
            **STATE, kind="AdamW", groups=2, parameters=148, states=140, updates=1197, lrs=(0.00030000001, 0.001)
        ),
        scheduler=SchedulerSummary(
            **STATE, kind="CosineAnnealingLR", last_epoch=1197, last_lr=(3e-4, 3e-4), base_lrs=("nan",)
        ),
        scaler=ScalerSummary(**STATE, enabled=True, scale=65536.0, growth_tracker=394),
        rng=RngSummary(**STATE, sources=("cuda", "python")),
        model=ModelSummary(path="config.json", key="", model_type="llama", architectures=["LlamaForCausalLM"]),
        weights=WeightsSummary(
            files=tuple(f"model-0000{n}-of-00006.safetensors" for n in range(1, 7)), index="model.safetensors.index.json",
            tensors=148, parameters=124_439_808, nbytes=300_000_000, dtypes={"bfloat16": 124_000_000, "float32": 439_808},
            others=("pytorch_model.bin",),
        ),
        unavailable={},
    )  # fmt: skip


def test_everything_known(full, golden):
    golden("inspection.txt", render(full))


def test_nothing_known(full, golden):
    parts = ("progress", "resume", "optimizer", "scheduler", "scaler", "rng", "model", "weights")
    update = dict.fromkeys(parts) | {
        "checkpoint": "runs/\x1b[31m",
        "unavailable": {p: f"there is no \x1b[31m{p}" for p in parts if p != "model"},
        "notices": (
            Notice(severity="error", message="the plugin acme could not be loaded: ImportError: no", fatal=True),
        ),
        "files": FilesSummary(count=1, nbytes=40, truncated="more than 1,000,000 entries"),
    }
    golden("inspection-nothing.txt", render(full.model_copy(update=update)))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"complete": True, "step": 0, "fraction": 1.0}, "progress    epoch 3 of 10 planned, complete (1,000 batches)"),
        ({"total_batches": None, "fraction": None}, "progress    epoch 3 of 10 planned, 394 batches done"),
        ({"step": None, "fraction": None}, "progress    epoch 3 of 10 planned, how much of it is done is not recorded"),
        (
            {"epoch": None, "batches_done": None},
            "progress    global step 2,394, optimizer updates expected 1,197, 2 batches per",
        ),
    ],
)
def test_progress(full, changed, line):
    progress = full.progress.model_copy(update=changed)
    assert line in render(full.model_copy(update={"progress": progress})).splitlines()


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (None, "not recorded"),
        (0.000958877312, "0.000958877"),
        (1e-5, "1e-05"),
        (65536.0, "65,536"),
        (1200, "1,200"),
        (True, "True"),
        ("n\x1b", r"n\x1b"),
        ([1, 2.5], "1, 2.5"),
    ],
)
def test_values(stored, text):
    assert value(stored) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (475_200_000, "475 MB"),
        (1_430_000_000, "1.43 GB"),
        (7e14, "700 TB"),
    ],
)
def test_sizes(nbytes, text):
    assert size(int(nbytes)) == text
