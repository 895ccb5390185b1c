"""Invented patients are the same every time, use only codes that the ontologies know, and arrive when they should."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from fhir_features.config import load_config
from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.normalize import normalize
from fhir_features.ontology import load_ontologies
from fhir_features.sources import pull
from fhir_features.synthetic import TIME_ZONE, later, population, write_ndjson

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
AFTERWARDS = NOW + dt.timedelta(hours=3)
RESOURCES = population(patients=8, seed=1, now=NOW)
NEWS = later(RESOURCES, now=AFTERWARDS)

PRINT = """
import datetime as dt, hashlib, json
from fhir_features.synthetic import later, population
now = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
first = population(patients=8, seed=1, now=now)
print(hashlib.sha256(json.dumps([first, later(first, now=now + dt.timedelta(hours=3))]).encode()).hexdigest())
"""


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def of(resources: list[dict], resource_type: str) -> list[dict]:
    return [each for each in resources if each["resourceType"] == resource_type]


def test_the_same_arguments_give_the_same_resources_in_any_process():
    def printed(hash_seed: str, time_zone: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": time_zone}
        return subprocess.run([sys.executable, "-c", PRINT], env=env, capture_output=True, text=True, check=True).stdout

    assert printed("1", "UTC") == printed("2", "Asia/Kolkata")


def test_another_seed_gives_other_patients_and_more_patients_leave_the_first_as_they_are():
    assert population(patients=8, seed=2, now=NOW) != RESOURCES
    assert population(patients=9, seed=1, now=NOW)[: len(RESOURCES)] == RESOURCES


def test_every_id_is_there_once_and_nothing_is_younger_than_now():
    assert len({(each["resourceType"], each["id"]) for each in RESOURCES}) == len(RESOURCES)
    assert max(instant(each["meta"]["lastUpdated"]) for each in RESOURCES) <= NOW


def test_laboratory_results_are_reported_hours_or_days_after_they_were_drawn():
    delays = [
        instant(o["issued"]) - instant(o["effectiveDateTime"]) for o in of(RESOURCES, "Observation") if "issued" in o
    ]
    assert min(delays) >= dt.timedelta(hours=1)
    assert max(delays) > dt.timedelta(days=1)


def test_all_kinds_of_what_hospitals_send_are_there():
    orders = of(RESOURCES, "MedicationRequest")
    assert {key for order in orders for key in order if key.startswith("medication")} == {
        "medicationCodeableConcept",
        "medicationReference",
    }
    systems = {c["system"] for each in of(RESOURCES, "Condition") for c in each["code"]["coding"]}
    assert systems == {"http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"}
    assert any("component" in each for each in of(RESOURCES, "Observation"))
    assert {each["class"]["code"] for each in of(RESOURCES, "Encounter")} == {"AMB", "IMP"}


def test_later_come_a_corrected_a_withdrawn_and_a_late_result_of_every_third_patient():
    before = {each["id"]: each for each in RESOURCES}
    assert len(NEWS) == 3 * 3
    for corrected, withdrawn, late in zip(NEWS[::3], NEWS[1::3], NEWS[2::3], strict=True):
        assert (corrected["status"], corrected["meta"]["versionId"]) == ("corrected", "2")
        assert corrected["valueQuantity"] != before[corrected["id"]]["valueQuantity"]
        assert corrected["effectiveDateTime"] == before[corrected["id"]]["effectiveDateTime"]
        assert withdrawn["status"] == "entered-in-error"
        assert withdrawn["id"] in before
        assert late["id"] not in before
        assert instant(late["effectiveDateTime"]) < NOW < instant(late["issued"])


def test_every_code_resolves_to_a_concept_that_the_shipped_ontologies_know():
    known = load_ontologies()
    codings = [
        coding
        for each in RESOURCES
        for concept in (each.get("code"), each.get("medicationCodeableConcept"))
        for coding in (concept or {}).get("coding", [])
    ]
    distinct = sorted({(coding["system"], coding["code"], coding["display"]) for coding in codings})
    table = pa.table(
        {
            "code_id": pa.array(range(len(distinct)), pa.int64()),
            "ordinal": pa.array([0] * len(distinct), pa.int16()),
            "system": [system for system, _, _ in distinct],
            "code": [code for _, code, _ in distinct],
            "version": pa.nulls(len(distinct), pa.string()),
            "display": [display for _, _, display in distinct],
            "user_selected": pa.nulls(len(distinct), pa.bool_()),
        }
    )
    statuses = {row["code"]: row["status"] for row in known.resolve_dictionary(table).to_pylist() if row["rank"] == 0}
    assert statuses
    assert not {status for status in statuses.values() if status in ("unmapped", "text_only", "unknown")}, statuses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "received").mkdir()
    (tmp_path / "fhir_features.toml").write_text(f"""
        [sources.ward]
        kind = "files"
        site = "north"
        timezone = "{TIME_ZONE}"
        path = "received"
        resource_types = ["Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "Medication"]
    """)
    return tmp_path


def test_the_store_takes_all_of_it_and_closes_what_was_corrected_and_withdrawn(folder: Path):
    config = load_config(folder)
    write_ndjson(RESOURCES, folder / "received" / "first.ndjson")
    pull(config)
    (first,) = normalize(config)
    assert (first.received, first.quarantined, first.duplicates) == (len(RESOURCES), 0, 0)
    write_ndjson(NEWS, folder / "received" / "later.ndjson")
    pull(config)
    (second,) = normalize(config)
    assert (second.received, second.normalized, second.quarantined) == (len(NEWS), len(NEWS), 0)
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        closed = con.execute(
            "SELECT DISTINCT resource_id, known_to FROM observations WHERE known_to IS NOT NULL"
        ).fetchall()
    assert set(closed) == {(each["id"], AFTERWARDS) for each in NEWS if each["meta"]["versionId"] == "2"}
