"""progress/dataloader: what real loaders keep passes, and a state that can't fit where training stands is found.

`fixtures/` were made by `make fixtures` with torchdata, which the tests do without.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_training.progress_dataloader import DataLoaderPosition
from tests.layouts.killing import damages_of, said, survey_of, torch_value
from tests.layouts.megatron.test_megatron import sharded

FIXTURES = Path(__file__).parent / "fixtures"
SAVES = sorted(p.relative_to(FIXTURES).as_posix() for p in FIXTURES.glob("*/*"))
LOADERS = ("loops", "fit_loop", "state_dict", "combined_loader")
TITAN = ("dcp/train.py", "titan", "step-2")


@pytest.mark.parametrize("save", SAVES)
def test_what_real_loaders_keep_passes_in_strict_mode(save):
    report = verify(FIXTURES / save, ruleset="deep", strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)
    assert "progress/dataloader" in [o.rule for o in report.outcomes if o.status == "passed"]


@pytest.mark.parametrize("variant", ["accelerate", "accelerate-workers"])
def test_the_plan_says_where_load_state_goes_on(variant):
    seen = json.loads((FIXTURES / "resumed.json").read_text())[variant]
    plans = {save: inspect(FIXTURES / variant / save).resume.sentence for save in ("mid", "last", "end")}
    (after,) = re.findall(r"those of dl_state_dict.bin after batch (\d+)", plans["mid"])
    assert seen["mid"]["first"] == [batch_after(int(after))] == [[8.0, 9.0]]
    for save in ("last", "end"):
        assert "those of dl_state_dict.bin with their first batch" in plans[save]
        assert seen[save]["first"] == [batch_after(0)]


def batch_after(batches):
    return [2.0 * batches, 2.0 * batches + 1]


@pytest.mark.parametrize("variant", ["lightning", "lightning-workers"])
def test_the_plan_says_where_lightning_goes_on(variant):
    seen = json.loads((FIXTURES / "resumed.json").read_text())[variant]
    mid, end = (inspect(FIXTURES / variant / f"{name}.ckpt").resume for name in ("mid", "end"))
    for name, plan in (("mid", mid), ("end", end)):
        assert seen[f"{name}.ckpt"]["first"] == [[plan.epoch - 1, plan.skipped, batch_after(plan.skipped)]]
    # Saved within the last batch, the loader is at its end: Lightning found nothing to train in the second epoch.
    assert seen["last.ckpt"]["batches"] == 0
    assert (
        "has left after this epoch, which may be nothing" in inspect(FIXTURES / variant / "last.ckpt").resume.sentence
    )


class TestWithinAnEpoch:
    @pytest.mark.parametrize("variant", ["lightning", "lightning-workers", "lightning-stream"])
    def test_a_loader_of_lightning_that_has_ended(self, changed, variant):
        path = changed(f"{variant}/mid.ckpt", "", (*LOADERS, 0, "_iterator_finished"), True)
        found = run_rule(DataLoaderPosition(), path).assert_one(
            path="mid.ckpt", key="loops.fit_loop.state_dict.combined_loader[0]._iterator_finished", severity="warning"
        )
        assert found.message == (
            "the dataloader has reached its end, although 4 batches of the epoch are done and the epoch is not over: it starts again from the beginning of the data"
        )

    def test_a_loader_that_never_began(self, changed):
        path = changed("lightning/mid.ckpt", "", (*LOADERS, 0, "_num_yielded"), 0)
        run_rule(DataLoaderPosition(), path).assert_one(
            message="has given no batches, although 4 batches of the epoch are done"
        )

    def test_both_loaders_of_accelerate_have_ended(self, tmp_path):
        path = shutil.copytree(FIXTURES / "accelerate" / "mid", tmp_path / "mid")
        shutil.copy2(FIXTURES / "accelerate" / "end" / "dl_state_dict.bin", path / "dl_state_dict.bin")
        found = run_rule(DataLoaderPosition(), path).assert_one(path="dl_state_dict.bin", key="_iterator_finished")
        assert found.data == {"position": 4, "batches": [6, 3]}

    def test_the_loader_of_an_evaluation_may_have_ended(self):
        assert torch.load(FIXTURES / "accelerate" / "mid" / "dl_state_dict_1.bin")["_iterator_finished"]

    def test_no_count(self, changed):
        path = changed("accelerate/mid", "dl_state_dict.bin", ("_num_yielded",), -1)
        run_rule(DataLoaderPosition(), path).assert_one(
            path="dl_state_dict.bin", message="has given -1 batches, which is not a count"
        )

    def test_a_hole_in_the_numbers(self, tmp_path):
        path = shutil.copytree(FIXTURES / "accelerate" / "mid", tmp_path / "mid")
        (path / "dl_state_dict.bin").unlink()
        (found,) = verify(path).findings
        assert (found.rule, found.severity, found.place.path) == (
            "files/missing-required",
            "warning",
            "dl_state_dict.bin",
        )
        assert "this data loader starts its data again" in found.message


@pytest.fixture
def changed(tmp_path):
    """`changed(save, file, keys, value)`: a copy of a fixture with another value in one of its files."""

    def change(save, file, keys, value):
        source = FIXTURES / save
        target = tmp_path / source.name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
        top = target if source.is_dir() else tmp_path
        torch_value(file or target.name, keys, value).apply(top)
        return target

    return change


HARMLESS = {
    "dl_state_dict_1.bin missing": "how many loaders were prepared is known to the script alone",
}
UNTOLD = "no finding, but no pass either: progress/dataloader could not be answered for this file"


def test_each_damage_to_a_loaders_state_is_found(tmp_path):
    source = FIXTURES / "accelerate"
    damages = [d for d in damages_of(source / "mid", source / "end") if d.path.startswith("dl_state_dict")]
    survey = survey_of(source / "mid", damages, tmp_path)
    untold = dict.fromkeys(("dl_state_dict.bin all zeros", "dl_state_dict_1.bin all zeros"), UNTOLD)
    assert set(survey.survivors) == set(HARMLESS | untold), survey
    assert all(not survey.survivors[name].startswith("passed") for name in untold)


@pytest.mark.slow
class TestRanksOfTorchtitan:
    """Its entries, written by torch on two ranks: `dataloader.dp_rank_N` and `dataloader.world_size`."""

    def test_one_for_each_rank(self, made):
        run_rule(DataLoaderPosition(), made(*TITAN[:2]) / "step-2").assert_passed()

    def test_a_rank_without_one(self, copied):
        path = self.edited(copied(*TITAN), lambda names: names.pop("dataloader.dp_rank_1"))
        found = run_rule(DataLoaderPosition(), path).assert_one(key="dataloader.world_size", severity="warning")
        assert found.message.startswith("there is no dataloader state for rank 1, but 'dataloader.world_size' in __")
        assert found.data == {"missing": [1], "world_size": 2}

    def test_a_rank_too_many(self, copied):
        path = self.edited(
            copied(*TITAN), lambda names: names.update({"dataloader.dp_rank_4": names["dataloader.dp_rank_0"]})
        )
        found = run_rule(DataLoaderPosition(), path).assert_one(key="dataloader.dp_rank_4")
        assert found.data == {"beyond": [4], "world_size": 2}

    def edited(self, checkpoint, change):
        path = checkpoint / ".metadata"
        metadata = pickle.loads(path.read_bytes())
        change(metadata.state_dict_metadata)
        path.write_bytes(pickle.dumps(metadata, protocol=4))
        return checkpoint


class TestRanksOfMegatron:
    """Built as its source writes them, in the directory of the first model-parallel rank."""

    @pytest.fixture
    def save(self, tmp_path):
        path = sharded(tmp_path / "iter_0000100", data_parallel_size=3)
        (tmp_path / "latest_checkpointed_iteration.txt").write_text("100")
        (path / "mp_rank_00").mkdir()
        for rank in range(3):
            torch.save(
                {"dataloader_state_dict": {"position": 7}},
                path / "mp_rank_00" / f"train_dataloader_dprank{rank:03d}.pt",
            )
        return path

    def test_one_for_each_rank(self, save):
        run_rule(DataLoaderPosition(), save).assert_passed()
        assert not [f for f in verify(save).findings if f.severity != "info"]

    def test_none_is_for_the_script_to_know(self, save):
        shutil.rmtree(save / "mp_rank_00")
        run_rule(DataLoaderPosition(), save).assert_skipped("no dataloader state was saved")

    def test_a_rank_without_one(self, save):
        (save / "mp_rank_00" / "train_dataloader_dprank001.pt").unlink()
        run_rule(DataLoaderPosition(), save).assert_one(
            path="common.pt", key="args.data_parallel_size",
            message="there is no dataloader state for rank 1, but 'args.data_parallel_size' in common.pt says 3 ranks",
        )  # fmt: skip

    def test_a_rank_too_many(self, save):
        where = save / "mp_rank_00"
        shutil.copy2(where / "train_dataloader_dprank000.pt", where / "train_dataloader_dprank003.pt")
        run_rule(DataLoaderPosition(), save).assert_one(path="mp_rank_00/train_dataloader_dprank003.pt")


class TestStatesBesideTheSaves:
    """Megatron-Bridge keeps them in `energon/iter_N`, Megatron-LM where `--dataloader-save` says."""

    @pytest.fixture
    def save(self, tmp_path):
        """`save(ranks=4, step=100, folder="energon")`: a save of four ranks, with so many states in a directory beside it."""

        def make(ranks=4, step=100, folder="energon", size=4, **arguments):
            known = {} if size is None else {"data_parallel_size": size}
            path = sharded(tmp_path / "iter_0000100", **known, **arguments)
            (tmp_path / "latest_checkpointed_iteration.txt").write_text("100")
            states = tmp_path / folder / f"iter_{step:07d}"
            states.mkdir(parents=True)
            for rank in range(ranks):
                state = {"dataloader_state_dict": {"worker": rank}}
                torch.save(state, states / f"train_dataloader_dprank{rank:03d}.pt")
            return path

        return make

    @pytest.mark.parametrize("size", [4, None])
    def test_one_for_each_rank(self, save, size):
        assert not [f for f in verify(save(size=size)).findings if f.severity != "info"]

    def test_fewer_than_ranks(self, save):
        found = run_rule(DataLoaderPosition(), save(ranks=3)).assert_one(
            severity="error", path="common.pt", key="args.data_parallel_size",
            message="there is no dataloader state for rank 3, but 'args.data_parallel_size' in common.pt says 4 ranks: a resume stops",
        )  # fmt: skip
        assert found.data == {"missing": [3], "world_size": 4}

    def test_more_than_ranks(self, save):
        found = run_rule(DataLoaderPosition(), save(ranks=8)).assert_one(
            severity="error", path="../energon/iter_0000100/train_dataloader_dprank004.pt",
            message="there is dataloader state for ranks 4, 5, 6, 7, but",
        )  # fmt: skip
        assert found.data == {"beyond": [4, 5, 6, 7], "world_size": 4}

    def test_one_is_missing_where_nothing_says_how_many_there_were(self, save):
        path = save(size=None)
        (path.parent / "energon" / "iter_0000100" / "train_dataloader_dprank001.pt").unlink()
        found = run_rule(DataLoaderPosition(), path).assert_one(
            severity="error", path="../energon/iter_0000100/train_dataloader_dprank003.pt",
            message="there is no dataloader state for rank 1, although there is one for rank 3: a resume stops",
        )  # fmt: skip
        assert found.data == {"missing": [1], "world_size": None}

    def test_only_those_of_a_newer_save(self, save):
        run_rule(DataLoaderPosition(), save(step=200)).assert_one(
            severity="warning", path="../energon",
            message="../energon has no dataloader state for this save, although it has some for other saves: the data start",
        )  # fmt: skip

    def test_a_directory_that_is_empty(self, save):
        run_rule(DataLoaderPosition(), save(ranks=0)).assert_one(severity="error", path="../energon")

    def test_nothing_of_other_saves_says_nothing(self, save):
        run_rule(DataLoaderPosition(), save(ranks=0, step=200)).assert_skipped("no dataloader state was saved")

    def test_where_the_arguments_say(self, save):
        path = save(ranks=3, folder="states", dataloader_save="/gone/run/states/")
        run_rule(DataLoaderPosition(), path).assert_one(severity="warning", data={"missing": [3], "world_size": 4})
