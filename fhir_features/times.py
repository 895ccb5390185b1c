"""Durations and cut-offs as users write them: text in, microseconds or UTC instants out.

A duration is a whole number and a unit: `90s`, `15min`, `24h`, `7d`, `4w`. Months and years are not offered because
they have no fixed length; say `30d` or `365d`. Instants of FHIR elements, which can be partial, are read in SQL by
`fhir_features.normalize.instants`.
"""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC = dt.UTC

_MICROSECONDS = {
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_DURATION = re.compile(r"(\d{1,6})\s*(s|min|h|d|w)")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = _MICROSECONDS["d"]

# How far two clocks may be apart before one of them is called wrong.
CLOCK_SKEW = dt.timedelta(minutes=5)


def duration_us(text: str) -> int:
    """The length of a duration such as `24h` in microseconds. Raises ValueError with one clear line."""
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        hint = f"; say '{text}d' for days" if str(text).strip().isdigit() else ""
        raise ValueError(f"'{text}' is not a duration: a whole number and one of s, min, h, d, w, such as '365d'{hint}")
    length = int(match[1]) * _MICROSECONDS[match[2]]
    if length == 0:
        raise ValueError(f"'{text}' is not a duration: it has no length")
    return length


def epoch_us(moment: dt.datetime) -> int:
    """An instant in microseconds since 1970-01-01T00:00:00Z."""
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def duration_text(us: int) -> str:
    """A length in whole microseconds as a person writes it: `365d`; what is shorter than a second as `1us`."""
    for unit, length in sorted(_MICROSECONDS.items(), key=lambda item: -item[1]):
        if us % length == 0:
            return f"{us // length}{unit}"
    return f"{us}us"


def time_zone(name: str) -> str:
    """The name of an IANA time zone, checked. Raises ValueError with one clear line."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{name}' is not a time zone: use an IANA name such as 'Europe/Berlin' or 'UTC'") from None
    return name


def instant(text: str) -> dt.datetime:
    """An instant with an offset, such as `2024-03-05T14:00:00Z`, in UTC. Raises ValueError with one clear line."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not an instant: write it like '2024-03-05T14:00:00Z'") from None
    if moment.tzinfo is None:
        raise ValueError(f"'{text}' has no offset: add 'Z' or one such as '+01:00'")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"'{text}' is not within the years 1 to 9999 in UTC") from None
