"""The kit for testing rules and layouts: build a valid checkpoint, damage it in named ways, run one rule, assert.

>>> from ckpt_rules.testing import build_plain_torch, run_rule
>>> checkpoint = build_plain_torch(tmp_path / "ck", epoch=2).truncate("model.safetensors", keep=0.5)
>>> run_rule(BrokenSafetensors(), checkpoint).assert_one(path="model.safetensors", message="cut short")

Checkpoints are built with torch where it is installed, and without it otherwise. pytest finds the fixtures
`make_checkpoint` and `run_rule` by itself wherever ckpt-rules is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "CheckpointDir": "ckpt_rules.testing.directory",
    "RuleResult": "ckpt_rules.testing.running",
    "Tensor": "ckpt_rules.testing.tensor",
    "build_plain_torch": "ckpt_rules.testing.plain_torch",
    "run_rule": "ckpt_rules.testing.running",
}

if TYPE_CHECKING:
    from ckpt_rules.testing.directory import CheckpointDir
    from ckpt_rules.testing.plain_torch import build_plain_torch
    from ckpt_rules.testing.running import RuleResult, run_rule
    from ckpt_rules.testing.tensor import Tensor

__all__ = ["CheckpointDir", "RuleResult", "Tensor", "build_plain_torch", "run_rule"]


# pytest imports this package in every session of every project that has ckpt-rules installed: it must cost nothing.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
