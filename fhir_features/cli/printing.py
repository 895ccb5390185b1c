"""How tables are printed: aligned for people on a terminal, one line a row, whole and without colour, elsewhere."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence

Cell = str | int | dt.datetime | None


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows under their headings on standard output: numbers to the right, instants in UTC, nothing as `-`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, heading in enumerate(headings):
        is_number = bool(rows) and all(isinstance(row[number], int | None) for row in rows)
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold", no_wrap=not terminal)
    for row in rows:
        table.add_row(*(Text(written(cell)) for cell in row))
    # What reads a pipe wants its lines whole.
    console = Console(file=sys.stdout, width=None if terminal else 10_000, highlight=False)
    with console.capture() as printed:
        console.print(table)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))


def written(cell: Cell) -> str:
    """A cell as it is printed."""
    if cell is None:
        return "-"
    if isinstance(cell, dt.datetime):
        return f"{cell.astimezone(dt.UTC):%Y-%m-%d %H:%M:%SZ}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def size(count: int) -> str:
    """A number of bytes in the unit that fits it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
