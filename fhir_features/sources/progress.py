"""How far is a pull? In: what a source says while it is read. Out: bars on standard error when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with the source, what is read of it (a resource type, or "files"), how much was received, and of how much.
Progress = Callable[[str, str, int, int | None], None]


def silent(source: str, what: str, received: int, total: int | None) -> None:
    """Show nothing."""


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """One bar a source and type, while the context lasts, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def show(source: str, what: str, received: int, total: int | None) -> None:
            key = f"{source} {what}"
            if key not in tasks:
                tasks[key] = bars.add_task(key, total=total)
            bars.update(tasks[key], completed=received, total=total)

        yield show
