"""JSON files: parsed as Python's json does, or a problem that names the byte."""

from __future__ import annotations

import math

import pytest

from ckpt_rules.readers.json.file import read_json
from ckpt_rules.storage import LocalSource
from tests.readers.sources import Bytes, codes


@pytest.fixture
def read(tmp_path):
    def make(data: bytes):
        (tmp_path / "f.json").write_bytes(data)
        with LocalSource(tmp_path / "f.json") as source:
            return read_json(source, "f.json")

    return make


def test_an_object_is_parsed(read):
    assert read(b'{"a": [1, 2.5, null, "\xc3\xa9"]}').value == {"a": [1, 2.5, None, "é"]}


def test_trainers_write_nan_and_infinity(read):
    value = read(b'{"loss": NaN, "best": -Infinity}').value
    assert math.isnan(value["loss"])
    assert value["best"] == -math.inf


@pytest.mark.parametrize(
    ("data", "code", "said", "offset"),
    [
        (b'{"a": 1', "syntax", "line 1, column 8: expecting ',' delimiter", 7),
        (b'{\n "\xc3\xa9": }', "syntax", "line 2, column 7", 9),
        (b"", "syntax", "line 1, column 1: expecting value", 0),
        (b'{"a": "\xff"}', "encoding", "byte 7 is not UTF-8", 7),
        (b"\xef\xbb\xbf{}", "encoding", "byte order mark", 0),
        (b"[" * 200_000, "limit", "nested too deeply", None),
        (b"[" * 300 + b"]" * 300, "limit", "nested too deeply: more than 200 levels", None),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "limit", "nested too deeply: more than 200 levels", None),
        (b"1" * 10_000, "limit", "more than the 4,300 digits", None),
        (b"[" + b"[]," * 2_000_000 + b"1]", "limit", "would exceed the 112 MiB memory limit", None),
        (b'\xff\xfe{\x00"\x00', "encoding", "byte 0 is not UTF-8", 0),
        ("é\n{".encode() + b"}", "syntax", "line 1, column 1", 0),
    ],
)
def test_what_is_no_json_says_where(read, data, code, said, offset):
    file = read(data)
    (problem,) = file.problems
    assert file.value is None
    assert (problem.code, problem.offset) == (code, offset)
    assert said in problem.message


def test_nesting_that_people_write_is_read(read):
    assert read(b"[" * 150 + b"]" * 150).problems == ()


def test_a_file_too_large_is_not_read():
    source = Bytes(b"{}", size=65 << 20)
    (problem,) = read_json(source, "f.json").problems
    assert problem.code == "limit"
    assert source.nbytes_read == 0


def test_a_file_that_shrinks_while_it_is_read():
    (problem,) = read_json(Bytes(b'{"a": 1', size=20), "f.json").problems
    assert (problem.code, problem.offset) == ("cut-short", 7)


def test_any_value_is_json(read):
    assert [read(data).value for data in (b"null", b"[1, 2]", b'"text"', b"7", b" {} \n")] == [
        None,
        [1, 2],
        "text",
        7,
        {},
    ]


def test_every_cut_of_an_object_is_a_problem(read):
    data = '{"a": [1, -2.5e3, null, true], "b\\u00e9": {"ü": "x"}}'.encode()
    assert read(data).problems == ()
    for keep in range(len(data)):
        assert codes(read(data[:keep])) in (["syntax"], ["encoding"]), keep
