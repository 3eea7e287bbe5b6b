"""Text from a checkpoint made safe to print: no escape sequence, control character or undecodable byte reaches a terminal."""

from __future__ import annotations

import re

LIMIT = 500
_BREAKS = re.compile(r"[\r\n]+")


def printable(text: str, limit: int | None = LIMIT) -> str:
    r"""One line that shows `text` exactly: what can't be printed reads `\x1b`, `\n`, `\udcff`.

    limit: characters after which the middle is left out, or None
    """
    if limit is not None:
        text = shortened(text, limit)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, limit: int) -> str:
    """The text; where it has more than `limit` characters, with so many words instead of its middle."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} [{len(text) - limit:,} characters left out] {text[-(limit // 2) :]}"


def sentence(text: str) -> str:
    """`printable`, for prose that its author may have broken into lines: it becomes one line with single spaces."""
    lines = (line.strip() for line in _BREAKS.split(text))
    return printable(" ".join(line for line in lines if line), limit=4 * LIMIT)
