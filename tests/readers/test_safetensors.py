"""The safetensors reader: what it returns, what it refuses, and that the library agrees."""

from __future__ import annotations

import json
import random
import struct

import pytest
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import save

from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.readers.safetensors import header_text
from ckpt_rules.readers.safetensors.file import read_safetensors
from tests.readers.sources import Bytes, codes, fatal

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def packed(header, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(data: bytes):
    return read_safetensors(Bytes(data), "model.safetensors")


def refused(data: bytes) -> bool:
    try:
        deserialize(data)
    except SafetensorError:
        return True
    return False


def test_every_dtype_that_torch_saves_comes_back_with_name_shape_and_bytes():
    import torch

    names = [
        "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
        "float16", "bfloat16", "float32", "float64", "complex64",
        "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu", "float8_e5m2fnuz", "float8_e4m3fnuz",
    ]  # fmt: skip
    saved = {name: torch.zeros(2, 3, dtype=getattr(torch, name)) for name in names}
    file = read(save(saved, metadata={"format": "pt"}))
    assert file.problems == ()
    assert file.metadata == {"format": "pt"}
    assert {n: (t.dtype, t.shape, t.nbytes) for n, t in file.tensors.items()} == {
        n: (n, (2, 3), t.nbytes) for n, t in saved.items()
    }


def test_offsets_are_bytes_of_the_file():
    data = packed({"a": ENTRY, "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}}, bytes(11))
    file = read(data)
    assert file.header_nbytes == len(data) - 11 - 8
    assert file.tensors["b"] == TensorInfo("uint8", (3,), 3, len(data) - 3)
    assert file.size == len(data)


def test_a_value_lies_at_its_offset():
    import torch

    data = save({"a": torch.tensor([1.0]), "b": torch.tensor([2.0])})
    tensors = read(data).tensors
    assert [struct.unpack_from("<f", data, tensors[n].offset) for n in "ab"] == [(1.0,), (2.0,)]


def test_only_the_header_is_read():
    data = packed({"a": {"dtype": "U8", "shape": [5000], "data_offsets": [0, 5000]}}, bytes(5000))
    source = Bytes(data)
    assert read_safetensors(source, "x").problems == ()
    assert source.furthest == len(data) - 5000


def test_a_file_without_tensors_is_valid():
    assert (read(packed({})).problems, read(packed({})).tensors) == ((), {})


W = {"w": ENTRY}
TEXT = json.dumps(W).encode()


def with_entry(**fields) -> dict:
    return {"w": {**ENTRY, **fields}}


VALID = {
    "a name twice, the last counts": (TEXT[:-1] + b"," + TEXT[1:], 8),
    "a name twice, the first does not fit": (b'{"w":{"dtype":"F32","shape":[7],"data_offsets":[0,8]},' + TEXT[1:], 8),
    "a name twice, the first does not fit, in the usual form": (
        (
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[7],"data_offsets":[1,9]},'
            b'"w":{"dtype":"U8","shape":[7],"data_offsets":[1,8]}}'
        ),
        8,
    ),
    "unknown fields": (with_entry(note={"a": [1, 2.5, None]}), 8),
    "unknown fields twice": (TEXT.replace(b"}}", b', "x": 1, "x": 2}}'), 8),
    "white space before the brace": (b" \n\t" + TEXT + b" \r\n", 8),
    "no metadata but null": ({"__metadata__": None, **W}, 8),
    "a scalar": ({"s": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]}}, 8),
    "no elements": ({"e": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}, 0),
    "no elements, in the middle": ({"z": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]}, **W}, 8),
    "entries in any order": ({"b": {"dtype": "U8", "shape": [1], "data_offsets": [8, 9]}, **W}, 9),
    "half bytes in pairs": ({"f": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, 2),
    "a structure as a list": ({"w": ["F32", [2], [0, 8]]}, 8),
    "a variant as a map": (with_entry(dtype={"F32": None}), 8),
    "escapes in names": (b'{"\\u0077\\n\\ud83d\\ude00":' + TEXT[5:], 8),
    "names beyond ASCII": ({"wéight 權重": ENTRY}, 8),
    "125 levels in an unknown field": (TEXT.replace(b"}}", b', "x": ' + b"[" * 125 + b"]" * 125 + b"}}"), 8),
}


@pytest.mark.parametrize("case", VALID)
def test_what_the_library_accepts_is_accepted(case):
    header, nbytes = VALID[case]
    data = packed(header, bytes(nbytes))
    assert not refused(data)
    file = read(data)
    assert not fatal(file)
    assert set(codes(file)) == ({"hidden"} if "twice" in case or "unknown" in case else set())
    assert sum(t.nbytes for t in file.tensors.values()) == nbytes


BROKEN = {
    "no JSON": (b"{nonsense", 8, "header-json"),
    "an array": (b"[]", 0, "header-json"),
    "nothing": (b"", 0, "header-json"),
    "text after the brace": (TEXT + b"\0", 8, "header-json"),
    "two objects": (TEXT + b"{}", 8, "header-json"),
    "a byte order mark": (b"\xef\xbb\xbf" + TEXT, 8, "header-json"),
    "bytes that are no UTF-8": (TEXT.replace(b'"w"', b'"w\xff"'), 8, "header-json"),
    "half of a surrogate pair": (TEXT.replace(b'"w"', b'"w\\ud800"'), 8, "header-json"),
    "a control character": (TEXT.replace(b'"w"', b'"w\x01"'), 8, "header-json"),
    "NaN in a shape": (with_entry(shape=[float("nan")]), 8, "header-json"),
    "NaN in an unknown field": (with_entry(x=float("nan")), 8, "header-json"),
    "a number too large for a double": (TEXT.replace(b"}}", b', "x": 1e400}}'), 8, "header-json"),
    "an integer too large for a double": (with_entry(x=10**400), 8, "header-json"),
    "an integer of 5,000 digits": (TEXT.replace(b"}}", b', "x": ' + b"1" * 5000 + b"}}"), 8, "header-json"),
    "127 levels": (TEXT.replace(b"}}", b', "x": ' + b"[" * 126 + b"]" * 126 + b"}}"), 8, "header-json"),
    "100,000 levels": (TEXT.replace(b"}}", b', "x": ' + b"[" * 100_000), 8, "header-json"),
    "a tensor that is a number": ({"w": 7}, 0, "header-json"),
    "a tensor that is null": ({"w": None}, 0, "header-json"),
    "no dtype": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, 8, "header-json"),
    "dtype twice": (TEXT.replace(b'"dtype"', b'"dtype": "F32", "dtype"'), 8, "header-json"),
    "an unknown dtype": (with_entry(dtype="F33"), 8, "dtype"),
    "a dtype that is a number": (with_entry(dtype=32), 8, "dtype"),
    "a boolean in a shape": (with_entry(shape=[True, 2]), 8, "header-json"),
    "a float in a shape": (with_entry(shape=[2.0]), 8, "header-json"),
    "a negative size": (with_entry(shape=[-2]), 8, "header-json"),
    "minus zero": (TEXT.replace(b"[2]", b"[-0]"), 0, "header-json"),
    "a leading zero": (TEXT.replace(b"[2]", b"[02]"), 8, "header-json"),
    "a size of 2^64": (with_entry(shape=[2**64]), 8, "header-json"),
    "elements that overflow, then none": (with_entry(shape=[2**40, 2**40, 0], data_offsets=[0, 0]), 0, "offsets"),
    "a shape that is text": (with_entry(shape="2"), 8, "header-json"),
    "a negative offset": (with_entry(data_offsets=[-8, 0]), 8, "offsets"),
    "a float offset": (with_entry(data_offsets=[0, 8.0]), 8, "offsets"),
    "three offsets": (with_entry(data_offsets=[0, 8, 8]), 8, "offsets"),
    "offsets backwards": (with_entry(data_offsets=[8, 0]), 8, "offsets"),
    "an offset of 2^64": (with_entry(data_offsets=[0, 2**64]), 8, "offsets"),
    "a span that is not a multiple": (with_entry(shape=[3]), 8, "offsets"),
    "half a byte left over": ({"f": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, 1, "offsets"),
    "three quarters of a byte": ({"f": {"dtype": "F6_E2M3", "shape": [1], "data_offsets": [0, 1]}}, 1, "offsets"),
    "metadata that is a list": ({"__metadata__": [], **W}, 8, "metadata"),
    "metadata that is a tensor": ({"__metadata__": ENTRY}, 8, "metadata"),
    "a number in the metadata": ({"__metadata__": {"step": 3}, **W}, 8, "metadata"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{},' + TEXT[1:], 8, "metadata"),
    "a hole at the start": (with_entry(data_offsets=[8, 16]), 16, "hole"),
    "a byte too many": (W, 9, "size"),
    "a byte too few": (W, 7, "cut-short"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_the_library_refuses_is_refused_under_a_name(case):
    header, nbytes, code = BROKEN[case]
    data = packed(header, bytes(nbytes))
    assert refused(data)
    file = read(data)
    assert code in codes(file)
    assert fatal(file)


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "cut-short", 0),
        (b"\x08\0\0\0", "cut-short", 4),
        (struct.pack("<Q", 2**63) + b"{}", "header-length", 0),
        (struct.pack("<Q", 100_000_001) + b"{}", "header-length", 0),
        (struct.pack("<Q", 500) + b"{}", "cut-short", 10),
        (struct.pack("<Q", 500) + b"\0" * 80, "header-length", 0),
        (bytes(5000), "header-json", 8),
    ],
)
def test_a_header_length_that_can_not_be(data, code, offset):
    (problem,) = read(data).problems
    assert (problem.code, problem.offset, problem.fatal) == (code, offset, True)


def test_messages_name_the_tensor_the_numbers_and_the_byte():
    header = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]},
        "b": {"dtype": "U8", "shape": [4], "data_offsets": [16, 20]},
        "c": {"dtype": "U8", "shape": [4], "data_offsets": [24, 28]},
    }
    data = packed(header, bytes(40))
    start = len(data) - 40
    found = {p.code: (p.message, p.offset, p.where) for p in read(data).problems}
    assert found == {
        "offsets": ("tensor 'a' takes 24 bytes as F32 [2, 3], but its data_offsets 0 to 20 span 20", 9, "a"),
        "overlap": ("tensor 'b' begins at data offset 16, inside 'a', which continues to 20", start + 16, "b"),
        "hole": ("4 bytes between 'a' and 'c' belong to no tensor", start + 20, "c"),
        "size": (
            f"the file has {start + 40} bytes and its header describes {start + 28}: 12 bytes belong to no tensor",
            start + 28,
            None,
        ),
    }


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"dtype": "F33", "shape": [2], "data_offsets": [8, 16]}, "dtype"),
        ({"dtype": "F32"}, "header-json"),
        (3, "header-json"),
    ],
)
def test_valid_tensors_are_returned_beside_broken_ones(bad, code):
    header = {"bad": bad, **W}
    file = read(packed(header, bytes(16)))
    assert codes(file) == [code]
    assert file.tensors == {"w": TensorInfo("float32", (2,), 8, len(packed(header)))}


def test_a_file_cut_in_its_data_keeps_every_tensor_and_says_how_much_is_gone():
    data = packed(W, bytes(8))
    file = read(data[:-5])
    (problem,) = file.problems
    assert list(file.tensors) == ["w"]
    assert (
        problem.message
        == f"the file has {len(data) - 5} bytes and its header describes {len(data)}: it was cut short by 5"
    )


def test_a_file_that_shrinks_while_it_is_read():
    data = packed(W, bytes(8))
    file = read_safetensors(Bytes(data[:30], size=len(data)), "x")
    (problem,) = file.problems
    assert (problem.code, problem.offset) == ("cut-short", 30)
    assert f"though it was {len(data)} bytes long when it was opened" in problem.message


def test_a_header_with_countless_faults_yields_a_hundred_and_the_number_of_the_rest():
    header = {f"t{i}": {"dtype": "NONE", "shape": [1], "data_offsets": [0, 1]} for i in range(1000)}
    problems = read(packed(header, b"\0")).problems
    assert len(problems) == 101
    assert problems[-1].message == "900 further problems like these"


def test_a_header_longer_than_a_window_is_the_same(monkeypatch):
    header = {f"wéight.{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(200)}
    data = packed({"__metadata__": {"note": "é" * 300}, **header}, bytes(200))
    whole = read(data)
    monkeypatch.setattr(header_text, "WINDOW_NBYTES", 37)
    in_windows = read(data)
    assert in_windows == whole
    assert len(whole.tensors) == 200
    assert whole.problems == ()


def test_an_entry_of_many_megabytes_is_refused_instead_of_held():
    file = read(packed(b'{"__metadata__":{"x":"' + b"a" * 6_000_000 + b'"}}'))
    assert codes(file) == ["header-limit"]


def test_the_library_that_opens_files_agrees_with_the_one_that_reads_bytes(tmp_path):
    for case, (header, nbytes, _) in BROKEN.items():
        (tmp_path / "x.safetensors").write_bytes(packed(header, bytes(nbytes)))
        with pytest.raises(SafetensorError):
            safe_open(tmp_path / "x.safetensors", "pt").__enter__()
        assert case


class Mutants:
    """Headers like those of a real file, with one to three fields spoiled."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def file(self) -> bytes:
        header, nbytes = self.sound()
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            header = self.vary(header)
        for _ in range(self.rng.choice([0, 0, 0, 1, 1, 2])):
            self.spoil(header)
        text = json.dumps(header, separators=self.rng.choice([(",", ":"), (", ", ": ")])).encode()
        if self.rng.random() < 0.2:
            text = self.spoil_text(text)
        data = bytes(max(0, nbytes + self.rng.choice([0] * 20 + [-1, 1, 8])))
        length = len(text) + self.rng.choice([0] * 20 + [1, -1, 2**63])
        whole = packed(text, data, length)
        return whole[: self.rng.randrange(len(whole))] if self.rng.random() < 0.05 else whole

    def sound(self) -> tuple[dict, int]:
        header: dict = {"__metadata__": {"format": "pt"}} if self.rng.random() < 0.5 else {}
        reached = 0
        for i in range(self.rng.randrange(5)):
            dtype, bits = self.rng.choice(
                [("F32", 32), ("BF16", 16), ("U8", 8), ("F4", 4), ("F6_E2M3", 6), ("C64", 64)]
            )
            shape = [self.rng.choice([0, 1, 2, 4, 8]) for _ in range(self.rng.randrange(3))]
            numel = 1
            for size in shape:
                numel *= size
            end = reached + (numel * bits + 7) // 8
            header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [reached, end]}
            reached = end
        return header, reached

    def vary(self, header: dict) -> dict:
        """Change what the format leaves free, mostly."""
        kind = self.rng.randrange(4)
        if kind == 0:
            return dict(self.rng.sample(list(header.items()), len(header)))
        if kind == 1:
            end = self.rng.choice([0, 0, 1, 2, 4])
            return {
                **header,
                "empty": {"dtype": "F32", "shape": [0, self.rng.choice([3, 2**40])], "data_offsets": [end, end]},
            }
        if kind == 2 and header:
            name = self.rng.choice(list(header))
            return {**header, name: {**header[name], "note": self.value()}}
        return {n: dict(reversed(e.items())) for n, e in header.items()}

    def spoil(self, header: dict) -> None:
        names = [n for n in header if isinstance(header[n], dict)]
        if not names:
            header["new"] = self.value()
            return
        entry = header[self.rng.choice(names)]
        field = self.rng.choice(["dtype", "shape", "data_offsets", "extra", "drop", "list"])
        if field == "drop":
            entry.pop(self.rng.choice(list(entry)), None) if entry else None
        elif field == "list" and isinstance(entry.get("shape"), list):
            target = self.rng.choice(["shape", "data_offsets"])
            if isinstance(entry.get(target), list) and entry[target]:
                entry[target][self.rng.randrange(len(entry[target]))] = self.value()
        elif field == "dtype":
            entry["dtype"] = self.rng.choice(["F16", "U8", "F33", "f32", "F4", "C128", None, 3, {"F32": None}, ["F32"]])
        else:
            entry[field] = self.value()

    def value(self):
        rng = self.rng
        numbers = [
            0,
            1,
            2,
            4,
            8,
            16,
            -1,
            1.0,
            2**32,
            2**63,
            2**64 - 1,
            2**64,
            10**30,
            10**310,
            float("nan"),
            float("inf"),
        ]
        lists = [[], [0], [0, 4], [1, 2], [4, 0], [0, 0, 0], [2**33, 2**33], [[1]]]
        return rng.choice([*numbers, *lists, True, None, "x", "\ud800", {}, {"a": {}}])

    def spoil_text(self, text: bytes) -> bytes:
        rng = self.rng
        at = rng.randrange(len(text) + 1)
        pieces = [bytes([byte]) for byte in b' ,"{}[]:0-1.e\\\0\xff\n']
        pieces += [
            "é".encode(),
            b"\\u00e9",
            b"\\ud83d",
            b'"dtype":"F32",',
            b"null",
            b"NaN",
            b"1e999",
            b"\xed\xa0\x80",
            b"00",
        ]
        kind = rng.randrange(3)
        if kind == 0:
            return text[:at] + rng.choice(pieces) + text[at:]
        if kind == 1:
            return text[:at] + text[at + rng.randrange(1, 4) :]
        return text[:at] + rng.choice(pieces) + text[at + 1 :]


@pytest.mark.parametrize("seed", range(8))
def test_mutants_are_refused_exactly_when_the_library_refuses_them(seed, monkeypatch):
    mutants = Mutants(seed)
    monkeypatch.setattr(header_text, "WINDOW_NBYTES", 1 << (4 + 2 * seed))
    seen = {True: 0, False: 0}
    for number in range(1000):
        data = mutants.file()
        ours, theirs = read(data), refused(data)
        assert fatal(ours) == theirs, (seed, number, data, ours.problems)
        seen[theirs] += 1
        if not theirs:
            assert {n: list(t.shape) for n, t in ours.tensors.items()} == {n: t["shape"] for n, t in deserialize(data)}
    assert min(seen.values()) > 150


def test_every_truncation_is_refused_as_the_library_does():
    import torch

    data = save({"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.uint8)})
    assert not fatal(read(data))
    for keep in range(len(data)):
        assert fatal(read(data[:keep])), keep
        assert refused(data[:keep]), keep


def test_every_flipped_byte_of_a_header_is_judged_as_the_library_does():
    import torch

    data = save({"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.uint8)}, metadata={"format": "pt"})
    start = len(data) - 16
    for at in range(start):
        for mask in (1, 16, 128, 255):
            spoiled = bytearray(data)
            spoiled[at] ^= mask
            assert fatal(read(bytes(spoiled))) == refused(bytes(spoiled)), (at, mask)


def test_a_dtype_that_is_not_known_is_refused_whatever_its_offsets_span():
    entries = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "NOPE", "shape": [1], "data_offsets": [4, 3]},
        "c": {"dtype": "F32", "shape": [1], "data_offsets": [3, 7]},
    }
    header = json.dumps(entries, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(7)
    found = read(data)
    assert refused(data)
    assert next((p.code, p.where) for p in found.problems if p.fatal) == ("dtype", "b")
    assert "b" not in found.tensors
