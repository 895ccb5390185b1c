"""A run that is normalized in many slices leaves what it would have left as one, whatever is in it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from landing import at, few_rows_at_once, land, observation, rows, warehouse

from fhir_features.config import Config
from fhir_features.errors import LakeError
from fhir_features.lake import writing
from fhir_features.lake.schema import META, TABLES
from fhir_features.normalize import decoding, normalize, run
from fhir_features.normalize.run import normalize_runs
from fhir_features.normalize.validation import Validation
from fhir_features.sources import landed_runs
from fhir_features.synthetic import later, population

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FIRST, SECOND, THIRD = (NOW + dt.timedelta(days=day) for day in (1, 2, 3))


def _report(number: int, *results: str, **more: Any) -> dict[str, Any]:
    named = [{"reference": f"Observation/{result}"} for result in results]
    meta = {"versionId": "1", "lastUpdated": f"2024-03-06T0{number}:00:00Z"}
    return {
        "resourceType": "DiagnosticReport", "id": f"report-{number}", "meta": meta, "status": "final",
        "issued": f"2024-03-05T1{number}:00:00Z", "result": named, **more,
    }  # fmt: skip


def _provenance(number: int, target: str) -> dict[str, Any]:
    agent = {"type": {"coding": [{"code": "transmitter"}]}, "who": {"display": "elsewhere"}}
    return {
        "resourceType": "Provenance", "id": f"provenance-{number}", "recorded": f"2026-02-0{number}T10:00:00Z",
        "target": [{"reference": target}], "agent": [agent],
    }  # fmt: skip


def _diagnosis(number: int, encounter: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Condition", "id": f"diagnosis-{number}", "subject": encounter["subject"],
        "encounter": {"reference": f"Encounter/{encounter['id']}"}, "code": {"text": "of the stay"},
        "category": [{"coding": [{"code": "encounter-diagnosis"}]}], "recordedDate": "2026-02-01", **more,
    }  # fmt: skip


def _runs() -> list[list[dict[str, Any]]]:
    """Three runs: all types with what they take from each other, news, and what is old, late or repeated."""
    first = population(patients=4, seed=1, now=NOW)
    stays = [each for each in first if each["resourceType"] == "Encounter"]
    inside = observation("inside", issued=None)
    panel = observation("panel", issued=None, hasMember=[{"reference": "Observation/inside"}])
    outer = observation("outer", issued=None, hasMember=[{"reference": "Observation/panel"}])
    supporting = [
        *(_diagnosis(n, stay, onsetAge={"value": 40 + n, "code": "a"}) for n, stay in enumerate(stays[:5])),
        _report(1, "outer"),
        _report(2, "panel", status="entered-in-error"),
        _provenance(1, f"Observation/{next(r['id'] for r in first if r['resourceType'] == 'Observation')}"),
        _provenance(2, f"Encounter/{stays[0]['id']}"),
        {"resourceType": "Medication", "id": "m1", "code": {"text": "of a list"}},
        {"resourceType": "Slot", "id": "ignored"},
        observation("unreadable", effectiveDateTime="2024-02-30T10:00:00Z"),
    ]
    news = later(first, now=NOW + dt.timedelta(hours=3))
    numbered = [
        observation("several", meta={"versionId": str(n), "lastUpdated": f"2024-03-0{n}T00:00:00Z"}, status=status)
        for n, status in ((3, "entered-in-error"), (1, "final"), (2, "corrected"))
    ]
    unnumbered = [observation("anonymous", valueQuantity={"value": value}) for value in (1, 2, 2, 1)]
    return [
        [inside, *first, *supporting, panel, outer, numbered[0], unnumbered[0]],
        [*news, *first[::3], numbered[1], *unnumbered[1:3], _report(3, "inside"), _diagnosis(9, stays[-1])],
        [numbered[2], *numbered, unnumbered[3], *news[::2], *stays],
    ]


def _normalized(folder: Path, runs: list[list[dict[str, Any]]], **source: Any) -> Config:
    folder.mkdir()
    config = warehouse(folder, **source)
    for resources, received in zip(runs, (FIRST, SECOND, THIRD), strict=True):
        land(config, resources, received)
        normalize(config, validation=Validation.ALL)
    return config


@pytest.mark.parametrize(
    "source", [{}, {"one_result_by": ["http://lab.example.org/orders"]}], ids=["ids", "identities"]
)
def test_a_run_in_slices_leaves_what_it_would_have_left_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, list[str]]
) -> None:
    runs = _runs()
    for system in source.get("one_result_by", []):
        for each in (resource for resources in runs for resource in resources):
            if each["id"] in ("several", "panel", "inside"):
                each["identifier"] = [{"system": system, "value": "order-1"}]
    whole = _normalized(tmp_path / "whole", runs, **source)
    few_rows_at_once(monkeypatch, 30)
    monkeypatch.setattr(decoding, "_BATCH_LINES", 11)
    in_slices = _normalized(tmp_path / "slices", runs, **source)
    for table in TABLES:
        if table is not META:
            content = f"SELECT * FROM lake.{table.name} ORDER BY ALL"
            expected = rows(whole, content)
            assert rows(in_slices, content) == expected, table.name
            assert expected or table.name == "quarantine_resolved"
    assert list((in_slices.warehouse.path / "lake").glob("spill-*")) == []


def test_results_of_any_size_are_in_slices_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows_at_once(monkeypatch, 50_000, bytes_at_once=40_000)
    monkeypatch.setattr(decoding, "_BATCH_LINES", 5)
    config = warehouse(tmp_path)
    land(
        config,
        [observation(f"o{n}", valueString="x" * 10_000, valueQuantity=None) for n in range(20)],
        at("2024-03-20"),
    )
    (summary,) = normalize(config)
    assert summary.normalized == 20
    assert rows(config, "SELECT count(*), count(DISTINCT resource_id) FROM observations") == [(20, 20)]
    data = config.warehouse.path / "lake" / "data" / "main" / "observations"
    assert len(list(data.iterdir())) > 1


def test_what_does_not_fit_is_normalized_once_with_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = warehouse(tmp_path)
    land(
        config,
        [observation("o1", valueString="x" * 9_000_000, valueQuantity=None), observation("o2")],
        at("2024-03-20"),
    )
    monkeypatch.setattr(run, "_MEMORY", ("8MB", "8MB", "16MB"))
    with pytest.raises(LakeError, match="OutOfMemoryException"):
        normalize(config)
    monkeypatch.setattr(run, "_MEMORY", ("8MB", "800MB", "800MB"))
    (summary,) = normalize(config)
    assert (summary.normalized, summary.quarantined, summary.duplicates) == (2, 0, 0)
    assert rows(config, "SELECT resource_id, length(value_string) FROM observations ORDER BY ALL") == [
        ("o1", 9_000_000),
        ("o2", None),
    ]
    assert list((config.warehouse.path / "lake").glob("spill-*")) == []


def test_nothing_of_a_run_in_slices_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB keeps what it reads of files, up to its limit: so memory grew with a run, whose slices are read once."""
    few_rows_at_once(monkeypatch, 30)
    monkeypatch.setattr(decoding, "_BATCH_LINES", 11)
    config = warehouse(tmp_path)
    land(config, [observation(f"o{n}") for n in range(200)], FIRST)
    runs = landed_runs(config.warehouse.path / "landing")
    with writing(config.warehouse.path / "lake", buckets=config.warehouse.buckets) as con:
        (summary,) = normalize_runs(con, config, runs)
        kept = con.execute(
            "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'EXTERNAL_FILE_CACHE'"
        ).fetchall()
    assert summary.normalized == 200
    assert kept == [(0,)]
