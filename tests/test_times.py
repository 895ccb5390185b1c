"""Durations and instants as users write them."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from fhir_features.times import CLOCK_SKEW, DAY_US, UTC, duration_text, duration_us, epoch_us, instant, time_zone

LENGTHS = {"1s": 1_000_000, "90s": 90_000_000, "15min": 900_000_000, "24h": DAY_US, "7d": 7 * DAY_US, "4w": 28 * DAY_US}


@pytest.mark.parametrize("text", LENGTHS)
def test_a_duration_is_a_whole_number_and_a_unit(text: str):
    assert duration_us(text) == LENGTHS[text]
    assert duration_us(f" {text.replace('s', ' s')} ") == LENGTHS[text]
    assert duration_us(duration_text(LENGTHS[text])) == LENGTHS[text]


@pytest.mark.parametrize(
    "text", ["", "1", "d", "1.5d", "-1d", "+1d", "0d", "1m", "1y", "1D", "1234567d", "1d 2h", "1d\nx", None, 7]
)
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="^" + re.escape(f"'{text}' is not a duration: ")):
        duration_us(text)


def test_a_bare_number_is_told_how_to_say_days():
    with pytest.raises(ValueError, match=r"'365d'; say '30d' for days$"):
        duration_us("30")
    with pytest.raises(ValueError, match=r"such as '365d'$"):
        duration_us("d")
    with pytest.raises(ValueError, match="it has no length"):
        duration_us("0h")


def test_a_length_is_said_in_its_largest_whole_unit():
    said = {1: "1us", 999_999: "999999us", 1_500_000: "1500000us", 60_000_000: "1min", 61_000_000: "61s"}
    said |= {DAY_US: "1d", 7 * DAY_US: "1w", 8 * DAY_US: "8d", 36 * DAY_US // 24: "36h"}
    assert {us: duration_text(us) for us in said} == said


def test_instants_are_whole_microseconds_from_1970_on():
    assert epoch_us(dt.datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert epoch_us(dt.datetime(1970, 1, 2, 0, 0, 0, 1, tzinfo=UTC)) == DAY_US + 1
    assert epoch_us(dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert epoch_us(dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))) == 0


def test_an_instant_has_an_offset_and_is_given_in_utc():
    assert instant("2024-03-05T14:00:00+01:00").isoformat() == "2024-03-05T13:00:00+00:00"
    assert instant("2024-03-05T14:00:00.123456Z").isoformat() == "2024-03-05T14:00:00.123456+00:00"
    for text, why in {
        "yesterday": "is not an instant: write it like",
        "2024-03-05T14:00:00": "has no offset: add 'Z'",
        "9999-12-31T23:00:00-02:00": "is not within the years 1 to 9999 in UTC",
    }.items():
        with pytest.raises(ValueError, match=why):
            instant(text)


def test_a_time_zone_is_one_of_iana():
    assert time_zone("Europe/Berlin") == "Europe/Berlin"
    for name in ("Mars/Olympus", "../etc/passwd", "/etc/passwd", "", "\0", "Europe"):
        with pytest.raises(ValueError, match="is not a time zone: use an IANA name"):
            time_zone(name)


def test_clocks_may_be_five_minutes_apart():
    assert dt.timedelta(minutes=5) == CLOCK_SKEW
