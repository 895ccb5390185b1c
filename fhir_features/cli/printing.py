"""How results are printed: as a table, for people on a terminal, and aligned, one line a row, whole and without colour,
elsewhere; or as JSON, for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
from collections.abc import Sequence

Cell = str | int | float | dt.date | None


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows under their headings on standard output: numbers to the right, instants in UTC, nothing as `-`.

    Without rows nothing is printed: to say that there are none is for the command.
    """
    if not rows:
        return
    cells = [tuple(written(cell) for cell in row) for row in rows]
    are_numbers = [all(isinstance(row[number], int | float | None) for row in rows) for number in range(len(headings))]
    if sys.stdout.isatty():
        _print_for_people(headings, cells, are_numbers)
        return
    columns = zip(headings, *cells, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for line in (tuple(headings), *cells):
        shown = (
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        )
        print("  ".join(shown).rstrip())


def _print_for_people(headings: Sequence[str], cells: list[tuple[str, ...]], are_numbers: list[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, is_number in zip(headings, are_numbers, strict=True):
        # A number is never broken into two lines.
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def print_json(result: object) -> None:
    """Print a result as JSON: of a dataclass its fields, instants and dates in ISO 8601, paths as text."""
    print(json.dumps(result, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def written(cell: Cell) -> str:
    """A cell as it is printed."""
    if cell is None:
        return "-"
    if isinstance(cell, dt.datetime):
        return f"{cell.astimezone(dt.UTC):%Y-%m-%d %H:%M:%SZ}"
    return f"{cell:,}" if isinstance(cell, int | float) else str(cell)


def size(count: int) -> str:
    """A number of bytes in the unit that fits it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
