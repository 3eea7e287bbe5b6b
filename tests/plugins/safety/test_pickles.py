"""pickle/nested, pickle/malformed and pickle/limit: pickles that are not as a trainer writes them."""

from __future__ import annotations

import pickle
import struct
import zipfile

import pytest
import torch

from ckpt_rules_safety.pickles import MalformedPickle, NestedPickle, PickleLimit
from ckpt_rules_safety.unsafe_load import NeedsUnsafeLoad
from tests.plugins.safety.hostile import evil, saved, with_pickle


class TestNested:
    def test_plain_data_inform(self, put, run_rule):
        path = put("state.pkl", pickle.dumps({"blob": pickle.dumps({"a": 1})}))
        run_rule(NestedPickle(), path).assert_one(
            path="state.pkl",
            key="object at byte 20",
            severity="info",
            message="a pickle or archive is inside the file, in object at byte 20",
        )

    def test_what_runs_code_is_an_error(self, put, run_rule):
        path = put("state.pt", saved({"blob": pickle.dumps(evil())}))
        finding = run_rule(NestedPickle(), path).assert_one(path="state.pt", severity="error", message="imports ")
        assert finding.data["unsafe"] == ["posix.system"]

    def test_five_levels(self, put, run_rule):
        data = pickle.dumps(evil())
        for _ in range(5):
            data = pickle.dumps(data)
        finding = run_rule(NestedPickle(), put("state.pkl", data)).assert_one(severity="error")
        assert len(finding.data["nested"]) == 5

    def test_bytes_that_only_start_like_a_pickle(self, put, run_rule):
        run_rule(NestedPickle(), put("state.pkl", pickle.dumps(b"\x80\x04 is not a pickle"))).assert_passed()
        run_rule(NestedPickle(), put("a.pt", saved({"rng": torch.get_rng_state()}))).assert_passed()


class TestMalformed:
    @pytest.mark.parametrize("tail", [b"more", pickle.dumps(2)])
    def test_bytes_behind_the_end(self, tail, put, run_rule):
        run_rule(MalformedPickle(), put("state.pkl", pickle.dumps([1]) + tail)).assert_one(
            path="state.pkl",
            severity="error",
            offset=len(pickle.dumps([1])),
            message=f"{len(tail)} bytes follow the end of the pickle",
        )

    def test_bytes_behind_the_end_inside_a_torch_file(self, put, run_rule):
        run_rule(MalformedPickle(), put("state.pt", with_pickle(b"\x80\x02}.cos\nsystem\n."))).assert_one(
            path="state.pt",
            key="archive/data.pkl",
            message="12 bytes follow the end of the pickle in 'archive/data.pkl'",
        )

    def test_a_pickle_that_breaks_under_a_name_of_no_torch_file(self, put, run_rule):
        run_rule(MalformedPickle(), put("latest", b"\x80\x02cos\nsystem\n\xff")).assert_one(
            path="latest", key="object", offset=13, message="opcode 0xff of the pickle object is not a pickle opcode"
        )

    def test_clean_files(self, put, run_rule):
        path = put("random_states_0.pkl", pickle.dumps({"a": 1}))
        put("state.pt", saved({"a": torch.ones(2)}))
        put("old.pt", saved({"a": torch.ones(2)}, legacy=True))
        run_rule(MalformedPickle(), path).assert_passed()


def doubling(levels, leaf=b")"):
    """A tuple that holds the one before it twice, at each level."""
    steps = (b"q" + bytes([i]) + b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))
    return b"\x80\x02" + leaf + b"".join(steps)


BOMBS = {
    "doubling": (doubling(64) + b".", "unfolds into more than 8,000,000 values", "values"),
    "hash": (b"\x80\x02}" + doubling(40)[2:] + b"Ns.", "a key has more than 1,000 parts", None),
    "colliding keys": (
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little", signed=True) + b"N" for i in range(10_100))
        + b"u.",
        "more than 10,000 keys",
        None,
    ),
    "memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "numbers a value 2,147,483,647 after 0 values", None),
    "memory": (b"\x80\x02(" + b"]" * 1_700_000 + b"t.", "would exceed the 112 MiB memory limit", "memory"),
    "opcodes": (b"\x80\x02" + b"N0" * 5_100_000 + b".", "goes past 10,000,000 opcodes in one file", "opcodes"),
    "marks": (b"\x80\x02" + b"(" * 3_000 + b".", "nests deeper than 2,000", None),
    "a huge number": (
        b"\x80\x02\x8b" + struct.pack("<i", 5_000) + b"\1" * 5_000 + b".",
        "a number of 5,000 bytes",
        None,
    ),
    "a text that is not there": (b"\x80\x02X\xff\xff\xff\xff.", "", None),
    "levels": (b"\x80\x02" + b"]" * 1_000 + b"a" * 999 + b".", "nested deeper than 200 levels are left out", "levels"),
}


@pytest.mark.parametrize("bomb", [b for b in BOMBS if b != "a text that is not there"])
def test_a_bomb_ends_at_the_limit_that_is_named(bomb, put, run_rule):
    data, said, limit = BOMBS[bomb]
    finding = run_rule(PickleLimit(), put("state.pkl", data)).assert_one(
        path="state.pkl", severity="error", message=said
    )
    if limit:
        assert f"`limits: {{{limit}: …}}`" in finding.message


def test_a_zip_bomb(tmp_path, run_rule):
    (tmp_path / "ck").mkdir()
    with zipfile.ZipFile(tmp_path / "ck" / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(70 << 20))
    run_rule(PickleLimit(), tmp_path / "ck").assert_one(
        path="model.pt", message="'archive/data.pkl' has 73,400,320 bytes, more than the 67,108,864 that are read"
    )


def test_a_length_beyond_the_file_is_no_limit(put, run_rule):
    run_rule(PickleLimit(), put("state.pkl", BOMBS["a text that is not there"][0])).assert_passed()


def test_real_files_stay_below(put, run_rule):
    net = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(200)))
    path = put("model.pt", saved(net.state_dict()))
    put("text.pt", saved({"log": ["x" * 1_000] * 5_000}))
    run_rule(PickleLimit(), path).assert_passed()


def test_the_id_of_the_catalogue_finds_the_rule():
    assert PickleLimit.former_ids == ("pickle/too-deep",)


def test_nobody_is_told_to_let_a_dangerous_name_through(make_checkpoint, run_rule):
    ck = make_checkpoint()
    state = torch.load(ck.path / "training_state.pth", weights_only=False)
    torch.save({**state, "hook": evil()}, ck.path / "training_state.pth")
    finding = run_rule(NeedsUnsafeLoad(), ck.path).assert_one(path="training_state.pth", severity="warning")
    assert finding.help == "do not let it through: posix.system runs commands"
