"""The values of many versions over time, where lanes would be too many: a mark a version, at when it was true.

In go the marks, the question, the drawn time and a time zone; out comes an SVG over the same axis as the timeline's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fhir_features.report.charts import element, picture, text
from fhir_features.report.timeline import LEFT, RIGHT, TOP, WIDTH, Question, Span, axis, cut_offs, window

_HEIGHT = 260.0


@dataclass(frozen=True)
class Mark:
    """One version: when it was true, its number and how that is told, and whether it counts and decides."""

    true_at: dt.datetime
    number: float
    says: str
    counts: bool
    decides: bool


def values(marks: Sequence[Mark], asked: Question, span: Span, says: str, zone: dt.tzinfo) -> Markup:
    """The drawing: a filled mark counts, a hollow one does not, on a starred one the answer rests."""
    floor, ceiling = _HEIGHT - 12, TOP + 18
    shown = [mark for mark in marks if span.holds(mark.true_at)]
    low, high = (best(shown, key=lambda mark: mark.number) for best in (min, max))
    spread = (high.number - low.number) or 1.0
    parts = [*window(asked, span, floor), *axis(span, floor, zone)]
    is_starred = sum(mark.decides for mark in shown) < sum(mark.counts for mark in shown)
    for mark, y in ((high, ceiling), (low, floor - 8)):
        parts.append(text(LEFT - 8, y + 4, mark.says, text_anchor="end"))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
    for mark in sorted(shown, key=lambda mark: (mark.decides, mark.counts)):
        x = span.x(mark.true_at)
        y = floor - 8 - (floor - 8 - ceiling) * (mark.number - low.number) / spread
        parts.append(element("circle", cx=x, cy=y, r=3, class_="known" if mark.counts else "true"))
        if mark.decides and is_starred:
            parts.append(text(x, y - 5, "★", text_anchor="middle"))
    return picture(WIDTH, _HEIGHT, says, *parts, *cut_offs(asked, span, floor), class_="chart timeline values")
