"""What `fhir-features doctor` says of a Feast repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fhir_features.cli import cli
from fhir_features.feast import examine_repository
from fhir_features.sources import Check

ROOT = Path(__file__).parents[2]


def examined(folder: Path, text: str) -> dict[str, Check]:
    (folder / "feature_store.yaml").write_text(text)
    return {check.check: check for check in examine_repository(folder)}


@pytest.mark.parametrize(
    ("offline_store", "verdict", "said"),
    [
        ("{type: fhir_features.feast.FhirOfflineStore}", "works", "reads feature tables"),
        ("{type: duckdb}", "limited", "many times the memory"),
        ("{type: file}", "fails", "'file' is wrong: it drops rows"),
        ("dask", "fails", "'dask' is wrong"),
        ("{}", "fails", "'dask', the default of Feast, is wrong"),
        ("{type: ray}", "fails", "joins by whole hours"),
        (
            "{type: spark}",
            "fails",
            "is that of the machine: set offline_store.spark_conf.spark.sql.session.timeZone: UTC",
        ),
        ("{type: spark, spark_conf: {spark.sql.session.timeZone: America/New_York}}", "fails", "is America/New_York"),
        ("{type: spark, spark_conf: {spark.sql.session.timeZone: UTC}}", "limited", "SparkSource"),
        ("{type: $KIND_OF_STORE}", "fails", "'ray'"),
        ("{type: snowflake.offline}", "limited", "has not been tried"),
    ],
)
def test_offline_stores(
    offline_store: str, verdict: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIND_OF_STORE", "ray")
    check = examined(tmp_path, f"offline_store: {offline_store}")["offline store"]
    assert (check.source, check.verdict) == ("feast", verdict)
    assert said in check.finding


def test_a_materialization_that_reads_every_row_is_said(tmp_path: Path) -> None:
    given = "materialization: {pull_latest_features: %s}"
    assert examined(tmp_path, given % "true")["materialization"].verdict == "works"
    assert examined(tmp_path, given % "false")["materialization"].verdict == "limited"
    assert "pull_latest_features: true" in examined(tmp_path, "project: a")["materialization"].finding


def test_a_folder_that_is_no_repository_and_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    assert list(examine_repository(tmp_path)) == []
    assert examined(tmp_path, "a: [")["repository"].verdict == "fails"
    assert examined(tmp_path, "a list")["repository"].verdict == "fails"


def test_the_shipped_repository_is_as_it_should_be() -> None:
    found = {check.check: check.verdict for check in examine_repository(ROOT / "feature_repo")}
    assert found.items() >= {"offline store": "works", "materialization": "works"}.items()


def test_doctor_prints_it_unless_a_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / "a.ndjson").write_text('{"resourceType": "Patient", "id": "a"}\n')
    (tmp_path / "fhir_features.toml").write_text(
        '[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "UTC"\npath = "received"\n'
    )
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "feature_store.yaml").write_text("offline_store: {type: file}")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--config", str(tmp_path), "doctor", "--json"], standalone_mode=False)
    assert ended.value.code == 1
    assert {each["source"] for each in json.loads(capsys.readouterr().out)} == {"environment", "ward", "feast"}
    cli.main(["--config", str(tmp_path), "doctor", "ward", "--json"], standalone_mode=False)
    assert {each["source"] for each in json.loads(capsys.readouterr().out)} == {"ward"}
