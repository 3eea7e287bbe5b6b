"""What other plugins may import of this one: what torch.load refuses by default."""

from __future__ import annotations

from ckpt_rules_safety.unsafe_load import files_of_a_resume, refused_by_default

__all__ = [
    "files_of_a_resume",
    "refused_by_default",
]
