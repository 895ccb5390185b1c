"""Which invented patients lie on a ward, and who of them gets worse? In go how many stays, a seed and a day; out come
the resources of the stays as a hospital's server has them in the end. The same arguments give the same resources.

Every setting is a constant here, so that what a model finds in these stays can be judged: lactate and heart rate rise
from an onset that nobody sees, a high lactate is run again before it is reported, some are spoilt samples that are
corrected a day later, and septic shock is recorded hours after its onset.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from random import Random

from fhir_features.synthetic.resources import (
    Code,
    Measure,
    Resource,
    condition,
    encounter,
    laboratory,
    next_version,
    patient,
    vital_sign,
)

LACTATE = Measure(Code("loinc", "2524-7", "Lactate [Moles/volume] in Serum or Plasma"), "mmol/L", 1)
HEART_RATE = Measure(Code("loinc", "8867-4", "Heart rate"), "/min", 0)
SEPTIC_SHOCK = (Code("icd10cm", "R65.21", "Severe sepsis with septic shock"),)

# One in how many stays gets worse; between which hours of the stay it begins, and how long until it is recorded.
ONE_IN = 3
ONSET_H = (10, 40)
RECORDED_AFTER_H = (8, 14)
# Lactate: where it stands, how it varies, and how fast it rises from the onset on.
LACTATE_BASE, LACTATE_SD, LACTATE_PER_H = 1.6, 0.5, 0.28
HEART_RATE_BASE, HEART_RATE_SD, HEART_RATE_PER_H = 84.0, 11.0, 1.5
# Hours between measurements, and how many there are.
EVERY_H, MEASUREMENTS = 4, 12
# From drawn to reported: a lactate above the limit is run again first.
RUN_AGAIN_ABOVE = 2.6
REPORTED_AFTER_MIN, RUN_AGAIN_AFTER_MIN = (40, 120), (150, 420)
# One in how many lactates of the others is a spoilt sample, by how much it is too high, and when it is corrected.
SPOILT_ONE_IN, SPOILT_BY, CORRECTED_AFTER_H = 25, 3.0, 26

_HOUR = dt.timedelta(hours=1)


def ward(*, stays: int, seed: int, day: dt.date) -> list[Resource]:
    """The resources of `stays` patients, each with one stay in hospital that begins within ten weeks of `day`."""
    found: list[Resource] = []
    for number in range(1, stays + 1):
        found += _stay(f"ward-{number:04d}", number, Random(f"ward/{seed}/{number}"), day)
    return found


def _stay(patient_id: str, number: int, random: Random, day: dt.date) -> Iterator[Resource]:
    start = dt.datetime.combine(day, dt.time(), dt.UTC) + random.randint(0, 70 * 24 * 60) * dt.timedelta(minutes=1)
    yield patient(patient_id, random.choice(["female", "male"]), day - random.randint(45, 85) * 365 * 24 * _HOUR, start)
    stay = encounter(f"{patient_id}-stay", patient_id, "IMP", "inpatient encounter", start, start + 96 * _HOUR)
    yield stay
    onset = random.uniform(*ONSET_H) if number % ONE_IN == 0 else None
    for place in range(MEASUREMENTS):
        hour = place * EVERY_H + random.uniform(0.2, 1.5)
        yield from _measured(stay, place, start + hour * _HOUR, max(0.0, hour - onset) if onset else 0.0, random)
    if onset:
        recorded = start + (onset + random.uniform(*RECORDED_AFTER_H)) * _HOUR
        onset_at = recorded.isoformat(timespec="seconds")
        yield condition(f"{patient_id}-shock", stay, "problem-list-item", SEPTIC_SHOCK, onset_at, recorded)


def _measured(stay: Resource, place: int, at: dt.datetime, worse_h: float, random: Random) -> Iterator[Resource]:
    """A heart rate, and a lactate in all of its versions, after some hours of getting worse."""
    heart_rate = random.gauss(HEART_RATE_BASE + HEART_RATE_PER_H * worse_h, HEART_RATE_SD)
    yield vital_sign(f"{stay['id']}-hr-{place:02d}", stay, HEART_RATE, heart_rate, at)
    lactate = max(0.5, random.gauss(LACTATE_BASE + LACTATE_PER_H * worse_h, LACTATE_SD))
    is_spoilt = not worse_h and random.randrange(SPOILT_ONE_IN) == 0
    reported = lactate + SPOILT_BY if is_spoilt else lactate
    minutes = random.randint(*(RUN_AGAIN_AFTER_MIN if lactate > RUN_AGAIN_ABOVE else REPORTED_AFTER_MIN))
    issued = at + dt.timedelta(minutes=minutes)
    first = laboratory(f"{stay['id']}-lactate-{place:02d}", stay, LACTATE, reported, at, issued)
    yield first
    if is_spoilt:
        value = {**first["valueQuantity"], "value": round(lactate, LACTATE.decimals)}
        yield next_version(first, at + CORRECTED_AFTER_H * _HOUR, status="corrected", valueQuantity=value)
