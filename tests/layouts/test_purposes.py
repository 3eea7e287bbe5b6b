"""The rulesets inference and publish over what each trainer writes."""

from __future__ import annotations

import shutil

import pytest

from ckpt_rules import verify
from tests.layouts.samples import sample_of

PUBLISHED = {"pipeline", "orbax", "keras"}


@pytest.mark.parametrize("name", ["trainer", "trainer lora", "adapter", "accelerate", "diffusers", "pipeline", "dcp", "lightning",
                                  "zero0", "zero2", "zero3", "universal", "orbax", "keras", "mmengine"])  # fmt: skip
def test_what_trainers_write_can_be_loaded_and_must_not_be_published(name, made, tmp_path):
    path = sample_of(name, made, tmp_path)
    report = verify(path, ruleset="inference", strict=True)
    assert (report.passed, report.findings) == (True, [])
    published = {f.rule for f in verify(path, ruleset="publish").findings if f.severity == "error"}
    if name == "adapter" or name in PUBLISHED:
        assert published == set()
    else:
        assert "publish/training-state" in published


def test_a_distributed_checkpoint_without_its_metadata_can_not_be_loaded(made, tmp_path):
    path = shutil.copytree(sample_of("dcp", made, tmp_path), tmp_path / "step-2")
    (path / ".metadata").unlink()
    (finding,) = verify(path, ruleset="inference").findings
    assert (finding.rule, finding.place.path, finding.severity) == ("files/missing-required", ".metadata", "error")
