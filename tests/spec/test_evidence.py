"""Runs the tables of `evidence.py`: FHIR resources through the landing and normalize, and what the lake then says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import duckdb
import pytest
from evidence import PAGE, SPECS, Spec, instant, markdown, table
from landing import land, warehouse

from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.normalize import normalize

_LOINC = {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]}
_SNOMED = {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]}
_RXNORM = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]}

_KNOWN = """
WITH visible AS (
  SELECT patient_id, known_at, known_to, CASE WHEN status = 'entered-in-error' THEN 'withdrawn' ELSE value_number::VARCHAR END AS known
  FROM observations
  UNION ALL SELECT patient_id, known_at, known_to, coalesce(clinical_status, 'present') FROM conditions
  UNION ALL SELECT patient_id, known_at, known_to, status FROM medication_requests
  UNION ALL SELECT patient_id, known_at, known_to, status FROM encounters
  UNION ALL SELECT patient_id, known_at, known_to, CASE WHEN deceased THEN 'deceased' ELSE 'alive' END FROM patients
)
SELECT coalesce(string_agg(known, ', ' ORDER BY known DESC), '')
FROM visible
WHERE patient_id = $1 AND known_at <= $2 AND ($2 < known_to OR known_to IS NULL)"""

_SINCE = instant("1 00:00")

Lakes = dict[str, duckdb.DuckDBPyConnection]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakes]:
    """A lake for each configuration of a source that the tables have; each table is one patient of one of them."""
    with ExitStack() as open_lakes:
        yield {
            kind: open_lakes.enter_context(_lake(tmp_path_factory, kind)) for kind in dict.fromkeys(map(_kind, SPECS))
        }


@contextmanager
def _lake(folders: pytest.TempPathFactory, kind: str) -> Iterator[duckdb.DuckDBPyConnection]:
    source, history = json.loads(kind)
    config = warehouse(folders.mktemp("evidence"), **source)
    arrivals: dict[dt.datetime, list[dict[str, Any]]] = {}
    for number, spec in enumerate(SPECS):
        if _kind(spec) == kind:
            for place, line in enumerate(table(spec.arrives)):
                arrivals.setdefault(instant(line["received"]), []).append(_entry(line, f"p{number}", place))
    for received_at, entries in sorted(arrivals.items()):
        land(config, entries, received_at, format="bundle", history=history, since=_SINCE if history else None)
    normalize(config)
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        yield con


def _kind(spec: Spec) -> str:
    return json.dumps([spec.source, spec.history])


@pytest.mark.parametrize("number", range(len(SPECS)), ids=lambda number: f"{SPECS[number].rule}: {SPECS[number].title}")
def test_what_is_known(number: int, lakes: Lakes) -> None:
    spec = SPECS[number]
    for asked in table(spec.known):
        answer = lakes[_kind(spec)].execute(_KNOWN, [f"p{number}", instant(asked["asked at"])]).fetchall()[0][0]
        known = ", ".join(sorted(asked["known"].split(", "), reverse=True))
        assert answer == known, f"asked at {asked['asked at']}"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run 'make docs'"


def _entry(line: dict[str, str], patient_id: str, place: int) -> dict[str, Any]:
    kind = line["resource"]
    # Lines of one table are versions of one resource, but where they differ in category. A Patient is the patient.
    resource_id = f"{patient_id}-{place}" if line.get("category") else patient_id
    if line.get("status") == "DELETED":
        response = {"lastModified": _text(line["lastUpdated"])}
        entry = {"request": {"method": "DELETE", "url": f"{kind}/{resource_id}"}, "response": response}
        return _without_empty(entry)
    meta = {"versionId": line["version"], "lastUpdated": _text(line["lastUpdated"]), "source": line.get("system", "")}
    resource = {"resourceType": kind, "id": resource_id, "meta": meta, **_BUILDERS[kind](line)}
    if kind in ("Observation", "Condition", "MedicationRequest", "Encounter"):
        resource["subject"] = {"reference": f"Patient/{line.get('subject') or patient_id}"}
    return {"resource": _without_empty(_named(resource, patient_id))}


def _named(value: Any, patient_id: str) -> Any:
    """References in a table are to `ID`: the resources of one table share the id of its patient."""
    return json.loads(json.dumps(value).replace("/ID", f"/{patient_id}"))


def _observation(line: dict[str, str]) -> dict[str, Any]:
    value: Any = line["value"].strip('"') if '"' in line["value"] or not line["value"] else float(line["value"])
    return {
        "status": line["status"],
        "category": _categories(line),
        "hasMember": [{"reference": f"Observation/{line['members']}"}] if line.get("members") else [],
        "code": _LOINC,
        "effectiveDateTime": _text(line["drawn"]),
        "issued": _text(line["issued"]),
        "valueQuantity": {"value": value, "unit": "%"} if line["value"] else {},
    }


def _condition(line: dict[str, str]) -> dict[str, Any]:
    return {
        "clinicalStatus": {"coding": [{"code": line["status"]}]},
        "category": _categories(line),
        "code": _SNOMED,
        "encounter": {"reference": "Encounter/ID"} if line.get("encounter") else {},
        "onsetDateTime": _text(line["onset"]),
        "abatementDateTime": _text(line.get("abated", "")),
        "recordedDate": _text(line["recorded"]),
    }


def _order(line: dict[str, str]) -> dict[str, Any]:
    return {
        "status": line["status"],
        "intent": "order",
        "medicationCodeableConcept": _RXNORM,
        "authoredOn": _text(line["authored"]),
        "reportedBoolean": True if line.get("reported") else "",
    }


def _encounter(line: dict[str, str]) -> dict[str, Any]:
    period = {"start": _text(line["start"]), "end": _text(line["end"])}
    admission = {"condition": {"reference": f"Condition/{line.get('admission')}"}, "use": {"coding": [{"code": "AD"}]}}
    diagnosis = [admission] if line.get("admission") else []
    return {"status": line["status"], "class": {"code": "IMP"}, "period": period, "diagnosis": diagnosis}


def _report(line: dict[str, str]) -> dict[str, Any]:
    return {
        "status": line["status"],
        "issued": _text(line["issued"]),
        "result": [{"reference": f"Observation/{line.get('result', 'ID')}"}],
    }


def _provenance(line: dict[str, str]) -> dict[str, Any]:
    agent = [{"type": {"coding": [{"code": line["agent"]}]}}]
    return {"target": [{"reference": line["about"]}], "recorded": _text(line["recorded"]), "agent": agent}


def _patient(line: dict[str, str]) -> dict[str, Any]:
    return {"birthDate": line["born"], "gender": "female", "deceasedDateTime": _text(line["deceased"])}


_BUILDERS = {
    "DiagnosticReport": _report,
    "Provenance": _provenance,
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
