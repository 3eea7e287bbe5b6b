"""LOCAL_STATE_DICT of FSDP 1: each rank's piece of the flattened model, which is sound, and which nobody here puts together."""

from __future__ import annotations

import pytest

from ckpt_rules import verify
from tests.layouts.killing import said

SCRIPT = "sharded/local.py"
VARIANTS = [(), ("original",)]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_accelerate_saves_is_sound_and_what_refuses_it_is_said(made, variant):
    out = made(SCRIPT, *variant)
    report = verify(out / "accelerate", ruleset="deep")
    assert (report.layout.name, report.verdict.value) == ("accelerate", "passed"), said(report)
    (found,) = report.findings
    assert (found.rule, found.severity.value) == ("state/needs-unsafe-load", "warning")
    assert found.place.path == "pytorch_model_fsdp_rank0.bin"
    assert "torch.distributed._shard.sharded_tensor.api.ShardedTensor" in found.data["globals"]
    assert (out / "loaded.txt").read_text() == "UnpicklingError"  # by torch 2.6 or newer


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_piece_that_is_missing(copied, variant):
    checkpoint = copied(SCRIPT, *variant, "accelerate")
    (checkpoint / "pytorch_model_fsdp_rank1.bin").unlink()
    (found,) = [f for f in verify(checkpoint).findings if f.severity == "error"]
    assert (found.rule, found.place.path) == ("ranks/missing-file", "pytorch_model_fsdp_rank1.bin")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_piece_that_was_cut(copied, variant):
    checkpoint = copied(SCRIPT, *variant, "accelerate")
    piece = checkpoint / "pytorch_model_fsdp_rank1.bin"
    piece.write_bytes(piece.read_bytes()[:-200])
    report = verify(checkpoint)
    assert report.verdict.value == "failed"
    assert {f.place.path for f in report.findings if f.severity == "error"} == {piece.name}


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_of_a_script_of_ones_own_end_as_unknown(made, variant):
    report = verify(made(SCRIPT, *variant) / "plain")
    assert report.verdict.value == "unknown", said(report)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_distributed_checkpoint_of_it_passes(made, variant):
    report = verify(made(SCRIPT, *variant) / "dcp")
    assert report.verdict.value == "passed", said(report)
    assert {f.rule for f in report.findings} <= {"weights/wrapper-prefix"}
