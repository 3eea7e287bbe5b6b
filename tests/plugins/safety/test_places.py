"""Where a payload may lie besides torch files: other archives, packed files, and behind another format's first bytes."""

from __future__ import annotations

import bz2
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib

import joblib
import numpy as np
import pytest
import torch

from ckpt_rules import verify
from ckpt_rules_safety.globals import UnsafeGlobal
from ckpt_rules_safety.pickles import MalformedPickle, NestedPickle, PickleLimit
from tests.plugins.safety.hostile import evil, saved, script, text

PAYLOAD = b"cos\nsystem\n" + text("true") + b"\x85R"
PROGRAM = b"\x80\x02" + PAYLOAD + b"."
OLD = b"cos\nsystem\n(S'true'\ntR."


def zipped(*entries, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def counted_from(before, *entries):
    """An archive that follows other bytes, whose offsets count from the first of them."""
    stream = io.BytesIO(before)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def unzipped(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    return [(name, archive.read(name)) for name in archive.namelist()]


def tarred(name, content, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for each, data in (("config.yaml", b"a: 1\n"), (name, content)):
            info = tarfile.TarInfo(each)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def before_ustar():
    """A tar archive as they were before they had a mark."""
    data = bytearray(tarred("weights", PROGRAM))
    for at in (0, 1024):
        data[at + 257 : at + 265] = bytes(8)
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def array(dtype, described=None):
    """An array of objects; `described` is how its header spells the dtype."""
    values = np.array([(1, evil())], dtype=dtype) if isinstance(dtype, list) else np.array([evil()], dtype=dtype)
    np.save(stream := io.BytesIO(), values, allow_pickle=True)
    if described is None:
        return stream.getvalue()
    longer = len(described) - len(b"'|O'")
    return stream.getvalue().replace(b"'|O'", described, 1).replace(b" " * longer + b"\n", b"\n", 1)


def dumped(value, compress):
    joblib.dump(value, stream := io.BytesIO(), compress=compress)
    return stream.getvalue()


def small_window(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, 9)
    return packer.compress(data) + packer.flush()


def saved_arrays(write, **arrays):
    write(stream := io.BytesIO(), **arrays)
    return stream.getvalue()


PLACES = {
    "a second folder": ("bundle.zip", zipped(("a/data.pkl", b"\x80\x02}."), ("a/version", b"3\n"), ("b/data.pkl", PROGRAM))),
    "no folder": ("bundle.zip", zipped(("x.txt", b"hello"), ("y", PROGRAM))),
    "below data/": ("model.pt", zipped(*unzipped(saved({})), ("archive/data/7", PROGRAM))),
    "protocol 0 below data/": ("model.pt", zipped(*unzipped(saved({})), ("archive/data/7", OLD))),
    "beside constants.pkl": ("model.pt", zipped(*unzipped(script()), ("archive/extra/x", PROGRAM))),
    "constants.pkl itself": ("model.pt", zipped(*unzipped(saved({})), ("archive/constants.pkl", PROGRAM))),
    "a weight of torch.export": (
        "model.pt2",
        zipped(("m/archive_format", b"pt2"), ("m/data/weights/weight_0", saved(evil()))),
    ),
    "a deflated entry": ("model.mar", zipped(("model.pt", saved(evil())), method=zipfile.ZIP_DEFLATED)),
    "an array in .npz": ("a.npz", saved_arrays(np.savez, n=np.ones(2), o=np.array([evil()], dtype=object))),
    "a compressed array in .npz": ("a.npz", saved_arrays(np.savez_compressed, n=np.ones(2), o=np.array([evil()], dtype=object))),
    "O": ("a.npy", array(object, b" 'O'")),
    "an escape": ("a.npy", array(object, rb"'\x7cO'")),
    "object": ("a.npy", array(object, b"'object'")),
    "a structure with an object": ("a.npy", array([("a", "f4"), ("b", "O")])),
    "zlib": ("a.joblib", zlib.compress(PROGRAM)),
    "zlib without compression": ("a.joblib", zlib.compress(PROGRAM, 0)),
    "bz2": ("a.joblib", bz2.compress(PROGRAM)),
    "xz": ("a.joblib", lzma.compress(PROGRAM)),
    "lzma": ("a.joblib", lzma.compress(PROGRAM, lzma.FORMAT_ALONE)),
    "zlib of protocol 0": ("weights.bin", zlib.compress(OLD)),
    "joblib": ("a.joblib", dumped([np.ones(3), evil()], 3)),
    "behind an array of joblib": ("a.joblib", dumped([np.ones(3), evil()], 0)),
    "an array of objects of joblib": ("a.joblib", dumped(np.array([evil(), 1], dtype=object), 0)),
    "a member of any name": ("model.nemo", tarred("./model_weights.ckpt", saved(evil()))),
    "a member with a long name": ("model.nemo", tarred("d/" * 80 + "w", PROGRAM)),
    "a packed tar": ("model.nemo", tarred("w", zlib.compress(PROGRAM), "w:gz")),
    "a tar without a mark": ("model.nemo", before_ustar()),
    "GGUF": ("model.gguf", b"GGUF\3\0\0\0\0" + b"0" + OLD),
    "safetensors": ("model.safetensors", b"GAAAAAAA{}00" + OLD),
    "the mark of a tar": ("model.pkl", b"\x80\x02X\xff\0\0\0" + b"a" * 250 + b"ustar0" + OLD),
    "protocol 0": ("weights.onnx", pickle.dumps(evil(), 0)),
    "protocol 1": ("weights.dat", pickle.dumps({"a": evil()}, 1)),
    "a zip that follows other bytes": ("model.zip", b"#!/bin/sh\n" * 90 + zipped(("m/data.pkl", PROGRAM))),
    "a torch file that follows other bytes": ("a.pt", b"JUNK" * 400 + saved(evil())),
    "a zip that follows text and counts from it": ("a.keras", counted_from(b"text\n" * 300, ("assets/a.pkl", PROGRAM))),
    "a zip that follows a pickle": ("a.pkl", pickle.dumps([1] * 600, 2) + zipped(("a", PROGRAM))),
    "a small zip that follows other bytes": ("a.npz", b"#!/bin/sh\n" + zipped(("x.pkl", PROGRAM))),
    "zlib with a small window": ("a.raw", small_window(PROGRAM)),
    "lzma with properties of its own": (
        "a.raw",
        lzma.compress(PROGRAM, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096, "lc": 1}]),
    ),
    "an entry packed with bzip2": ("a.zip", zipped(("x", PROGRAM), method=zipfile.ZIP_BZIP2)),
    "an entry packed with lzma": ("a.mar", zipped(("x", OLD), method=zipfile.ZIP_LZMA)),
    "protocol 0 and 2 kB before it": ("latest", b"(" + b"S'abcdefgh'\n" * 200 + b"l0" + OLD),
}  # fmt: skip


PACKED = {
    "zstd": b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello",
    "lz4": b"\x04\x22\x4d\x18\x64\x40\xa7" + struct.pack("<I", 5 | 1 << 31) + b"hello" + bytes(4),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", ["a.joblib", "model.pkl", "model.pt", "a.pkl.zst", "model.pt.lz4"])
def test_a_pickle_that_cannot_be_unpacked_here_is_a_warning(name, packing, put, run_rule):
    (found,) = run_rule(PickleLimit(), put(name, PACKED[packing])).findings
    assert (found.severity.value, found.place.path, found.place.offset) == ("warning", name, 0)
    assert f"compressed with {packing}, which is not unpacked here" in found.message


def test_zstd_after_a_frame_to_be_skipped(put, run_rule):
    path = put("a.pkl", b"\x50\x2a\x4d\x18\x04\0\0\0note" + PACKED["zstd"])
    found = run_rule(PickleLimit(), path).assert_one(path="a.pkl", severity="warning", data={"code": "packed"})
    assert "compressed with zstd" in found.message


def test_an_entry_that_cannot_be_unpacked_here_is_a_warning(put, run_rule):
    data = zipped(("x.pkl", PROGRAM))
    for at, shift in ((data.index(b"PK\3\4"), 8), (data.index(b"PK\1\2"), 10)):
        data = data[: at + shift] + struct.pack("<H", 93) + data[at + shift + 2 :]
    found = run_rule(PickleLimit(), put("a.skops", data)).assert_one(path="a.skops", key="x.pkl", severity="warning")
    assert found.message.startswith("'x.pkl' is compressed with method 93, which is not unpacked here")


@pytest.mark.parametrize("name", ["0.0", "log.txt.zst", "data.parquet"])
def test_other_packed_files_are_not_told(name, put, run_rule):
    run_rule(PickleLimit(), put(name, PACKED["zstd"])).assert_passed()


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_in(place, put, run_rule):
    name, data = PLACES[place]
    result = run_rule(UnsafeGlobal(), put(name, data))
    assert {f.data["global"] for f in result.findings} <= {"posix.system", "os.system", "nt.system"}
    assert [(f.place.path, f.severity.value) for f in result.findings] == [(name, "error")]


@pytest.mark.parametrize("place", PLACES)
def test_the_file_alone_fails(place, put):
    name, data = PLACES[place]
    report = verify(put(name, data) / name)
    assert report.verdict.value == "failed"
    assert "pickle/unsafe-global" in {f.rule for f in report.findings}


CLEAN = {
    "an archive of arrays": ("a.npz", saved_arrays(np.savez, a=np.ones(3), b=np.arange(4))),
    "a compressed archive of arrays": ("a.npz", saved_arrays(np.savez_compressed, a=np.ones(300), b=np.arange(4))),
    "fields that are called O": ("a.npy", saved_arrays(lambda f: np.save(f, np.zeros(2, [("Ox", "f4"), ("b", "i8")])))),
    "a torch file in a tar": ("model.nemo", tarred("model_weights.ckpt", saved({"a": torch.ones(2)}))),
    "a torch file in a zip": ("model.zip", zipped(("policy.pth", saved({"a": torch.ones(2)})), ("data", b"{}"))),
    "TorchScript": ("model.pt", script()),
    "joblib": ("a.joblib", dumped({"a": np.ones(3), "b": np.array(["x", "yy"]), "c": np.ones((2, 2), order="F")}, 0)),
    "joblib's objects": ("a.joblib", dumped({"o": np.array([1, "a"], dtype=object), "z": np.arange(3)}, 0)),
    "joblib with zlib": ("a.joblib", dumped({"a": np.arange(400.0), "b": np.zeros((0, 3))}, True)),
    "joblib with xz": ("a.joblib", dumped({"a": np.arange(400.0)}, "xz")),
    "a text that begins with c": (".gitignore", b"cache\nbuild\n.venv\n"),
    "a text that begins with i": ("run.py", b"import os\nos\nimport sys\n"),
    "a text packed with zlib": ("log.z", zlib.compress(b"step 1 loss 2\n" * 400)),
    "GGUF": ("model.gguf", b"GGUF\3\0\0\0" + struct.pack("<QQ", 2, 3) + bytes(64)),
}  # fmt: skip


@pytest.mark.parametrize("sample", CLEAN)
def test_a_clean_file_is_no_finding(sample, put):
    name, data = CLEAN[sample]
    for path in (put(name, data), put(name, data) / name):
        report = verify(path, select=["pickle/*", "zip/*", "safetensors/*", "config/*", "files/wrong-format"])
        assert [(f.rule, f.message) for f in report.findings] == []
        assert report.counts.crashed == 0


def test_what_joblib_skips_is_no_hole_for_what_follows(put, run_rule):
    path = put("a.joblib", dumped([np.ones(3), evil()], 0))
    found = run_rule(UnsafeGlobal(), path).findings
    assert [f.place.key for f in found] == ["object"]
    run_rule(MalformedPickle(), path).assert_passed()


def test_a_foreign_entry_of_a_torch_file_is_told_and_one_of_another_archive_is_not(put, run_rule):
    found = run_rule(NestedPickle(), put("model.pt", zipped(*unzipped(saved({})), ("archive/data/7", PROGRAM))))
    assert [f.severity.value for f in found.findings] == ["error"]
    run_rule(NestedPickle(), put("model.pt", zipped(("policy.pth", saved({}))))).assert_passed()


@pytest.mark.parametrize("pack", [zlib.compress, bz2.compress, lzma.compress])
def test_what_unpacks_to_too_much_is_said(pack, put):
    report = verify(put("a.joblib", pack(b"\x80\x04\x8e" + struct.pack("<Q", 100 << 20) + bytes(100 << 20) + b".")))
    assert [f.place.path for f in report.findings if f.rule == "pickle/limit"] == ["a.joblib"]
    assert report.counts.crashed == 0


@pytest.mark.parametrize("sample", sorted(CLEAN.keys() - {"TorchScript"}))
def test_a_clean_file_alone_is_no_failure(sample, put):
    name, data = CLEAN[sample]
    report = verify(put(name, data) / name)
    assert [(f.rule, f.message) for f in report.findings] == []
    assert report.counts.crashed == 0
