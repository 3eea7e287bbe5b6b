"""The torch reader tells what torch.load would give, without running the file or reading its tensors."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pathlib
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch

from ckpt_rules.facts.tensors import Opaque, TensorInfo
from ckpt_rules.readers import pickle_machine


def saved(value, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def trained() -> dict:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(3):
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    return {
        "epoch": 3,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "nested": [(1, 2.5, None, True, "text", b"bytes"), {"a": {"b": -(2**40)}}, {1, 2}, 3 + 4j],
    }


def same(ours: object, theirs: object, at: str = "value") -> None:
    """The tree that was read is the tree that torch loads; tensors by dtype, shape, and value where they have no shape."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, TensorInfo), at
        assert f"torch.{ours.dtype}" == str(theirs.dtype), at
        assert ours.shape == tuple(theirs.shape), at
        assert ours.nbytes == theirs.numel() * theirs.element_size(), at
        if not ours.shape and not theirs.is_complex():
            assert ours.value == theirs.item(), at
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict), at
        assert list(ours) == list(theirs), at
        for key in theirs:
            same(ours[key], theirs[key], f"{at}.{key}")
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list | tuple), at
        assert len(ours) == len(theirs), at
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{at}[{i}]")
    elif isinstance(theirs, complex):
        assert isinstance(ours, Opaque), at
        assert ours.args == (theirs.real, theirs.imag), at
    else:
        assert ours == theirs, at


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_state_of_a_trained_model_reads_as_torch_loads_it(reader, legacy):
    data = saved(trained(), legacy=legacy)
    file = reader.torch(data)
    assert (file.container, file.readable, file.problems) == ("legacy" if legacy else "zip", True, ())
    same(file.value, torch.load(io.BytesIO(data), weights_only=True))
    assert file.value["optimizer"]["state"][0]["step"].value == 3.0
    assert {g.dotted for g in file.globals} >= {"torch._utils._rebuild_tensor_v2", "collections.OrderedDict"}


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


LEGACY_LACKS = {torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2}


@pytest.mark.parametrize(
    ("dtype", "legacy"), [(d, False) for d in DTYPES] + [(d, True) for d in DTYPES if d not in LEGACY_LACKS], ids=str
)
def test_every_dtype_with_and_without_dimensions(reader, dtype, legacy):
    data = saved({"scalar": torch.ones((), dtype=dtype), "matrix": torch.ones(2, 3).to(dtype)}, legacy=legacy)
    file = reader.torch(data)
    assert file.problems == ()
    if dtype.itemsize > 1 or not dtype.is_floating_point:
        same(file.value, torch.load(io.BytesIO(data), weights_only=True))
    assert file.value["matrix"].nbytes == 6 * dtype.itemsize


def test_a_saved_view_drags_its_whole_storage(reader):
    file = reader.torch(saved(torch.arange(100, dtype=torch.float32).reshape(10, 10)[2:4, ::2]))
    assert file.problems == ()
    assert (file.value.shape, file.value.nbytes, file.value.storage_nbytes) == ((2, 5), 40, 400)


def test_tied_tensors_share_a_storage(reader):
    tensor = torch.ones(3)
    value = reader.torch(saved({"a": tensor, "b": tensor, "c": torch.ones(3)})).value
    assert value["a"].storage == value["b"].storage != value["c"].storage


def test_objects_of_other_classes_are_kept_shut(reader):
    value = reader.torch(
        saved(
            {
                "args": argparse.Namespace(lr=0.1),
                "path": pathlib.PurePosixPath("a/b"),
                "counter": collections.Counter("aab"),
                "scalar": np.float64(2.5),
                "integer": np.int64(-7),
                "array": np.arange(4),
                "layer": torch.nn.Linear(2, 2),
                "parameter": torch.nn.Parameter(torch.ones(2)),
                "dtype": torch.bfloat16,
            }
        )
    ).value
    assert (value["args"].type, value["args"].state) == ("argparse.Namespace", {"lr": 0.1})
    assert (value["path"], value["counter"]) == ("a/b", {"a": 2, "b": 1})
    assert (value["scalar"], value["integer"]) == (2.5, -7)
    assert value["array"].type.endswith("multiarray._reconstruct")
    assert value["layer"].type == "torch.nn.modules.linear.Linear"
    assert value["parameter"].shape == (2,)
    assert value["dtype"] == "torch.bfloat16"


def rewrite(data: bytes, change) -> bytes:
    """The same archive with `change(name, content)` for each entry; None drops it."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                archive.writestr(name, content)
    return target.getvalue()


def only(file, code: str):
    found = [p for p in file.problems if p.fatal]
    assert [p.code for p in found] == [code], found
    return found[0]


def test_a_zip_cut_short_says_that_its_directory_is_missing(reader):
    data = saved(trained())
    problem = only(reader.torch(data[: len(data) // 2]), "cut-short")
    assert f"the file was cut short, at {len(data) // 2:,} bytes" in problem.message


def test_a_storage_that_is_missing_or_of_another_size(reader):
    data = saved({"w": torch.zeros(10)})
    gone = only(reader.torch(rewrite(data, lambda n, c: None if n.endswith("data/0") else c)), "storage-missing")
    assert gone.message == "the storage '0' of 40 bytes is not in the file"
    short = only(reader.torch(rewrite(data, lambda n, c: c[:-8] if n.endswith("data/0") else c)), "storage-size")
    assert short.message == "the storage '0' holds 32 bytes where its tensors need 40"


def test_an_archive_without_a_pickle(reader):
    data = rewrite(saved({"w": 1}), lambda n, c: None if n.endswith("data.pkl") else c)
    assert "has no 'archive/data.pkl'" in only(reader.torch(data), "no-pickle").message


def test_an_entry_whose_own_header_is_damaged(reader):
    data = bytearray(saved({"w": torch.zeros(10)}))
    at = data.rindex(b"PK\x03\x04", 0, data.index(b"data/0"))
    data[at : at + 4] = b"XXXX"
    problem = only(reader.torch(bytes(data)), "entry-header")
    assert (problem.where, problem.offset) == ("archive/data/0", at)


def test_the_directory_of_a_large_archive_is_found_through_its_64_bit_record(reader):
    data = saved({"w": torch.zeros(10)})
    end = data.rindex(b"PK\x05\x06")
    count, nbytes, start = struct.unpack_from("<H2L", data, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, nbytes, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    wide = (
        data[:end]
        + record
        + locator
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )
    assert torch.load(io.BytesIO(wide))["w"].shape == (10,)
    assert reader.torch(wide).problems == ()


def test_a_legacy_file_cut_short_names_the_storage(reader):
    data = saved({"w": torch.zeros(100)}, legacy=True)
    problem = only(reader.torch(data[:-300]), "cut-short")
    assert "of 400 bytes starts at byte" in problem.message
    assert f"the file ends at {len(data) - 300:,}" in problem.message


def test_a_bare_pickle_and_what_follows_it(reader):
    file = reader.torch(pickle.dumps({"a": [1]}, protocol=4) + b"more")
    assert (file.container, file.value, file.protocol) == ("pickle", {"a": [1]}, 4)
    assert [(p.code, p.fatal) for p in file.problems] == [("not-torch", True), ("trailing-data", False)]
    assert "torch.load refuses it" in file.problems[0].message


def test_text_is_no_torch_file(reader):
    assert only(reader.torch(b"hello"), "not-torch").offset == 0


class Evil:
    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nothing_is_executed_and_what_would_be_is_named(reader, tmp_path, legacy):
    marker = tmp_path / "ran"
    file = reader.torch(saved({"a": Evil(marker)}, legacy=legacy))
    assert not marker.exists()
    assert file.value["a"].type == "posix.system"
    (found,) = [g for g in file.globals if g.dotted == "posix.system"]
    assert found.offset > 0


def test_what_a_broken_pickle_asked_for_is_kept(reader):
    file = reader.torch(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R\xff")
    assert [g.dotted for g in file.globals] == ["os.system"]
    assert not file.readable
    assert "opcode 0xff" in only(file, "pickle").message


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"\x80\x02" + b"(" * 100_000 + b".", "limit", "nests deeper than 2,000"),
        (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".", None, ""),
        (b"\x80\x02" + b"]" * 1_100_000 + b".", "limit", "builds more than 1,000,000 objects"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "pickle", "announces 9,223,372,036,854,775,807 bytes"),
        (b"\x80\x02I" + b"9" * 10_000 + b"\n.", "pickle", "can't be carried out"),
        (b"\x80\x02\x82\x07.", "pickle", "copyreg extension 7"),
        (b"\x80\x06.", "pickle", "has protocol 6"),
        (b"\x80\x02", "pickle", "without its STOP opcode"),
        (b"\x80\x02.", "pickle", ""),
        (b"\x80\x02h\x05.", "pickle", "never stored"),
    ],
)  # fmt: skip
def test_a_pickle_made_to_exhaust_or_confuse_ends_as_a_problem(reader, data, code, said):
    file = reader.torch(data)
    if code is None:
        assert (file.readable, file.value) == (True, None)
    else:
        assert said in only(file, code).message


def test_a_key_whose_hash_would_never_end_is_refused(reader):
    deep = b"\x80\x02)" + b"2\x86" * 64
    problem = only(reader.torch(deep + b"}q\x00" + b"0" + b"h\x00" + b"1"[:0] + deep[2:] + b"Ns."), "limit")
    assert "a key has more than 1,000 parts" in problem.message


def test_a_structure_that_holds_itself_is_read(reader):
    loop: list = []
    loop.append(loop)
    value = reader.torch(pickle.dumps(loop, protocol=2)).value
    assert value[0] is value


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(reader, protocol):
    value = {"a": (1, -1, 300, 70_000, 2**70, 1.5, None, True, False), "b": [b"x" * 300, "é" * 300], "c": {1}, "d": ()}
    result = pickle_machine.unpickle(pickle.dumps(value, protocol), _NoBuilder(), stream="p")
    if protocol < 3:  # bytes are a call in the old protocols
        result.value["b"][0] = value["b"][0]
    if protocol < 4:  # and so are sets
        result.value["c"] = value["c"]
    assert result.value == value


class _NoBuilder:
    def build(self, function, args):
        return Opaque(str(function), args)

    def persistent(self, pid):
        return pid


def test_a_truncated_file_is_always_a_problem(reader):
    for legacy in (False, True):
        data = saved({"w": torch.ones(5), "step": torch.tensor(3.0)}, legacy=legacy)
        for keep in range(1, len(data)):
            file = reader.torch(data[:keep])
            assert any(p.fatal for p in file.problems), (legacy, keep)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_torch_refuses_is_a_problem_after_any_flipped_byte(reader, legacy):
    """Names outside torch's list are facts of their own, and devices that it does not know yield to map_location."""
    data = saved({"w": torch.ones(5, 3), "step": torch.tensor(3.0), "n": [1, "a"]}, legacy=legacy)
    rng = random.Random(5)
    missed = []
    for at in range(len(data)):
        broken = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        file = reader.torch(broken)
        if any(p.fatal for p in file.problems):
            continue
        try:
            torch.load(io.BytesIO(broken), weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises whatever its parsers raise
            if "Unsupported global" not in str(error) and "restore data location" not in str(error):
                missed.append((at, broken[max(0, at - 8) : at + 8], str(error)))
    assert missed == []
