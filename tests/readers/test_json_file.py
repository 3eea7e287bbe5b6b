"""JSON files: parsed as Python's json does, or a problem that names the byte."""

from __future__ import annotations

import math

import pytest

from ckpt_rules.readers.json_file import read_json
from ckpt_rules.storage import LocalSource


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
        (b"1" * 10_000, "limit", "digits", None),
    ],
)
def test_what_is_no_json_says_where(read, data, code, said, offset):
    file = read(data)
    (problem,) = file.problems
    assert file.value is None
    assert (problem.code, problem.offset) == (code, offset)
    assert said in problem.message
