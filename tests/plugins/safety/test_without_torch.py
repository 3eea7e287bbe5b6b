"""state/missing-module says nothing of a machine that has no torch: nobody resumes there."""

from __future__ import annotations

import argparse

import pytest
import torch

from ckpt_rules.testing import run_rule
from ckpt_rules_safety import missing_modules


@pytest.mark.parametrize("installed", [True, False])
def test_only_where_torch_is_something_is_missed(tmp_path, monkeypatch, installed):
    here = missing_modules._is_found
    monkeypatch.setattr(missing_modules, "_is_found", lambda name: installed and name != "argparse" and here(name))
    torch.save(
        {"epoch": 1, "model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, tmp_path / "checkpoint.pth"
    )
    result = run_rule(missing_modules.MissingModule(), tmp_path)
    if installed:
        result.assert_one(path="checkpoint.pth", message="the package argparse is not installed here")
    else:
        result.assert_skipped("torch is not installed here")
