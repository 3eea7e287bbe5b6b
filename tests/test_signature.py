"""The score of a match follows from what is there."""

from __future__ import annotations

import re

import pytest

from ckpt_rules import Match, Sign, Signature, Tells
from ckpt_rules.opening import checkpoint_at, open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.storage import LocalStorage
from ckpt_rules.testing import CheckpointDir

STATE, PART, WEIGHTS = (
    Sign.file("own.json"),
    Sign.file("part.bin", tells=Tells.SHARED),
    Sign.file("w", tells=Tells.WEIGHTS),
)


@pytest.fixture
def matched(tmp_path):
    def match(signature: Signature, *files: str, name: str = "save-7") -> Match | None:
        directory = CheckpointDir(tmp_path / name)
        for file in files:
            directory.replace(file, b"{}")
        return signature.match(checkpoint_at(directory))

    return match


@pytest.mark.parametrize(
    ("signature", "files", "expected"),
    [
        (Signature(must=(STATE,)), ("own.json",), Match(70, ("own.json",))),
        (Signature(must=(STATE,)), ("part.bin",), None),
        (Signature(must=(STATE, PART)), ("own.json",), None),
        (Signature(must=(STATE,), may=(PART,)), ("own.json", "part.bin"), Match(71, ("own.json", "part.bin"))),
        (Signature(may=(PART, WEIGHTS)), ("w", "part.bin"), Match(41, ("part.bin", "w"))),
        (Signature(may=(PART, WEIGHTS), least=2), ("part.bin",), None),
        (Signature(may=(PART,)), (), None),
        (Signature(must=(WEIGHTS,), never=(PART,)), ("w",), Match(1, ("w",))),
        (Signature(must=(WEIGHTS,), never=(PART,)), ("w", "part.bin"), None),
    ],
)
def test_the_rule(matched, signature, files, expected):
    assert matched(signature, *files) == expected


def test_the_directorys_name_and_patterns(matched):
    signature = Signature(must=(Sign.named(re.compile(r"save-\d+")), Sign.file(re.compile(r"rank_\d\.pt"), most=2)))
    assert matched(signature, "rank_0.pt", "rank_1.pt", "rank_2.pt") == Match(
        71, ("the name save-7", "rank_0.pt", "rank_1.pt")
    )
    assert matched(signature, "rank_0.pt", name="other") is None


def test_keys_of_a_file_that_can_be_read(tmp_path):
    signature = Signature(must=(Sign.keys("it", "net", of="tiny.json"),))
    whole = CheckpointDir(tmp_path / "a").write_json("tiny.json", {"it": 3, "net": {}})
    assert signature.match(checkpoint_at(whole)) == Match(70, ("'it' in tiny.json", "'net' in tiny.json"))
    for other in ({"it": 3}, ["it", "net"]):
        assert signature.match(checkpoint_at(CheckpointDir(tmp_path / "b").write_json("tiny.json", other))) is None
    assert signature.match(checkpoint_at(whole.truncate("tiny.json", keep=3))) is None


def test_what_extends_another_outranks_it_and_fits_without_it(matched):
    common = Signature(must=(STATE,), may=(PART, WEIGHTS))
    special = Signature(must=(Sign.fits((common,), most=2), Sign.named(re.compile("save.*"))), extends=(common,))
    assert matched(common, "own.json", "part.bin", "w").score == 72
    assert matched(special, "own.json", "part.bin", "w") == Match(73, ("own.json", "part.bin", "the name save-7"))
    assert matched(Signature(must=(PART,), extends=(common,)), "part.bin", name="b").score == Tells.SHARED


def test_signs_of_a_kind_never_add_up_to_the_next():
    steps = [high - low for low, high in zip(list(Tells), list(Tells)[1:], strict=False)]
    assert min(steps) >= 9
    assert Signature(may=(PART,) * 40).ceiling < Tells.STATE


@pytest.mark.parametrize("layout", installed_plugins().layouts, ids=lambda layout: layout.name)
def test_every_layout_has_a_table(layout):
    assert layout.signatures or layout.keys
    assert 0 < layout.ceiling <= 100


def test_a_layout_that_can_not_win_opens_no_file(tmp_path, monkeypatch):
    directory = CheckpointDir(tmp_path / "checkpoint-7").write_json(
        "trainer_state.json", {"global_step": 7, "max_steps": 9}
    )
    opened: list[str] = []

    def find_state_file(checkpoint):
        opened.append(checkpoint.path)

    monkeypatch.setattr("ckpt_rules_torch.layout.find_state_file", find_state_file)
    checkpoint, notices = open_checkpoint(LocalStorage(directory), installed_plugins())
    assert (checkpoint.layout.name, notices, opened) == ("transformers-trainer", [], [])
    open_checkpoint(LocalStorage(directory), installed_plugins(), layout="plain-torch")
    assert opened
