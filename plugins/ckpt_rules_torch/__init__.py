"""The plain torch layout: `training_state.pth`, `config.json`, weights as safetensors or `.bin`, or all in one file."""

from __future__ import annotations

from ckpt_rules import Layout, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The plain torch layout."""
    from ckpt_rules_torch.layout import PlainTorch

    return [PlainTorch()]
