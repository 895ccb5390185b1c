"""Charts as inline SVG: in go labels and counts, out comes markup that needs no script, takes its colours from the
page's style sheet (light, dark and print alike), and escapes every word that it is given.

Hand-made because it weighs least and shows best here. Measured: one chart of Altair 6.3 by vl-convert is 25 kB with
colours of its own, which a dark page cannot change, and needs 100 MB of packages; plotly.js is 4.8 MB a page, and a
script; one of these is 1 to 4 kB. A count of None (some, too few to tell) is drawn hollow and of one height.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from fhir_features.report.disclosure import Count
from fhir_features.report.facts import Bin

# What a count that is not told is drawn as, as a share of the chart's height.
_HOLLOW = 0.04


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An SVG element. Of an attribute's name a trailing underscore is dropped and others become hyphens; None leaves
    it out. Numbers are written to a hundredth; children are escaped unless they are markup already."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def picture(
    width: float, height: float, says: str | None, *children: str, class_: str = "chart", role: str = "img"
) -> Markup:
    """A drawing that a screen reader reads as one picture, which `says` describes; None: it passes over it.

    With the role `group` what is in it is read, too.
    """
    spoken = {"role": role, "aria_label": says} if says else {"aria_hidden": "true"}
    return element("svg", *children, viewBox=f"0 0 {_number(width)} {_number(height)}", **spoken, class_=class_)


def text(x: float, y: float, said: str, **attributes: object) -> Markup:
    """A line of text."""
    return element("text", said, x=x, y=y, **attributes)


def share_bar(part: float | None) -> Markup:
    """A bar that fills a share of its length, to stand beside its number; of one that is not told it is hollow."""
    if part is None:
        return picture(
            100, 8, None, element("rect", x=0.5, y=0.5, width=99, height=7, rx=2, class_="few"), class_="bar"
        )
    track = element("rect", width=100, height=8, rx=2, class_="track")
    filled = element("rect", width=100 * part, height=8, rx=2, class_="fill") if part else ""
    return picture(100, 8, None, track, filled, class_="bar")


def columns(bins: Sequence[Bin], says: str, *, untold: str) -> Markup:
    """Columns over time or over numbers in equal steps, with the highest count and the first and last label beside."""
    width, height, left, top, bottom = 360.0, 128.0, 48.0, 8.0, 22.0
    highest = _highest(bins)
    step = (width - left - 4) / max(len(bins), 1)
    floor = height - bottom
    parts = [
        element("line", x1=left, x2=width - 4, y1=floor, y2=floor, class_="axis"),
        element("line", x1=left, x2=width - 4, y1=top, y2=top, class_="grid"),
        text(left - 5, top + 5, f"{highest:,}" if highest else "", text_anchor="end"),
        text(left - 5, floor + 3, "0", text_anchor="end"),
    ]
    parts += _column_marks(bins, left, step, floor, floor - top, untold)
    if bins:
        parts.append(text(left, height - 5, bins[0].label))
        parts.append(text(width - 4, height - 5, bins[-1].label, text_anchor="end"))
    return picture(width, height, _seen(bins, says), *parts)


def small_columns(bins: Sequence[Bin], says: str, *, untold: str) -> Markup:
    """Columns with no more than their ends beneath, to stand in a row of a table."""
    step = 160 / max(len(bins), 1)
    ends = (_end(bins[0].label, 0), _end(bins[-1].label, -1))
    return picture(
        160,
        48,
        _seen(bins, says),
        *_column_marks(bins, 0, step, 34, 32, untold),
        element("line", x1=0, x2=160, y1=34.5, y2=34.5, class_="axis"),
        text(0, 46, ends[0], class_="quiet"),
        text(160, 46, ends[1], class_="quiet", text_anchor="end") if len(bins) > 1 else "",
        class_="small",
    )


def rows(bins: Sequence[Bin], says: str, *, total: Count, untold: str, marked_from: int) -> Markup:
    """A bar a row with its label before and its share of `total` behind; from `marked_from` on in another colour."""
    width, left, right, each = 360.0, 124.0, 54.0, 18.0
    height = each * len(bins) + 2
    highest = _highest(bins)
    parts: list[Markup] = []
    for number, bin_ in enumerate(bins):
        y = number * each
        parts.append(text(left - 6, y + 12, bin_.label, text_anchor="end"))
        room = width - left - right
        kind = "late" if number >= marked_from else "fill"
        if bin_.count is None:
            parts.append(_mark(left, y + 3, room * _HOLLOW, each - 6, "few", f"{bin_.label}: {untold}"))
            parts.append(text(left + room * _HOLLOW + 5, y + 12, untold, class_="quiet"))
        elif bin_.count:
            length = room * bin_.count / highest
            parts.append(_mark(left, y + 3, length, each - 6, kind, f"{bin_.label}: {bin_.count:,}"))
            parts.append(text(left + length + 5, y + 12, percent(bin_.count / total) if total else ""))
    parts.append(element("line", x1=left, x2=left, y1=0, y2=height, class_="axis"))
    return picture(width, height, _seen(bins, says), *parts)


def percent(share: float | None) -> str:
    """A share as a person reads it; `<1 %` and `>99 %` are not rounded away."""
    if share is None:
        return ""
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


def _column_marks(
    bins: Sequence[Bin], left: float, step: float, floor: float, room: float, untold: str
) -> list[Markup]:
    highest = _highest(bins)
    gap = min(1.0, step * 0.15)
    marks = []
    for number, bin_ in enumerate(bins):
        x, wide = left + number * step + gap / 2, step - gap
        if bin_.count is None:
            tall = room * _HOLLOW + 1
            marks.append(_mark(x, floor - tall, wide, tall, "few", f"{bin_.label}: {untold}"))
        elif bin_.count:
            tall = max(room * bin_.count / highest, 1)
            marks.append(_mark(x, floor - tall, wide, tall, "fill", f"{bin_.label}: {bin_.count:,}"))
    return marks


def _mark(x: float, y: float, width: float, height: float, class_: str, says: str) -> Markup:
    return element("rect", element("title", says), x=x, y=y, width=width, height=height, class_=class_)


def _seen(bins: Sequence[Bin], says: str) -> str:
    """What a chart shows, in words: what it is of, and its highest column."""
    highest = max(bins, key=lambda bin_: bin_.count or 0, default=None)
    if highest is None or not highest.count:
        return f"{says}; nothing that may be told"
    return f"{says}; the most, {highest.count:,}, {highest.label}"


def _end(label: str, which: int) -> str:
    """One end of a column's label, so short that both stand beneath a small chart."""
    return label.split(" to ")[which].replace("below ", "<").replace(" and above", "+")


def _highest(bins: Sequence[Bin]) -> int:
    return max((bin_.count or 0 for bin_ in bins), default=0)


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
