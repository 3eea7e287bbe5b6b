"""Checkpoints of the transformers Trainer: recognised, silent when clean, resumed where we say, and each damage found."""

from __future__ import annotations

import pytest
from killing import said

from ckpt_rules import verify

TRAIN = "trainer/train.py"
VARIANTS = (
    "plain", "accumulated", "max-steps", "plateau", "no-skip", "sgd", "adafactor", "bf16", "best", "tied", "frozen",
    "bf16-weights", "lora", "dora",
)  # fmt: skip


def saves(run):
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_trainer_saves_passes_in_strict_mode_without_a_warning(made, variant):
    found = saves(made(TRAIN, variant) / "run")
    assert len(found) >= 2
    for checkpoint in found:
        report = verify(checkpoint, strict=True)
        assert report.layout.name == "transformers-trainer"
        assert report.passed, said(report)
        assert not [f for f in report.findings if f.severity != "info"]
