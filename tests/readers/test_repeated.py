"""A pickle that many files have in common is built once, and only where all that it came from is the same."""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch

from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules.storage import LocalSource

NAMES = [f"model.layers.{n}.weight" for n in range(600)]


@pytest.fixture
def read():
    """Read files one after the other, on one account."""
    budget = Budget()

    def read_one(path):
        with LocalSource(path) as source:
            return read_torch_file(source, path.name, budget)

    read_one.budget = budget
    return read_one


def saved(path, step=3.0, **more):
    module = {name: torch.empty(0) for name in NAMES}
    torch.save({"module": module, "step": torch.tensor(step), "counters": dict.fromkeys(NAMES, 7), **more}, path)
    return path


def test_a_value_is_built_once(tmp_path, read):
    one, other = read(saved(tmp_path / "rank_10.pt")), read(saved(tmp_path / "rank_11.pt"))
    assert other.value is one.value
    assert (other.path, other.problems, other.readable) == ("rank_11.pt", (), True)
    assert {g.stream for g in one.globals} == {"rank_10/data.pkl"}
    assert [g._replace(stream="") for g in other.globals] == [g._replace(stream="") for g in one.globals]
    assert {g.stream for g in other.globals} == {"rank_11/data.pkl"}


def test_it_costs_no_memory_again(tmp_path, read):
    read(saved(tmp_path / "rank_10.pt"))
    room = read.budget.room
    read(saved(tmp_path / "rank_11.pt"))
    assert read.budget.room == room


def test_a_number_beside_the_pickle_is_another(tmp_path, read):
    """A tensor without dimensions is read from the file: the pickle of another step is the same."""
    one, other = read(saved(tmp_path / "rank_10.pt")), read(saved(tmp_path / "rank_11.pt", step=4.0))
    assert (one.value["step"].value, other.value["step"].value) == (3.0, 4.0)


def test_storages_that_lie_elsewhere(tmp_path, read):
    one, other = read(saved(tmp_path / "rank_9.pt")), read(saved(tmp_path / f"rank_{'long' * 50}.pt"))
    assert one.value["step"].value == other.value["step"].value == 3.0
    assert one.value["step"].offset != other.value["step"].offset


def test_a_file_that_was_cut_is_not_taken_for_the_other(tmp_path, read):
    one = saved(tmp_path / "rank_10.pt")
    assert not read(one).problems
    other = shutil.copy(one, tmp_path / "rank_11.pt")
    other.write_bytes(one.read_bytes()[:-2_000])
    assert any(p.fatal for p in read(other).problems)


def test_what_holds_another_pickle_is_looked_at_each_time(tmp_path, read):
    """Nothing is remembered but what is clean: bytes inside are unpickled for each file."""
    inside = pickle.dumps([print])
    one, other = (read(saved(tmp_path / f"rank_1{n}.pt", inside=inside)) for n in (0, 1))
    assert other.value is not one.value
    assert len(other.nested) == len(one.nested) == 1
    assert {g.dotted for g in other.globals} == {g.dotted for g in one.globals} >= {"builtins.print"}
