"""Sequences of schedulers in the Trainer's scheduler.pt: torch's own, stepped to the save's update and put in the place of the Trainer's."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as lr

from ckpt_rules import verify
from tests.layouts.killing import said, torch_value

SAVE = ("trainer/train.py", "plain", "run/checkpoint-8")
SCHEDULES = {
    "sequence": lambda o: lr.SequentialLR(o, [lr.LinearLR(o, 0.1, total_iters=3), lr.CosineAnnealingLR(o, 30)], [3]),
    "chain": lambda o: lr.ChainedScheduler([lr.LinearLR(o, 0.1, total_iters=3), lr.ExponentialLR(o, 0.9)]),
    "one cycle": lambda o: lr.OneCycleLR(o, 1e-2, total_steps=20, cycle_momentum=False),
    "warm restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 3),
}

pytestmark = pytest.mark.slow


@pytest.fixture
def scheduled(copied):
    """`scheduled("chain")`: checkpoint-8 with that scheduler, and its rates in the optimizer."""

    def save(name):
        checkpoint = copied(*SAVE)
        optimizer = torch.load(checkpoint / "optimizer.pt")
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in optimizer["param_groups"]]
        real = torch.optim.AdamW(groups, lr=1e-3)
        scheduler = SCHEDULES[name](real)
        for _ in range(8):
            real.step()
            scheduler.step()
        for group, own in zip(optimizer["param_groups"], real.param_groups, strict=True):
            group["lr"] = own["lr"]
        torch.save(optimizer, checkpoint / "optimizer.pt")
        torch.save(scheduler.state_dict(), checkpoint / "scheduler.pt")
        return checkpoint

    return save


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_clean_one_passes(scheduled, name):
    report = verify(scheduled(name), ruleset="deep", strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)


@pytest.mark.parametrize(
    ("name", "keys", "value", "found"),
    [
        ("sequence", ("last_epoch",), 7, ("scheduler/step-mismatch", "last_epoch")),
        ("sequence", ("_schedulers", 1, "last_epoch"), 8, ("scheduler/step-mismatch", "_schedulers[1].last_epoch")),
        ("chain", ("_schedulers", 1, "last_epoch"), 7, ("scheduler/step-mismatch", "_schedulers[1].last_epoch")),
        ("chain", ("_last_lr", 0), 0.5, ("scheduler/lr-mismatch", "_schedulers[1]._last_lr[0]")),
    ],
)
def test_what_was_moved_is_found(scheduled, name, keys, value, found):
    checkpoint = scheduled(name)
    torch_value("scheduler.pt", keys, value).apply(checkpoint)
    assert [(f.rule, f.place.key) for f in verify(checkpoint).findings if f.place.path == "scheduler.pt"] == [found]
