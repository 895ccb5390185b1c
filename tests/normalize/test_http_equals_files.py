"""The same resources by HTTP and from a folder give the same event rows, but for what tells versions and receipts."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from landing import observation, patient
from sources.fhir_server import FhirServer

from fhir_features.config import Config, load_config
from fhir_features.lake import EVENT_TABLES, create_views, newest_store_seq, reading
from fhir_features.normalize import normalize
from fhir_features.sources import pull

SYNTHEA = Path(__file__).parents[3] / "shared" / "data" / "synthea_r4"
TYPES = ("Patient", "Encounter", "Observation", "Condition", "MedicationRequest")


def _invented() -> list[dict[str, Any]]:
    results = [observation(f"o{n}", valueQuantity={"value": n, "unit": "%"}) for n in range(300)]
    orders = [
        {
            "resourceType": "MedicationRequest",
            "id": f"m{n}",
            "status": "stopped",
            "intent": "order",
            "subject": {"reference": "Patient/p1"},
            "authoredOn": "2024-03-05",
        }
        for n in range(30)
    ]
    return [patient(), *results, *orders]


def _synthea() -> list[dict[str, Any]]:
    if not SYNTHEA.exists():
        pytest.skip("the Synthea sample is not here")
    return [json.loads(line) for kind in TYPES for line in islice(gzip.open(SYNTHEA / f"{kind}.ndjson.gz"), 250)]


@pytest.mark.parametrize("resources", [_invented, _synthea])
def test_event_rows_are_the_same(resources: Any, tmp_path: Path) -> None:
    server = FhirServer()
    try:
        server.resources = [
            {**resource, "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}} for resource in resources()
        ]
        by_http = _normalized(tmp_path / "http", f'kind = "search"\nbase_url = "{server.base}"\npage_size = 1000')
    finally:
        server.stop()
    (tmp_path / "files" / "in").mkdir(parents=True)
    text = "".join(json.dumps(resource) + "\n" for resource in resources())
    (tmp_path / "files" / "in" / "export.ndjson").write_text(text)
    from_files = _normalized(tmp_path / "files", 'kind = "files"\npath = "in"')
    for table in EVENT_TABLES.values():
        assert _comparable(by_http, table.name, table.names) == _comparable(from_files, table.name, table.names)


def _normalized(folder: Path, where: str) -> Config:
    folder.mkdir(exist_ok=True)
    common = 'site = "boston"\ntimezone = "America/New_York"\ntrust_last_updated = false'
    (folder / "fhir_features.toml").write_text(f"[sources.s]\n{common}\n{where}\n")
    config = load_config(folder)
    pull(config, ["s"])
    (summary,) = normalize(config)
    assert summary.quarantined == 0
    return config


def _comparable(config: Config, table: str, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    derived = ("version", "run_id", "known_at")
    kept = ", ".join(name for name in names if name not in derived)
    sql = f"SELECT {kept}, CASE WHEN known_at_source <> 'received' THEN known_at END FROM {table} ORDER BY ALL"
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        return con.execute(sql).fetchall()


def test_a_reader_leaves_no_trace_outside_the_warehouse(tmp_path: Path) -> None:
    """DuckDB spills into `.tmp` of the current folder unless told otherwise; what it spills is patient data."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "export.ndjson").write_text(json.dumps(patient()) + "\n")
    config = _normalized(tmp_path, 'kind = "files"\npath = "in"')
    with reading(config.warehouse.path / "lake") as con:
        (spill,) = con.execute("SELECT current_setting('temp_directory')").fetchone() or ()
    assert Path(spill).is_relative_to(config.warehouse.path)
