"""A file system that fails in the middle of the work: the finding names the file and gives the system's words."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from ckpt_rules import Severity, UsageError, Verdict, newest_checkpoint
from ckpt_rules.api import load_ruleset
from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.engine import run
from ckpt_rules.inspection.inspecting import inspect_checkpoint
from ckpt_rules.limits import Limits
from ckpt_rules.reporters.text import render
from ckpt_rules.runs import checkpoints_in
from ckpt_rules.storage import LocalStorage

WEIGHTS, STATE, CONFIG = "model.safetensors", "training_state.pth", "config.json"
WORDS = {errno.EIO: "input/output error", errno.ESTALE: "stale file handle"}


class FaultyStorage(LocalStorage):
    """A checkpoint of which one file, once it has been opened `opens` times and read `reads` times, is not available."""

    def __init__(self, path, name, code, *, opens=None, reads=None):
        super().__init__(path)
        self.name, self.error, self.opens, self.reads = name, OSError(code, os.strerror(code)), opens, reads
        self.opened = self.met = 0

    def open(self, path):
        if path == self.name:
            self.opened += 1
            if self.opens is not None and self.opened > self.opens:
                raise self.error
        return FaultySource(super().open(path), self if path == self.name else None)


class FaultySource:
    def __init__(self, source, storage):
        self.source, self.storage, self.size = source, storage, source.size

    def read(self, offset, length):
        if self.storage is not None:
            self.storage.met += 1
            if self.storage.reads is not None and self.storage.met > self.storage.reads:
                raise self.storage.error
        return self.source.read(offset, length)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.source.__exit__(None, None, None)


def errors(report):
    assert [o.crash.traceback for o in report.outcomes if o.crash] == []
    return [(f.rule, f.place.path, f.message) for f in report.findings if f.severity is Severity.ERROR]


@pytest.fixture
def path(make_checkpoint):
    return make_checkpoint().path


@pytest.fixture
def run_path(path, tmp_path):
    """A run with two saves."""
    for name in ("step-500", "step-600"):
        shutil.copytree(path, tmp_path / "run" / name)
    return tmp_path / "run"


@pytest.mark.parametrize("code", WORDS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", [WEIGHTS, STATE, CONFIG])
class TestFiles:
    def expected(self, name, code):
        return [("files/unreadable", name, f"the file can't be read: {WORDS[code]}")]

    @pytest.mark.parametrize("opens", [0, 1])
    def test_that_do_not_open(self, path, name, code, opens):
        report = run(FaultyStorage(path, name, code, opens=opens), load_ruleset())
        assert (errors(report), report.verdict) == (self.expected(name, code), Verdict.FAILED)

    def test_that_break_off_at_any_read(self, path, name, code):
        whole = FaultyStorage(path, name, code)
        assert errors(run(whole, load_ruleset())) == []
        for reads in range(whole.met):
            report = run(FaultyStorage(path, name, code, reads=reads), load_ruleset())
            assert (errors(report), report.verdict) == (self.expected(name, code), Verdict.FAILED), reads

    def test_the_report_for_people_says_so(self, path, name, code):
        text = render(run(FaultyStorage(path, name, code, reads=1), load_ruleset()))
        assert f"{name}\n             the file can't be read: {WORDS[code]}" in text


def test_one_shard_that_breaks_off_leaves_the_others_alone(make_checkpoint):
    path = make_checkpoint(weights="sharded").path
    second = sorted(n for n in os.listdir(path) if n.endswith(".safetensors"))[1]
    report = run(FaultyStorage(path, second, errno.EIO, reads=1), load_ruleset())
    assert errors(report) == [("files/unreadable", second, "the file can't be read: input/output error")]


@pytest.mark.parametrize("code", WORDS, ids=errno.errorcode.get)
class TestDirectories:
    @pytest.fixture
    def failing(self, monkeypatch, code):
        """Make a call of the operating system fail for paths with this end."""

        def make(function, end):
            real = getattr(os, function)

            def fail(path, *args, **kwargs):
                if os.fspath(path).endswith(end):
                    raise OSError(code, os.strerror(code), os.fspath(path))
                return real(path, *args, **kwargs)

            monkeypatch.setattr(f"ckpt_rules.storage.os.{function}", fail)

        return make

    def test_the_checkpoints_own_can_not_be_listed(self, path, failing, code):
        ruleset = load_ruleset()
        failing("scandir", "checkpoint_a")
        report = run(LocalStorage(path), ruleset)
        assert errors(report) == [("files/missing-checkpoint", ".", f"'{path}' can't be listed: {WORDS[code]}")]
        assert report.verdict is Verdict.FAILED

    def test_the_checkpoints_own_fails_after_it_was_found(self, path, code):
        class Vanishing(LocalStorage):
            def list(self):
                raise OSError(code, os.strerror(code))

        report = run(Vanishing(path), load_ruleset())
        assert errors(report) == [("files/unreadable", ".", f"the directory can't be listed: {WORDS[code]}")]
        assert report.verdict is Verdict.FAILED
        with pytest.raises(UsageError, match=f"can't be opened: the directory can't be listed: {WORDS[code]}"):
            inspect_checkpoint(Checkpoint(Vanishing(path)))

    def test_a_run_that_can_not_be_listed_has_no_newest(self, run_path, failing, code):
        failing("scandir", "/run")
        with pytest.raises(UsageError, match=f"/run can't be opened: {WORDS[code]}"):
            newest_checkpoint(run_path)

    @pytest.mark.parametrize("function", ["stat", "scandir"])
    def test_a_save_that_can_not_be_listed_is_passed_over_aloud(self, run_path, failing, code, function):
        failing(function, "/step-600")
        passed_over = []
        assert newest_checkpoint(run_path, passed_over=passed_over.append) == f"{run_path}/step-500"
        assert [(r.checkpoint, r.findings[0].rule) for r in passed_over] == [
            (f"{run_path}/step-600", "files/missing-checkpoint")
        ]

    @pytest.mark.parametrize("function", ["stat", "scandir"])
    def test_one_inside_can_not_be_listed(self, path, failing, code, function):
        (path / "parts").mkdir()
        ruleset = load_ruleset()
        failing(function, "/parts")
        report = run(LocalStorage(path), ruleset)
        assert errors(report) == [("files/unreadable", "parts", f"it can't be read: {WORDS[code]}")]

    def test_a_file_can_not_be_examined(self, path, failing, code):
        ruleset = load_ruleset()
        failing("stat", WEIGHTS)
        report = run(LocalStorage(path), ruleset)
        assert ("files/unreadable", WEIGHTS, f"it can't be read: {WORDS[code]}") in errors(report)
        assert report.verdict is Verdict.FAILED


def test_a_run_of_more_files_than_are_listed_loses_no_save(run_path):
    plugins, limits = load_ruleset().plugins, Limits(entries=3)
    assert checkpoints_in(str(run_path), plugins, limits) == (f"{run_path}/step-500", f"{run_path}/step-600")
