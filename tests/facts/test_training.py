"""Fields of a training state, and the planned end."""

from __future__ import annotations

import math

import pytest

from ckpt_rules.facts.counters import counter_faults
from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.facts.training import Field, Progress, Recorded, TrainingState, is_count
from ckpt_rules.finding import Severity

FIELDS = (
    Field("epoch", ("epoch", "current_epoch"), Severity.ERROR),
    Field("optimizer", ("optimizer_state_dict", "optimizer")),
)


def test_fields_by_any_of_their_keys():
    state = TrainingState("x.pt", {"current_epoch": 3, 5: 6}, FIELDS)
    assert (state.key_of("epoch"), state.get("epoch"), state.misspelt("epoch")) == ("current_epoch", 3, None)
    assert (state.key_of("optimizer"), state.get("optimizer"), state.field("optimizer")) == (None, None, FIELDS[1])
    assert (state.key_of("other"), state.get("other"), state.field("other"), state.misspelt("other")) == (None,) * 4


@pytest.mark.parametrize(
    ("values", "name", "key"),
    [
        ({"epcoh": 3}, "epoch", "epcoh"),
        ({"epcoh": TensorInfo("int64", (), 8, value=3)}, "epoch", "epcoh"),
        ({"epcoh": "three"}, "epoch", None),
        ({"epcoh": True}, "epoch", None),
        ({"epcoh": 3, "epoch": 3}, "epoch", None),
        ({"optimzer": {}}, "optimizer", "optimzer"),
        ({"optimzer": 3}, "optimizer", None),
    ],
)
def test_misspelt_keys_hold_values_of_the_right_kind(values, name, key):
    assert TrainingState("x.pt", values, FIELDS).misspelt(name) == key


@pytest.mark.parametrize(
    ("progress", "finished"),
    [
        (Progress(epoch=3, complete=True, planned_epochs=3, total_batches=9), True),
        (Progress(epoch=2, complete=True, planned_epochs=3, total_batches=9), False),
        (Progress(epoch=3, complete=False, planned_epochs=3, total_batches=9), False),
        (Progress(epoch=3, planned_epochs=3), True),
        (Progress(epoch=3), False),
        (Progress(global_step=100, planned_updates=100), True),
        (Progress(global_step=99, expected_updates=100, planned_updates=100), False),
        (Progress(expected_updates=100, planned_updates=100), True),
        (Progress(planned_updates=100), False),
    ],
)
def test_the_planned_end(progress, finished):
    assert progress.finished is finished


@pytest.mark.parametrize("value", [0, 3, 3.0, 2**62])
def test_counts(value):
    assert is_count(value)


@pytest.mark.parametrize("value", [-1, 2.5, True, None, "3", math.nan, math.inf, -math.inf, 2**63, 10**400, [], {}])
def test_no_counts(value):
    assert not is_count(value)


def test_contradictions_between_counters():
    recorded = tuple(Recorded(n, v, "x.pt", n) for n, v in {"epoch": 0, "step": 0, "total_batches": 5}.items())
    assert counter_faults(recorded, None) == []
    assert counter_faults(recorded, 0) == []
    later = (recorded[0], Recorded("step", 3, "x.pt", "step"), recorded[2])
    assert counter_faults(later, 5) == []
    assert counter_faults(later, 7) == [
        (recorded[0], "although the optimizer has made 7 updates, more than an epoch of 5 batches allows")
    ]
    assert counter_faults(recorded, 7) == [(recorded[0], "and step 0, although the optimizer has made 7 updates")]
