"""A timeline with both clocks: a lane a version, from when it was true over when it became known to when it was closed.

In go lanes, the question's T, K and window, and a time zone; out comes an SVG whose lanes lead to the rows of a table
(`#row-N`). Time runs to the right. What lies outside the drawn time is drawn at its edge, with an arrow.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fhir_features.report.charts import element, picture, text

WIDTH, LEFT, RIGHT, TOP, _EACH = 1000.0, 160.0, 290.0, 44.0, 24.0
_MOST_LABEL, _MOST_VERDICT = 21, 50
_SIDE = {"T": "start", "K": "end"}
# From one tick of the axis to the next: minutes or days, or else months.
_STEPS = tuple(dt.timedelta(minutes=minutes) for minutes in (5, 15, 60, 180, 360, 720, 1_440, 2_880, 10_080, 20_160))
_MONTHS = (1, 3, 6, 12, 24, 60, 120, 300)
_MOST_TICKS = 7


@dataclass(frozen=True)
class Lane:
    """One version: the number of its row, what it says, its instants (closed_at None: it still stands), the verdict,
    and all that as it is read out."""

    row: int
    says: str
    true_at: dt.datetime
    known_at: dt.datetime
    closed_at: dt.datetime | None
    counts: bool
    decides: bool
    verdict: str
    told: str


@dataclass(frozen=True)
class Question:
    """T, K, and the window (begins, ends] of what is looked at; begins None: all of the past."""

    t: dt.datetime
    k: dt.datetime
    begins: dt.datetime | None
    ends: dt.datetime


@dataclass(frozen=True)
class Span:
    """The time that is drawn."""

    first: dt.datetime
    last: dt.datetime

    @property
    def length(self) -> dt.timedelta:
        """How long it is."""
        return self.last - self.first

    def holds(self, at: dt.datetime | None) -> bool:
        """Whether an instant lies within it."""
        return at is not None and self.first <= at <= self.last

    def x(self, at: dt.datetime) -> float:
        """Where an instant is drawn, at the edges what lies outside."""
        inside = min(max(at, self.first), self.last)
        return LEFT + (WIDTH - LEFT - RIGHT) * ((inside - self.first) / self.length)


def whole_span(lanes: Sequence[Lane], asked: Question) -> Span:
    """The time of the window, or of all lanes where it is open, and of what became known not too long after T."""
    begins = asked.begins or min([lane.true_at for lane in lanes if lane.true_at < asked.t], default=asked.t)
    before = max(asked.t - begins, dt.timedelta(hours=1)) * 1.04
    afterwards = [at for lane in lanes for at in (lane.known_at, lane.closed_at, lane.true_at) if at and at > asked.t]
    after = max([asked.t + before * 0.06, *(at + before * 0.02 for at in afterwards if at - asked.t < before * 0.4)])
    return Span(asked.t - before, after)


def close_up(lanes: Sequence[Lane], asked: Question) -> Span | None:
    """The days around T, where what decides, or was about to become known, is too near to T to be seen in the whole."""
    near = [lane for lane in lanes if lane.true_at <= asked.t and (lane.decides or lane.known_at > asked.k)]
    if not near:
        return None
    before = max(asked.t - lane.true_at for lane in near)
    soon = [lane.known_at - asked.t for lane in near if asked.t < lane.known_at <= asked.t + before * 2]
    after = max(soon, default=before * 0)
    span = Span(asked.t - before * 1.15, asked.t + max(after * 1.15, before * 0.3))
    whole = whole_span(lanes, asked)
    return span if dt.timedelta(0) < span.length < whole.length / 5 else None


def timeline(lanes: Sequence[Lane], asked: Question, span: Span, says: str, zone: dt.tzinfo) -> Markup:
    """The drawing."""
    height = TOP + _EACH * len(lanes) + 10
    floor = height - 6
    drawn = [_lane(lane, TOP + _EACH * number, span) for number, lane in enumerate(lanes)]
    parts = [*window(asked, span, floor), *axis(span, floor, zone), *drawn, *cut_offs(asked, span, floor)]
    return picture(WIDTH, height, says, *parts, class_="chart timeline", role="group")


def window(asked: Question, span: Span, floor: float) -> Iterator[Markup]:
    """The window as a shade."""
    begins, ends = span.x(asked.begins or span.first), span.x(asked.ends)
    yield element("rect", x=begins, y=TOP - 4, width=max(ends - begins, 0.0), height=floor - TOP + 4, class_="window")


def axis(span: Span, floor: float, zone: dt.tzinfo) -> Iterator[Markup]:
    """The axis of time, with its ticks down to the floor."""
    for at, written in _ticks(span, zone):
        x = span.x(at)
        yield element("line", x1=x, x2=x, y1=TOP - 4, y2=floor, class_="grid")
        yield text(x, TOP - 9, written, text_anchor="middle", class_="quiet")
    yield element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=TOP - 4, y2=TOP - 4, class_="axis")


def _ticks(span: Span, zone: dt.tzinfo) -> Iterator[tuple[dt.datetime, str]]:
    """Instants of the axis with their names: even times of the day, midnights, or first days of months."""
    step = next((step for step in _STEPS if span.length / step <= _MOST_TICKS), None)
    first = span.first.astimezone(zone)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    if step is None:
        months = next((months for months in _MONTHS if span.length.days / (30.44 * months) <= _MOST_TICKS), _MONTHS[-1])
        number = -(-(first.year * 12 + first.month - 1) // months) * months
        found = (midnight.replace(day=1, year=n // 12, month=n % 12 + 1) for n in itertools.count(number, months))
        name = "%b %Y" if months < 12 else "%Y"
    else:
        found = (midnight + step * n for n in itertools.count())
        name = "%d %b %H:%M" if step < dt.timedelta(days=1) else "%d %b %Y"
    for at in itertools.takewhile(lambda at: at <= span.last, found):
        if at >= span.first:
            yield at, at.strftime(name)


def cut_offs(asked: Question, span: Span, floor: float) -> Iterator[Markup]:
    """T and K as lines."""
    for name, at, class_ in (("K", asked.k, "k"), ("T", asked.t, "t")):
        if name == "K" and asked.k == asked.t:
            continue
        x = span.x(at)
        yield element("line", x1=x, x2=x, y1=TOP - 6, y2=floor, class_=f"cut {class_}")
        if asked.k == asked.t:
            yield text(x, 14, "T = K", text_anchor="middle", class_="cut-name t")
        else:  # K lies before T, and can be near.
            yield text(x + (2 if name == "T" else -2), 14, name, text_anchor=_SIDE[name], class_=f"cut-name {class_}")


def _lane(lane: Lane, y: float, span: Span) -> Markup:
    middle = y + _EACH / 2
    true, known = span.x(lane.true_at), span.x(lane.known_at)
    closed = span.x(lane.closed_at) if lane.closed_at else WIDTH - RIGHT
    kind = "counts" if lane.counts else "left-out"
    parts = [
        element("title", lane.told),
        element("rect", x=0, y=y + 1, width=WIDTH, height=_EACH - 2, rx=3, class_="lane"),
        text(LEFT - 8, middle + 4, f"{'★ ' if lane.decides else ''}{_cut(lane.says, _MOST_LABEL)}", text_anchor="end"),
        element("line", x1=true, x2=known, y1=middle, y2=middle, class_="unknown"),
    ]
    if lane.known_at <= span.last:
        wide = max(closed - known, 1.5)
        thick = 8 if lane.counts else 4  # Green and grey are one to who does not see green.
        parts.append(element("rect", x=known, y=middle - thick / 2, width=wide, height=thick, class_="believed"))
    if lane.true_at < span.first:
        parts.append(text(LEFT, middle + 4, "‹", class_="beyond"))
    if lane.known_at > span.last:
        parts.append(text(WIDTH - RIGHT - 8, middle + 4, "›", class_="beyond"))
    for at, x, class_ in ((lane.known_at, known, "known"), (lane.true_at, true, "true")):
        if span.holds(at):
            parts.append(element("circle", cx=x, cy=middle, r=4.5, class_=class_))
    if span.holds(lane.closed_at):
        parts.append(element("path", d=f"M{closed - 4:.1f},{middle - 4:.1f}l8,8m0,-8l-8,8", class_="closed"))
    parts.append(text(WIDTH - RIGHT + 10, middle + 4, _cut(lane.verdict, _MOST_VERDICT), class_="verdict"))
    return element("a", *parts, href=f"#row-{lane.row}", aria_label=lane.told, class_=kind)


def _cut(said: str, most: int) -> str:
    return said if len(said) <= most else f"{said[: most - 1]}…"
