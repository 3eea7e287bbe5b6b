"""Which keys are slips of the pen, and which are other words."""

from __future__ import annotations

import pytest

from ckpt_rules.facts.spelling import misspelling_of

NAMES = ("optimizer_state_dict", "optimizer", "optimizers", "epoch", "step", "total_batches", "rng")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optimizer_state_dit", "optimizer_state_dict"),
        ("optimizer_state_dictt", None),  # something appended makes another name
        ("optimzer_state_dict", "optimizer_state_dict"),
        ("optimzier_sate_dict", "optimizer_state_dict"),
        ("optimizer-state-dict", "optimizer_state_dict"),
        ("OptimizerStateDict", "optimizer_state_dict"),
        ("ptimizer", "optimizer"),
        ("Epoch", "epoch"),
        ("epcoh", "epoch"),
        ("epoc", "epoch"),
        ("eppoch", "epoch"),
        ("eepcoh", None),
        ("setp", "step"),
        ("total_batchs", "total_batches"),
        ("epochs", None),
        ("steps", None),
        ("rgn", None),  # too short to tell
        ("loss", None),
        ("", None),
        ("optimizer_state_dict", "optimizer_state_dict"),
    ],
)
def test_slips(key, meant):
    names = [n for n in NAMES if n != key]
    assert misspelling_of(key, names) == (None if key in NAMES else meant)
