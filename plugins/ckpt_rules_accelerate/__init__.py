"""What Accelerate's `save_state` writes, and the diffusers training scripts that are built on it."""

from __future__ import annotations

from ckpt_rules import Layout, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The layouts of `save_state`."""
    from ckpt_rules_accelerate.diffusers import DiffusersTraining, Pipeline
    from ckpt_rules_accelerate.layout import Accelerate

    return [Accelerate(), DiffusersTraining(), Pipeline()]
