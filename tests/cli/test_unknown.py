"""What nobody understood is not a pass: `verify`, `latest` and the Python API end as unknown, and say what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import CheckpointInvalid, inspect, newest_checkpoint, quick_verify_checkpoint, verify
from ckpt_rules.testing import build_plain_torch

PASSED, FAILED, UNKNOWN, NO_SAVE = 0, 1, 2, 3
NOBODY = "no layout recognises this directory: only its files were checked"
LLAMA = {"model_type": "llava_llama", "hidden_size": 16, "vocab_size": 64}


def words(text):
    return " ".join(text.split())


def weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.ones(4, 4)}, path, metadata={"format": "pt"})


def projector(path):
    """LLaVA saves what it trained alone, beside the configuration."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(LLAMA))
    torch.save({"model.mm_projector.weight": torch.ones(16, 8)}, path / "mm_projector.bin")


def of_a_third_party(path):
    """A `snap_000600/` as a trainer of somebody's own writes it."""
    weights(path / "parts" / "part_0.safetensors")
    torch.save({"state": {}, "param_groups": []}, path / "optim_rank0.pt")


def beside_the_arguments(path):
    """Weights with the arguments of the run beside them, which make it no plain checkpoint."""
    weights(path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "mine"}')
    torch.save({"lr": 1e-3}, path / "training_args.bin")


def shards_below(path):
    """What `.distcp` files hold is written in a `.metadata` that is not there, one level down."""
    (path / "distcp").mkdir(parents=True)
    for rank in range(2):
        (path / "distcp" / f"__{rank}_0.distcp").write_bytes(b"\x80\x02}." + bytes(64))


UNKNOWNS = {
    "projector": projector,
    "third party": of_a_third_party,
}


@pytest.mark.parametrize("name", UNKNOWNS)
@pytest.mark.parametrize(
    "flags", [[], ["--strict"], ["--ruleset", "ci"], ["--ruleset", "deep"], ["--exclude", "rng/*"]]
)
def test_a_directory_of_no_known_layout_is_unknown(run, tmp_path, name, flags):
    UNKNOWNS[name](tmp_path / "checkpoint-1000")
    ended = run("verify", tmp_path / "checkpoint-1000", *flags)
    assert (ended.code, NOBODY in words(ended.out)) == (UNKNOWN, True)
    assert all(way in words(ended.out) for way in ("--layout NAME", "--ruleset inference", "install a plugin"))
    assert "safe to resume;" not in ended.out


@pytest.mark.parametrize("name", UNKNOWNS)
def test_latest_never_prints_it(run, tmp_path, name):
    for step in (500, 1000):
        UNKNOWNS[name](tmp_path / "run" / f"checkpoint-{step}")
    for path in (tmp_path / "run", tmp_path / "run" / "checkpoint-500"):
        ended = run("latest", path, "--allow-empty")
        assert (ended.code, ended.out) == (UNKNOWN, "")
        assert NOBODY in words(ended.err)
        assert words(ended.err).count("--ruleset inference") == 1
    assert run("verify", tmp_path / "run").code == UNKNOWN


@pytest.mark.parametrize("name", UNKNOWNS)
def test_the_python_api(tmp_path, name):
    UNKNOWNS[name](tmp_path / "checkpoint-1000")
    report = verify(tmp_path / "checkpoint-1000")
    assert (report.exit_code, report.passed, report.layout.name) == (UNKNOWN, False, "files")
    assert NOBODY in report.reason
    with pytest.raises(CheckpointInvalid, match=NOBODY):
        quick_verify_checkpoint(tmp_path / "checkpoint-1000")


def test_weights_beside_the_arguments_of_the_run(run, tmp_path):
    beside_the_arguments(tmp_path / "final")
    ended = run("verify", tmp_path / "final")
    assert (ended.code, NOBODY in words(ended.out)) == (UNKNOWN, True)
    assert (run("latest", tmp_path / "final").code, run("latest", tmp_path / "final").out) == (UNKNOWN, "")


def test_shards_without_their_metadata_one_level_down(run, tmp_path):
    shards_below(tmp_path / "step-5")
    assert run("verify", tmp_path / "step-5").code != PASSED
    assert run("latest", tmp_path).out == ""


@pytest.mark.parametrize("root", [{}, [], [1, 2], None, "text"])
def test_a_root_of_lightning_that_holds_no_state(run, tmp_path, root):
    path = tmp_path / "epoch=1-step=20.ckpt"
    torch.save(root, path)
    assert run("verify", path).code != PASSED
    assert (run("latest", tmp_path).out, run("latest", path).out) == ("", "")


def test_errors_that_were_found_all_the_same_fail_it_and_are_counted(run, tmp_path):
    of_a_third_party(tmp_path / "snap")
    (tmp_path / "snap" / "parts" / "part_1.safetensors").write_bytes(b"")
    report = verify(tmp_path / "snap")
    assert (report.exit_code, report.counts.errors) == (FAILED, 1)
    assert report.reason == f"not safe to resume: 1 error; {NOBODY}"


def test_to_load_the_weights_no_layout_is_needed(tmp_path):
    beside_the_arguments(tmp_path / "final")
    report = verify(tmp_path / "final", ruleset="inference", exclude="weights/not-loadable")
    assert (report.exit_code, "no layout" in report.reason) == (PASSED, False)


def test_a_recognised_layout_without_any_training_state(plugins_of, ruleset_of, fake_rule, tmp_path):
    from ckpt_rules import Layout, Match
    from ckpt_rules.engine import run as run_engine
    from ckpt_rules.storage import LocalStorage

    class Faint(Layout):
        name, title = "faint", "checkpoint of somebody"

        def recognise(self, checkpoint):
            return Match(3, ("a sign",))

    rule = fake_rule()
    ruleset = ruleset_of(rule, plugins=plugins_of(acme={"rules": [rule], "layouts": [Faint()]}))
    report = run_engine(LocalStorage(tmp_path), ruleset)
    assert report.verdict == "unknown"
    assert (
        "it is read as checkpoint of somebody, but neither an optimizer nor progress was found in it" in report.reason
    )


def test_a_file_of_no_known_layout(run, tmp_path):
    (tmp_path / "notes.md").write_text("hello")
    ended = run("verify", tmp_path / "notes.md")
    assert ended.code == UNKNOWN
    assert "no layout recognises this file: only its bytes were checked" in words(ended.out)
    assert f"verify the directory '{tmp_path}'" in words(ended.out)


class TestFilesAlone:
    def test_the_flag(self, run, tmp_path):
        of_a_third_party(tmp_path / "snap")
        ended = run("verify", tmp_path / "snap", "--layout", "any")
        assert ended.code == PASSED
        assert "the files are sound; whether training can be resumed was not asked" in words(ended.out)
        assert "safe to resume" not in words(ended.out)

    def test_a_whole_checkpoint_is_not_called_safe_either(self, tmp_path):
        path = build_plain_torch(tmp_path / "ck", with_torch=False).path
        report = verify(path, layout="any")
        assert (report.layout.name, report.passed, report.resume) == ("any", True, None)
        assert "safe to resume" not in report.reason
        assert inspect(path, layout="any").layout.name == "any"

    def test_damage_fails(self, tmp_path):
        of_a_third_party(tmp_path / "snap")
        (tmp_path / "snap" / "parts" / "part_1.safetensors").write_bytes(b"")
        report = verify(tmp_path / "snap", layout="any")
        assert (report.exit_code, report.reason) == (FAILED, "the files are not sound: 1 error")

    def test_the_key_of_a_ruleset(self, run, tmp_path):
        path = build_plain_torch(tmp_path / "run" / "step-5", with_torch=False).path
        (tmp_path / "files.yaml").write_text("extends: [default]\nlayout: any\n")
        (tmp_path / "more.yaml").write_text("extends: [./files.yaml]\n")
        for ruleset in ("files.yaml", "more.yaml"):
            report = verify(path, ruleset=tmp_path / ruleset)
            assert (report.layout.name, report.passed) == ("any", True)
            ended = run("latest", tmp_path / "run", "--ruleset", tmp_path / ruleset)
            assert (ended.code, ended.out) == (UNKNOWN, "")
            assert "whether training can be resumed was not asked" in words(ended.err)
        assert verify(path, ruleset=tmp_path / "more.yaml", layout="plain-torch").resume is not None
        assert run("latest", tmp_path / "run").out == f"{path}\n"


class TestLatest:
    @pytest.fixture
    def saves(self, tmp_path):
        path = build_plain_torch(tmp_path / "run" / "step-1", with_torch=False).path
        shutil.copytree(path, tmp_path / "run" / "step-2")
        return tmp_path / "run"

    def test_0_and_a_path(self, run, saves):
        assert (run("latest", saves).code, run("latest", saves).out) == (PASSED, f"{saves}/step-2\n")

    def test_1_where_none_passes(self, run, saves):
        for step in saves.iterdir():
            (step / "model.safetensors").write_bytes(b"")
        assert (run("latest", saves, "--allow-empty").code, run("latest", saves).out) == (FAILED, "")

    def test_3_where_there_is_none(self, run, tmp_path):
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(b"x")
        (tmp_path / "args.yaml").write_text("lr: 1\n")
        ended = run("latest", tmp_path)
        assert (ended.code, ended.out, ended.err) == (NO_SAVE, "", f"there is no checkpoint in {tmp_path}\n")
        ended = run("latest", tmp_path, "--allow-empty")
        assert (ended.code, ended.out) == (PASSED, "")
        seen = []
        assert newest_checkpoint(tmp_path, passed_over=seen.append) is None
        assert seen == []

    @pytest.mark.parametrize("file", ["a/b/weights.safetensors", "optim.pt", "it/.metadata", "it/__0_0.distcp"])
    def test_2_where_a_file_may_belong_to_a_save(self, run, tmp_path, file):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".safetensors"):
            weights(tmp_path / file)
        else:
            (tmp_path / file).write_bytes(b"\x80\x02}.")
        ended = run("latest", tmp_path, "--allow-empty")
        assert ended.code in (FAILED, UNKNOWN)
        assert ended.out == ""

    def test_2_for_a_mistyped_path(self, run, saves):
        ended = run("latest", f"{saves}s", "--allow-empty")
        assert (ended.code, ended.out) == (UNKNOWN, "")
        assert f"{saves}s does not exist; did you mean {saves}?" in words(ended.err)

    def test_the_help_and_the_pages_keep_the_exit_code(self, run):
        repo = Path(__file__).parents[2]
        pages = [repo / "README.md", *(repo / "docs").glob("*.md")]
        for text in (run("latest", "--help").out, *(page.read_text("utf-8") for page in pages)):
            lines = [line for line in text.splitlines() if "$(ckpt-rules latest" in line and "…" not in line]
            assert all("|| exit" in line or "path=$(" in line for line in lines), lines
