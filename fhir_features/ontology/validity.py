"""In which state was a code, and when? Time is cut into spans, each with one state, by the releases or their own dates.

In: the rows that releases have of one code, and when each release governs. Out: spans from the beginning to the end of
time; those that no release covers are judged by the nearest one, and marked as outside.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fhir_features.ontology.artifacts import Manifest

State = Literal["valid", "header", "retired", "not_yet_valid"]


@dataclass(frozen=True, slots=True)
class Span:
    """A time (half-open, null = unbounded) in which a concept is in one state; `outside`: no release covers it."""

    start: dt.date | None
    end: dt.date | None
    state: State
    outside: bool


@dataclass(frozen=True, slots=True)
class Window:
    """The time (half-open) in which a release governs coding."""

    artifact: str
    start: dt.date
    end: dt.date


@dataclass(frozen=True, slots=True)
class StateRow:
    """What a release says of a code: one state, with the time in which it held if the release knows that."""

    artifact: str
    active: bool
    selectable: bool
    valid_from: dt.date | None
    valid_to: dt.date | None


def state_now(row: StateRow) -> State:
    """The state that a row tells of."""
    if not row.active:
        return "retired"
    return "valid" if row.selectable else "header"


def dated_spans(windows: list[Window], rows: list[StateRow]) -> tuple[Span, ...]:
    """The states of a code that windows decide. Before the first, after the last and between two the nearest counts."""
    by_artifact = {row.artifact: row for row in rows}
    first = next(place for place, window in enumerate(windows) if window.artifact in by_artifact)
    spans: list[Span] = []
    was_selectable = False
    for place, window in enumerate(windows):
        state = _state_in(by_artifact.get(window.artifact), was_selectable, begun=place >= first)
        was_selectable = was_selectable or state == "valid"
        if place == 0:
            spans.append(Span(None, window.start, state, outside=True))
        elif window.start > windows[place - 1].end:
            spans.append(Span(windows[place - 1].end, window.start, spans[-1].state, outside=True))
        spans.append(Span(window.start, window.end, state, outside=False))
    spans.append(Span(windows[-1].end, None, spans[-1].state, outside=True))
    return _merged(spans)


def own_spans(rows: list[StateRow], begin: dt.date | None) -> tuple[Span, ...]:
    """The states of a code whose release dates them itself, from the earliest. `begin`: where its history begins."""
    first, spans = rows[0], []
    if first.valid_from:
        came_later = begin is not None and first.valid_from > begin
        state = "not_yet_valid" if came_later else state_now(first)
        spans.append(Span(None, first.valid_from, state, outside=not came_later))
    spans += [Span(row.valid_from, row.valid_to, state_now(row), outside=False) for row in rows]
    return _merged(spans)


_NUMBER = re.compile(r"[0-9]{4,}")


def named_release(releases: list[Manifest], version: str) -> Manifest | None:
    """The release that a version means: `FY2025` or `2025`, `INT-20210131` or a URI that ends in `version/20210131`."""
    number = _NUMBER.findall(version)[-1:]
    for release in reversed(releases):
        if release.version == version or (number and _NUMBER.findall(release.version)[-1:] == number):
            return release
    return None


def named_day(version: str) -> dt.date | None:
    """The date that a version ends in, as `20210131` or `2021-01-31`, or None."""
    number = _NUMBER.findall(version.replace("-", ""))[-1:]
    try:
        return dt.datetime.strptime(number[0], "%Y%m%d").date() if number else None
    except ValueError:
        return None


def span_on(spans: Iterable[Span], day: dt.date) -> Span:
    """The state on a date, for all of time."""
    found = next(span for span in spans if (span.start or day) <= day < (span.end or dt.date.max))
    return replace(found, start=None, end=None)


def _state_in(row: StateRow | None, was_selectable: bool, begun: bool) -> State:
    if row is None:
        return "retired" if begun else "not_yet_valid"
    if not row.active or (was_selectable and not row.selectable):
        return "retired"
    return state_now(row)


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for span in spans:
        if merged and (merged[-1].state, merged[-1].outside) == (span.state, span.outside):
            merged[-1] = replace(merged[-1], end=span.end)
        else:
            merged.append(span)
    return tuple(merged)
