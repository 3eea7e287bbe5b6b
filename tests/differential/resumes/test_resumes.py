"""Whatever one field or file of a save is damaged, we say so where a resume stops or differs, and only there."""

from __future__ import annotations

import pytest

from tests.differential.resumes.__main__ import details, row, table
from tests.differential.resumes.allowed import ALLOWED
from tests.differential.resumes.judge import AGREED, ALARM, CRASH, RAISES, SILENT, Ours, Theirs, Verdict, judge
from tests.differential.resumes.mutants import Mutant
from tests.differential.resumes.observed import differing, flat
from tests.differential.resumes.trees import DROP, changed, renamed
from tests.differential.resumes.workers import TRAINERS, Bench, run

SEED, MUTANTS = 16, 30
PASSED, WARNED, FAILED, CRASHED = Ours(0), Ours(0, ("rng/missing: it is",)), Ours(1, ("a/b: c",)), Ours(2, (), "a/b: d")
SAME, OTHER, STOPPED = Theirs(), Theirs("", ("weights/0.bias",)), Theirs("KeyError: 'step'")
ANY = Mutant("optimizer.bin", "no/such/field", "dropped")


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        (PASSED, SAME, AGREED),
        (PASSED, OTHER, SILENT),
        (PASSED, STOPPED, RAISES),
        (WARNED, SAME, ALARM),
        (WARNED, OTHER, AGREED),
        (WARNED, STOPPED, AGREED),
        (FAILED, SAME, ALARM),
        (FAILED, OTHER, AGREED),
        (FAILED, STOPPED, AGREED),
        (Ours(2), STOPPED, AGREED),
        (Ours(2), SAME, ALARM),
        (CRASHED, STOPPED, CRASH),
    ],
)
def test_two_answers_make_a_verdict(ours, theirs, kind):
    assert judge("accelerate", ANY, ours, theirs) == Verdict(kind)


@pytest.mark.parametrize("entry", ALLOWED, ids=lambda e: e.mutants)
def test_a_reason_is_a_sentence_and_names_what_exists(entry):
    assert set(entry.trainers.split()) <= set(TRAINERS)
    assert entry.kind in {RAISES, SILENT, ALARM}
    assert len(entry.reason) > 20
    assert not entry.reason.endswith(".")


def test_equal_numbers_are_the_same_and_nothing_else_is():
    assert flat("a", {"b": 1, "c": [True, 2.0]}) == flat("a", {"b": 1.0, "c": [1, 2]})
    assert differing(flat("a", {"b": 1, "c": 2}), flat("a", {"b": 1, "c": 3, "d": 4})) == ("a/c",)
    assert differing(flat("a", [1, 2]), flat("a", (1, 2))) == ("a",)
    assert differing(flat("a", {"b": 10**400}), flat("a", {"b": None})) == ("a/b",)


def test_a_field_is_dropped_replaced_or_renamed_in_a_copy():
    tree = {"a": [1, (2, 3)], "b": {"c": None}}
    assert changed(tree, ("a", 1, 0), DROP) == {"a": [1, (3,)], "b": {"c": None}}
    assert changed(tree, ("b",), 5) == {"a": [1, (2, 3)], "b": 5}
    assert renamed(tree, ("b", "c"), "d") == {"a": [1, (2, 3)], "b": {"d": None}}
    assert tree == {"a": [1, (2, 3)], "b": {"c": None}}


def damaged(bench, damage):
    """The verdict on a save that a function damages by hand."""
    import os
    import shutil

    target = os.path.join(bench.folder, "planted", os.path.basename(bench.save))
    shutil.copytree(bench.save, target)
    damage(target)
    return bench.resumed(target)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_planted_miss_is_found(tmp_path):
    """The very damage that the real loader stops at, or takes in silence, is a miss for whoever says that all is well."""
    import torch

    bench = Bench("dcp-appstate", str(tmp_path))
    assert bench.resumed(bench.save) == Theirs()

    def lost_file(save):
        (tmp_path / "planted" / save.rsplit("/", 1)[1] / "__0_0.distcp").unlink()

    theirs = damaged(bench, lost_file)
    assert theirs.raised
    assert judge("dcp-appstate", ANY, PASSED, theirs).kind == RAISES
    sound = dict(bench.sound)
    weight = next(name for name in sound if name.startswith("weights/"))
    bench.sound = sound | flat(weight, torch.zeros(1))
    theirs = bench.resumed(bench.save)
    assert theirs == Theirs("", (weight,))
    assert judge("dcp-appstate", ANY, PASSED, theirs) == Verdict(SILENT)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_no_damage_is_missed_and_no_alarm_is_false_without_a_reason(name):
    judged = list(run(name, SEED, MUTANTS))
    print(table([row(name, judged, 0)]))
    print(details(name, judged, each=True))
    assert [j.number for j in judged] == list(range(MUTANTS))
    assert sum(bool(j.theirs.raised) for j in judged) > MUTANTS / 10
    assert sum(not j.theirs.raised and not j.theirs.differs for j in judged) > MUTANTS / 10
    assert [j for j in judged if j.verdict.kind != AGREED and not j.verdict.reason] == []
