"""Whatever is done to a file, our readers report what its real loader refuses, and only that."""

from __future__ import annotations

import pytest

from tests.differential.__main__ import summary, tasks_of
from tests.differential.answers import Answer, ours, theirs
from tests.differential.compare import difference
from tests.differential.judge import BOTH_ACCEPT, DIFFERS, MISS, OVER, STRICTER, Verdict, judge
from tests.differential.mutants import mutant
from tests.differential.seeds import FORMATS, seeds
from tests.differential.workers import CRASH, Tally, Task, _bury, check, prepare, run

COUNT = 6_000


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_the_writers_write_is_read_as_the_loaders_read_it(file_format):
    for seed in seeds(file_format):
        mine, other = ours(file_format, seed.data), theirs(file_format, seed.data)
        assert (mine.faults, other.faults) == ((), ()), seed.name
        assert difference(file_format, mine.value, other.value) == "", seed.name


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_number_stands_for_one_mutant(file_format):
    made = [mutant(file_format, 1, number) for number in range(50)]
    assert made == [mutant(file_format, 1, number) for number in range(50)]
    assert len(set(made)) > 40


SOUND, REFUSED = Answer((), 1), Answer((("ValueError", "it is bad"),))


@pytest.mark.parametrize(
    ("mine", "other", "kind"),
    [
        (SOUND, SOUND, BOTH_ACCEPT),
        (SOUND, Answer((), 2), DIFFERS),
        (SOUND, REFUSED, MISS),
        (Answer((("directory", "it is bad"),)), SOUND, OVER),
        (Answer((("record", "'version' says b'x', where a number belongs"),)), SOUND, STRICTER),
        (Answer((("record", "it is bad"),)), SOUND, OVER),
    ],
)
def test_two_answers_make_a_verdict(mine, other, kind):
    assert judge("zip", mine, other).kind == kind


def test_a_reader_that_raises_is_a_crash(monkeypatch):
    prepare()
    monkeypatch.setattr("tests.differential.answers.ours", lambda *_: 1 / 0)
    assert check("json", b"{}") == Verdict(CRASH, "ZeroDivisionError: division by zero")


def test_a_reader_that_hangs_or_fills_the_memory_is_a_crash(monkeypatch):
    prepare()
    monkeypatch.setattr("tests.differential.workers.OUR_SECONDS", 0.05)

    def hang(*_):
        while True:
            pass

    monkeypatch.setattr("tests.differential.answers.ours", hang)
    assert check("json", b"{}").what.startswith("OutOfTime")
    monkeypatch.setattr("tests.differential.answers.ours", lambda *_: bytes(300 << 20))
    assert check("json", b"{}").what.startswith("MemoryError")


@pytest.mark.slow
def test_no_mutant_is_missed_crashes_a_reader_or_is_refused_without_a_reason():
    tally = run([task for file_format in FORMATS for task in tasks_of(file_format, seed=20, count=COUNT)])
    print(summary(tally))
    assert sum(tally.counts.values()) == COUNT * len(FORMATS)
    assert tally.failures == []


class Lost:
    """A worker that a loader took down."""

    task = Task("zip", 1, 0, 40)

    def __init__(self, pending):
        self.pending = pending

    def end(self):
        pass


@pytest.mark.parametrize(("number", "left"), [(7, [Task("zip", 1, 8, 40)]), (39, [])])
def test_where_a_loader_takes_its_process_down_it_refuses_and_the_others_are_still_run(number, left):
    tally, unseen = Tally(), Verdict(MISS, "the loader takes the process down")
    assert _bury(Lost((number, unseen)), tally) == left
    assert tally.failures == [(Lost.task, number, unseen)]


def test_a_process_that_ends_elsewhere_ends_the_run():
    with pytest.raises(RuntimeError, match="outside of a loader"):
        _bury(Lost(None), Tally())
