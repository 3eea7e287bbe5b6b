"""The torch reader tells what torch.load would give, without running the file or reading its tensors."""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import random
import struct
import warnings

import numpy as np
import pytest
import torch

from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.readers import windows
from ckpt_rules.readers.torch.file import read_torch_file
from tests.readers.sources import Bytes, rewrite, saved


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


def test_a_view_in_a_legacy_file_is_found_inside_its_storage(reader):
    numbers = torch.arange(100, dtype=torch.float64)
    data = saved({"slice": numbers[90:], "one": numbers[42]}, legacy=True)
    file = reader.torch(data)
    assert file.problems == ()
    assert file.value["one"].value == 42.0
    assert file.value["slice"].storage == file.value["one"].storage
    assert (file.value["slice"].nbytes, file.value["slice"].storage_nbytes) == (80, 800)


def test_the_bytes_of_a_storage_lie_at_its_offset(reader):
    for legacy in (False, True):
        data = saved({"a": torch.tensor([1.5, 2.5]), "b": torch.tensor([-7], dtype=torch.int64)}, legacy=legacy)
        value = reader.torch(data).value
        assert struct.unpack_from("<2f", data, value["a"].offset) == (1.5, 2.5)
        assert struct.unpack_from("<q", data, value["b"].offset) == (-7,)


def test_numbers_written_on_a_big_endian_machine(reader):
    data = saved({"f": torch.tensor(1.5), "i": torch.tensor(258), "h": torch.tensor(3.0, dtype=torch.bfloat16)})
    sizes = {"data/0": 4, "data/1": 8, "data/2": 2}

    def swap(name, content):
        return b"big" if name.endswith("byteorder") else content[::-1] if name[8:] in sizes else content

    value = reader.torch(rewrite(data, swap)).value
    assert {k: t.value for k, t in value.items()} == {"f": 1.5, "i": 258, "h": 3.0}


def test_tensors_of_every_other_kind(reader):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are on their way out
        quantised = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    wrapped = torch.nn.Parameter(torch.ones(2))
    wrapped.note = "kept on the parameter"
    saved_value = {
        "quantised": quantised,
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(4, 5, device="meta"),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "with a state": wrapped,
        "buffer": torch.nn.Buffer(torch.zeros(3)),
        "empty": torch.zeros(0, 3),
        "packed": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "storage": torch.ones(3).untyped_storage(),
    }
    file = reader.torch(saved(saved_value))
    assert file.problems == ()
    assert {k: (t.dtype, t.shape, t.nbytes) for k, t in file.value.items()} == {
        "quantised": ("qint8", (2, 3), 6),
        "sparse": ("float32", (3, 3), 2 * 3 * 8 + 3 * 4),
        "meta": ("float32", (4, 5), 80),
        "parameter": ("float32", (2,), 8),
        "with a state": ("float32", (2,), 8),
        "buffer": ("float32", (3,), 12),
        "empty": ("float32", (0, 3), 0),
        "packed": ("float4_e2m1fn_x2", (4,), 4),
        "conjugate": ("complex64", (2,), 16),
        "storage": ("uint8", (12,), 12),
    }


def test_the_state_of_random_number_generators(reader):
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}  # noqa: NPY002
    value = reader.torch(saved(state)).value
    assert value["python"] == random.getstate()
    assert value["numpy"][0] == "MT19937"
    assert value["torch"].shape == torch.get_rng_state().shape
    keys = value["numpy"][1]
    assert keys.type.endswith("_reconstruct")
    assert keys.state[1] == (624,)
    assert len(keys.state[4]) == 624 * 4


def test_what_a_whole_module_holds_is_reached_through_its_state(reader):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    for legacy in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source of torch's own classes is kept as well
            file = reader.torch(saved(model, legacy=legacy))
        assert (file.readable, file.problems) == (True, ())
        linear = file.value.state["_modules"]["0"]
        assert (linear.type, linear.state["_parameters"]["weight"].shape) == ("torch.nn.modules.linear.Linear", (3, 2))


def test_more_objects_of_the_standard_library(reader):
    value = reader.torch(
        saved(
            {
                "complex": 3 - 4j,
                "bytearray": bytearray(b"ab"),
                "bytes": b"",
                "frozenset": frozenset({1, (2, 3)}),
                "default": collections.defaultdict(list, a=[1]),
                "deque": collections.deque([1, 2]),
                "size": torch.Size([2, 3]),
                "device": torch.device("cuda", 1),
                "layout": torch.sparse_coo,
                "class": torch.nn.Linear,
                "shape-keyed": {(1, 2): "x"},
            }
        )
    ).value
    assert value == {
        "complex": 3 - 4j,
        "bytearray": b"ab",
        "bytes": b"",
        "frozenset": frozenset({1, (2, 3)}),
        "default": {"a": [1]},
        "deque": [1, 2],
        "size": (2, 3),
        "device": "cuda:1",
        "layout": "torch.sparse_coo",
        "class": "torch.nn.modules.linear.Linear",
        "shape-keyed": {(1, 2): "x"},
    }


def test_tensor_bytes_are_not_read():
    value = {"w": torch.zeros(500_000), "step": torch.tensor(3.0)}
    for legacy in (False, True):
        source = Bytes(saved(value, legacy=legacy))
        assert read_torch_file(source, "x.pt").problems == ()
        assert source.nbytes_read < 800_000  # the start and the end, of 2,000,000 bytes


def test_a_pickle_longer_than_a_window_is_the_same(reader, monkeypatch):
    data = saved(trained(), legacy=True)
    whole = reader.torch(data)
    monkeypatch.setattr(windows, "FIRST_NBYTES", 64)
    assert reader.torch(data) == whole


def test_python_2_names_are_reported_as_python_3_has_them(reader):
    file = reader.torch(saved({"s": {1, 2}, "r": range(3)}))
    assert [g.dotted for g in file.globals] == ["builtins.set", "builtins.range"]
    assert {g.stream for g in file.globals} == {"archive/data.pkl"}


def test_the_offset_of_a_global_is_that_of_its_opcode_in_the_stream(reader):
    for legacy in (False, True):
        data = saved(collections.OrderedDict(a=1), legacy=legacy)
        (found,) = reader.torch(data).globals
        start = data.index(b"\x80\x02ccollections")
        assert (found.offset, data[start + found.offset : start + found.offset + 1]) == (2, b"c")
        assert found.stream == ("object" if legacy else "archive/data.pkl")


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


def test_a_torchscript_archive_is_told_from_a_saved_state(reader):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(torch.nn.Linear(2, 3))
        stream = io.BytesIO()
        torch.jit.save(script, stream)
    file = reader.torch(stream.getvalue())
    assert (file.container, file.readable) == ("torchscript", True)
    assert [p for p in file.problems if p.fatal] == []
    assert file.value.state["weight"].shape == (3, 2)
