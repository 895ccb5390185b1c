"""How far is the work, since when, and how fast? All of it on standard error: bars while it lasts, where that is a
terminal; and in the end, also in a log, one line with what was done, how long it took, and how much a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fhir_features.sources import Progress, silent

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Work:
    """Work that goes on. `progress` is for what does it, `step` says what is being done, `done` what was done."""

    def __init__(self, name: str, progress: Progress, step: Callable[[str], None]) -> None:
        self._name = name
        self._began = time.monotonic()
        self._did: tuple[int, str] | None = None
        self.progress = progress
        self.step = step

    def done(self, count: int, what: str) -> None:
        """What the last line is to say, such as 1204 and "resources landed"; without it there is none."""
        self._did = count, what

    def last_line(self) -> str | None:
        """`pull: 1,204 resources landed in 3.2 s (376/s)`."""
        if self._did is None:
            return None
        seconds = time.monotonic() - self._began
        count, what = self._did
        # Of less than a tenth of a second a rate would be one of starting up.
        rate = f" ({_speed(count / seconds)})" if count and seconds >= 0.1 else ""
        return f"{self._name}: {count:,} {what} in {seconds:,.1f} s{rate}"


@contextmanager
def working(name: str) -> Iterator[Work]:
    """Show work while it lasts; after work that did not fail its last line is printed."""
    if sys.stderr.isatty():
        with _bars() as bars:
            shown = _Shown(name, bars)
            work = Work(name, shown.progress, shown.step)
            yield work
    else:
        work = Work(name, silent, lambda _: None)
        yield work
    if (line := work.last_line()) is not None:
        print(line, file=sys.stderr, flush=True)


class _Shown:
    """The bars of a terminal: one without an end until it is known how much there is, then one for each thing that is
    read or made. What is whole makes room for what comes after it."""

    def __init__(self, name: str, bars: Bars) -> None:
        self._name = name
        self._bars = bars
        self._whole = bars.add_task(name, total=None)
        self._tasks: dict[str, TaskID] = {}

    def step(self, text: str) -> None:
        self._bars.update(self._whole, description=f"{self._name}: {text}")

    def progress(self, source: str, what: str, received: int, total: int | None) -> None:
        key = f"{source} {what}"
        if key not in self._tasks:
            self._bars.update(self._whole, visible=False)
            for task in self._bars.tasks:
                if task.finished:
                    self._bars.update(task.id, visible=False)
            self._tasks[key] = self._bars.add_task(key, total=total)
        self._bars.update(self._tasks[key], completed=received, total=total)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is not None:
                return Text(f"{task.completed:,.0f}/{task.total:,.0f}")
            return Text(f"{task.completed:,.0f}" if task.completed else "")

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            # The speed of the last seconds while it runs, that of all of it at the end; what took one step has neither.
            speed = task.finished_speed or task.speed or task.completed / max(task.elapsed or 0.0, 1.0)
            return Text(_speed(speed) if task.completed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), Count(), Rate(), TimeElapsedColumn())
    # They leave nothing behind: the last line and the table say what there is to read again.
    return Bars(*columns, console=Console(stderr=True), transient=True)


def _speed(a_second: float) -> str:
    return f"{a_second:,.0f}/s" if a_second >= 10 else f"{a_second:,.1f}/s"
