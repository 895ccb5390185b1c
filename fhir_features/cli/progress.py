"""How far is the work, and how fast? Bars and spinners on standard error when that is a terminal, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fhir_features.sources import Progress, silent


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """One bar for each thing that is read or made, with how many, how many a second and since when, while it lasts."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            # The speed of the last seconds while it runs, that of all of it at the end; what took one step has neither.
            speed = task.finished_speed or task.speed or task.completed / max(task.elapsed or 0.0, 1.0)
            return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:,.1f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def show(source: str, what: str, received: int, total: int | None) -> None:
            key = f"{source} {what}"
            if key not in tasks:
                tasks[key] = bars.add_task(key, total=total)
            bars.update(tasks[key], completed=received, total=total)

        yield show


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """What is being done, and since when, of work that does not know how much of it there is. Call it with the step."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # It leaves no line behind: there is nothing in it that one would want to read again.
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)

        def show(step: str) -> None:
            bars.update(task, description=step)

        yield show
