"""Histories of single resources that are easy to get wrong: what arrived in which run, and the intervals that follow.

All histories share one lake and its runs of 6, 8, 10 and 12 March 2024, received at midnight.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from landing import at, land, observation, rows, warehouse

from fhir_features import FeatureStore
from fhir_features.config import Config
from fhir_features.normalize import normalize

RUNS = ("2024-03-06 00:00", "2024-03-08 00:00", "2024-03-10 00:00", "2024-03-12 00:00")


@dataclass(frozen=True)
class History:
    """`arrives` has a list of lines a run; `intervals` are (value or status, known_at, known_to), day and hour."""

    title: str
    arrives: tuple[list[dict[str, Any]], ...]
    intervals: list[tuple[Any, str, str | None]]


def _o(value: Any, version: str | None = None, updated: str | None = None, **more: Any) -> dict[str, Any]:
    """A result issued on the 5th at 14:00, as version `version`, last updated on `day hour`."""
    meta = {"versionId": version, "lastUpdated": updated and f"2024-03-{updated.replace(' ', 'T')}:00:00Z"}
    return observation("ID", meta={k: v for k, v in meta.items() if v}, valueQuantity={"value": value}, **more)


def _deleted(modified: str | None = None) -> dict[str, Any]:
    response = {"response": {"lastModified": modified}} if modified else {}
    return {"request": {"method": "DELETE", "url": "Observation/ID"}, **response}


def _order(version: str, updated: str, status: str) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": "ID",
        "meta": {"versionId": version, "lastUpdated": f"2024-03-{updated.replace(' ', 'T')}:00:00Z"},
        "status": status,
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "authoredOn": "2024-03-05T08:00:00Z",
    }


def _person(version: str, updated: str, replaced_by: str | None = None) -> dict[str, Any]:
    link = [{"other": {"reference": f"Patient/{replaced_by}"}, "type": "replaced-by"}] if replaced_by else []
    meta = {"versionId": version, "lastUpdated": f"2024-03-{updated.replace(' ', 'T')}:00:00Z"}
    return {"resourceType": "Patient", "id": "ID", "meta": meta, "birthDate": "1960-05-04", "link": link}


def _stay(status: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": "ID",
        "status": status,
        "subject": {"reference": "Patient/p1"},
        "period": {"start": "2024-03-04T08:00:00Z", "end": "2024-03-05"},
    }


HISTORIES = (
    History(
        "deleted, undeleted and deleted again",
        ([_o(1, "1", "05 14")], [_deleted()], [_o(3, "3", "09 14")], [_deleted()]),
        [(1, "05 14", "08 00"), (3, "09 14", "12 00")],
    ),
    History(
        "deleted twice in one run",
        ([_o(1, "1", "05 14")], [_deleted(), _o(3, "3", "07 14"), _deleted("2024-03-07T20:00:00Z")]),
        [(1, "05 14", "07 14"), (3, "07 14", "07 20")],
    ),
    History(
        "a deletion whose time cannot be read closes at receipt",
        ([_o(1, "1", "05 14")], [_deleted("Fri, 08 Mar 2024 10:00:00 GMT")]),
        [(1, "05 14", "08 00")],
    ),
    History(
        "two values without a version in one file, then a third",
        ([_o(2), _o(1)], [_o(9)]),
        [(2, "05 14", "06 00"), (1, "06 00", "08 00"), (9, "08 00", None)],
    ),
    History(
        "a repeated value without a version is held once",
        ([_o(4), _o(3)], [_o(3)], [_o(4)]),
        [(4, "05 14", "06 00"), (3, "06 00", "10 00"), (4, "10 00", None)],
    ),
    History(
        "versionIds without an order, in the same second, then a third",
        ([_o(1, "b", "05 15"), _o(2, "a", "05 15")], [_o(3, "c", "07 10")]),
        [(1, "05 14", "05 15"), (2, "05 15", "07 10"), (3, "07 10", None)],
    ),
    History(
        "a correction under the same versionId",
        ([_o(7, "1", "05 14")], [_o(6, "1", "07 14", status="corrected")]),
        [(7, "05 14", "07 14"), (6, "07 14", None)],
    ),
    History(
        "versionIds that begin anew, as on a server that was restored",
        ([_o(7, "5", "05 14")], [_o(6, "1", "07 14", status="corrected")]),
        [(7, "05 14", "07 14"), (6, "07 14", None)],
    ),
    History(
        "a correction of what an export without versions had",
        ([_o(7)], [_o(6, "5", "05 20", status="corrected")]),
        [(7, "05 14", "05 20"), (6, "05 20", None)],
    ),
    History(
        "a version that cannot be read, with a number for its versionId",
        (
            [_o(7, "1", "05 14")],
            [_o(7, "1") | {"meta": {"versionId": 2, "lastUpdated": "2024-03-07T10:00:00Z"}}],
        ),
        [(7, "05 14", "07 10")],
    ),
    History(
        "a version that could be read only when it came again",
        ([_o("x", "1", "05 14")], [_o(7, "1", "05 14")], [_o(7, "1", "05 14")]),
        [(7, "05 14", None)],
    ),
    History(
        "a correction that could be read only when it came again",
        ([_o(6, "1", "05 14")], [_o("x", "2", "07 10")], [_o(7, "2", "07 10")]),
        [(6, "05 14", "07 10"), (7, "07 10", None)],
    ),
    History(
        "a withdrawn version that came before the one it withdraws",
        ([_o(7, "2", "05 20", status="entered-in-error")], [_o(7, "1", "05 15")]),
        [(7, "05 14", "05 20"), (7, "05 20", None)],
    ),
    History(
        "the first version of an order that came after its end",
        ([_order("2", "05 20", "stopped")], [_order("1", "05 09", "active")]),
        [
            ("active", "05 08", "05 08"),
            ("active", "05 08", "05 20"),
            ("stopped", "05 20", "05 20"),
            ("stopped", "05 20", None),
        ],
    ),
    History(
        "a merge that is taken back",
        ([_person("1", "05 14")], [_person("2", "07 10", "p9")], [_person("3", "09 10")]),
        [("", "04 00", "07 10"), ("p9", "07 10", "09 10"), ("", "09 10", None)],
    ),
    History(
        "an older record of a merged patient that comes late",
        ([_person("2", "05 14", "p9")], [_person("1", "04 10")]),
        [("", "04 00", "04 00"), ("", "04 00", "05 14"), ("p9", "05 14", "05 14"), ("p9", "05 14", None)],
    ),
    History("a stay that was cancelled was never one", ([_stay("cancelled")],), [("cancelled", "06 00", None)]),
    History("a stay in error was never one", ([_stay("entered-in-error")],), [("entered-in-error", "06 00", None)]),
    History(
        "a stay that ended on a day is over when the day is",
        ([_stay("finished")],),
        [("in-progress", "04 08", "06 00"), ("finished", "06 00", None)],
    ),
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = warehouse(tmp_path_factory.mktemp("histories"))
    for run, received in enumerate(RUNS):
        entries = [
            _named(line, f"h{number}")
            for number, history in enumerate(HISTORIES)
            for line in (history.arrives[run] if run < len(history.arrives) else [])
        ]
        land(config, entries, at(received), format="bundle")
    for summary in normalize(config):
        assert summary.received == summary.normalized + summary.quarantined + summary.duplicates
    return config


def test_each_version_is_counted_once_by_what_its_known_at_rests_on(lake: Config) -> None:
    counted = FeatureStore(lake.file.parent).evidence()
    held = "SELECT resource_type, count(*) FROM (SELECT DISTINCT resource_type, resource_id, source, run_id, row_no FROM lake.versions WHERE states > 0) GROUP BY ALL"
    versions: Counter[str] = Counter()
    for each in counted:
        versions[each.resource_type] += each.versions
    assert dict(versions) == dict(rows(lake, held))
    others = [
        (e.resource_type, e.known_at_source, e.versions)
        for e in counted
        if e.resource_type in ("Encounter", "MedicationRequest")
    ]
    assert others == [
        ("Encounter", "received", 3),
        ("MedicationRequest", "authored_on", 1),
        ("MedicationRequest", "last_updated", 1),
    ]


def _named(line: dict[str, Any], resource_id: str) -> dict[str, Any]:
    if "request" in line:
        return line | {"request": {"method": "DELETE", "url": f"Observation/{resource_id}"}}
    return {"resource": line | {"id": resource_id}}


@pytest.mark.parametrize("number", range(len(HISTORIES)), ids=lambda number: HISTORIES[number].title)
def test_intervals(number: int, lake: Config) -> None:
    sql = """
WITH stated AS (
  SELECT resource_id, known_at, known_to, value_number::INTEGER::VARCHAR AS shown, version, state FROM observations
  UNION ALL SELECT resource_id, known_at, known_to, status, version, state FROM medication_requests
  UNION ALL SELECT resource_id, known_at, known_to, status, version, state FROM encounters
  UNION ALL SELECT resource_id, known_at, known_to, array_to_string(replaced_by, ','), version, state FROM patients
)
SELECT shown, strftime(known_at, '%d %H'), strftime(known_to, '%d %H')
FROM stated
WHERE resource_id = $1
ORDER BY coalesce(known_to, TIMESTAMPTZ '9999-01-01 00:00:00+00'), known_at"""
    expected = [(str(shown), known_at, known_to) for shown, known_at, known_to in HISTORIES[number].intervals]
    assert rows(lake, sql, f"h{number}") == expected


def test_a_bundle_on_a_line_keeps_every_value_with_its_patient(tmp_path: Path) -> None:
    """An ignored type before others in a Bundle once shifted all values by one resource."""
    config = warehouse(tmp_path)
    results = [
        {"resource": observation(f"o{n}", subject={"reference": f"Patient/p{n}"}, valueQuantity={"value": n})}
        for n in range(3)
    ]
    bundle = {"resourceType": "Bundle", "entry": [results[0], {"resource": {"resourceType": "Claim"}}, *results[1:]]}
    nested = {"resourceType": "Bundle", "entry": [{"resource": bundle}]}
    bad = [observation("bad", meta={"versionId": v}, issued="soon") for v in ("1", "2")]
    land(config, [bundle, nested, {"resourceType": "Bundle", "entry": [{"resource": b} for b in bad]}], at(RUNS[0]))
    (summary,) = normalize(config)
    assert (summary.received, summary.normalized, summary.quarantined, summary.ignored) == (7, 3, 3, 1)
    found = rows(config, "SELECT resource_id, patient_id, value_number FROM observations ORDER BY ALL")
    assert found == [(f"o{n}", f"p{n}", float(n)) for n in range(3)]


def test_a_local_code_beside_it_does_not_hide_that_a_diagnosis_is_in_error(tmp_path: Path) -> None:
    system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
    codings = [{"system": "urn:local", "code": "9"}, {"system": system, "code": "entered-in-error"}]
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/p1"},
        "verificationStatus": {"coding": codings},
        "recordedDate": "2024-03-05",
    }
    config = warehouse(tmp_path)
    land(config, [condition], at(RUNS[0]))
    normalize(config)
    assert rows(config, "SELECT verification_status FROM conditions") == [("entered-in-error",)]


def test_a_death_is_not_known_from_birth_under_any_policy(tmp_path: Path) -> None:
    config = warehouse(tmp_path, known_at="reported")
    patient = {"resourceType": "Patient", "id": "p1", "birthDate": "1960-05-04", "deceasedDateTime": "2024-03-04"}
    land(config, [patient], at(RUNS[0]))
    normalize(config)
    sql = "SELECT deceased, deceased_at, strftime(known_at, '%Y-%m-%d') FROM patients ORDER BY known_at"
    assert rows(config, sql) == [(False, None, "1960-05-04"), (True, at("2024-03-04 00:00"), "2024-03-06")]


_ABSURD: tuple[dict[str, Any], ...] = (
    {"resourceType": "MedicationRequest", "dispenseRequest": {"numberOfRepeatsAllowed": 3_000_000_000}},
    {"resourceType": "Condition", "onsetAge": {"value": 1e9, "code": "a"}},
    {"resourceType": "Condition", "onsetAge": {"value": 1e300, "code": "d"}},
    {"resourceType": "Observation", "valueInteger": 10**30},
    {"resourceType": "Observation", "component": [{}] * 70_000},
)


def test_absurd_numbers_stop_nothing(tmp_path: Path) -> None:
    shared = {"id": "a", "status": "final", "intent": "order", "code": {}, "subject": {"reference": "Patient/p1"}}
    lines = [shared | line | ({"status": "active"} if "dispenseRequest" in line else {}) for line in _ABSURD]
    config = warehouse(tmp_path)
    land(config, [*lines, observation("good")], at(RUNS[0]))
    (summary,) = normalize(config)
    assert (summary.normalized, summary.quarantined) == (1, len(_ABSURD))


@pytest.mark.parametrize(("backfill", "known"), [(False, ("last_updated", "05 15")), (True, ("issued", "05 14"))])
def test_the_history_of_new_patients_is_not_witnessed_by_the_pull_that_brings_it(
    tmp_path: Path, backfill: bool, known: tuple[str, str]
) -> None:
    """A first sight in an incremental pull is a beginning, unless the patient was not asked about before."""
    config = warehouse(tmp_path)
    result = observation(meta={"versionId": "3", "lastUpdated": "2024-03-05T15:00:00Z"})
    land(config, [result], at(RUNS[0]), since=at("2024-03-05 12:00"), backfill=backfill)
    normalize(config)
    assert rows(config, "SELECT known_at_source, strftime(known_at, '%d %H') FROM observations") == [known]


@pytest.mark.parametrize("resource_type", ["Medication", "DiagnosticReport", "Provenance"])
def test_an_older_version_may_come_late_of_what_has_no_events(tmp_path: Path, resource_type: str) -> None:
    """What proves the beginning of a snapshot states its events anew: of these types there are none."""
    versions = [
        {
            "resourceType": resource_type, "id": "m1", "meta": {"versionId": n, "lastUpdated": f"2024-03-0{n}T10:00:00Z"},
            "status": "final", "recorded": "2024-03-01T10:00:00Z", "code": {"text": f"as in version {n}"},
        }
        for n in ("2", "1")
    ]  # fmt: skip
    config = warehouse(tmp_path)
    for version, received in zip(versions, RUNS, strict=False):
        land(config, [version], at(received))
    assert [summary.normalized for summary in normalize(config)] == [1, 1]
    assert rows(config, "SELECT version, witnessed, strftime(known_at, '%d') FROM lake.versions ORDER BY ALL") == [
        ("1", False, "01"),
        ("2", False, "02"),
    ]


def test_a_landed_file_that_changed_is_refused(tmp_path: Path) -> None:
    from fhir_features.errors import LandingError

    config = warehouse(tmp_path)
    run = land(config, [observation()], at(RUNS[0]))
    path = run.folder / run.files[0].name
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(LandingError, match="differs"):
        normalize(config)
    path.write_bytes(content)
    assert [summary.normalized for summary in normalize(config)] == [1]
