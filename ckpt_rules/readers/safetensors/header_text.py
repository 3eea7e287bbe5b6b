"""The text of a safetensors header, decoded in windows, so that memory stays bounded whatever its length."""

from __future__ import annotations

import codecs
import re
from typing import NoReturn, cast

from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage, read_exactly
from ckpt_rules.storage import Source

WINDOW_NBYTES = 1 << 20
MAX_ENTRY_NBYTES = 4 << 20
_WIDE_NBYTES = 4  # of a character in a text that holds one beyond ASCII

_SPACE = re.compile(r"[ \t\n\r]*")


class HeaderText:
    """A window on the bytes from `start` to `end` of a file: `text`, and the position `pos` in it.

    budget: drawn on for the text, since most of it is names, which are kept
    """

    def __init__(self, source: Source, start: int, end: int, budget: Budget) -> None:
        self.text = ""
        self.pos = 0
        self._source = source
        self._start = start  # byte in the file of text[0]
        self._unread = start
        self._end = end
        self._budget = budget
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def peek(self) -> str:
        """The next character that is not white space, '' at the end of the header."""
        while True:
            self.pos = cast("re.Match[str]", _SPACE.match(self.text, self.pos)).end()
            if self.pos < len(self.text):
                return self.text[self.pos]
            if not self._fill():
                return ""

    def expect(self, char: str) -> None:
        """Step over a character that must come next."""
        found = self.peek()
        if found != char:
            self.fail(f"{found!r} stands where {char!r} should" if found else f"the header ends before {char!r}")
        self.pos += 1

    def grow(self) -> bool:
        """Bring in more of an entry that continues past the window; False at the end of the header."""
        if len(self.text) - self.pos > MAX_ENTRY_NBYTES:
            raise Damage(
                "header-limit", f"one entry of the header is larger than {MAX_ENTRY_NBYTES:,} bytes", self.byte()
            )
        return self._fill()

    def byte(self, pos: int | None = None) -> int:
        """The byte in the file of a character of the window, the current one if none is given."""
        pos = self.pos if pos is None else pos
        return self._start + (pos if self.text.isascii() else len(self.text[:pos].encode()))

    def fail(self, reason: str, pos: int | None = None) -> NoReturn:
        """Give the header up."""
        at = self.byte(pos)
        raise Damage("header-json", f"the header is not valid JSON: {reason} (byte {at:,} of the file)", at)

    def _fill(self) -> bool:
        """Drop what was parsed and bring the next window in; False at the end of the header."""
        length = min(self._end - self._unread, WINDOW_NBYTES)
        if not length:
            return False
        data = read_exactly(self._source, self._unread, length)
        self._budget.charge(length * (1 if data.isascii() else _WIDE_NBYTES), "the header")
        pending = len(self._decoder.getstate()[0])
        self._start = self.byte()
        try:
            more = self._decoder.decode(data, final=self._unread + length == self._end)
        except UnicodeDecodeError as error:
            at = self._unread - pending + error.start
            raise Damage(
                "header-json", f"the header is not UTF-8: {error.reason} (byte {at:,} of the file)", at
            ) from None
        self.text, self.pos = self.text[self.pos :] + more, 0
        self._unread += length
        return True
