"""Orbax from before it wrote _METADATA: the tree of an item lies in `checkpoint`, and each array by its name in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ckpt_rules import verify
from tests.layouts.killing import said

OLDER = Path(__file__).parent / "fixtures" / "older" / "0"


@pytest.fixture
def step(tmp_path):
    return Path(shutil.copytree(OLDER, tmp_path / "run" / "0"))


def found(path):
    return [(f.rule, f.place.path) for f in verify(path).findings]


@pytest.mark.parametrize("ruleset", ["default", "deep", "inference"])
def test_a_clean_save(step, ruleset):
    report = verify(step, ruleset=ruleset, strict=True)
    assert (report.layout.name, report.passed, report.findings) == ("orbax", True, []), said(report)


def test_without_its_tree(step):
    (step / "default" / "checkpoint").unlink()
    assert found(step) == [("files/missing-required", "default/_METADATA")]


def test_an_array_that_the_store_lacks(step):
    tree = step / "default" / "checkpoint"
    tree.write_bytes(tree.read_bytes().replace(b"//params.dense.scale", b"//params.dense.shift"))
    (problem,) = verify(step).findings
    assert (problem.rule, problem.place.path) == ("weights/broken-orbax-item", "default/manifest.ocdbt")
    assert problem.message.endswith("contains no array params.dense.shift, which default/checkpoint lists")


@pytest.mark.parametrize(
    "content", [b"", b"PLACEHOLDER://", b"\xd9\xffPLACEHOLDER://a", b"\xda", b"\xae" + b"PLACEHOLDER://"]
)
def test_a_tree_that_makes_no_sense(step, content):
    (step / "default" / "checkpoint").write_bytes(content)
    assert not [o for o in verify(step).outcomes if o.status == "crashed"]


def test_a_step_that_was_never_committed(step):
    """Where a store knows no renames, the file is written last; the other step of the run has it."""
    later = Path(shutil.copytree(step, step.with_name("5")))
    assert found(later) == []
    for marker in [*later.glob("*/commit_success.txt"), later / "commit_success.txt"]:
        marker.unlink()
    (later / "_CHECKPOINT_METADATA").write_text("{}")
    assert found(later) == [("files/commit-marker", "commit_success.txt")]
    shutil.rmtree(step)
    assert found(later) == []
