"""From facts to a page: one HTML document that loads nothing, runs nothing, and can be opened from a disk or sent.

Every text is escaped by the template engine: names of sites and codes come from outside, and may be hostile. Should one
ever slip through, the page's own policy (Content-Security-Policy) forbids scripts, requests and other style sheets.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fhir_features.errors import UsageError
from fhir_features.features.wording import unit_in_words
from fhir_features.report import charts
from fhir_features.report.disclosure import Count

_STYLE = "style.css"


def render(template: str, **given: Any) -> str:
    """The page of a template: the same facts give the same bytes."""
    pages = _pages()
    style = pages.get_template(_STYLE).render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # The hash is that of what stands between the tags, to the byte.
    return pages.get_template(template).render(style=Markup(style), style_sha256=digest, **given)


def write_page(path: Path, page: str, *, mode: int = 0o666) -> Path:
    """Write a page to a file with this mode (less the umask), whole or not at all. Raises UsageError when it cannot."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.touch(mode)
        aside.write_text(page, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise UsageError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    return path


@cache
def _pages() -> Environment:
    pages = Environment(
        loader=PackageLoader("fhir_features.report"),
        autoescape=lambda name: name != _STYLE,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "at": at,
        "behind": behind,
        "hours": hours,
        "local": local,
        "number": number,
        "versions": versions,
        "percent": charts.percent,
        "short": short,
        "unit": unit_in_words,
    }
    pages.globals |= {"charts": charts}
    return pages


def local(instant: dt.datetime | None, zone: dt.tzinfo) -> str:
    """An instant in a time zone, to the minute."""
    return "" if instant is None else f"{instant.astimezone(zone):%Y-%m-%d %H:%M}"


def at(instant: dt.datetime | None) -> str:
    """An instant in UTC, to the minute."""
    return local(instant, dt.UTC)


def behind(instant: dt.datetime | None, newest: dt.datetime | None) -> str:
    """How far an instant lies before the newest; nothing of less than a minute, or of one not known."""
    if instant is None or newest is None or newest - instant < dt.timedelta(minutes=1):
        return ""
    return hours((newest - instant) / dt.timedelta(hours=1))


def hours(length: float) -> str:
    """A length in hours as a person says it."""
    size = abs(length)
    if 0 < size < 1 / 3600:
        return "a second"
    for unit, in_hours, up_to in (("s", 1 / 3600, 1 / 60), ("min", 1 / 60, 1.5), ("h", 1, 48), ("d", 24, 24 * 730)):
        if size < up_to:
            return f"{round(length / in_hours):,} {unit}"
    return f"{length / (24 * 365.25):,.1f} years"


def short(value: float | None) -> str:
    """A number to four digits, or all of those before the point: more say nothing about a patient."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def number(count: Count, fewest: int) -> str:
    """A count as it may be told."""
    return f"<{fewest}" if count is None else f"{count:,}"


def versions(count: Count) -> str:
    """A count of versions as it may be told: one that is not can be of few patients, or give such a one away."""
    return "not told" if count is None else f"{count:,}"
