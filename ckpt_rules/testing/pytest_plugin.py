"""pytest fixtures, found through the entry point `ckpt_rules` of the group `pytest11`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ckpt_rules.testing import CheckpointDir, RuleResult


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., CheckpointDir]:
    """A function that builds a valid plain torch checkpoint below `tmp_path`; takes what `build_plain_torch` takes.

    `name` is the directory's name; without it each call makes another one.
    """
    from ckpt_rules.testing import build_plain_torch

    # Letters, not numbers: a number in a checkpoint's name is read as its step.
    names = iter(f"checkpoint_{letter}" for letter in ascii_lowercase)

    def make(name: str | None = None, **options: Any) -> CheckpointDir:
        return build_plain_torch(tmp_path / (name or next(names)), **options)

    return make


@pytest.fixture
def run_rule() -> Callable[..., RuleResult]:
    """`ckpt_rules.testing.run_rule`: run one rule over a checkpoint."""
    from ckpt_rules.testing import run_rule

    return run_rule
