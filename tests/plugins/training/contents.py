"""Saves of the Trainer and of Accelerate with the content of one file changed, and what is said of them."""

from __future__ import annotations

import random

import numpy as np
import torch

from ckpt_rules import verify

STATE, OPT = "training_state.pth", "optimizer_state_dict"
STEPS = 20


def random_states(*names):
    values = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 - as the trainers do
    return dict(zip(names, values, strict=True))


def findings(path):
    report = verify(path)
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    return [
        (f.severity.value, f.rule, f.place.path, f.place.key, f.message)
        for f in report.findings
        if f.severity.value != "info"
    ]


def changed(**changes):
    return lambda value: {k: v for k, v in {**value, **changes}.items() if v is not ...}


def one(found, *wanted):
    assert len(found) == 1, found
    assert found[0][:4] == wanted[:4]
    assert wanted[4] in found[0][4]
