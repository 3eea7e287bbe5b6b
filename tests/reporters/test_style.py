"""Colour, width and symbols by stream and environment; text made printable."""

from __future__ import annotations

import io

import pytest

from ckpt_rules.printable import printable, sentence
from ckpt_rules.reporters.style import Style


class Stream(io.StringIO):
    def __init__(self, encoding, terminal):
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "colour"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colour(terminal, environment, colour):
    assert Style.of(Stream("utf-8", terminal), environment).colour is colour


@pytest.mark.parametrize(
    ("encoding", "symbols"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("no-such", False)]
)
def test_symbols(encoding, symbols):
    assert Style.of(Stream(encoding, terminal=False), {}).unicode is symbols


@pytest.mark.parametrize(("columns", "width"), [("200", 80), ("60", 60), ("5", 40)])
def test_width_follows_a_terminal_up_to_80(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert Style.of(Stream("utf-8", terminal=True), {}).width == width
    assert Style.of(Stream("utf-8", terminal=False), {}).width == 80


def test_no_stream_at_all():
    assert Style.of(None, {}) == Style(unicode=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.safetensors", "model.safetensors"),
        ("größe", "größe"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("\udcff", r"\udcff"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_what_is_too_long_loses_its_middle():
    assert printable("a" * 300 + "b" * 300, limit=10) == "aaaaa [590 characters left out] bbbbb"


def test_a_sentence_may_be_broken_into_lines_by_its_author():
    assert sentence("\n  take this,\n    or that\x07 ") == r"take this, or that\x07"
