"""Checkpoints made to exhaust whoever looks at them: the whole command stays below 200 MB, ends, and does not pass."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest

MOST_MIB = 200
# The peak is asked of the process itself: what wait4 tells of a child includes the parent that it was forked from.
RUN = """
import sys
from ckpt_rules.cli import main
code = main(["verify", sys.argv[1], "--format", "json"])
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(code, int(peak) // 1024, file=sys.stderr)
"""


def header(entries, nbytes=0, padding=0):
    raw = json.dumps(entries).encode() + b" " * padding
    return struct.pack("<Q", len(raw)) + raw + bytes(nbytes)


def tensors(count, suffix="weight"):
    return {
        f"model.layers.{i}.{suffix}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i in range(count)
    }


def file(name, data):
    return lambda folder: (folder / name).write_bytes(data())


def a_million_tensors(folder):
    (folder / "model.safetensors").write_bytes(header(tensors(1_000_000), 4_000_000))


def shards_of_a_hundred_thousand(folder):
    for s in range(1, 7):
        (folder / f"model-{s:05d}-of-00006.safetensors").write_bytes(header(tensors(100_000, f"w{s}"), 400_000))


def names_of_a_megabyte():
    return header({("é" if i % 2 else "a") * (1 << 20) + str(i): tensors(1).popitem()[1] for i in range(40)}, 4)


def index_of_a_million():
    names = {f"model.layers.{i}.w": "model-00001-of-00002.safetensors" for i in range(1_000_000)}
    return json.dumps({"metadata": {}, "weight_map": names}).encode()


def pickles_that_are_read_one_after_the_other(folder):
    for i in range(5):
        (folder / f"s{i}.pkl").write_bytes(b"\x80\x02(" + b"]" * 1_000_000 + b"t.")


def deflated_entries(folder):
    with zipfile.ZipFile(folder / "model.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        for i in range(6):
            archive.writestr(f"archive/x{i}.pkl", b"\x80\x02" + bytes(60 << 20))


def entries_without_end(folder):
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        for i in range(60_000):
            archive.writestr(f"archive/data/{i}", b"")


def sparse_terabytes(folder):
    for i in range(1, 9):
        with (folder / f"pytorch_model-{i:05d}-of-00008.bin").open("wb") as stream:
            stream.truncate(1 << 40)


HOSTILE = {
    "a million tensors": a_million_tensors,
    "six shards of 100,000 tensors": shards_of_a_hundred_thousand,
    "names of a megabyte": file("model.safetensors", names_of_a_megabyte),
    "a header of 100 MB": file("model.safetensors", lambda: header({}, 0, 99_999_998)),
    "a header of 2^63 bytes": file("model.safetensors", lambda: struct.pack("<Q", 1 << 63) + b"{}"),
    "a header of brackets": file(
        "model.safetensors", lambda: struct.pack("<Q", 50_000_000) + b'{"a":' + b"[" * 49_999_995
    ),
    "an index of a million": file("model.safetensors.index.json", index_of_a_million),
    "brackets of JSON": file("config.json", lambda: b"[" * 30_000_000),
    "empty lists of JSON": file("config.json", lambda: b"[" + b"[]," * 20_000_000 + b"1]"),
    "one wide character": file("config.json", lambda: b'["' + b"a" * 50_000_000 + "😀".encode() + b'"]'),
    "pickles, one after the other": pickles_that_are_read_one_after_the_other,
    "calls in a pickle": file("s.pkl", lambda: b"\x80\x02(cos\nsystem\nq\0" + b"h\0)R" * 900_000 + b"t."),
    "a text in a pickle": file("s.pkl", lambda: b"\x80\x04X" + struct.pack("<I", 60 << 20) + bytes(60 << 20) + b"."),
    "pickles in a pickle": file(
        "s.pkl", lambda: pickle.dumps([b"\x80\x02(" + b"]" * 600_000 + bytes([i]) + b"t." for i in range(60)])
    ),
    "a gzip bomb": file("s.pkl.gz", lambda: gzip.compress(bytes(1 << 28), 1)),
    "a zip bomb of entries": deflated_entries,
    "60,000 entries": entries_without_end,
    "sparse terabytes": sparse_terabytes,
}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells a process its own peak")
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_stays_below_the_budget_and_nothing_passes(name, tmp_path):
    HOSTILE[name](tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path], capture_output=True, text=True, timeout=120, check=True
    )
    code, peak = map(int, ended.stderr.split())
    report = json.loads(ended.stdout)
    assert code in (1, 2)
    assert report["verdict"] != "passed"
    assert peak < MOST_MIB
    assert not [o["rule"] for o in report["outcomes"] if o["status"] == "crashed"]
