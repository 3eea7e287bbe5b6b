"""Whatever lies in a checkpoint directory: a finding or a clear error, never an exception, a hang, or a pass.

Each case builds a clean checkpoint, spoils it in one way and names the finding that must be there. That no other *error*
appears is asserted too: one fault is reported once.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import zipfile

import pytest

from ckpt_rules import Severity, Verdict, verify
from ckpt_rules.testing import build_plain_torch

STATE, WEIGHTS, CONFIG = "training_state.pth", "model.safetensors", "config.json"


@pytest.fixture
def clean(tmp_path):
    return build_plain_torch(tmp_path / "ck")


def errors(report) -> set[tuple[str, str]]:
    return {(f.rule, f.place.path) for f in report.findings if f.severity is Severity.ERROR}


def crashes(report) -> list[str]:
    return [o.crash.traceback for o in report.outcomes if o.crash]


def check(ck) -> set[tuple[str, str]]:
    report = verify(ck.path)
    assert crashes(report) == []
    assert report.verdict is not Verdict.PASSED
    return errors(report)


def test_the_clean_checkpoint_passes_strictly_with_no_finding(clean):
    report = verify(clean.path, strict=True)
    assert (report.findings, report.verdict) == ([], Verdict.PASSED)


@pytest.mark.parametrize(
    ("spoil", "rule", "place"),
    [
        (lambda ck: ck.empty(WEIGHTS), "files/empty", WEIGHTS),
        (lambda ck: ck.empty(STATE), "files/empty", STATE),
        (lambda ck: ck.empty(CONFIG), "files/empty", CONFIG),
        (lambda ck: ck.truncate(WEIGHTS, keep=0.9), "weights/broken-safetensors", WEIGHTS),
        (lambda ck: ck.truncate(STATE, keep=0.9), "weights/broken-torch-file", STATE),
        (lambda ck: ck.replace(WEIGHTS, struct.pack("<Q", 1 << 63) + b"{}"), "weights/broken-safetensors", WEIGHTS),
        (lambda ck: ck.replace(WEIGHTS, bytes(5000)), "weights/broken-safetensors", WEIGHTS),
        (lambda ck: ck.replace(CONFIG, b"{"), "state/unreadable", CONFIG),
        (lambda ck: ck.replace(CONFIG, b"[1, 2]"), "state/unreadable", CONFIG),
        (lambda ck: ck.replace(CONFIG, b"[" * 100_000), "state/unreadable", CONFIG),
        (lambda ck: ck.replace(STATE, b"<!DOCTYPE html><html>quota exceeded</html>"), "files/placeholder", STATE),
        (lambda ck: ck.replace(STATE, bytes(4096)), "weights/broken-torch-file", STATE),
        (lambda ck: ck.replace(STATE, saved([1, 2, 3])), "state/unreadable", STATE),
        (lambda ck: ck.replace(STATE, saved("epoch 3")), "state/unreadable", STATE),
        (lambda ck: ck.replace(STATE, pickle.dumps(None)), "weights/broken-torch-file", STATE),
        (lambda ck: ck.replace(WEIGHTS, saved({})), "files/wrong-format", WEIGHTS),
        (lambda ck: ck.set_key(STATE, "epoch", -1), "progress/invalid", STATE),
        (lambda ck: ck.set_key(STATE, "epoch", float("nan")), "progress/invalid", STATE),
        (lambda ck: ck.set_key(STATE, "epoch", "three"), "progress/invalid", STATE),
        (lambda ck: ck.set_key(STATE, "epoch", 10**400), "progress/invalid", STATE),
        (lambda ck: ck.set_key(STATE, "step", True), "progress/invalid", STATE),
        (lambda ck: ck.set_key(STATE, "total_batches", 0), "progress/invalid", STATE),
        (
            lambda ck: ck.set_key(STATE, "optimizer_state_dict.param_groups.0.lr", float("inf")),
            "optimizer/bad-hyperparameter",
            STATE,
        ),
    ],
)
def test_a_spoiled_file_is_reported_once(clean, spoil, rule, place):
    spoil(clean)
    assert check(clean) == {(rule, place)}


def saved(value) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


WRONG = [None, True, -1, 1.5, 2**70, "text", [], [[]], {}, {"a": {}}, (1, 2), float("nan"), b"\xff"]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(
    "key",
    [
        "epoch", "step", "total_batches", "global_step",
        "optimizer_state_dict", "optimizer_state_dict.state", "optimizer_state_dict.state.0",
        "optimizer_state_dict.state.0.step", "optimizer_state_dict.state.0.exp_avg",
        "optimizer_state_dict.param_groups", "optimizer_state_dict.param_groups.0",
        "optimizer_state_dict.param_groups.0.params", "optimizer_state_dict.param_groups.0.lr",
        "optimizer_state_dict.param_groups.0.betas", "optimizer_state_dict.param_groups.0.eps",
        "scheduler_state_dict", "scheduler_state_dict.last_epoch", "scheduler_state_dict._last_lr",
        "scheduler_state_dict.base_lrs", "scheduler_state_dict._step_count",
        "scaler_state_dict", "scaler_state_dict.scale", "rng_state",
    ],
)  # fmt: skip
def test_a_value_of_any_wrong_type_in_any_field_crashes_nothing(clean, key, value):
    clean.set_key(STATE, key, value)
    report = verify(clean.path)
    assert crashes(report) == []


@pytest.mark.parametrize("value", [w for w in WRONG if not isinstance(w, bytes)], ids=repr)
@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "num_hidden_layers", "model_type", "architectures", "head_dim"]
)
def test_a_configuration_value_of_any_wrong_type_crashes_nothing(clean, key, value):
    clean.set_key(CONFIG, key, value)
    assert crashes(verify(clean.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [WEIGHTS, STATE, CONFIG])
def test_a_file_cut_at_any_length_is_never_a_pass(clean, name):
    whole = (clean / name).read_bytes().rstrip()
    cuts = sorted({*range(min(len(whole), 200)), *range(0, len(whole), max(1, len(whole) // 150)), len(whole) - 1})
    for keep in cuts:
        clean.replace(name, whole[:keep])
        report = verify(clean.path)
        assert crashes(report) == [], keep
        assert {place for _, place in errors(report)} == {name}, keep


def test_special_files_beside_the_real_ones_do_not_hang(clean):
    os.mkfifo(clean / "fifo.pt")
    (clean / "loop").symlink_to("loop")
    (clean / "broken.safetensors").symlink_to("/nowhere/blob")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(clean.path)
        server.bind("sock.bin")
    assert check(clean) == {
        ("files/unreadable", "fifo.pt"),
        ("files/unreadable", "loop"),
        ("files/unreadable", "broken.safetensors"),
        ("files/unreadable", "sock.bin"),
    }


def test_a_device_in_the_place_of_the_weights(clean):
    clean.remove(WEIGHTS)
    (clean / WEIGHTS).symlink_to("/dev/zero")
    assert ("files/unreadable", WEIGHTS) in check(clean)


def test_names_that_are_no_utf8_are_printed_escaped(clean):
    with open(os.fsencode(clean.path) + b"/\xff\x1b[31m.pt", "wb") as file:
        file.write(b"")
    for form in ("text", "json"):
        run = cli("verify", str(clean.path), "--format", form)
        assert run.returncode == 1
        assert b"\x1b[31m" not in run.stdout
        assert b"Traceback" not in run.stderr
    assert json.loads(run.stdout)["counts"]["errors"] == 1


def test_a_zip_whose_directory_lies_about_sizes(clean):
    data = bytearray((clean / STATE).read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    clean.replace(STATE, bytes(data))
    assert check(clean) == {("weights/broken-torch-file", STATE), ("pickle/limit", STATE)}


def test_a_zip_bomb_in_the_place_of_the_state(clean):
    with zipfile.ZipFile(clean / STATE, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as entry:
            for _ in range(600):
                entry.write(bytes(1 << 20))
        archive.writestr("archive/version", "3\n")
    assert check(clean) == {("pickle/limit", STATE)}


class Evil:
    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_a_command_runs_nothing(clean, tmp_path):
    marker = tmp_path / "ran"
    clean.edit(STATE, lambda state: {**state, "extra": Evil(marker)})
    report = verify(clean.path)
    assert not marker.exists()
    assert any("posix.system" in f.message or "posix.system" in str(f.data) for f in report.findings)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "does not exist"),
        (os.mkfifo, "not a directory"),
        (lambda p: p.mkdir(), "empty"),
    ],
    ids=["absent", "fifo", "empty"],
)
def test_a_path_that_holds_no_checkpoint_fails_and_says_what_it_is(tmp_path, make, said):
    make(tmp_path / "ck")
    report = verify(tmp_path / "ck")
    (finding,) = [f for f in report.findings if f.severity is Severity.ERROR]
    assert finding.rule in {"files/missing-checkpoint", "weights/missing"}
    assert said in finding.message
    assert report.exit_code == 1


def test_files_that_vanish_after_the_listing(clean, monkeypatch):
    from ckpt_rules.storage import LocalStorage

    real = LocalStorage.open

    def vanish(self, path):
        if path == WEIGHTS:
            raise FileNotFoundError(2, "No such file or directory")
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "open", vanish)
    assert check(clean) == {("files/unreadable", WEIGHTS)}


def test_an_io_error_in_the_middle_of_a_file(clean, monkeypatch):
    from ckpt_rules.storage import LocalSource

    real = LocalSource.read

    def fail(self, offset, length):
        if offset > 1024:
            raise OSError(5, "Input/output error")
        return real(self, offset, length)

    monkeypatch.setattr(LocalSource, "read", fail)
    report = verify(clean.path)
    assert crashes(report) == []
    assert report.verdict is not Verdict.PASSED


def cli(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ckpt_rules", *arguments], capture_output=True, check=False, timeout=60
    )


@pytest.mark.slow
def test_a_checkpoint_of_hostile_sizes_stays_within_200_mb(clean):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}}).encode()
    clean.replace("a.safetensors", struct.pack("<Q", 40_000_000) + b"{" + b" " * 40_000_000)
    clean.replace("b.safetensors", struct.pack("<Q", len(header)) + header)
    clean.replace("c.pt", b"\x80\x02" + b"(" * 50_000_000)
    code = (
        "import sys; from ckpt_rules import verify; r = verify(sys.argv[1]);"
        "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(r.verdict.value, int(peak) // 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, clean.path], capture_output=True, check=True, text=True, timeout=120
    )
    verdict, megabytes = run.stdout.split()
    assert verdict == "failed"
    assert int(megabytes) < 200
