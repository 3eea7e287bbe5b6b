"""Code that no text names: a loader runs it because of where it lies."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint
from ckpt_rules_safety.named_code import NamedCode

_GENERATE = "custom_generate/generate.py"
_RUNS = (
    "transformers runs it with trust_remote_code=True, and some versions run it from a local directory without asking"
)


def named_by_place(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """The program that takes the place of a model's `generate`."""
    if checkpoint.listing.has_file(_GENERATE):
        yield NamedCode(_GENERATE, "the file", _GENERATE, _RUNS)
