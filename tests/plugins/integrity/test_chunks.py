"""integrity/broken-chunk: an archive inside of a distributed checkpoint's file that torch could not read."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules.opening import checkpoint_at
from ckpt_rules.testing import CheckpointDir
from ckpt_rules_integrity.chunks import BrokenChunk

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def saved(tmp_path):
    state = {"model": {"a": torch.randn(50, 3), "b": torch.randn(8)}, "note": {"lr": 0.1}}
    dcp.save(state, checkpoint_id=tmp_path / "ck", no_dist=True)
    return CheckpointDir(tmp_path / "ck")


def chunk(checkpoint, name):
    return next(i for i in checkpoint_at(checkpoint.path).files.distributed().items if i.name == name)


def test_what_dcp_saved_passes(saved, run_rule):
    run_rule(BrokenChunk(), saved).assert_passed()


@pytest.mark.parametrize("name", ["model.a", "model.b"])
def test_a_chunk_without_its_first_bytes_is_named_with_its_place(saved, run_rule, name):
    item = chunk(saved, name)
    saved.zero("__0_0.distcp", item.offset, 4)
    found = run_rule(BrokenChunk(), saved).assert_one(
        path="__0_0.distcp", tensor=name, offset=item.offset, message="1 of 2 chunks of the file have this fault"
    )
    assert found.data == {"nbytes": item.nbytes, "broken": 1, "of": 2}


def test_a_directory_that_is_gone_is_told(saved, run_rule):
    item = chunk(saved, "model.b")
    saved.zero("__0_0.distcp", item.offset + item.nbytes - 22, 22)
    run_rule(BrokenChunk(), saved).assert_one(path="__0_0.distcp", tensor="model.b", offset=item.offset)


def test_elsewhere_it_is_skipped(make_checkpoint, run_rule):
    run_rule(BrokenChunk(), make_checkpoint()).assert_skipped("there are no files of a distributed checkpoint")
