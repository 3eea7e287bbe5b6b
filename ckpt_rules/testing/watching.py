"""Whether a rule reads no more than it declares."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from unittest.mock import patch

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.engine import MAX_FINDINGS
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.rule import Reads, Rule
from ckpt_rules.storage import LocalSource


def undeclared(rule: Rule, checkpoint: Checkpoint) -> str | None:
    """A sentence about the first file that a rule opens although it declares `Reads.LISTING`, or None.

    Files by which the checkpoint was recognised don't count, nor does what another rule has asked for before.
    """
    if rule.reads is not Reads.LISTING or rule.why_not_for(checkpoint.layout.name):
        return None
    opened: list[Path] = []
    plain = LocalSource.__init__

    def noted(source: LocalSource, path: Path) -> None:
        opened.append(path)
        plain(source, path)

    with patch.object(LocalSource, "__init__", noted), suppress(FactUnavailable):
        for _ in islice(rule.check(checkpoint), MAX_FINDINGS):
            pass
    return f"{rule.id} opens {opened[0].name}; its `reads` must be HEADERS, not LISTING" if opened else None
