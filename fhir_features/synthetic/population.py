"""Which invented patients are there, and what is learned about them later? In go how many, a seed and what instant it
is; out come their resources up to that instant and, from those, what arrives afterwards: corrections, withdrawals and
late results. The same arguments give the same resources, on any machine.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from fhir_features.synthetic.resources import (
    TIME_ZONE,
    Code,
    Measure,
    Resource,
    condition,
    encounter,
    laboratory,
    medication,
    next_version,
    order,
    panel,
    patient,
    vital_sign,
)

__all__ = ["TIME_ZONE", "later", "population"]

HBA1C = Measure(Code("loinc", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), "%", 1)
GLUCOSE = Measure(Code("loinc", "2339-0", "Glucose"), "mg/dL", 0)
CREATININE = Measure(Code("loinc", "2160-0", "Creatinine [Mass/volume] in Serum or Plasma"), "mg/dL", 2)
SYSTOLIC = Measure(Code("loinc", "8480-6", "Systolic Blood Pressure"), "mm[Hg]", 0)
DIASTOLIC = Measure(Code("loinc", "8462-4", "Diastolic Blood Pressure"), "mm[Hg]", 0)
HEART_RATE = Measure(Code("loinc", "8867-4", "Heart rate"), "/min", 0)
WEIGHT = Measure(Code("loinc", "29463-7", "Body Weight"), "kg", 1)

BLOOD_PRESSURE = Code("loinc", "85354-9", "Blood Pressure")
DIABETES = (Code("snomed", "44054006", "Diabetes"), Code("icd10cm", "E11.9", "Type 2 diabetes mellitus"))
HYPERTENSION = (Code("snomed", "59621000", "Hypertension"),)
PNEUMONIA = (Code("icd10cm", "J18.9", "Pneumonia, unspecified organism"),)
METFORMIN = Code("rxnorm", "860975", "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet")
LISINOPRIL = Code("rxnorm", "314076", "lisinopril 10 MG Oral Tablet")

# From drawn to reported, in hours.
_TURNAROUND = {HBA1C: (20, 60), GLUCOSE: (1, 6), CREATININE: (2, 30)}
_DAY = dt.timedelta(days=1)
_HOUR = dt.timedelta(hours=1)


def population(*, patients: int, seed: int, now: dt.datetime) -> list[Resource]:
    """The resources of `patients` patients with three years of history, as they stand at `now` (with a time zone).

    Each is seen about every three months; laboratory results are reported hours or days after they were drawn. Half
    have diabetes, some hypertension, some were in hospital.
    """
    lisinopril = medication("lisinopril-10", LISINOPRIL, now - 1500 * _DAY)
    found = [lisinopril]
    for number in range(1, patients + 1):
        found += _patient(f"patient-{number:03d}", number, Random(f"{seed}/{number}"), lisinopril, now)
    return found


def later(resources: Sequence[Resource], *, now: dt.datetime) -> list[Resource]:
    """What has arrived by `now` about every third patient of a population, beginning with the first.

    Their newest HbA1c is corrected upwards, their newest glucose is withdrawn (entered-in-error), and a creatinine that
    was drawn two days before is reported only now.
    """
    found: list[Resource] = []
    for person in [each for each in resources if each["resourceType"] == "Patient"][::3]:
        hba1c = _newest(resources, person, HBA1C)
        value = {**hba1c["valueQuantity"], "value": round(hba1c["valueQuantity"]["value"] + 1.4, 1)}
        found.append(next_version(hba1c, now, status="corrected", valueQuantity=value))
        found.append(next_version(_newest(resources, person, GLUCOSE), now, status="entered-in-error"))
        visit = [each for each in resources if each["resourceType"] == "Encounter" and _is_about(each, person)][-1]
        found.append(laboratory(f"{person['id']}-late", visit, CREATININE, 1.8, now - 2 * _DAY, now))
    return found


def _patient(
    patient_id: str, number: int, random: Random, lisinopril: Resource, now: dt.datetime
) -> Iterator[Resource]:
    visits = _visits(patient_id, random, now)
    first = _start(visits[0])
    born = (first - random.randint(35 * 365, 80 * 365) * _DAY).date()
    yield patient(patient_id, random.choice(["female", "male"]), born, first)
    yield from visits
    diabetic, hypertensive = number % 2 == 1, random.random() < 0.5
    for visit in visits:
        yield from _vital_signs(visit, random, hypertensive)
        yield from _results(visit, random, diabetic)
    if diabetic:
        yield from _diabetes(patient_id, visits, random)
    if hypertensive:
        at = _start(visits[1]) + dt.timedelta(minutes=20)
        yield condition(f"{patient_id}-i10", visits[1], "problem-list-item", HYPERTENSION, str(at.year - 2), at)
        yield order(f"{patient_id}-lisinopril", visits[1], lisinopril, at)
    if random.random() < 0.4:
        yield from _stay(patient_id, _start(visits[4]) + random.randint(10, 40) * _DAY, random)


def _visits(patient_id: str, random: Random, now: dt.datetime) -> list[Resource]:
    """Ambulatory visits, the newest a few days before now."""
    starts = []
    at = now - random.randint(5, 20) * _DAY
    while at > now - 3 * 365 * _DAY:
        starts.append(at.replace(hour=random.randint(13, 20), minute=random.choice([0, 15, 30, 45]), second=0))
        at -= random.randint(75, 105) * _DAY
    return [
        encounter(f"{patient_id}-visit-{number:02d}", patient_id, "AMB", "ambulatory", start, start + _HOUR)
        for number, start in enumerate(reversed(starts), start=1)
    ]


def _vital_signs(visit: Resource, random: Random, hypertensive: bool) -> Iterator[Resource]:
    at = _start(visit) + dt.timedelta(minutes=5)
    systolic = random.gauss(148 if hypertensive else 122, 8)
    pressure = [(SYSTOLIC, systolic), (DIASTOLIC, systolic * 0.6 + random.gauss(4, 3))]
    yield panel(f"{visit['id']}-bp", visit, BLOOD_PRESSURE, pressure, at)
    yield vital_sign(f"{visit['id']}-hr", visit, HEART_RATE, random.gauss(74, 8), at)
    yield vital_sign(f"{visit['id']}-weight", visit, WEIGHT, random.gauss(80, 2), at)


def _results(visit: Resource, random: Random, diabetic: bool) -> Iterator[Resource]:
    drawn = _start(visit) + dt.timedelta(minutes=30)
    hba1c = random.gauss(7.4, 0.6) if diabetic else random.gauss(5.4, 0.2)
    values = {HBA1C: hba1c, GLUCOSE: hba1c * 28.7 - 46.7 + random.gauss(0, 9), CREATININE: random.gauss(0.95, 0.1)}
    names = {HBA1C: "hba1c", GLUCOSE: "glucose", CREATININE: "creatinine"}
    for measure, value in values.items():
        issued = drawn + random.randint(*_TURNAROUND[measure]) * _HOUR
        yield laboratory(f"{visit['id']}-{names[measure]}", visit, measure, value, drawn, issued)


def _diabetes(patient_id: str, visits: Sequence[Resource], random: Random) -> Iterator[Resource]:
    at = _start(visits[0]) + dt.timedelta(minutes=40)
    onset = (at - random.randint(200, 2000) * _DAY).strftime("%Y-%m")
    yield condition(f"{patient_id}-e11", visits[0], "problem-list-item", DIABETES, onset, at)
    written = [_start(visit) + dt.timedelta(minutes=45) for visit in visits[::2]]
    for number, (visit, at) in enumerate(zip(visits[::2], written, strict=True)):
        completed = written[number + 1] if number + 1 < len(written) else None
        yield order(f"{patient_id}-metformin-{number + 1:02d}", visit, METFORMIN, at, completed)


def _stay(patient_id: str, start: dt.datetime, random: Random) -> Iterator[Resource]:
    """A stay in hospital, whose diagnosis is coded with the date of admission, as billing does."""
    stay = encounter(
        f"{patient_id}-stay", patient_id, "IMP", "inpatient encounter", start, start + random.randint(2, 9) * _DAY
    )
    yield stay
    onset = stay["period"]["start"]
    yield condition(f"{patient_id}-j18", stay, "encounter-diagnosis", PNEUMONIA, onset, start)


def _newest(resources: Iterable[Resource], person: Resource, measure: Measure) -> Resource:
    results = [
        each
        for each in resources
        if each["resourceType"] == "Observation"
        and _is_about(each, person)
        and each["code"]["coding"][0]["code"] == measure.code.code
    ]
    return max(results, key=lambda each: dt.datetime.fromisoformat(each["effectiveDateTime"]))


def _is_about(resource: Resource, person: Resource) -> bool:
    return bool(resource["subject"]["reference"] == f"Patient/{person['id']}")


def _start(visit: Resource) -> dt.datetime:
    return dt.datetime.fromisoformat(visit["period"]["start"]).astimezone(dt.UTC)
