"""When is a view answered, and which answer did a model have at T: cadences and servings as text, and their instants.

In goes text such as `daily@02:00 Europe/Berlin` or `lag 6h`; out come values that move instants back to the last one at
which the deployed pipeline had answered. Instants are UTC microseconds since 1970 in NumPy arrays of 64 bits. A
schedule has neither beginning nor end; before the year 2 and after 9998 its zone keeps the offset that it has there.
"""

from __future__ import annotations

import datetime as dt
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from fhir_features.errors import UsageError
from fhir_features.times import DAY_US, duration_us, epoch_us, time_zone

Instants = NDArray[np.int64]

ON_CHANGE = "on_change"

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_SCHEDULE = re.compile(
    rf"(?:daily@(?P<times>{_TIME}(?:,{_TIME})*)"
    r"|hourly@:(?P<minute>[0-5]\d)"
    rf"|weekly@(?P<weekday>{'|'.join(_WEEKDAYS)}) (?P<time>{_TIME}))"
    r"(?: (?P<zone>\S+))?"
)
_FORMS = (
    "'daily@02:00 Europe/Berlin' (or 'daily@02:00,14:00 ...'), 'hourly@:15 UTC' or 'weekly@Mon 02:00 Europe/Berlin'"
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_S = 86_400
# Seconds since 1970 between which Python's datetime can say the offset of any zone.
_READABLE = (
    int(dt.datetime(2, 1, 1, tzinfo=dt.UTC).timestamp()),
    int(dt.datetime(9998, 1, 1, tzinfo=dt.UTC).timestamp()),
)
_ALWAYS = np.iinfo(np.int64).min // 2

# Of an instant's UTC date: the local date may be one less, and a weekly instant be up to a week before that.
_DATES_BACK = 9


@dataclass(frozen=True)
class Lag:
    """The answers of a fixed time ago. A lag of 0 is `exact`: the answers at T itself."""

    us: int
    text: str = field(compare=False)

    def answered_at(self, instants: Instants) -> Instants:
        """The instant whose answer is served, for each instant at which one is asked for."""
        return instants - self.us

    def __str__(self) -> str:
        return self.text


EXACT = Lag(0, "exact")


@dataclass(frozen=True)
class Schedule:
    """Local times on weekdays (0 is Monday) in an IANA time zone.

    Of a local time that is skipped, the first valid instant after it is the schedule's; of one that occurs twice, the
    first (TIME rule 21). So an hourly schedule has a gap of two hours when clocks go back, except in UTC.
    """

    text: str
    weekdays: tuple[int, ...] = field(compare=False)
    times_us: tuple[int, ...] = field(compare=False)
    zone: str = field(compare=False)

    def answered_at(self, instants: Instants) -> Instants:
        """The last instant of the schedule at or before each instant."""
        if not len(instants):
            return instants
        days = np.unique(instants // DAY_US)
        on_schedule = self._on(np.unique(days[:, None] + np.arange(-_DATES_BACK, 2)))
        return on_schedule[np.searchsorted(on_schedule, instants, side="right") - 1]

    def between(self, after: int, up_to: int) -> Instants:
        """The instants of the schedule with `after` < instant <= `up_to`, in order."""
        on_schedule = self._on(np.arange(after // DAY_US - 2, up_to // DAY_US + 2))
        return on_schedule[(on_schedule > after) & (on_schedule <= up_to)]

    def __str__(self) -> str:
        return self.text

    def _on(self, dates: Instants) -> Instants:
        """The instants of some local dates (days since 1970), in order."""
        # 1 January 1970 was a Thursday.
        wanted = dates[np.isin((dates + 3) % 7, self.weekdays)]
        local = (wanted[:, None] * DAY_US + np.array(self.times_us, np.int64)).ravel()
        starts, offsets = _offsets(self.zone, dates)
        # By local time an offset ends when the next one starts. The first that has not ended when clocks reach a local
        # time shows it for the first time, or, when it starts after that, is what clocks jumped to.
        ended = np.maximum.accumulate(starts[1:] + offsets[:-1])
        held = np.searchsorted(ended, local, side="right")
        return np.unique(np.maximum(starts[held], local - offsets[held]))


Serving = Lag | Schedule


def lag(duration: str) -> Lag:
    """A serving whose answers are a fixed time old, such as `lag("6h")`. Raises UsageError for another text."""
    try:
        return Lag(duration_us(duration), f"lag {duration.strip()}")
    except ValueError as error:
        raise UsageError(f"lag: {error}") from None


def read_cadence(text: str) -> Serving:
    """`on_change` (as a serving: exact), or a schedule with its time zone. Raises ValueError with one clear line."""
    if text == ON_CHANGE:
        return EXACT
    match = _SCHEDULE.fullmatch(" ".join(text.split()))
    if match is None:
        raise ValueError(f"'{text}' is not a cadence: write '{ON_CHANGE}', {_FORMS}")
    if match["zone"] is None:
        raise ValueError(f"'{text}' names no time zone: add one, such as '{text} Europe/Berlin'")
    zone = time_zone(match["zone"])
    if match["minute"]:
        times = [f"{hour:02}:{match['minute']}" for hour in range(24)]
        said = f"hourly@:{match['minute']}"
    elif match["weekday"]:
        times = [match["time"]]
        said = f"weekly@{match['weekday']} {match['time']}"
    else:
        times = sorted(set(match["times"].split(",")))
        said = f"daily@{','.join(times)}"
    weekdays = (_WEEKDAYS.index(match["weekday"]),) if match["weekday"] else tuple(range(7))
    times_us = tuple((int(time[:2]) * 60 + int(time[3:])) * 60_000_000 for time in times)
    return Schedule(f"{said} {zone}", weekdays, times_us, zone)


def read_serving(serving: str | Lag) -> Serving:
    """A lag, or the text of one (`lag 6h`), of `exact` or of a cadence. Raises UsageError."""
    if isinstance(serving, Lag):
        return serving
    if not isinstance(serving, str):
        raise UsageError(
            f"serving is a text such as 'exact' or 'daily@02:00 UTC', or lag('6h'), not {type(serving).__name__}"
        )
    word, _, rest = serving.strip().partition(" ")
    if word == "lag":
        return lag(rest)
    if serving == str(EXACT):
        return EXACT
    try:
        return read_cadence(serving)
    except ValueError as error:
        raise UsageError(f"serving: {error}; or 'exact', or a lag such as 'lag 6h'") from None


def asked_at(serving: Serving, t: dt.datetime) -> dt.datetime:
    """The instant whose answer is served at T, of which Python's calendar must have one."""
    (moved,) = serving.answered_at(np.array([epoch_us(t)], np.int64)).tolist()
    try:
        return _EPOCH + dt.timedelta(microseconds=moved)
    except OverflowError:
        raise UsageError(f"serving: '{serving}' goes back to before the year 1: ask at a later instant") from None


def _offsets(zone: str, dates: Instants) -> tuple[Instants, Instants]:
    """From when on which offset of local time holds in a zone, around some local dates.

    Between dates that are far apart only one of several changes is found: no local time of these dates lies there.
    """
    info = ZoneInfo(zone)
    moments = (np.unique(dates[:, None] + np.arange(-1, 3)) * _DAY_S).tolist()
    starts, offsets = [_ALWAYS], [_offset(info, moments[0])]
    for earlier, later in pairwise(moments):
        if (offset := _offset(info, later)) != offsets[-1]:
            starts.append(_first_change(info, earlier, later) * 1_000_000)
            offsets.append(offset)
    return np.array(starts, np.int64), np.array(offsets, np.int64)


def _offset(info: ZoneInfo, moment: int) -> int:
    """Local time minus UTC, in microseconds, at a second since 1970."""
    readable = min(max(moment, _READABLE[0]), _READABLE[1])
    offset = (_EPOCH + dt.timedelta(seconds=readable)).astimezone(info).utcoffset()
    assert offset is not None
    return offset // dt.timedelta(microseconds=1)


def _first_change(info: ZoneInfo, earlier: int, later: int) -> int:
    """The first second after `earlier`, `later` at most, at which the offset is another."""
    before = _offset(info, earlier)
    return earlier + bisect_left(range(earlier, later), True, key=lambda moment: _offset(info, moment) != before)
