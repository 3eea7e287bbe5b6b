"""Tables, drawn by rich: wrapped to the width of a terminal, one row a line where nobody is looking."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from ckpt_rules.printable import printable
from ckpt_rules.reporters.style import Style

UNBOUNDED = 10_000
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan", "broken": "bold red"}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: Style, *, wrap: bool) -> str:
    """Rows under headings, the first column in bold. Without `wrap`, each row is one line, however long: `grep` likes it so."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    frame = box.SIMPLE_HEAD if wrap and style.unicode else None
    grid = Table(box=frame, show_edge=False, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=number == 0 or not wrap, style="bold" if number == 0 else None)
    for row in rows:
        grid.add_row(*(Text(printable(cell), style=_COLOURS.get(cell, "")) for cell in row))
    canvas = io.StringIO()
    console = Console(
        file=canvas,
        width=style.width if wrap else UNBOUNDED,
        force_terminal=style.colour,
        color_system="standard" if style.colour else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in canvas.getvalue().splitlines()) + "\n"
