"""Directories of checkpoints: which they are, which is the newest that passes, and how a layout is settled."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from ckpt_rules import Layout, Match, UsageError, inspect, newest_checkpoint, verify
from ckpt_rules.conventions.saves import file_saves_among, mixed_saves_among, saves_among
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import checkpoints_in, runs_in
from ckpt_rules.storage import LocalStorage
from ckpt_rules.testing import build_plain_torch

LAYOUTS = Path(__file__).parents[1] / "layouts"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One checkpoint, to be copied."""
    return build_plain_torch(tmp_path_factory.mktemp("saved") / "ck", with_torch=False).path


@pytest.fixture
def run_of(tmp_path, saved):
    """`run_of("step-1", …)`: a run with these checkpoints."""

    def make(*names):
        (tmp_path / "run").mkdir(exist_ok=True)
        for name in names:
            shutil.copytree(saved, tmp_path / "run" / name)
        return tmp_path / "run"

    return make


@pytest.mark.parametrize(
    ("names", "saves"),
    [
        (["step-1000", "step-200", "step-30"], ["step-30", "step-200", "step-1000"]),
        (["checkpoint-5", "tmp-checkpoint-6", "checkpoint-7.tmp"], ["checkpoint-5"]),
        (["iter_0000100", "iter_0000100-unfinished"], ["iter_0000100"]),
        (["epoch=3-step=90", "epoch=12"], ["epoch=3-step=90", "epoch=12"]),
        (["global_step5", "10", "7"], ["global_step5", "7", "10"]),
        (["epoch=3-step=90", "epoch=3-step=120", "epoch=2-step=60"], ["epoch=2-step=60", "epoch=3-step=90", "epoch=3-step=120"]),
        (["checkpoint-5", "checkpoint-5-copy", "checkpoint-4"], ["checkpoint-4", "checkpoint-5-copy", "checkpoint-5"]),
        (["m--val_loss=7.9-step=99-consumed_samples=800.0-last", "m--val_loss=7.9-step=99-consumed_samples=800.0",
          "m--val_loss=9.1-step=9-consumed_samples=80.0"],
         ["m--val_loss=9.1-step=9-consumed_samples=80.0", "m--val_loss=7.9-step=99-consumed_samples=800.0",
          "m--val_loss=7.9-step=99-consumed_samples=800.0-last"]),
        (["logs", "optimizer_0", "step-", "checkpoint-best", "run-lr=3", "best_epoch"], []),
    ],
)  # fmt: skip
def test_directories_that_are_named_like_saves(names, saves):
    assert saves_among(names) == saves


@pytest.mark.parametrize(
    ("names", "saves"),
    [
        (["epoch=2-step=100.ckpt", "epoch=2-step=20.ckpt", "last.ckpt"], ["epoch=2-step=20.ckpt", "epoch=2-step=100.ckpt", "last.ckpt"]),
        (["val=0.3.ckpt", "a.ckpt"], ["a.ckpt", "val=0.3.ckpt"]),
        (["model_0009999.pth", "model_0004999.pth", "model_final.pth"], ["model_0004999.pth", "model_0009999.pth", "model_final.pth"]),
        (["checkpoint-3.pth.tar", "checkpoint-10.pth.tar", "model_best.pth.tar"], ["model_best.pth.tar", "checkpoint-3.pth.tar", "checkpoint-10.pth.tar"]),
        (["optimizer.pt", "scheduler.pt", "model.pt", "rng_state_0.pth", "training_state.pth", "epoch_3.pth.tmp"], []),
    ],
)  # fmt: skip
def test_files_that_are_named_like_saves(names, saves):
    assert file_saves_among(names) == saves


@pytest.mark.parametrize(
    ("directories", "files", "saves"),
    [
        (
            ["epoch=1-step=8.ckpt", "last.ckpt"],
            ["epoch=0-step=4.ckpt"],
            ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt", "last.ckpt"],
        ),
        (["epoch=1-step=8.ckpt"], ["model.pt", "notes.txt"], ["epoch=1-step=8.ckpt"]),
        (["logs"], ["epoch=0-step=4.ckpt", "last.ckpt"], []),
        (["epoch=1-step=8.ckpt", "checkpoint-8"], [], []),
    ],
)
def test_directories_that_are_named_like_files(directories, files, saves):
    assert mixed_saves_among(directories, files) == saves


def test_a_directory_of_files_that_are_each_a_checkpoint_is_a_run(tmp_path, run):
    for step in (5, 10, 20):
        state = {"epoch": 1, "step": step, "total_batches": 50, "model": {"w": torch.zeros(2)}, "optimizer": adam(step)}
        torch.save(state, tmp_path / f"checkpoint_{step}.pt")
    (tmp_path / "checkpoint_20.pt").write_bytes((tmp_path / "checkpoint_20.pt").read_bytes()[:500])
    ended = run("verify", tmp_path)
    assert (ended.code, f"{tmp_path}/checkpoint_10.pt is the newest that passed" in " ".join(ended.out.split())) == (
        1,
        True,
    )
    assert run("latest", tmp_path).out == f"{tmp_path}/checkpoint_10.pt\n"


def test_a_part_of_a_checkpoint_is_none(saved, run):
    ended = run("verify", saved / "training_state.pth")
    assert ended.code == 2
    assert "no layout recognises this file: only its bytes were checked" in " ".join(ended.out.split())


def adam(step):
    moment = {"step": torch.tensor(float(step)), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "params": [0]}
    return {"state": {0: moment}, "param_groups": [group]}


def test_a_run_is_a_directory_of_saves(run_of):
    path = run_of("step-1000", "step-200", "logs")
    (path / "step-5").mkdir()
    assert checkpoints_in(str(path), installed_plugins()) == (f"{path}/step-200", f"{path}/step-1000")


def test_a_checkpoint_is_no_run_whatever_lies_in_it(run_of):
    path = run_of("step-100") / "step-100"
    (path / "global_step100").mkdir()
    (path / "global_step100" / "x.pt").write_bytes(b"")
    assert checkpoints_in(str(path), installed_plugins()) == ()


def test_a_final_model_beside_its_checkpoints_does_not_hide_them(run_of):
    path = run_of("checkpoint-5", "checkpoint-10")
    for name in ("model.safetensors", "config.json"):
        (path / name).write_bytes((path / "checkpoint-10" / name).read_bytes())
    assert [c.rpartition("/")[2] for c in checkpoints_in(str(path), installed_plugins())] == [
        "checkpoint-5",
        "checkpoint-10",
    ]


def test_the_newest_that_passes(run_of):
    path = run_of("step-100", "step-200", "step-300")
    (path / "step-300" / "model.safetensors").write_bytes(b"")
    passed_over = []
    assert newest_checkpoint(path, passed_over=passed_over.append) == f"{path}/step-200"
    assert [r.checkpoint for r in passed_over] == [f"{path}/step-300"]
    assert {f.place.path for f in passed_over[0].findings if f.severity == "error"} == {"model.safetensors"}


def test_it_stops_at_the_first_that_passes(run_of):
    path = run_of("step-100", "step-200")
    (path / "step-100" / "model.safetensors").write_bytes(b"")
    passed_over = []
    assert newest_checkpoint(path, passed_over=passed_over.append) == f"{path}/step-200"
    assert passed_over == []


def test_there_is_none(run_of, tmp_path):
    path = run_of("step-100")
    (path / "step-100" / "training_state.pth").unlink()
    assert newest_checkpoint(path) is None
    with pytest.raises(UsageError, match=f"{tmp_path}/nowhere does not exist"):
        newest_checkpoint(tmp_path / "nowhere")


def test_the_newest_is_still_being_written(run_of, saved):
    """Whatever file is written first, and whether or not it has its whole length yet."""
    path = run_of("step-100")
    for file in saved.iterdir():
        (path / "step-200").mkdir()
        (path / "step-200" / file.name).write_bytes(file.read_bytes())
        assert newest_checkpoint(path) == f"{path}/step-100", file.name
        (path / "step-200" / file.name).write_bytes(file.read_bytes()[:100])
        assert newest_checkpoint(path) == f"{path}/step-100", file.name
        shutil.rmtree(path / "step-200")


def test_links_to_a_save_are_not_saves(run_of):
    path = run_of("step-100", "step-200")
    (path / "latest").symlink_to("step-100")
    (path / "step-300").symlink_to("step-250")
    (path / "step-400").symlink_to("step-400")
    assert newest_checkpoint(path) == f"{path}/step-200"


def test_a_run_with_a_loop_in_it(run_of):
    path = run_of("step-100").rename(run_of().parent / "checkpoints").parent
    (path / "checkpoints" / "again").symlink_to(path)
    (path / "loop").symlink_to(path)
    assert newest_checkpoint(path) == f"{path}/checkpoints/step-100"


@pytest.mark.parametrize("folder", ["a run", "a\nrun", " run ", "läuft", "--run", "$(run)"])
def test_odd_names_of_a_run(run_of, folder, run):
    path = run_of("step-100", "step-200").rename(run_of().parent / folder)
    assert newest_checkpoint(path) == f"{path}/step-200"
    assert run("latest", path).out == f"{path}/step-200\n"


def test_a_thousand_saves(run_of):
    path = run_of("step-1000")
    for number in range(1, 1000):
        (path / f"step-{number}").mkdir()
        (path / f"step-{number}" / "config.json").write_text("{}")
    started = time.process_time()
    assert newest_checkpoint(path) == f"{path}/step-1000"
    assert time.process_time() - started < 5


class TestRunsFurtherDown:
    @pytest.mark.parametrize("above", ["checkpoints", "version_0/checkpoints", "a/b/c"])
    def test_the_only_one_is_meant(self, run_of, above):
        top = nested(run_of("step-100", "step-200"), above)
        assert newest_checkpoint(top) == f"{top}/{above}/step-200"
        assert newest_checkpoint(f"{top}/") == f"{top}/{above}/step-200"

    def test_which_of_several_must_be_said(self, run_of, run):
        top = nested(run_of("step-1"), "b/checkpoints")
        nested(run_of("step-2", "step-3"), "a/checkpoints")
        ended = run("latest", top)
        assert (ended.code, ended.out) == (2, "")
        assert f"holds 2 runs; name one of them: {top}/a/checkpoints, {top}/b/checkpoints" in " ".join(
            ended.err.split()
        )
        ended = run("verify", top, "--format", "json")
        assert json.loads(ended.out)["newest"] == {
            f"{top}/a/checkpoints": f"{top}/a/checkpoints/step-3",
            f"{top}/b/checkpoints": f"{top}/b/checkpoints/step-1",
        }

    def test_directories_with_such_names_that_hold_no_checkpoint(self, tmp_path):
        (tmp_path / "images" / "epoch_1").mkdir(parents=True)
        (tmp_path / "images" / "epoch_1" / "cat.png").write_bytes(b"png")
        assert runs_in(str(tmp_path), installed_plugins()) == {}
        assert newest_checkpoint(tmp_path) is None

    def test_a_checkpoint_is_no_run_whatever_lies_further_down(self, run_of, saved):
        path = run_of("step-100") / "step-100"
        shutil.copytree(saved, path / "old" / "step-1")
        assert newest_checkpoint(path) == str(path)


def nested(path, above):
    """Move a run down into directories beside it, whose top is returned."""
    top = path.parent / "top"
    (top / above).parent.mkdir(parents=True, exist_ok=True)
    path.rename(top / above)
    return top


@pytest.mark.parametrize("file", ["logs/events", "README.md", "config.json"])
def test_a_directory_that_holds_no_checkpoint_is_none(tmp_path, run, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    ended = run("latest", tmp_path)
    assert (ended.code, ended.out, ended.err) == (3, "", f"there is no checkpoint in {tmp_path}\n")
    assert run("latest", tmp_path, "--allow-empty").code == 0


def test_the_only_file_that_is_a_save_is_what_a_trainer_is_told(tmp_path):
    path = tmp_path / "checkpoints" / "model_0000005.pth"
    path.parent.mkdir()
    shutil.copy2(min(LAYOUTS.glob("one_file/fixtures/detectron2/**/model_0000005.pth")), path)
    assert newest_checkpoint(path.parent) == newest_checkpoint(path) == str(path)
    shutil.copy2(path, path.with_name("model_0000002.pth"))
    assert newest_checkpoint(path.parent) == str(path)


def test_inspect_names_the_newest_of_a_run(run_of):
    path = run_of("step-1", "step-2")
    [notice] = inspect(path).notices
    assert (
        notice.message == f"{path} is a run of 2 checkpoints, of which {path}/step-2 is the newest; inspect one of them"
    )
    assert inspect(path / "step-2").notices == ()


RUNS = {
    "deepspeed": "deepspeed/fixtures/zero2",
    "orbax": "jax/fixtures/orbax",
    "detectron2": "one_file/fixtures/detectron2/**/model_0000005.pth",
}


@pytest.mark.parametrize("layout", RUNS)
def test_runs_of_other_layouts(tmp_path, layout):
    source = min(LAYOUTS.glob(RUNS[layout]))
    path = shutil.copytree(source if source.is_dir() else source.parent, tmp_path / "runs" / "run")
    [saves] = runs_in(str(tmp_path / "runs"), installed_plugins()).values()
    assert [c for c in saves if verify(c).passed and verify(c).layout.name == layout] == list(saves)
    assert newest_checkpoint(path) == newest_checkpoint(tmp_path / "runs") == saves[-1]
    assert checkpoints_in(str(path), installed_plugins()) == saves


def test_a_checkpoint_stands_for_itself(run_of):
    path = run_of("step-100") / "step-100"
    assert newest_checkpoint(path) == str(path)


class TestCommands:
    def test_verify_takes_each_in_turn_and_names_the_newest(self, run, run_of):
        path = run_of("step-1000", "step-200", "step-300")
        (path / "step-1000" / "model.safetensors").write_bytes(b"")
        ended = run("verify", path)
        lines = [line for line in ended.out.splitlines() if line.startswith("checkpoint ")]
        assert [line.rpartition("/")[2] for line in lines] == ["step-200", "step-300", "step-1000"]
        assert "FAILED  of 3 checkpoints 2 passed, 1 failed" in ended.out
        assert ended.out.replace("\n", " ").rstrip().endswith("step-300 is the newest that passed")
        assert ended.code == 1

    def test_verify_says_that_none_passed(self, run, run_of):
        path = run_of("step-1")
        (path / "step-1" / "model.safetensors").write_bytes(b"")
        assert "no checkpoint in" in run("verify", path).out

    def test_verify_as_json(self, run, run_of):
        path = run_of("step-1", "step-2")
        report = json.loads(run("verify", path, "--format", "json").out)
        assert report["newest"] == {str(path): f"{path}/step-2"}
        assert [r["checkpoint"] for r in report["reports"]] == [f"{path}/step-1", f"{path}/step-2"]

    def test_latest_prints_the_path_and_nothing_else(self, run, run_of):
        path = run_of("step-1", "step-2")
        (path / "step-2" / "training_state.pth").write_bytes(b"")
        ended = run("latest", path)
        assert (ended.code, ended.out) == (0, f"{path}/step-1\n")
        assert ended.err.startswith(f"FAILED  {path}/step-2: not safe to resume: ")

    def test_latest_without_any(self, run, run_of, tmp_path):
        path = run_of("step-1")
        (path / "step-1" / "model.safetensors").write_bytes(b"")
        ended = run("latest", path)
        assert (ended.code, ended.out) == (1, "")
        ended = run("latest", tmp_path / "nowhere", "--allow-empty")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {tmp_path}/nowhere does not exist")

    def test_latest_passes_over_what_no_layout_recognises_yet(self, run, run_of, saved):
        path = run_of("step-1")
        (path / "step-2" / "parts").mkdir(parents=True)
        shutil.copy2(saved / "model.safetensors", path / "step-2" / "parts" / "part.safetensors")
        assert verify(path / "step-2").verdict == "unknown"
        ended = run("latest", path)
        assert (ended.code, ended.out) == (0, f"{path}/step-1\n")
        words = f"UNKNOWN  {path}/step-2: cannot tell whether it is safe to resume: no layout recognises this directory"
        assert " ".join(words.split()) in " ".join(ended.err.split())
        assert json.loads(run("verify", path, "--format", "json").out)["newest"] == {str(path): f"{path}/step-1"}

    def test_latest_with_a_ruleset_of_its_own(self, run, run_of, tmp_path):
        path = run_of("step-1", "step-2")
        (path / "step-2" / "model.safetensors").write_bytes(b"")
        (tmp_path / "lax.yaml").write_text("select: [scheduler/*]\n")
        assert run("latest", path, "--ruleset", tmp_path / "lax.yaml").out == f"{path}/step-2\n"

    def test_latest_where_one_could_not_be_judged(self, run, run_of, install, fake_rule, tmp_path):
        def crash(checkpoint):
            raise RuntimeError("no")

        install(acme={"rules": [fake_rule("acme/crash", check=crash)]})
        (tmp_path / "ours.yaml").write_text("select: [acme/*]\n")
        path = run_of("step-1")
        ended = run("latest", path, "--ruleset", tmp_path / "ours.yaml")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"UNKNOWN  {path}/step-1: cannot tell whether it is safe to resume: 1 rule crashed")


class Twin(Layout):
    """Recognises everything, as surely as its name says."""

    title = "a twin"

    def __init__(self, name, score):
        self.name, self.score = name, score

    def recognise(self, checkpoint):
        return Match(self.score, ("everything",))


class TestLayouts:
    def opened(self, path, plugins_of, twins, layout=None):
        plugins = plugins_of(twins={"layouts": twins})
        return open_checkpoint(LocalStorage(path), plugins, layout=layout)

    def test_two_that_fit_equally_well_are_noted(self, tmp_path, plugins_of):
        checkpoint, notices = self.opened(tmp_path, plugins_of, [Twin("b", 50), Twin("a", 50), Twin("c", 40)])
        assert checkpoint.layout.name == "a"
        assert [(n.severity, n.message) for n in notices] == [
            ("warning", "the layouts a and b fit equally well, and the first was taken; --layout settles it")
        ]

    def test_a_name_settles_it(self, tmp_path, plugins_of):
        checkpoint, notices = self.opened(tmp_path, plugins_of, [Twin("b", 50), Twin("a", 50)], layout="b")
        assert (checkpoint.layout.name, notices) == ("b", [])
        assert checkpoint.match == Match(50, ("everything", "the name you gave"))

    def test_a_name_that_nobody_has(self, saved):
        with pytest.raises(UsageError, match=r"no layout 'plain-torhc' \(did you mean 'plain-torch'\?\); there are "):
            verify(saved, layout="plain-torhc")

    def test_inspect_says_why(self, saved):
        assert inspect(saved, layout="plain-torch").layout.signs[-1] == "the name you gave"
        assert inspect(saved, layout="files").layout.name == "files"

    def test_the_flag(self, run, saved):
        ended = run("inspect", saved, "--layout", "files")
        assert "plain files, recognised by the name you gave" in ended.out
        ended = run("verify", saved, "--layout", "nothing")
        assert ended.code == 2
        assert "there is no layout 'nothing'" in ended.err
