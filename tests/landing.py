"""Landed runs for tests, with the times of receipt that a test states: what `pull` would have landed then."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fhir_features.config import Config, load_config
from fhir_features.files import sha256_of
from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.normalize import events, run_tables, staging, versions
from fhir_features.sources.landing import LandedFile, LandedRun, LandedType, Receipt, write_record

TYPES = ("Patient", "Encounter", "Observation", "Condition", "MedicationRequest")


def warehouse(folder: Path, **source: Any) -> Config:
    """A configuration with one source, `ward` of site `north`, in UTC unless said otherwise."""
    settings = {"kind": "files", "path": "in", "site": "north", "timezone": "UTC", **source}
    lines = "\n".join(f"{key} = {_toml(value)}" for key, value in settings.items() if value is not None)
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "fhir_features.toml").write_text(f"[sources.ward]\n{lines}\n")
    return load_config(folder)


def land(
    config: Config,
    lines: Sequence[dict[str, Any] | bytes],
    received_at: dt.datetime,
    *,
    since: dt.datetime | None = None,
    backfill: bool = False,
    history: bool = False,
    format: str = "ndjson",
) -> LandedRun:
    """Land one run of the source `ward`, all of it received at one instant. `since` makes it an incremental pull,
    `backfill` one of patients who are new in it, and `history` one that reads what happened from the histories of the types."""
    run_id = received_at.strftime("%Y%m%dT%H%M%S%fZ")
    folder = config.warehouse.path / "landing" / "ward" / run_id
    folder.mkdir(parents=True)
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    content = (
        b"\n".join(texts) + b"\n"
        if format == "ndjson"
        else b'{"resourceType":"Bundle","entry":[%s]}' % b",".join(texts)
    )
    path = folder / "files-0001.ndjson.zst"
    path.write_bytes(zstandard.compress(content))
    file = LandedFile(
        name=path.name,
        original="export.ndjson",
        format=format,  # type: ignore[arg-type]
        resource_type=None,
        resources={},
        lines=len(texts),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        backfill=backfill,
        receipts=(Receipt(first_line=1, received_at=received_at),),
    )
    landed = LandedType(
        request={},
        since=since,
        watermark=received_at,
        complete=True,
        history=history,
        entries=len(texts),
        pages=1,
    )
    run = LandedRun(
        run_id=run_id,
        source="ward",
        site="north",
        kind="files",
        origin="in",
        started_at=received_at,
        finished_at=received_at,
        package_version="0",
        types=dict.fromkeys(TYPES, landed),
        files=(file,),
        folder=folder,
    )
    write_record(run)
    return run


def few_rows_at_once(monkeypatch: pytest.MonkeyPatch, rows: int, *, bytes_at_once: int = 1 << 30) -> None:
    """Have runs of more than some rows normalized in slices of so many."""
    for module in (run_tables, staging, versions, events):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", rows)
    for module in (run_tables, staging):
        monkeypatch.setattr(module, "BYTES_AT_ONCE", bytes_at_once)


def rows(config: Config, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The answer to a query over the views of the lake as it stands now."""
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        return con.execute(sql, list(parameters)).fetchall()


def at(text: str) -> dt.datetime:
    """An instant as `2024-03-05 14:00` in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def patient(id: str = "p1", **more: Any) -> dict[str, Any]:
    """A Patient."""
    return {"resourceType": "Patient", "id": id, "birthDate": "1960-05-04", "gender": "female", **more}


def observation(id: str = "o1", **more: Any) -> dict[str, Any]:
    """A final HbA1c of 7.5 % of patient p1, drawn on 5 March 2024 at 08:00 and issued at 14:00."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2024-03-05T08:00:00Z",
        "issued": "2024-03-05T14:00:00Z",
        "valueQuantity": {"value": 7.5, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"},
        **more,
    }


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(inner)}' for key, inner in value.items()) + "}"
    return json.dumps(value)
