"""A writer at work in the checkpoint that is read: `files/changed-while-read` says what happened to which file."""

from __future__ import annotations

import os
import shutil

import pytest

from ckpt_rules import Severity, Verdict
from ckpt_rules.api import load_ruleset
from ckpt_rules.engine import run
from ckpt_rules.storage import LocalStorage

WEIGHTS, STATE, CONFIG = "model.safetensors", "training_state.pth", "config.json"
RULE = "files/changed-while-read"


class BusyStorage(LocalStorage):
    """A checkpoint in which something happens as soon as a file has been opened so many times."""

    def __init__(self, path, happens, *, name=WEIGHTS, opens=1):
        super().__init__(path)
        self.happens, self.name, self.left = happens, name, opens

    def open(self, path):
        source = super().open(path)
        if path == self.name:
            self.left -= 1
            if self.left == 0:
                self.happens()
        return source


@pytest.fixture
def checkpoint(make_checkpoint):
    return make_checkpoint()


def changes(report):
    assert [o.crash.traceback for o in report.outcomes if o.crash] == []
    return [f for f in report.findings if f.rule == RULE]


def grow(path):
    with open(path, "ab") as file:
        file.write(bytes(10))


def rewrite(path):
    os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))


def replace(path):
    shutil.copyfile(path, f"{path}.new")
    rewrite(f"{path}.new")
    os.replace(f"{path}.new", path)


def become_a_directory(path):
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, CONFIG])
@pytest.mark.parametrize(
    ("change", "words", "difference"),
    [
        (grow, "the file grew from {} to {} bytes while the checkpoint was read", 10),
        (
            lambda path: os.truncate(path, 100),
            "the file shrank from {} to {} bytes while the checkpoint was read",
            None,
        ),
        (rewrite, "the file was written again, {} bytes as before, while the checkpoint was read", 0),
        (replace, "the file was written again, {} bytes as before, while the checkpoint was read", 0),
    ],
    ids=["grows", "is cut", "is written again", "is replaced"],
)
def test_a_file_that(checkpoint, name, change, words, difference):
    path = checkpoint.path / name
    was = path.stat()
    (found,) = changes(run(BusyStorage(checkpoint.path, lambda: change(path), name=name), load_ruleset()))
    now = path.stat()
    assert difference is None or now.st_size - was.st_size == difference
    assert (found.place.path, found.severity) == (name, Severity.WARNING)
    assert found.message == words.format(f"{was.st_size:,}", f"{now.st_size:,}")
    assert found.help == "verify again when the writer has finished"
    assert found.data == {
        "nbytes": was.st_size,
        "mtime_ns": was.st_mtime_ns,
        "nbytes_now": now.st_size,
        "mtime_ns_now": now.st_mtime_ns,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (os.unlink, "the file was removed while the checkpoint was read"),
        (become_a_directory, "the file became a directory while the checkpoint was read"),
    ],
)
def test_a_file_that_goes_away(checkpoint, change, message):
    report = run(BusyStorage(checkpoint.path, lambda: change(checkpoint.path / WEIGHTS)), load_ruleset())
    assert [(f.place.path, f.message) for f in changes(report)] == [(WEIGHTS, message)]
    assert report.verdict is Verdict.FAILED


def test_the_whole_checkpoint_goes_away(checkpoint):
    storage = BusyStorage(checkpoint.path, lambda: shutil.rmtree(checkpoint.path), name=CONFIG)
    report = run(storage, load_ruleset())
    assert {f.place.path for f in changes(report)} == {WEIGHTS, STATE, CONFIG}
    assert report.verdict is Verdict.FAILED


def test_whatever_the_moment_of_the_change(checkpoint):
    counted = BusyStorage(checkpoint.path, lambda: None, opens=1000)
    run(counted, load_ruleset())
    for opens in range(1, 1001 - counted.left):
        report = run(
            BusyStorage(checkpoint.path, lambda: rewrite(checkpoint.path / WEIGHTS), opens=opens), load_ruleset()
        )
        assert [f.place.path for f in changes(report)] == [WEIGHTS]
        assert report.verdict is Verdict.PASSED


@pytest.mark.parametrize("opens", [1, 2])
def test_a_file_cut_at_any_moment_is_no_pass(checkpoint, opens):
    for name in (WEIGHTS, STATE):
        storage = BusyStorage(
            checkpoint.path, lambda name=name: os.truncate(checkpoint.path / name, 100), name=name, opens=opens
        )
        report = run(storage, load_ruleset())
        assert name in {f.place.path for f in changes(report)}
        assert report.verdict is Verdict.FAILED


def test_a_log_may_grow(checkpoint):
    for name in ("train.log", "events.out.tfevents.1", "runs/metrics.json"):
        (checkpoint.path / name).parent.mkdir(exist_ok=True)
        (checkpoint.path / name).write_text("{}")
        report = run(BusyStorage(checkpoint.path, lambda name=name: grow(checkpoint.path / name)), load_ruleset())
        assert changes(report) == []


def test_reading_alone_changes_nothing(checkpoint):
    report = run(LocalStorage(checkpoint.path), load_ruleset("ci"))
    assert (changes(report), report.verdict) == ([], Verdict.PASSED)


class TestTheOrder:
    def test_rules_that_are_last_run_last_and_are_reported_in_their_place(self, tmp_path, ruleset_of, fake_rule):
        ran = []

        def noting(name):
            def check(_):
                ran.append(name)
                return []

            return check

        rules = [fake_rule("acme/a", noting("a"), last=True), fake_rule("acme/b", noting("b"))]
        report = run(LocalStorage(tmp_path), ruleset_of(*rules))
        assert (ran, [o.rule for o in report.outcomes]) == (["b", "a"], ["acme/a", "acme/b"])

    def test_what_last_must_be(self, load, fake_rule):
        assert (
            load(rules=[fake_rule(last="yes")]).crash.message == "last of acme/bad is 'yes'; it must be True or False"
        )
