"""`fhir-features status` says how a store stands, from nothing to built, and who is writing."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_features.cli import cli
from fhir_features.job import RunRecord
from fhir_features.project import create_project
from fhir_features.store import FeatureStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status")
    create_project(folder, example=True)
    (folder / "received" / "later.ndjson").rename(folder / "later.ndjson")
    store = FeatureStore(folder)
    assert store.status().sources[0].last_pull is None
    assert store.status().tables == store.status().runs == ()
    store.pull()
    assert [(of.waiting, of.unfinished) for of in store.status().sources] == [(1, False)]
    store.normalize()
    store.build("diabetes")
    return folder


def test_it_tells_what_is_there(folder: Path):
    found = FeatureStore(folder).status()
    (source,), (run,) = found.sources, found.runs
    assert (source.source, source.site, source.kind, source.waiting) == ("files", "my-site", "files", 0)
    assert source.last_pull is not None
    assert run.received == run.normalized > 900
    tables = {of.table: of for of in found.tables}
    assert tables["patients"].rows == 10
    assert tables["features/diabetes"].rows > 0
    assert all(of.bytes > 0 for of in tables.values() if of.rows)
    assert found.bytes >= sum(of.bytes for of in found.tables)
    assert {of.resource_type for of in found.watermarks} >= {"Patient", "Observation", "Condition"}
    reach = min(of.watermark for of in found.watermarks)
    built = {of.view: of.built_to for of in found.views}
    assert built == {**dict.fromkeys(FeatureStore(folder).views), "diabetes": reach}
    assert (found.online.kind, found.online.registered, found.problem) == ("sqlite", False, None)


def test_it_tells_who_is_writing(folder: Path):
    store = FeatureStore(folder)
    assert store.status().writer is None
    with (store.lake / "writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.status().writer == (os.getpid() if Path("/proc/locks").exists() else None)


def test_it_tells_of_a_pull_that_was_interrupted(folder: Path):
    unfinished = folder / "warehouse" / "landing" / "files" / "20300101T000000000000Z"
    unfinished.mkdir()
    try:
        assert FeatureStore(folder).status().sources[0].unfinished
        shown = CliRunner().invoke(cli, ["--config", str(folder), "status"]).stdout
        assert "`pull` goes on with an unfinished run" in shown
    finally:
        unfinished.rmdir()


def test_it_tells_how_the_last_runs_of_the_job_ended(folder: Path):
    runs = folder / "warehouse" / "runs"
    runs.mkdir()
    began = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    for number, (state, code) in enumerate([("running", None), ("failed", 10)]):
        record = RunRecord(run_id=f"r{number}", package="0", started_at=began, state=state, exit_code=code)
        (runs / f"r{number}.json").write_text(record.to_json())
    found = FeatureStore(folder).status()
    assert [(of.run_id, of.state, of.exit_code) for of in found.jobs] == [("r0", "cut off", None), ("r1", "failed", 10)]
    assert found.next_step.startswith("`fhir-features materialize`: its last run (r1): failed")
    (runs / "r2.json").write_text(RunRecord(run_id="r2", package="0", started_at=began).to_json())
    with (runs / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = FeatureStore(folder).status().jobs[-1].state
        assert state == ("running" if Path("/proc/locks").exists() else "cut off")
    shutil.rmtree(runs)


def test_definitions_that_cannot_be_read_keep_nothing_else_back(folder: Path):
    features = folder / "feature_repo" / "features.py"
    right = features.read_text()
    features.write_text("nothing = of_this\n")
    try:
        found = FeatureStore(folder).status()
    finally:
        features.write_text(right)
    assert found.problem is not None
    assert "line 1" in found.problem
    assert found.views == ()
    assert found.runs


def test_what_is_printed_into_a_pipe_has_a_line_a_row_and_json_says_the_same(folder: Path):
    shown = CliRunner().invoke(cli, ["--config", str(folder), "status"]).stdout.splitlines()
    as_json = json.loads(CliRunner().invoke(cli, ["--config", str(folder), "status", "--json"]).stdout)
    assert f"{folder / 'warehouse'}  " in shown[0]
    assert any(line.split()[:2] == ["patients", "10"] for line in shown)
    assert [of["rows"] for of in as_json["tables"] if of["table"] == "patients"] == [10]
    assert as_json["runs"][0]["run_id"] in "\n".join(shown)
