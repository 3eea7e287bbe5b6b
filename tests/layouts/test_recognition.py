"""Which layout a directory is read as: that of its trainer, whatever single file is missing."""

from __future__ import annotations

import shutil

import pytest

from ckpt_rules import UsageError, inspect, verify
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.storage import LocalStorage
from tests.layouts.samples import DIRECTORIES, SAMPLES, sample_of

LOST = {"zero0": {"mp_rank_00_model_states.pt": "files"}}
"""What a directory is read as without its only file."""

FORCED = ("trainer", "orbax", "mmengine", "zero2")


def layout_of(path):
    checkpoint, notices = open_checkpoint(LocalStorage(path), installed_plugins())
    return checkpoint.layout.name, [n.message for n in notices]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_clean_checkpoint_is_recognised_and_inspect_says_why(name, made, tmp_path):
    found = inspect(sample_of(name, made, tmp_path))
    assert (found.layout.name, found.notices) == (SAMPLES[name].layout, ())
    assert found.layout.signs


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_missing_file_makes_no_other_layout(name, made, tmp_path):
    source = sample_of(name, made, tmp_path)
    copy = shutil.copytree(source, tmp_path / "copy" / source.name)
    others = {}
    for file in sorted(p for p in copy.rglob("*") if p.is_file()):
        aside = file.rename(tmp_path / "aside")
        layout, notices = layout_of(copy)
        if layout != SAMPLES[name].layout or notices:
            others[file.relative_to(copy).as_posix()] = layout
        aside.rename(file)
    assert others == LOST.get(name, {})


@pytest.mark.parametrize("name", FORCED)
def test_any_layout_can_be_forced_on_the_checkpoint_of_another(name, made, tmp_path):
    path = sample_of(name, made, tmp_path)
    for layout in installed_plugins().layouts:
        try:
            report = verify(path, layout=layout.name)
        except UsageError as error:
            said = path.is_file() and str(error)
        else:
            said = None
        if said is not None:
            assert said == f"{path} is a file, and a checkpoint of the layout {layout.name!r} is a directory"
            continue
        assert [(o.rule, o.crash) for o in report.outcomes if o.crash] == [], layout.name
        notices = inspect(path, layout=layout.name).notices
        assert notices == tuple(n for n in report.notices if n.severity != "info")
        assert report.layout.signs[-1] == "the name you gave"
        foreign = f"nothing here is a sign of the layout {layout.name!r}, which was taken because you named it"
        assert [n.message for n in notices] == ([] if report.layout.signs[:-1] else [foreign])
        assert report.layout.signs[:-1] or layout.name != SAMPLES[name].layout


@pytest.mark.parametrize(
    ("files", "layout", "rule"),
    [
        ((), "files", "files/missing-checkpoint"),
        (("README.md",), "files", "weights/missing"),
        (("optimizer.pt",), "files", "weights/missing"),
        (("config.json",), "files", "weights/missing"),
        (("model.safetensors",), "plain-torch", "files/missing-required"),
        (("model.safetensors", "config.json"), "plain-torch", "files/not-resumable"),
        (("optimizer.pt", "scheduler.pt"), "transformers-trainer", "files/commit-marker"),
        (("trainer_state.json",), "transformers-trainer", "files/missing-required"),
    ],
)
def test_directories_that_hold_a_part_of_a_checkpoint(made, tmp_path, files, layout, rule):
    source = sample_of("trainer", made, tmp_path)
    path = tmp_path / "odd"
    path.mkdir()
    for name in files:
        text = b"hello\n" if name == "README.md" else (source / name).read_bytes()
        (path / name).write_bytes(text)
    report = verify(path)
    assert (report.layout.name, report.passed) == (layout, False)
    assert rule in {f.rule for f in report.findings}


def test_two_layouts_in_one_directory(made, tmp_path):
    """Files of a DeepSpeed save were copied into one of Accelerate: the surer one is taken, the other can be named."""
    path = shutil.copytree(sample_of("accelerate", made, tmp_path), tmp_path / "both")
    for file in sample_of("zero2", made, tmp_path).iterdir():
        shutil.copy2(file, path)
    names = {layout: verify(path, layout=layout).layout.name for layout in ("accelerate", "deepspeed")}
    assert names == {"accelerate": "accelerate", "deepspeed": "deepspeed"}
    assert layout_of(path)[0] in names
