"""integrity/crc: a zip archive whose bytes are not those that were written."""

from __future__ import annotations

import zipfile

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules.testing import CheckpointDir
from ckpt_rules_integrity.checksums import Crc


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "ck"
    folder.mkdir()
    torch.manual_seed(1)
    head = torch.randn(40, 30)
    torch.save({"model": {"embed.weight": head, "lm_head.weight": head}, "bias": torch.zeros(7)}, folder / "model.pt")
    return CheckpointDir(folder)


def entry(checkpoint, file, name):
    """Where the content of an entry starts, and its length and checksum."""
    with zipfile.ZipFile(checkpoint / file) as archive:
        info = archive.getinfo(name)
        archive.fp.seek(info.header_offset + 26)
        lengths = archive.fp.read(4)
        start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        return start, info.file_size, info.CRC


def test_what_torch_saved_passes(saved, run_rule):
    run_rule(Crc(), saved).assert_passed()


def test_one_flipped_bit_is_named_with_the_tensors_that_hold_it(saved, run_rule):
    start, nbytes, crc = entry(saved, "model.pt", "model/data/0")
    saved.flip_bit("model.pt", start + 17, 3)
    torch.load(saved / "model.pt")  # torch does not notice
    found = run_rule(Crc(), saved).assert_one(
        path="model.pt",
        key="model/data/0",
        offset=start,
        tensor="model.embed.weight",
        message=f"the {nbytes:,} bytes of model/data/0, which holds model.embed.weight, model.lm_head.weight, have the CRC-32",
    )
    assert found.data["expected"] == crc
    assert found.data["tensors"] == ["model.embed.weight", "model.lm_head.weight"]


def test_each_entry_is_a_problem_of_its_own(saved, run_rule):
    for name in ("model/data/0", "model/data/1"):
        saved.flip_bit("model.pt", entry(saved, "model.pt", name)[0])
    findings = run_rule(Crc(), saved).findings
    assert [(f.place.key, f.place.tensor) for f in findings] == [
        ("model/data/0", "model.embed.weight"),
        ("model/data/1", "bias"),
    ]
    assert all(f.data["entries"] == 2 for f in findings)


def test_entries_without_tensors_count_too(saved, run_rule):
    start, _, _ = entry(saved, "model.pt", "model/version")
    saved.flip_bit("model.pt", start)
    run_rule(Crc(), saved).assert_one(path="model.pt", key="model/version", offset=start, message="the 2 bytes of")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_archives_inside_of_a_distributed_file_are_checked_each(tmp_path, run_rule):
    state = {"model": {"a": torch.randn(50, 3), "b": torch.randn(8)}}
    dcp.save(state, checkpoint_id=tmp_path / "ck", no_dist=True)
    checkpoint = CheckpointDir(tmp_path / "ck")
    run_rule(Crc(), checkpoint).assert_passed()
    data = (checkpoint / "__0_0.distcp").read_bytes()
    at = data.index(state["model"]["b"].numpy().tobytes())
    checkpoint.flip_bit("__0_0.distcp", at + 5)
    run_rule(Crc(), checkpoint).assert_one(path="__0_0.distcp", tensor="model.b", offset=at)


def test_an_archive_of_anybody_is_checked(tmp_path, run_rule):
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        archive.writestr("log.txt", "one line\n" * 100)
    checkpoint = CheckpointDir(tmp_path)
    run_rule(Crc(), checkpoint).assert_passed()
    start, _, _ = entry(checkpoint, "logs.zip", "log.txt")
    checkpoint.flip_bit("logs.zip", start + 500)
    run_rule(Crc(), checkpoint).assert_one(path="logs.zip", key="log.txt", offset=start)


def test_where_nothing_carries_a_checksum_it_is_skipped(make_checkpoint, run_rule):
    checkpoint = make_checkpoint().remove("training_state.pth")
    run_rule(Crc(), checkpoint).assert_skipped("no file has checksums; only zip archives do")


def test_an_archive_that_was_written_without_checksums_says_nothing(saved, run_rule):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.randn(5)}, saved / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert run_rule(Crc(), saved).findings == ()
