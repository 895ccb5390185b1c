"""Runs the tables of `evidence.py`: FHIR resources through the landing and normalize, and what the lake then says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from evidence import PAGE, SPECS, Spec, instant, markdown, table
from landing import land, rows, warehouse

from fhir_features.normalize import normalize

_LOINC = {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]}
_SNOMED = {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]}
_RXNORM = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]}
_P1 = {"reference": "Patient/p1"}

_KNOWN = """
WITH visible AS (
  SELECT known_at, known_to, CASE WHEN status = 'entered-in-error' THEN 'withdrawn' ELSE value_number::VARCHAR END AS known
  FROM observations
  UNION ALL SELECT known_at, known_to, coalesce(clinical_status, 'present') FROM conditions
  UNION ALL SELECT known_at, known_to, status FROM medication_requests
  UNION ALL SELECT known_at, known_to, status FROM encounters
  UNION ALL SELECT known_at, known_to, CASE WHEN deceased THEN 'deceased' ELSE 'alive' END FROM patients
)
SELECT coalesce(string_agg(known, ', ' ORDER BY known DESC), '')
FROM visible
WHERE known_at <= $1 AND ($1 < known_to OR known_to IS NULL)"""


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.rule}: {spec.title}")
def test_what_is_known(spec: Spec, tmp_path: Path) -> None:
    config = warehouse(tmp_path, **spec.source)
    arrivals: dict[dt.datetime, list[dict[str, Any]]] = {}
    for number, line in enumerate(table(spec.arrives)):
        arrivals.setdefault(instant(line["received"]), []).append(_entry(line, number))
    for received_at, entries in arrivals.items():
        land(config, entries, received_at, format="bundle")
        normalize(config)
    for asked in table(spec.known):
        answer = rows(config, _KNOWN, instant(asked["asked at"]))[0][0]
        known = ", ".join(sorted(asked["known"].split(", "), reverse=True))
        assert answer == known, f"asked at {asked['asked at']}"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run 'make docs'"


def _entry(line: dict[str, str], number: int) -> dict[str, Any]:
    kind = line["resource"]
    # Lines of one table are versions of one resource, but where they differ in category.
    resource_id = f"r{number}" if line.get("category") else "r1"
    if line.get("status") == "DELETED":
        return {"request": {"method": "DELETE", "url": f"{kind}/{resource_id}"}}
    meta = {"versionId": line["version"], "lastUpdated": _text(line["lastUpdated"])}
    resource = {"resourceType": kind, "id": resource_id, "meta": meta, **_BUILDERS[kind](line)}
    return {"resource": _without_empty(resource)}


def _observation(line: dict[str, str]) -> dict[str, Any]:
    value: Any = line["value"].strip('"') if '"' in line["value"] else float(line["value"])
    return {
        "status": line["status"],
        "category": _categories(line),
        "code": _LOINC,
        "subject": _P1,
        "effectiveDateTime": _text(line["drawn"]),
        "issued": _text(line["issued"]),
        "valueQuantity": {"value": value, "unit": "%"},
    }


def _condition(line: dict[str, str]) -> dict[str, Any]:
    return {
        "clinicalStatus": {"coding": [{"code": line["status"]}]},
        "category": _categories(line),
        "code": _SNOMED,
        "subject": _P1,
        "encounter": {"reference": "Encounter/r1"} if line.get("encounter") else {},
        "onsetDateTime": _text(line["onset"]),
        "abatementDateTime": _text(line.get("abated", "")),
        "recordedDate": _text(line["recorded"]),
    }


def _order(line: dict[str, str]) -> dict[str, Any]:
    return {
        "status": line["status"],
        "intent": "order",
        "medicationCodeableConcept": _RXNORM,
        "subject": _P1,
        "authoredOn": _text(line["authored"]),
        "reportedBoolean": True if line.get("reported") else "",
    }


def _encounter(line: dict[str, str]) -> dict[str, Any]:
    period = {"start": _text(line["start"]), "end": _text(line["end"])}
    return {"status": line["status"], "class": {"code": "IMP"}, "subject": _P1, "period": period}


def _report(line: dict[str, str]) -> dict[str, Any]:
    return {"status": line["status"], "issued": _text(line["issued"]), "result": [{"reference": "Observation/r1"}]}


def _patient(line: dict[str, str]) -> dict[str, Any]:
    return {"birthDate": line["born"], "gender": "female", "deceasedDateTime": _text(line["deceased"])}


_BUILDERS = {
    "DiagnosticReport": _report,
    "Observation": _observation,
    "Condition": _condition,
    "MedicationRequest": _order,
    "Encounter": _encounter,
    "Patient": _patient,
}


def _categories(line: dict[str, str]) -> list[dict[str, Any]]:
    return [{"coding": [{"code": line["category"]}]}] if line.get("category") else []


def _text(written: str) -> str:
    """`5 14:00` as FHIR writes it; a text with a `T`, or a date alone, stays as it is."""
    if not written or "T" in written or " " not in written:
        return written
    return instant(written).strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ("", {}, [])}
    return value
