"""The `files/` family: each rule with a checkpoint that passes and one for each way to fail."""

from __future__ import annotations

import gzip
import io
import os
import tarfile

import pytest
import torch

from ckpt_rules import Severity
from ckpt_rules_files.content import Empty, Placeholder, Unreadable, WrongFormat
from ckpt_rules_files.copies import DuplicateFormat
from ckpt_rules_files.families import IncompleteFamily
from ckpt_rules_files.presence import MissingCheckpoint, MissingRequired
from ckpt_rules_files.staging import StagingLeftover

STATE, WEIGHTS, CONFIG = "training_state.pth", "model.safetensors", "config.json"


@pytest.mark.parametrize("rule", [
    DuplicateFormat, Empty, IncompleteFamily, MissingCheckpoint, MissingRequired, Placeholder, StagingLeftover, Unreadable,
    WrongFormat,
])  # fmt: skip
@pytest.mark.parametrize("weights", ["safetensors", "bin", "sharded", "sharded-bin"])
def test_a_clean_checkpoint_passes(make_checkpoint, run_rule, rule, weights):
    run_rule(rule(), make_checkpoint(weights=weights)).assert_passed()


class TestMissingCheckpoint:
    def test_a_path_that_is_not_there_names_its_likeliest_neighbour(self, tmp_path, run_rule):
        (tmp_path / "step-500").mkdir()
        found = run_rule(MissingCheckpoint(), tmp_path / "step-50").assert_one(path=".", message="does not exist")
        assert found.help == f"did you mean '{tmp_path / 'step-500'}'?"

    def test_a_pipe(self, tmp_path, run_rule):
        os.mkfifo(tmp_path / "ck")
        run_rule(MissingCheckpoint(), tmp_path / "ck").assert_one(message="is not a directory")

    def test_an_empty_directory(self, tmp_path, run_rule):
        (tmp_path / "ck").mkdir()
        run_rule(MissingCheckpoint(), tmp_path / "ck").assert_one(message="is empty")

    def test_a_run_names_the_newest_of_the_checkpoints_in_it(self, make_checkpoint, run_rule, tmp_path):
        for step in (100, 1000, 200):
            make_checkpoint(f"run/checkpoint-{step}")
        (tmp_path / "run" / "log.jsonl").write_text("{}")
        (tmp_path / "run" / "config.json").write_text("{}")
        found = run_rule(MissingCheckpoint(), tmp_path / "run").assert_one(
            message="contains 3 checkpoints but is not a checkpoint"
        )
        assert found.help.startswith(f"verify one of them, such as '{tmp_path}/run/checkpoint-1000'")

    def test_a_run_whose_trainer_loads_from_it_through_a_pointer(self, tmp_path, run_rule):
        (tmp_path / "global_step5").mkdir()
        (tmp_path / "latest").write_text("global_step5")
        run_rule(MissingCheckpoint(), tmp_path).assert_passed()


class TestMissingRequired:
    def test_weights_and_configuration_without_training_state(self, make_checkpoint, run_rule):
        ck = make_checkpoint().remove(STATE)
        run_rule(MissingRequired(), ck).assert_one(path=STATE, severity=Severity.ERROR, message="training_state.pth")

    def test_a_damaged_file_is_there(self, make_checkpoint, run_rule):
        run_rule(MissingRequired(), make_checkpoint().empty(STATE)).assert_passed()


class TestEmpty:
    @pytest.mark.parametrize("file", [STATE, WEIGHTS, CONFIG])
    def test_a_file_of_zero_bytes(self, make_checkpoint, run_rule, file):
        run_rule(Empty(), make_checkpoint().empty(file)).assert_one(path=file, message="0 bytes", data={"nbytes": 0})

    def test_markers_are_empty_by_design(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        for marker in ("_SUCCESS", ".gitkeep", "COMMITTED", "__init__.py", "train.log"):
            ck.replace(marker, b"")
        run_rule(Empty(), ck).assert_passed()


class TestUnreadable:
    def test_a_link_into_a_cache_that_was_not_copied(self, make_checkpoint, run_rule):
        ck = make_checkpoint().remove(WEIGHTS)
        (ck / WEIGHTS).symlink_to("../../blobs/0a1b")
        run_rule(Unreadable(), ck).assert_one(path=WEIGHTS, message="the link to '../../blobs/0a1b' leads nowhere")

    def test_a_link_into_a_cache_that_resolves_is_fine(self, make_checkpoint, run_rule, tmp_path):
        ck = make_checkpoint()
        ck.rename(WEIGHTS, "../blob")
        (ck / WEIGHTS).symlink_to("../blob")
        run_rule(Unreadable(), ck).assert_passed()

    def test_a_circle_of_links(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        (ck / "latest").symlink_to("latest")
        run_rule(Unreadable(), ck).assert_one(path="latest", message="leads in a circle")

    def test_a_pipe_in_the_place_of_the_state(self, make_checkpoint, run_rule):
        ck = make_checkpoint().remove(STATE)
        os.mkfifo(ck / STATE)
        run_rule(Unreadable(), ck).assert_one(path=STATE, message="it is a FIFO", data={"kind": "FIFO"})

    def test_an_io_error(self, make_checkpoint, run_rule, monkeypatch):
        from ckpt_rules.storage import LocalStorage

        def fail(self, path, real=LocalStorage.open):
            if path == WEIGHTS:
                raise OSError(5, "Input/output error")
            return real(self, path)

        monkeypatch.setattr(LocalStorage, "open", fail)
        run_rule(Unreadable(), make_checkpoint()).assert_one(path=WEIGHTS, message="can't be read: input/output error")

    def test_broken_links_of_a_logger_are_passed_over(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        (ck / "wandb").mkdir()
        (ck / "wandb" / "debug.log").symlink_to("/nowhere")
        run_rule(Unreadable(), ck).assert_passed()
        run_rule(Unreadable(passed_over=()), ck).assert_one(path="wandb/debug.log")


class TestPlaceholder:
    def test_a_git_lfs_pointer_says_what_it_stands_for(self, make_checkpoint, run_rule):
        ck = make_checkpoint().replace(
            WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 475000123\n"
        )
        found = run_rule(Placeholder(), ck).assert_one(path=WEIGHTS, message="a git-LFS pointer to 475,000,123 bytes")
        assert found.help == "run `git lfs pull`"

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"<!DOCTYPE html><html><title>Quota exceeded</title>", "an HTML page"),
            (b"\n  <html lang='en'><body>Sign in", "an HTML page"),
            (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
            (b"<Error><Code>NoSuchKey</Code></Error>", "an XML error message"),
            (b'{"error": "Access to model is restricted"}', "a JSON error message"),
        ],
    )
    @pytest.mark.parametrize("file", [STATE, WEIGHTS])
    def test_what_a_server_said_instead_of_the_file(self, make_checkpoint, run_rule, file, data, what):
        run_rule(Placeholder(), make_checkpoint().replace(file, data)).assert_one(path=file, message=what)

    def test_the_stub_of_a_cloud_drive(self, make_checkpoint, run_rule):
        ck = make_checkpoint().rename(WEIGHTS, ".model.safetensors.icloud")
        run_rule(Placeholder(), ck).assert_one(path=".model.safetensors.icloud", message="never downloaded")


class TestWrongFormat:
    def test_a_pickle_named_as_safetensors(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        torch.save({"w": torch.ones(2)}, ck / WEIGHTS)
        run_rule(WrongFormat(), ck).assert_one(
            path=WEIGHTS, message="named like a safetensors file, but its content is zip", data={"content": "zip"}
        )

    def test_safetensors_named_as_a_pickle(self, make_checkpoint, run_rule):
        ck = make_checkpoint().rename(WEIGHTS, "pytorch_model.bin")
        run_rule(WrongFormat(), ck).assert_one(path="pytorch_model.bin", message="its content is safetensors")

    @pytest.mark.parametrize("content", ["tar archive", "gzip", "7z archive", "HDF5", "NumPy array", "text"])
    def test_an_archive_or_another_format_named_as_a_torch_file(self, make_checkpoint, run_rule, content):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("state"), io.BytesIO(b""))
        data = {
            "tar archive": stream.getvalue(),
            "gzip": gzip.compress(b"x" * 100),
            "7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(50),
            "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
            "NumPy array": b"\x93NUMPY\x01\x00" + bytes(50),
            "text": b"epoch 3 of 10\n",
        }[content]
        ck = make_checkpoint().replace(STATE, data)
        run_rule(WrongFormat(), ck).assert_one(path=STATE, data={"expected": "torch", "content": content})

    def test_a_data_set_called_bin_promises_nothing(self, make_checkpoint, run_rule):
        ck = make_checkpoint().replace("train.bin", b"plain tokens\n")
        run_rule(WrongFormat(), ck).assert_passed()


class TestStagingLeftover:
    @pytest.mark.parametrize("name", ["model.safetensors.tmp", ".tmpA1b2C3", "optimizer.pt.part", "data.incomplete"])
    def test_a_file_that_was_never_renamed(self, make_checkpoint, run_rule, name):
        ck = make_checkpoint().replace(name, b"half")
        run_rule(StagingLeftover(), ck).assert_one(path=name, severity=Severity.WARNING, message="did not finish")

    def test_the_only_copy_of_a_needed_file_is_in_it(self, make_checkpoint, run_rule):
        ck = make_checkpoint().rename(STATE, f"{STATE}.tmp")
        run_rule(StagingLeftover(), ck).assert_one(
            path=f"{STATE}.tmp", severity=Severity.ERROR, message=f"the only copy of {STATE} is in it"
        )

    @pytest.mark.parametrize("name", ["tmp-{}", "{}.tmp", "{}-unfinished", "{}.orbax-checkpoint-tmp-17033"])
    def test_a_directory_beside_this_checkpoint(self, make_checkpoint, run_rule, name):
        ck = make_checkpoint("checkpoint-500")
        beside = name.format("checkpoint-500")
        (ck.path.parent / beside).mkdir()
        run_rule(StagingLeftover(), ck).assert_one(
            path=".", message=f"'{beside}' next to the checkpoint", data={"leftover": beside}
        )

    def test_a_file_that_marks_this_save_as_unfinished(self, make_checkpoint, run_rule):
        ck = make_checkpoint("checkpoint-500")
        (ck.path.parent / "checkpoint-500-unfinished").touch()
        run_rule(StagingLeftover(), ck).assert_one(path=".", severity=Severity.ERROR, message="NeMo does not resume")

    def test_leftovers_of_other_saves_are_not_ours(self, make_checkpoint, run_rule):
        ck = make_checkpoint("checkpoint-500")
        for name in ("tmp-checkpoint-600", "tmp", "checkpoint-5000.tmp", "notes.tmp"):
            (ck.path.parent / name).mkdir()
        run_rule(StagingLeftover(), ck).assert_passed()


class TestIncompleteFamily:
    def test_shards_without_an_index_and_with_a_hole(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights=None)
        for number in (1, 3):
            ck.write_safetensors(f"model-{number:05d}-of-00004.safetensors", {f"w{number}": torch.ones(1)})
        run_rule(IncompleteFamily(), ck).assert_one(
            path="model-00002-of-00004.safetensors", message="2 of 4 shards of model-*.safetensors missing: 2, 4",
            data={"missing": [2, 4], "count": 4},
        )  # fmt: skip

    def test_shards_of_two_saves(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights=None)
        for name in ("model-00001-of-00002", "model-00002-of-00002", "model-00001-of-00003"):
            ck.write_safetensors(f"{name}.safetensors", {name: torch.ones(1)})
        run_rule(IncompleteFamily(), ck).assert_one(
            message="mixes shards of 2 saves: 2 of 2 and 1 of 3", data={"counts": [2, 3]}
        )

    def test_a_rank_that_did_not_save_its_random_state(self, make_checkpoint, run_rule):
        ck = make_checkpoint()
        for rank in (0, 1, 3):
            ck.write_torch(f"rng_state_{rank}.pth", {"cpu": torch.get_rng_state()})
        run_rule(IncompleteFamily(), ck).assert_one(
            path="rng_state_2.pth", message="1 of 4 ranks of rng_state_*.pth missing: 2"
        )

    def test_shards_that_an_index_describes_are_left_to_it(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="sharded")
        shard = next(p.name for p in ck.path.iterdir() if "-00001-of-" in p.name)
        run_rule(IncompleteFamily(), ck.remove(shard)).assert_passed()


class TestDuplicateFormat:
    def test_an_old_copy_that_loaders_prefer(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="bin")
        ck.replace(WEIGHTS, (make_checkpoint("other") / WEIGHTS).read_bytes())
        os.utime(ck / WEIGHTS, (1_000_000, 1_000_000))
        os.utime(ck / "pytorch_model.bin", (1_000_000 + 7_200, 1_000_000 + 7_200))
        run_rule(DuplicateFormat(), ck).assert_one(
            path="pytorch_model.bin",
            severity=Severity.WARNING,
            message="loaders read model.safetensors and ignore pytorch_model.bin, which is 2.0 hours newer",
        )
        run_rule(DuplicateFormat(newer_by_hours=3), ck).assert_passed()

    def test_copies_of_different_shapes(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="bin")
        ck.write_safetensors(WEIGHTS, {"lm_head.weight": torch.ones(3, 8)})
        found = run_rule(DuplicateFormat(), ck).assert_one(path="pytorch_model.bin")
        assert "lm_head.weight is float32 [16, 8] instead of float32 [3, 8]" in found.message

    def test_copies_with_different_tensors(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="bin").replace(WEIGHTS, (make_checkpoint("other") / WEIGHTS).read_bytes())
        ck.edit("pytorch_model.bin", lambda state: {k: v for k, v in state.items() if ".layers.1." not in k})
        run_rule(DuplicateFormat(), ck).assert_one(message="which lacks model.layers.1.")

    def test_a_tied_head_that_one_format_leaves_out(self, make_checkpoint, run_rule):
        ck = make_checkpoint(weights="bin").replace(WEIGHTS, (make_checkpoint("other") / WEIGHTS).read_bytes())
        ck.edit(WEIGHTS, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
        run_rule(DuplicateFormat(), ck).assert_passed()
