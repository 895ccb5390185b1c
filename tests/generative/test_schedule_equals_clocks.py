"""A schedule's instants are those that a person finds who watches the clocks of its zone go by."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import dice
import numpy as np
from hypothesis import given, settings

from fhir_features.features.cadence import read_cadence

DAY = dt.timedelta(days=1)
# Where clocks are turned, by an hour, half an hour, a whole day, and by seconds, and a year with nothing of note.
TURNS = [
    ("Europe/Berlin", dt.date(2024, 3, 31)),
    ("Europe/Berlin", dt.date(2024, 10, 27)),
    ("Europe/Berlin", dt.date(2095, 3, 27)),
    ("Europe/Berlin", dt.date(1945, 5, 24)),
    ("America/New_York", dt.date(2024, 3, 10)),
    ("America/New_York", dt.date(2024, 11, 3)),
    ("America/Sao_Paulo", dt.date(2018, 11, 4)),
    ("Australia/Lord_Howe", dt.date(2024, 4, 7)),
    ("Australia/Lord_Howe", dt.date(2024, 10, 6)),
    ("Pacific/Apia", dt.date(2011, 12, 30)),
    ("Pacific/Kwajalein", dt.date(1993, 8, 21)),
    ("Pacific/Kwajalein", dt.date(1969, 9, 30)),
    ("Africa/Casablanca", dt.date(2024, 3, 10)),
    ("Antarctica/Troll", dt.date(2024, 3, 31)),
    ("Africa/Monrovia", dt.date(1972, 1, 7)),
    ("Europe/Amsterdam", dt.date(1937, 7, 1)),
    ("Asia/Kathmandu", dt.date(1986, 1, 1)),
    ("UTC", dt.date(1900, 1, 1)),
]
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dice.from_seed
def cases(draw: dice.Draw) -> tuple[str, str, dt.date, list[dt.datetime]]:
    """A kind of schedule with its times, a zone, a date, and instants about it."""
    zone, turn = draw(dice.sampled_from(TURNS))
    date = turn + dt.timedelta(days=draw(dice.integers(-1, 1)))
    hours = _times(draw)
    kind = draw(dice.sampled_from(["daily@", "daily@", "hourly@:", "weekly@"]))
    said = {
        "daily@": ",".join(hours),
        "hourly@:": hours[0][3:],
        "weekly@": f"{WEEKDAYS[date.weekday()]} {hours[0]}",
    }[kind]
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    instants = [midnight + dt.timedelta(seconds=draw(dice.integers(-86_400, 2 * 86_400))) for _ in range(20)]
    return f"{kind}{said} {zone}", zone, date, instants


def _times(draw: dice.Draw) -> list[str]:
    """One to three times, mostly at night, when clocks are turned."""
    hours = [draw(dice.sampled_from([0, 1, 2, 3, 2, 3, 12, 23])) for _ in range(draw(dice.integers(1, 3)))]
    return [f"{hour:02}:{draw(dice.sampled_from([0, 15, 30, 59])):02}" for hour in hours]


def watched(cadence: str, zone: str, date: dt.date) -> list[dt.datetime]:
    """The schedule's instants of the dates about one: when clocks first show a local time, else first show a later one."""
    info = ZoneInfo(zone)
    begin = dt.datetime.combine(date - 4 * DAY, dt.time(), dt.UTC)
    by_seconds = any((begin + n * DAY).astimezone(info).utcoffset().seconds % 60 for n in range(8))
    step = dt.timedelta(seconds=1 if by_seconds else 60)
    clock = []
    for number in range(int(8 * DAY / step)):
        instant = begin + number * step
        clock.append((instant, instant.astimezone(info).replace(tzinfo=None)))
    kind, _, rest = cadence.partition("@")
    times = [f"{hour:02}{rest[:3]}" for hour in range(24)] if kind == "hourly" else rest.split()[-2].split(",")
    found = set()
    for day in (date + n * DAY for n in (-2, -1, 0, 1, 2)):
        if kind == "weekly" and WEEKDAYS[day.weekday()] != rest.split()[0]:
            continue
        for local in (dt.datetime.combine(day, dt.time.fromisoformat(time)) for time in times):
            same = [instant for instant, shown in clock if shown == local]
            found.add(min(same or [instant for instant, shown in clock if shown > local]))
    return sorted(found)


def microseconds(instants: list[dt.datetime]) -> np.ndarray:
    return np.array([instant.replace(tzinfo=None) for instant in instants], "M8[us]").astype(np.int64)


@settings(max_examples=settings().max_examples // 4)
@given(cases())
def test_the_instants_of_a_schedule_are_those_that_clocks_show(
    case: tuple[str, str, dt.date, list[dt.datetime]],
) -> None:
    cadence, zone, date, instants = case
    expected = watched(cadence, zone, date)
    schedule = read_cadence(cadence)
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    after, up_to = microseconds([midnight - DAY, midnight + DAY]).tolist()
    within = [instant for instant in microseconds(expected).tolist() if after < instant <= up_to]
    assert schedule.between(after, up_to).tolist() == within
    asked = [instant for instant in [*instants, *expected] if instant >= expected[0]]
    answered_at = schedule.answered_at(microseconds(asked)).tolist()
    latest = [max(each for each in expected if each <= instant) for instant in asked]
    assert answered_at == microseconds(latest).tolist()
