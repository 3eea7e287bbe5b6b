"""Memory does not grow with the number of saves of a run: of each report the verdict and the gravest finding are kept."""

from __future__ import annotations

from ckpt_rules import verify
from ckpt_rules.cli import verify as command
from ckpt_rules.testing import CheckpointDirectory


def test_of_each_report_the_verdict_and_the_gravest_finding_are_kept(tmp_path):
    pass
