"""No rule reads more of any sample than it declares."""

from __future__ import annotations

from contextlib import suppress
from unittest.mock import patch

import pytest

from ckpt_rules import FactUnavailable, Reads
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.storage import LocalStorage
from ckpt_rules.testing.watching import undeclared
from tests.cases.snapshot import ARCHIVES, gather, saves

pytestmark = pytest.mark.slow
RULES = [rule() for rule, _ in installed_plugins().rules.values() if not rule.compares]


@pytest.mark.parametrize("archive", [*ARCHIVES, "fixtures"])
def test_no_rule_reads_more_than_it_declares(archive, tmp_path):
    gather(archive, tmp_path)
    faults = set()
    for save in saves(tmp_path):
        checkpoint, _ = open_checkpoint(LocalStorage(str(save)), installed_plugins())
        # Those of the listing come first, while nobody has opened a file for them.
        faults.update(fault for rule in RULES if (fault := undeclared(rule, checkpoint)))
        faults.update(rule.id for rule in RULES if rule.reads is Reads.HEADERS and _reads_bytes(rule, checkpoint))
    assert not faults


def _reads_bytes(rule, checkpoint):
    with patch("ckpt_rules.deep.passing.read_bytes", side_effect=InterruptedError) as asked:
        if rule.why_not_for(checkpoint.layout.name) is None:
            with suppress(FactUnavailable, InterruptedError):
                list(rule.check(checkpoint))
        return asked.called
