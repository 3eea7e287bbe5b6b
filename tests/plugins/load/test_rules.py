"""load/torch and load/safetensors: clean files of the real writers pass, each damage is told in the loader's words."""

from __future__ import annotations

import argparse
import io
import os
import struct
import zipfile

import pytest
import torch
from safetensors import SafetensorError, safe_open

from ckpt_rules import Status, verify
from ckpt_rules.testing import CheckpointDir, build_plain_torch, run_rule
from ckpt_rules_load import child
from ckpt_rules_load.rules import LoadSafetensors, LoadTorch
from ckpt_rules_load.running import File, LoadLimits, load_all
from ckpt_rules_load.words import refuses_a_global, short
from tests.plugins.safety.hostile import Calls, saved, with_pickle

WEIGHTS = {"embed.weight": torch.ones(50, 40), "head.bias": torch.zeros(50)}


@pytest.fixture
def ck(tmp_path):
    """A checkpoint with weights by torch and a training state."""
    made = build_plain_torch(tmp_path / "ck", with_torch=True).remove("model.safetensors")
    return made.write_torch("pytorch_model.bin", WEIGHTS)


@pytest.fixture
def safe(tmp_path):
    return build_plain_torch(tmp_path / "safe", with_torch=True)


def words_of_torch(path, *, mmap):
    with pytest.raises((RuntimeError, OSError, EOFError)) as refused:
        torch.load(path, weights_only=True, mmap=mmap, map_location="cpu")
    return f"{type(refused.value).__name__}: {refused.value}".strip().rstrip(": ")


def words_of_safetensors(path):
    with pytest.raises(SafetensorError) as refused, safe_open(path, framework="numpy"):
        pass
    return f"SafetensorError: {refused.value}"


def legacy_that_declares(elements):
    """A file from before torch 1.6 that says to hold so many floats, and holds 70,000."""
    data = saved({"w": torch.ones(70_000)}, legacy=True)
    declared = b"J" + struct.pack("<i", 70_000)
    number = b"J" + struct.pack("<i", elements)
    assert data.count(declared) >= 2
    return data.replace(declared, number)


def with_storage(data, length):
    """A torch file whose first storage has been cut to some bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as cut:
        for name in archive.namelist():
            content = archive.read(name)
            cut.writestr(name, content[:length] if name.endswith("data/0") else content)
    return out.getvalue()


# Clean


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_torch_save_writes_is_taken(ck, legacy):
    ck.write_torch("pytorch_model.bin", WEIGHTS, legacy=legacy)
    run_rule(LoadTorch(), ck).assert_passed()


def test_what_safetensors_writes_is_taken(safe):
    run_rule(LoadSafetensors(), safe).assert_passed()
    run_rule(LoadTorch(), safe).assert_passed()


def test_a_file_as_large_as_the_limit_of_memory_is_taken(tmp_path):
    data = torch.zeros(40 << 20, dtype=torch.float32)
    for legacy in (False, True):
        ck = CheckpointDir(tmp_path / f"{legacy}").write_torch("pytorch_model.bin", {"w": data}, legacy=legacy)
        run_rule(LoadTorch(memory=64), ck).assert_passed()


def test_both_are_selected_by_name_and_by_no_ruleset(ck):
    report = verify(ck.path, select=["load/*"])
    assert {o.rule: o.status for o in report.outcomes} == {
        "load/safetensors": Status.SKIPPED,
        "load/torch": Status.PASSED,
    }
    for ruleset in ("default", "quick", "ci", "inference", "publish"):
        assert not [o.rule for o in verify(ck.path, ruleset=ruleset).outcomes if o.rule.startswith("load/")]


def test_a_link_to_a_file_is_followed(ck, tmp_path):
    (ck / "pytorch_model.bin").rename(tmp_path / "blob")
    (ck / "pytorch_model.bin").symlink_to(tmp_path / "blob")
    run_rule(LoadTorch(), ck).assert_passed()


def test_a_checkpoint_that_is_one_file_is_loaded_from_where_it_lies(tmp_path):
    torch.save({"model": WEIGHTS, "epoch": 1}, tmp_path / "last.pt")
    report = verify(tmp_path / "last.pt", select=["load/torch"])
    assert [o.status for o in report.outcomes] == [Status.PASSED]


# Refused


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_state.pth"])
def test_a_torch_file_that_was_cut_short(ck, name):
    ck.truncate(name, keep=0.5)
    said = words_of_torch(ck / name, mmap=True)
    run_rule(LoadTorch(), ck).assert_one(
        path=name,
        message=f"torch.load refuses {name}: {short(said)}",
        help="take the file from another copy",
        data={"loader": "torch.load", "error": short(said)},
    )


def test_a_legacy_file_that_was_cut_short(ck):
    ck.write_torch("pytorch_model.bin", WEIGHTS, legacy=True).truncate("pytorch_model.bin", keep=0.5)
    assert "unexpected EOF" in words_of_torch(ck / "pytorch_model.bin", mmap=False)
    run_rule(LoadTorch(), ck).assert_one(
        path="pytorch_model.bin",
        message="torch.load refuses pytorch_model.bin: RuntimeError: unexpected EOF, expected ",
    )


def test_an_error_without_words_is_told_by_its_type(ck):
    ck.write_torch("pytorch_model.bin", WEIGHTS, legacy=True).truncate("pytorch_model.bin", keep=60)
    said = words_of_torch(ck / "pytorch_model.bin", mmap=False)
    assert said == "EOFError"
    run_rule(LoadTorch(), ck).assert_one(message="torch.load refuses pytorch_model.bin: EOFError")


def test_a_storage_that_is_shorter_than_its_tensors(ck):
    ck.replace("pytorch_model.bin", with_storage(saved(WEIGHTS), 100))
    said = words_of_torch(ck / "pytorch_model.bin", mmap=True)
    run_rule(LoadTorch(), ck).assert_one(
        path="pytorch_model.bin", message=f"torch.load refuses pytorch_model.bin: {short(said)}"
    )


@pytest.mark.parametrize("damage", ["cut", "dtype", "unknown dtype"])
def test_a_safetensors_file_that_is_refused(safe, damage):
    def change(header):
        first = next(name for name in header if name != "__metadata__")
        header[first]["dtype"] = "F64" if damage == "dtype" else "F99"

    if damage == "cut":
        safe.truncate("model.safetensors", keep=0.5)
    else:
        safe.edit_header("model.safetensors", change)
    said = words_of_safetensors(safe / "model.safetensors")
    assert said.startswith("SafetensorError: Error while deserializing header: ")
    run_rule(LoadSafetensors(), safe).assert_one(
        path="model.safetensors",
        message=f"safe_open refuses model.safetensors: {short(said)}",
        data={"loader": "safe_open", "error": short(said)},
    )


# Ended


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not hold processes to it")
def test_a_file_that_declares_huge_tensors_gets_no_more_than_its_memory(ck):
    ck.replace("pytorch_model.bin", legacy_that_declares(500_000_000))
    run_rule(LoadTorch(memory=1024), ck).assert_one(
        path="pytorch_model.bin", message="can't allocate memory: you tried to allocate 2000000000 bytes"
    )


def test_a_file_that_kills_the_loader_is_a_finding_and_the_rest_is_loaded(safe, pretend_loader):
    for number in (1, 2, 3):
        (safe / f"model-0000{number}-of-00003.safetensors").write_bytes((safe / "model.safetensors").read_bytes())
    safe.remove("model.safetensors")
    pretend_loader(
        "if name.startswith('model-00002'): os.kill(os.getpid(), signal.SIGSEGV)\nif name.startswith('model-00003'): raise ValueError('bad')"
    )
    result = run_rule(LoadSafetensors(), safe)
    assert [(f.place.path, f.message) for f in result.findings] == [
        (
            "model-00002-of-00003.safetensors",
            "safe_open did not return from model-00002-of-00003.safetensors: it was ended by SIGSEGV",
        ),
        (
            "model-00003-of-00003.safetensors",
            "safe_open refuses model-00003-of-00003.safetensors: ValueError: bad",
        ),
    ]


def test_a_file_over_which_the_loader_waits(ck, pretend_loader):
    pretend_loader("if name == 'pytorch_model.bin': time.sleep(600)")
    run_rule(LoadTorch(timeout=1), ck).assert_one(
        path="pytorch_model.bin",
        message="torch.load did not return from pytorch_model.bin: it did not finish within 1.0 s",
        data={"death": "it did not finish within 1.0 s"},
    )


def test_a_pickle_that_takes_the_loader_too_long(ck):
    ck.write_torch("pytorch_model.bin", {"w": torch.ones(2), "steps": [1] * 3_000_000})
    run_rule(LoadTorch(timeout=0.01), ck).assert_one(path="pytorch_model.bin", message="it did not finish within")


def test_files_that_are_not_tried_for_the_deaths_before_them_leave_the_answer_open(tmp_path, pretend_loader):
    ck = CheckpointDir(tmp_path / "shards")
    for number in range(1, 8):
        ck.write_safetensors(f"model-0000{number}-of-00007.safetensors", {f"w{number}": torch.ones(2)})
    pretend_loader("os._exit(1)")
    outcome = run_rule(LoadSafetensors(), ck).outcome
    assert (outcome.status, len(outcome.findings)) == (Status.FAILED, 5)
    assert outcome.reason == (
        "not handed to safe_open: model-00006-of-00007.safetensors was not tried, for 5 files before it had killed the "
        "loader time and again; 1 more were not tried"
    )
    assert outcome.blocked_by == "model-00006-of-00007.safetensors"


def test_a_rule_that_is_stopped_takes_the_loader_with_it(safe, pretend_loader, monkeypatch):
    from ckpt_rules_load import running

    started = []

    class Popen(running.subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(running.subprocess, "Popen", Popen)
    pretend_loader("time.sleep(600)")
    [outcome] = verify(safe.path, select=["load/safetensors"], rule_timeout=2).outcomes
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "stopped after 2 s (rule-timeout)")
    assert [process.returncode for process in started] == [-9]


# Not handed over


@pytest.fixture
def no_loader(monkeypatch):
    """Nothing is started: a file that is handed over all the same crashes the rule."""
    monkeypatch.setattr(child, "__file__", None)


def test_globals_that_are_refused_by_default_are_the_business_of_another_rule(ck, no_loader):
    ck.remove("training_state.pth").write_torch("pytorch_model.bin", WEIGHTS | {"args": argparse.Namespace(lr=1)})
    run_rule(LoadTorch(), ck).assert_skipped(
        "not handed to torch.load: pytorch_model.bin is refused by torch.load by default (state/needs-unsafe-load)"
    )


def test_a_hostile_pickle_is_not_handed_over(ck, no_loader, tmp_path):
    evil = Calls(os.system, f"touch {tmp_path / 'harm'}")
    ck.remove("training_state.pth").replace("pytorch_model.bin", saved(WEIGHTS | {"evil": evil}))
    run_rule(LoadTorch(), ck).assert_skipped("pytorch_model.bin is refused by torch.load by default")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_hostile_pickle_that_our_reader_overlooked_does_no_harm(tmp_path, monkeypatch, legacy):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "model.pt"
    path.write_bytes(saved({"evil": Calls(os.system, f"touch {tmp_path / 'harm'}")}, legacy=legacy))
    [answer] = load_all(
        "torch.load", [File("model.pt", str(path), path.stat().st_size)], LoadLimits(2048, 60, 60)
    ).found
    assert refuses_a_global(answer.error)
    assert "posix.system" in answer.error
    assert not (tmp_path / "harm").exists()


def test_a_name_that_only_this_torch_refuses_makes_no_finding(ck, pretend_loader):
    said = (
        "Weights only load failed.\\nWeightsUnpickler error: Unsupported global: GLOBAL torch.Size was not an allowed"
    )
    pretend_loader(f"if name == 'pytorch_model.bin': raise ValueError('{said}')")
    run_rule(LoadTorch(), ck).assert_skipped("pytorch_model.bin imports globals that this torch refuses")


def test_a_file_past_a_limit_of_our_reader_is_not_handed_over(ck, no_loader):
    deep = b"\x80\x02" + b"]" * 300 + b"a" * 299 + b"."
    ck.remove("training_state.pth").replace("pytorch_model.bin", with_pickle(deep))
    run_rule(LoadTorch(), ck).assert_skipped("exceeds a limit", blocked_by="pytorch_model.bin")


def test_opcodes_that_the_loader_does_not_know_are_the_business_of_another_rule(ck, no_loader):
    ck.remove("training_state.pth").replace("pytorch_model.bin", with_pickle(b"\x80\x02K\x012\x86."))
    run_rule(LoadTorch(), ck).assert_skipped("state/needs-unsafe-load")


@pytest.mark.parametrize("kind", ["fifo", "loop", "broken link", "empty", "directory"])
def test_what_is_no_file_is_not_handed_over(tmp_path, no_loader, kind):
    for name, rule in (("pytorch_model.bin", LoadTorch()), ("model.safetensors", LoadSafetensors())):
        path = CheckpointDir(tmp_path / name).path / name
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "empty":
            path.touch()
        else:
            path.symlink_to(name if kind == "loop" else "nowhere")
        assert run_rule(rule, path.parent).status is Status.SKIPPED


# Words


ADVICE = "Check the documentation of torch.load to learn more about types accepted by default"
REFUSED = "UnpicklingError: Weights only load failed. In PyTorch 2.6, we changed the default. Re-running may succeed."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RuntimeError: it is bad.\nException raised from f at a.cpp:3", "RuntimeError: it is bad"),
        ("EOFError", "EOFError"),
        (
            f"{REFUSED}\nWeightsUnpickler error: \n\nUnsupported operand 50\n\n{ADVICE}",
            "UnpicklingError: Unsupported operand 50",
        ),
        (
            f"{REFUSED}\n\n\nTrying to load unsupported GLOBAL posix.system\n\n{ADVICE}",
            "UnpicklingError: Trying to load unsupported GLOBAL posix.system",
        ),
        ("KeyError: 'a\x1b[2J\x00'", r"KeyError: 'a\x1b[2J\x00'"),
        ("ValueError: " + "x" * 1_000, "ValueError: " + "x" * 288 + " …"),
    ],
)
def test_the_words_of_a_loader_are_one_printable_line(error, said):
    assert short(error) == said
