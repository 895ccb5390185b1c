"""What is withdrawn, moved, re-dated or merged: FHIR in, training rows out, at several T and with several cut-offs.

Each case is received twice: as it happened, in runs of 6, 8, 10 and 12 March 2024 at midnight, and all at once in a run
of the 12th, as a bulk export with history has it. What was known at T is the same both times.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from landing import at, land, warehouse
from withdrawals import CASES, Case, instant, person

import fhir_features
from fhir_features import FeatureStore, FeatureView
from fhir_features.normalize import normalize

RUNS = ("2024-03-06 00:00", "2024-03-08 00:00", "2024-03-10 00:00", "2024-03-12 00:00")
hba1c = fhir_features.observation("loinc:4548-4", unit="%")
glucose = fhir_features.observation("loinc:2345-7", unit="mg/dL")
VIEW = FeatureView(
    name="results",
    entity=fhir_features.patient,
    features=[
        hba1c.last().named("last"),
        hba1c.count().named("count"),
        hba1c.last(within="72h").named("recent"),
        glucose.last().named("glucose"),
        fhir_features.condition("icd10cm:E11", descendants=True).active().named("diabetes"),
        fhir_features.medication("rxnorm:6809", ingredient=True).active(assume="90d").named("metformin"),
        fhir_features.encounter("inpatient").active().named("in_hospital"),
    ],
)

Answers = Callable[[int, str, str, str], dict[str, Any]]


def lines(case: Case) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in case.answers.strip().splitlines()]


def named(resource: Any, number: int) -> Any:
    """A resource of a case with ids that no other case has."""
    if isinstance(resource, list):
        return [named(each, number) for each in resource]
    if not isinstance(resource, dict):
        return resource
    own = {key: named(value, number) for key, value in resource.items()}
    for key in ("id", "reference", "url"):
        if key in own:
            own[key] = f"{own[key]}-{number}"
    return own


def entry(resource: dict[str, Any]) -> dict[str, Any]:
    return resource if "request" in resource else {"resource": resource}


@pytest.fixture(scope="module", params=["as it happened", "all at once"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Answers by case, T, cut-off and patient, all asked of one lake."""
    folder: Path = tmp_path_factory.mktemp("withdrawals")
    config = warehouse(folder)
    arrived = [
        [
            entry(named(resource, number))
            for number, case in enumerate(CASES)
            for resource in [
                person("A", "1", "01 00") if run == 0 else None,
                *dict(enumerate(case.arrives)).get(run, []),
            ]
            if resource is not None
        ]
        for run in range(len(RUNS))
    ]
    if request.param == "all at once":
        arrived = [[], [], [], [each for run in arrived for each in run]]
    for received, entries in zip(RUNS, arrived, strict=True):
        if entries:
            land(config, entries, at(received), format="bundle")
    for summary in normalize(config):
        assert summary.quarantined == 0
    rows = [(number, *line[:3]) for number, case in enumerate(CASES) for line in lines(case)]
    found: dict[tuple[int, str, str, str], dict[str, Any]] = {}
    for cutoff in sorted({row[2] for row in rows}):
        asked = [row for row in rows if row[2] == cutoff]
        spine = {
            "site": ["north"] * len(asked),
            "patient_id": [f"{patient}-{number}" for number, _, _, patient in asked],
            "event_timestamp": pa.array([instant(t) for _, t, _, _ in asked], pa.timestamp("us", tz="UTC")),
        }
        known_as_of = instant(cutoff) if cutoff else None
        answered = FeatureStore(folder).get_historical_features(pa.table(spine), [VIEW], known_as_of=known_as_of)
        found |= dict(zip(asked, answered.to_arrow().to_pylist(), strict=True))
    return lambda *row: found[row]


@pytest.mark.parametrize(
    "number",
    [pytest.param(number, id=case.title) for number, case in enumerate(CASES)],
)
def test_what_was_known(answers: Answers, number: int) -> None:
    for t, cutoff, patient, expected in lines(CASES[number]):
        name, _, value = expected.rpartition("=")
        answer = answers(number, t, cutoff, patient)[name or "last"]
        assert answer == (None if value == "-" else pytest.approx(float(value))), f"{patient} at {t}, {cutoff}"
