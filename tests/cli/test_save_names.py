"""Layouts of third parties declare how their saves are called, and `verify RUN` and `latest` follow."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import FactUnavailable, Layout, Match, Progress, Recorded, Requirement, ResumePlan, diff, verify
from ckpt_rules.save_names import SaveNames, fault, files_of_save
from ckpt_rules.testing import build_plain_torch


class Counted(Layout):
    """Knows its saves by a file `acme…json` with the step in it."""

    title = "acme checkpoint"

    def recognise(self, checkpoint):
        found = self._state(checkpoint)
        return Match(90, (found,)) if found else None

    def _state(self, checkpoint):
        return next(
            (e.path for e in checkpoint.listing.files("*.json", top_only=True) if e.name != "config.json"), None
        )

    def requirements(self, checkpoint):
        return (Requirement((self._state(checkpoint) or "acme.json",), "nothing says how far training got"),)

    def recorded(self, checkpoint):
        path = self._state(checkpoint)
        if path is None:
            raise FactUnavailable("there is no state")
        value = checkpoint.files.json(path).value
        return (Recorded("step", value["step"], path, "step"),)

    def progress(self, checkpoint):
        step = checkpoint.recorded[0].value
        return Progress(global_step=step, plan=ResumePlan(f"update {step + 1} comes next", from_update=step))


class Snaps(Counted):
    name = "acme-snaps"
    save_names = ("snap_{step}", "ckpt-step-{step}", "*-{step}-state")


class Pairs(Counted):
    name = "acme-pairs"
    save_files = ("model_{step}.pt", "meta_{step}.json", "optim_{step}_rank*.pt")

    def recognise(self, checkpoint):
        return super().recognise(checkpoint) if checkpoint.files.is_in_files else None


def snap(path, step):
    path.mkdir(parents=True)
    save_file({"w": torch.ones(2, 2)}, path / "weights.safetensors")
    (path / "acme.json").write_text(json.dumps({"step": step}))


def pair(folder, number):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.full((2, 2), float(int(number)))}, folder / f"model_{number}.pt")
    torch.save({"state": {}, "param_groups": []}, folder / f"optim_{number}_rank0.pt")
    (folder / f"meta_{number}.json").write_text(json.dumps({"step": int(number)}))


@pytest.fixture
def acme(install):
    install(acme={"layouts": [Snaps(), Pairs()]})


@pytest.mark.parametrize("form", ["snap_{}", "snap_{:06}", "ckpt-step-{}", "x-{:06}-state"])
@pytest.mark.parametrize("above", ["run", "run/checkpoints"])
def test_directories_with_names_of_their_own(acme, run, tmp_path, form, above):
    for step in (25, 200, 1000):
        snap(tmp_path / above / form.format(step), step)
    newest = tmp_path / above / form.format(1000)
    assert run("latest", tmp_path / "run").out == f"{newest}\n"
    ended = run("verify", tmp_path / "run", "-f", "json")
    assert (ended.code, ended.json["newest"]) == (0, {str(tmp_path / above): str(newest)})
    assert [r["resume"] for r in ended.json["reports"]] == [f"update {n} comes next" for n in (26, 201, 1001)]
    (newest / "weights.safetensors").write_bytes(b"")
    assert run("latest", tmp_path / "run").out == f"{tmp_path / above / form.format(200)}\n"
    assert run("verify", tmp_path / "run").code == 1


@pytest.mark.parametrize("above", ["run", "run/d2"])
@pytest.mark.parametrize("numbers", [("000025", "000200", "001000"), ("000500",)])
def test_saves_that_are_several_files_in_the_directory_of_the_run(acme, run, tmp_path, above, numbers):
    for number in numbers:
        pair(tmp_path / above, number)
    newest = tmp_path / above / f"model_{numbers[-1]}.pt"
    assert run("latest", tmp_path / "run").out == f"{newest}\n"
    ended = run("verify", tmp_path / above, "-f", "json")
    reports = ended.json["reports"]
    assert ended.code == 0
    assert {r["layout"]["name"] for r in reports} == {"acme-pairs"}
    assert reports[-1]["resume"] == f"update {int(numbers[-1]) + 1} comes next"


def test_damage_to_any_of_the_files_is_the_saves(acme, run, tmp_path):
    for number in ("000025", "000200", "001000"):
        pair(tmp_path / "run", number)
    (tmp_path / "run" / "optim_001000_rank0.pt").write_bytes(b"")
    (tmp_path / "run" / "meta_000200.json").write_text('{"step": ')
    report = verify(tmp_path / "run" / "model_001000.pt")
    assert [(f.rule, f.place.path) for f in report.findings] == [("files/empty", "optim_001000_rank0.pt")]
    ended = run("latest", tmp_path / "run")
    assert ended.out == f"{tmp_path}/run/model_000025.pt\n"
    assert verify(tmp_path / "run" / "model_000200.pt").exit_code != 0


def test_a_save_of_which_a_file_is_missing(acme, run, tmp_path):
    for number in ("000025", "000200"):
        pair(tmp_path / "run", number)
    (tmp_path / "run" / "meta_000200.json").unlink()
    assert run("latest", tmp_path / "run").out == f"{tmp_path}/run/model_000025.pt\n"
    report = verify(tmp_path / "run" / "model_000200.pt", layout="acme-pairs")
    assert [(f.rule, f.place.path) for f in report.findings][:1] == [("files/missing-required", "acme.json")]


def test_two_of_them_are_compared_and_none_is_sealed(acme, run, tmp_path):
    for number in ("000025", "000200"):
        pair(tmp_path / "run", number)
    one, other = (tmp_path / "run" / f"model_{n}.pt" for n in ("000025", "000200"))
    assert diff(one, other).differ
    assert run("seal", one).code == 2
    assert not list((tmp_path / "run").glob("*seal*"))


def test_without_the_plugin_nobody_knows_them(run, tmp_path):
    snap(tmp_path / "run" / "snap_25", 25)
    ended = run("latest", tmp_path / "run")
    assert (ended.code, ended.out) == (2, "")


def test_usual_names_are_known_beside(acme, run, tmp_path):
    path = build_plain_torch(tmp_path / "run" / "step-7", with_torch=False).path
    assert run("latest", tmp_path / "run").out == f"{path}\n"


def test_names_are_ordered_by_their_numbers():
    names = SaveNames([Snaps(), Pairs()])
    assert names.directories(["snap_9", "logs", "snap_10", "ckpt-step-11", "a-0-state"]) == [
        "a-0-state", "snap_9", "snap_10", "ckpt-step-11",
    ]  # fmt: skip
    files = ["model_0010.pt", "meta_0010.json", "optim_0010_rank0.pt", "model_9.pt", "optim_9_rank1.pt"]
    assert names.files(files) == names.declared_files(files) == ["model_9.pt", "model_0010.pt"]
    assert files_of_save("model_0010.pt", Pairs.save_files, files) == (
        "meta_0010.json", "model_0010.pt", "optim_0010_rank0.pt",
    )  # fmt: skip
    assert files_of_save("meta_0010.json", Pairs.save_files, files) == ()


@pytest.mark.parametrize(
    ("declared", "wrong"),
    [
        ("snap", "must hold {step} once"),
        ("{step}-{step}", "must hold {step} once"),
        ("a/{step}", "holds a slash; declare the last part of the path"),
        (5, "is not a string"),
        ("snap_{step}", None),
    ],
)
def test_a_name_that_can_not_be_one(load, declared, wrong):
    assert fault(declared) == wrong

    class Wrong(Snaps):
        save_names = (declared,)

    crash = load("acme", layouts=[Wrong()]).crash
    assert (crash and crash.message) == (wrong and f"save_names of the layout acme-snaps: {declared!r} {wrong}")
