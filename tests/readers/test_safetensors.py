"""The safetensors reader takes what the safetensors library takes, and says of the rest what is wrong and where."""

from __future__ import annotations

import json
import random
import struct

import pytest
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from ckpt_rules.readers.safetensors import DTYPES


def pack(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def library_takes(data: bytes) -> bool:
    try:
        deserialize(data)
    except SafetensorError:
        return False
    return True


def test_every_dtype_and_shape_that_torch_writes_is_understood(reader):
    tensors = {
        str(dtype).removeprefix("torch."): torch.zeros(2, 3, dtype=dtype)
        for dtype in (
            torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
            torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
            torch.float8_e5m2, torch.float8_e4m3fn,
        )
    }  # fmt: skip
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}
    file = reader.safetensors(save(tensors, metadata={"format": "pt"}))
    assert file.problems == ()
    assert file.metadata == {"format": "pt"}
    assert {n: (t.shape, t.nbytes) for n, t in file.tensors.items()} == {
        n: (tuple(t.shape), t.nbytes) for n, t in tensors.items()
    }
    for name in tensors.keys() - {"scalar", "empty"}:
        assert file.tensors[name].dtype == name


def test_offsets_are_bytes_of_the_file(reader):
    data = save({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])})
    file = reader.safetensors(data)
    for name, value in (("a", 1.0), ("b", 2.0)):
        at = file.tensors[name].offset
        assert struct.unpack("<f", data[at : at + 4]) == (value,)


@pytest.mark.parametrize(
    ("data", "code", "said", "offset"),
    [
        (b"", "cut-short", "the file has 0 bytes, fewer than the 8", 0),
        (b"1234567", "cut-short", "the file has 7 bytes, fewer than the 8", 0),
        (struct.pack("<Q", 1 << 63) + b"{}", "header-length", "claims 9,223,372,036,854,775,808 bytes", 0),
        (struct.pack("<Q", 100) + b"{}", "cut-short", "claims 100 bytes, and the file has only 2", 0),
        (pack(b"[]"), "header-json", "a JSON array, not an object", 8),
        (pack(b'{"a"'), "header-json", "no JSON at byte 12", 12),
        (pack(b'{"\xff":1}'), "header-json", "not UTF-8 at byte 10", 10),
        (pack(b'{"a": NaN}'), "header-json", "NaN is no JSON number", 8),
        (pack({"a": 1}), "header-json", "the tensor 'a' is described by a JSON number", None),
        (pack({"a": entry(dtype="F33")}), "dtype", "the tensor 'a' has the unknown dtype 'F33'", None),
        (pack({"a": entry(shape=[True])}, bytes(8)), "offsets", "has a shape of [True]", None),
        (pack({"a": entry(shape=[-1])}, bytes(8)), "offsets", "has a shape of [-1]", None),
        (pack({"a": entry(shape=[2.0])}, bytes(8)), "offsets", "has a shape of [2.0]", None),
        (pack({"a": entry(offsets=[0])}), "offsets", "are not two byte numbers", None),
        (pack({"a": entry(shape=[3])}, bytes(8)), "size", "takes 12 bytes, and its offsets span 8", None),
        (pack({"a": entry(shape=[1 << 63, 4], offsets=[0, 0])}), "offsets", "more elements than any file", None),
        (pack({"a": entry(dtype="F4", shape=[3], offsets=[0, 2])}, bytes(2)), "offsets", "12 bits, which are no whole", None),
        (pack({"a": entry(), "__metadata__": {"x": 1}}, bytes(8)), "metadata", "its values are not all strings", 8),
        (pack({"a": entry(), "__metadata__": []}, bytes(8)), "metadata", "a JSON array", 8),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused_with_the_place(reader, data, code, said, offset):
    assert not library_takes(data)
    (problem,) = [p for p in reader.safetensors(data).problems if p.code == code]
    assert said in problem.message
    assert problem.offset == offset


def test_a_file_cut_short_says_by_how_much_and_keeps_its_tensors(reader):
    data = save({"w": torch.zeros(100)})
    file = reader.safetensors(data[:-150])
    (problem,) = file.problems
    assert problem.code == "cut-short"
    assert (
        f"the file has {len(data) - 150:,} bytes and its header describes {len(data):,}: it was cut short by 150"
        in problem.message
    )
    assert list(file.tensors) == ["w"]


def test_bytes_that_no_tensor_owns_are_told_from_bytes_that_two_own(reader):
    gap = reader.safetensors(pack({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)))
    assert [(p.code, p.where) for p in gap.problems] == [("hole", "b")]
    assert "4 bytes between the tensor 'a' and the tensor 'b'" in gap.problems[0].message
    both = reader.safetensors(pack({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)))
    assert [(p.code, p.where) for p in both.problems] == [("overlap", "b")]
    longer = reader.safetensors(pack({"a": entry()}, bytes(11)))
    assert [p.code for p in longer.problems] == ["size"]
    assert "3 bytes belong to no tensor" in longer.problems[0].message


@pytest.mark.parametrize(
    "data",
    [
        pack({}),
        pack({"__metadata__": {"format": "pt"}}),
        pack({"a": entry(shape=[0, 5], offsets=[0, 0])}),
        pack({"a": entry(future="field")}, bytes(8)),
        pack(b' {"a": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   ', bytes(8)),
        pack({"é": entry()}, bytes(8)),
        pack({"__metadata__": None, "a": entry()}, bytes(8)),
    ],
)
def test_what_is_unusual_but_valid_is_taken(reader, data):
    assert library_takes(data)
    assert reader.safetensors(data).problems == ()


def test_a_header_of_deep_nesting_ends_as_a_problem(reader):
    raw = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    assert [p.code for p in reader.safetensors(pack(raw)).problems] == ["header-json"]


VALUES = [0, 1, 2, 7, 8, 12, -1, 1 << 31, 1 << 61, (1 << 64) - 1, 1 << 64, 1.0, 1.5, True, None, "8", [], {}, [1]]


def mutants(seed: int, count: int):
    """Headers of three tensors with a few fields replaced, and files cut or lengthened."""
    rng = random.Random(seed)
    for _ in range(count):
        header = {
            "a": entry("F32", [2, 2], [0, 16]),
            "b": entry(rng.choice(list(DTYPES)), [4], [16, rng.choice([18, 20, 24, 32, 48])]),
            "__metadata__": {"format": "pt"},
        }
        end = header["b"]["data_offsets"][1]
        header["c"] = entry("U8", [3], [end, end + 3])
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            mutate(rng, header)
        data = pack(header, bytes(end + 3))
        for _ in range(rng.choice([0, 0, 0, 1])):
            at = rng.randrange(len(data))
            data = rng.choice([data[:at], data + b"x", data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]])
        yield data


def mutate(rng: random.Random, header: dict) -> None:
    name = rng.choice("abc")
    field = rng.choice(["dtype", "shape", "data_offsets", "extra"])
    described = header[name] if isinstance(header[name], dict) else {}
    match rng.randrange(6):
        case 0:
            described[field] = rng.choice([*VALUES, "F16", "U8"])
        case 1:
            described.pop(field, None)
        case 2:
            header[name] = rng.choice(VALUES)
        case 3:
            described["shape"] = [rng.choice(VALUES) for _ in range(rng.randrange(3))]
        case 4:
            described["data_offsets"] = [rng.choice(VALUES) for _ in range(rng.choice([1, 2, 2, 2, 3]))]
        case 5:
            header["__metadata__"] = rng.choice([*VALUES, {"a": 1}, {"a": "b"}])


def test_the_reader_and_the_library_agree_on_thousands_of_mutants(reader):
    disagree = []
    taken = 0
    for data in mutants(seed=11, count=6_000):
        library = library_takes(data)
        ours = not reader.safetensors(data).problems
        taken += library
        if library != ours:
            disagree.append((library, data))
    assert disagree[:5] == []
    assert 300 < taken < 5_500
