"""zip/ambiguous, zip/traversal, zip/compressed and safetensors/hidden-data: what two readers understand in two ways."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save

from ckpt_rules_safety.archives import AmbiguousZip, CompressedZip, ZipTraversal
from ckpt_rules_safety.hidden_data import HiddenData
from tests.plugins.safety.hostile import saved, with_pickle

DATA = saved({"w": torch.arange(4.0)})
CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def loads(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def changed(offset, layout, value, *, mark=CENTRAL):
    """The archive with one field of its first directory entry, or of its first entry's own header."""
    data = bytearray(DATA)
    struct.pack_into(layout, data, data.index(mark) + offset, value)
    return bytes(data)


def twice():
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        for name in ("data.pkl", "DATA.PKL"):
            archive.writestr(f"archive/{name}", b"\x80\x02}.")
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def stuffed():
    """Bytes between the last entry and the directory, to which the end record still points."""
    end = DATA.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<L", DATA, end + 16)[0]
    data = bytearray(DATA[:start] + b"\x80\x02}." * 100 + DATA[start:])
    for mark, at in ((b"PK\x06\x06", 48), (b"PK\x06\x07", 8), (b"PK\x05\x06", 16)):
        if mark in data:
            struct.pack_into(
                "<L", data, data.rindex(mark) + at, struct.unpack_from("<L", data, data.rindex(mark) + at)[0] + 400
            )
    return bytes(data)


AMBIGUOUS = {
    "a name twice": (twice(), "the zip directory lists 'archive/DATA.PKL' twice, and readers differ in which they take"),
    "another name": (DATA.replace(b"archive/data/0", b"archive/data/9", 1), "the entry's own header calls it 'archive/data/9'"),
    "another method": (changed(8, "<H", 8, mark=LOCAL), "the entry's own header gives the compression method 8, the directory 0"),
    "encrypted": (changed(6, "<H", 0x809, mark=LOCAL), "differ in whether it is encrypted"),
    "bytes behind": (DATA + b"PK\x05\x06", "4 bytes follow the end of the zip archive"),
    "bytes between": (stuffed(), "bytes before the zip directory belong to no entry of the zip archive"),
    "checksum": (changed(16, "<L", 1), "do not have the checksum 0x00000001 that was stored with them"),
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_torch_loads_and_others_read_otherwise(case, put, run_rule):
    data, said = AMBIGUOUS[case]
    loads(data)
    run_rule(AmbiguousZip(), put("model.pt", data)).assert_one(path="model.pt", severity="error", message=said)


def test_storages_that_belong_to_no_tensor(put, run_rule):
    data = with_pickle(b"\x80\x02}.", **{"data/0": bytes(64), "data/1": bytes(8)})
    run_rule(AmbiguousZip(), put("model.pt", data)).assert_one(
        path="model.pt",
        key="archive/data/0",
        severity="warning",
        message="2 storages with 72 bytes belong to no tensor, such as 'archive/data/0'",
    )


@pytest.mark.parametrize("name", ["../../.bashrc", "/etc/passwd", "a/../../b", "..\\x", "C:\\x"])
def test_names_that_lead_out(name, put, run_rule):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr(name, b"")
    finding = run_rule(ZipTraversal(), put("model.pt", stream.getvalue())).assert_one(path="model.pt", severity="error")
    assert finding.message == f"unpacked, the entry '{name}' would land outside of its directory"


def test_dots_in_names_are_no_way_out(put, run_rule):
    run_rule(ZipTraversal(), put("model.pt", with_pickle(b"\x80\x02}.", **{"a..b": b"", "..c/d": b""}))).assert_passed()


def test_compressed(put, run_rule):
    data = with_pickle(b"\x80\x02}.", method=zipfile.ZIP_DEFLATED)
    assert loads(data) == {}
    run_rule(CompressedZip(), put("model.pt", data)).assert_one(
        path="model.pt",
        severity="warning",
        message="3 entries are compressed, such as 'archive/data.pkl'; torch.save stores them as they are",
    )


@pytest.mark.parametrize("rule", [AmbiguousZip(), ZipTraversal(), CompressedZip(), HiddenData()], ids=lambda r: r.id)
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_what_the_libraries_write(rule, put, run_rule):
    path = put("model.pt", DATA)
    put("old.pt", saved({"w": torch.ones(2)}, legacy=True))
    put("model.safetensors", save({"w": torch.ones(2)}, metadata={"format": "pt", "ss_tags": "x" * 10_000}))
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path / "script.pt"))
    run_rule(rule, path).assert_passed()


def header(text, nbytes=8):
    return len(text).to_bytes(8, "little") + text + bytes(nbytes)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HIDDEN = {
    "twice": (
        header(b'{"w":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"w":' + json.dumps(ENTRY).encode() + b"}"),
        "the header lists 'w' twice; loaders take the last",
    ),
    "fields": (header(json.dumps({"w": {**ENTRY, "note": "x"}}).encode()), "tensor 'w' has further fields: 'note'"),
    "white space": (header(json.dumps({"w": ENTRY}).encode() + b" " * 5_000), "5,000 bytes of white space follow"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_hidden_in_a_header(case, put, run_rule):
    data, said = HIDDEN[case]
    run_rule(HiddenData(), put("model.safetensors", data)).assert_one(
        path="model.safetensors", severity="error", message=said
    )
