"""How text looks on one stream: its width, whether it may have colour, and which symbols its encoding can carry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import TextIO

WIDTH = 80
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_SYMBOLS = {
    "passed": ("✓", "+"),
    "error": ("✗", "x"),
    "warning": ("!", "!"),
    "info": ("i", "i"),
    "crashed": ("✗", "x"),
    "skipped": ("-", "-"),
}
_COLOURS = {"passed": "green", "error": "red", "warning": "yellow", "info": "cyan", "crashed": "red", "skipped": "dim"}


@dataclass(frozen=True, slots=True)
class Style:
    """Plain text in 80 columns unless told otherwise.

    colour:   whether ANSI colours are wanted
    unicode:  whether symbols beyond ASCII can be written
    width:    columns
    terminal: whether somebody looks at it as it comes
    """

    colour: bool = False
    unicode: bool = True
    width: int = WIDTH
    terminal: bool = False

    @classmethod
    def of(cls, stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> Style:
        """What suits a stream: NO_COLOR and FORCE_COLOR decide, else whether it is a terminal."""
        terminal = stream is not None and stream.isatty()
        if environment.get("NO_COLOR"):
            colour = False
        elif environment.get("FORCE_COLOR", "0") not in {"", "0"}:
            colour = True
        else:
            colour = terminal and environment.get("TERM") != "dumb"
        columns = shutil.get_terminal_size((WIDTH, 24)).columns if terminal else WIDTH
        return cls(colour, _can_write(stream, "✓✗"), max(40, min(columns, WIDTH)), terminal)

    def paint(self, text: str, *colours: str) -> str:
        """The text in colour, where that is wanted."""
        if not (self.colour and text and colours):
            return text
        return f"\x1b[{';'.join(_CODES[c] for c in colours)}m{text}\x1b[0m"

    def symbol(self, kind: str) -> str:
        """The mark in front of a line: `passed`, `error`, `warning`, `info`, `crashed` or `skipped`."""
        return self.paint(_SYMBOLS[kind][0 if self.unicode else 1], _COLOURS[kind])

    def severity(self, kind: str) -> str:
        """The word for a severity or status, in its colour, padded to the width of the longest."""
        return self.paint(f"{kind:<7}", _COLOURS.get(kind, "dim"), *(["bold"] if kind == "error" else []))

    def wrapped(self, text: str, indent: str = "", first: str | None = None) -> list[str]:
        """Lines that fit the width; words, paths and names stay whole. `first` indents the first line, `indent` the others."""
        first = indent if first is None else first
        return wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [first.rstrip()]


def _can_write(stream: TextIO | None, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
