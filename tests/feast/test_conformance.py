"""Runs the tables of `tests/spec/feast_cases.py` on our offline store and on Feast's own."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.types import Int64, String

sys.path.insert(0, str(Path(__file__).parents[1] / "spec"))

from feast_cases import CASES, PAGE, SAME, SEQUENCES, Answers, Case, Sequence, page

OURS, DUCKDB, SPARK = "fhir_features.feast.FhirOfflineStore", "duckdb", "spark"
INSTANT = pa.timestamp("us", "UTC")
BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
EXCEPT_SPARK = [case for case in CASES if case.layout == "file" and case.frame == "pandas"]


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def write(case: Case, repository: Path) -> str:
    """Write the rows of a case; returns the path of its source."""
    patients, ats, createds, values = zip(*case.rows, strict=True)
    columns = {
        "patient_id": pa.array(patients, pa.string()),
        "at": pa.array([instant(at) for at in ats], INSTANT),
        "created": pa.array([instant(created) for created in createds], INSTANT),
        case.feature: pa.array(values, pa.int64()),
    }
    if case.layout == "hive":
        folder = repository / case.view / "year=2024"
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / "rows.parquet")
        return str(repository / case.view)
    pq.write_table(pa.table(columns), repository / f"{case.view}.parquet")
    return f"{case.view}.parquet" if case.layout == "relative" else str(repository / f"{case.view}.parquet")


def view_of(name: str, path: str, feature: str, ttl_hours: int, patient: feast.Entity, kind: str) -> feast.FeatureView:
    fields = {"name": name, "path": path, "timestamp_field": "at", "created_timestamp_column": "created"}
    if kind == SPARK:
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        source: Any = SparkSource(**fields, file_format="parquet")
    else:
        source = feast.FileSource(**fields)
    return feast.FeatureView(
        name=name,
        entities=[patient],
        ttl=dt.timedelta(hours=ttl_hours),
        schema=[feast.Field(name="patient_id", dtype=String), feast.Field(name=feature, dtype=Int64)],
        source=source,
    )


def repository_with(folder: Path, kind: str) -> feast.FeatureStore:
    conf = (
        "\n  spark_conf:\n    spark.sql.session.timeZone: UTC\n    spark.ui.enabled: 'false'" if kind == SPARK else ""
    )
    (folder / "feature_store.yaml").write_text(
        f"project: cases\nprovider: local\nregistry: registry.db\noffline_store:\n  type: {kind}{conf}\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
        "materialization:\n  pull_latest_features: true\n"
    )
    return feast.FeatureStore(repo_path=str(folder))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, feast.FeatureStore]:
    """A repository for each offline store, with a view for each case."""
    patient = feast.Entity(name="patient_id", join_keys=["patient_id"], value_type=feast.ValueType.STRING)
    found = {}
    for kind, cases in {OURS: CASES, DUCKDB: CASES, **({SPARK: EXCEPT_SPARK} if has_spark() else {})}.items():
        repository = tmp_path_factory.mktemp("repository")
        store = repository_with(repository, kind)
        views = [
            view_of(case.view, write(case, repository), case.feature, case.ttl_hours, patient, kind) for case in cases
        ]
        store.apply([patient, *views])
        found[kind] = store
    return found


def has_spark() -> bool:
    return importlib.util.find_spec("pyspark") is not None and shutil.which("java") is not None


def given(case: Case, store: feast.FeatureStore) -> dict[str, Any]:
    """The questions of a case, as arguments of `get_historical_features`."""
    if case.frame == "dates":
        return {"start_date": instant("2024-01-01 00:00"), "end_date": instant(case.asked[0][1])}
    patients, ats = zip(*case.asked, strict=True)
    frame = pd.DataFrame({"patient_id": patients, "event_timestamp": [instant(at) for at in ats]})
    if case.label:
        frame[case.label[0]] = case.label[1]
    if case.frame == "pandas":
        return {"entity_df": frame}
    path = Path(str(store.repo_path)) / "asked.parquet"
    frame.to_parquet(path)
    return {"entity_df": "SELECT * FROM 'asked.parquet'" if case.frame == "query" else str(path)}


def outcome(case: Case, store: feast.FeatureStore) -> Answers | str:
    """The answers in the order of the questions, or the name of what is raised."""
    extra = {"filter_by_created_timestamp": True} if case.by_created else {}
    try:
        job = store.get_historical_features(features=[f"{case.view}:{case.feature}"], **given(case, store), **extra)
        frame = job.to_df()
    except Exception as error:
        return type(error).__name__
    by = ["patient_id", "event_timestamp", *([case.label[0]] if case.label else [])]
    questions = [(*question, *((case.label[1][row],) if case.label else ())) for row, question in enumerate(case.asked)]
    answers = {
        tuple(_plain(value) for value in row[:-1]): _plain(row[-1])
        for row in frame[[*by, case.feature]].itertuples(index=False, name=None)
    }
    assert len(frame) == len(questions)
    return tuple(answers[(patient, instant(at), *label)] for patient, at, *label in questions)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.to_pydatetime().astimezone(dt.UTC) if isinstance(value, pd.Timestamp) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.view)
def test_our_store_answers(
    case: Case, stores: dict[str, feast.FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert outcome(case, stores[OURS]) == case.ours


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.view)
def test_feasts_store_answers(
    case: Case, stores: dict[str, feast.FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert outcome(case, stores[DUCKDB]) == (case.ours if case.feast == SAME else case.feast)


@pytest.mark.skipif(not has_spark(), reason="needs Java and pyspark: pip install 'feast[spark]'")
@pytest.mark.parametrize("case", EXCEPT_SPARK, ids=lambda case: case.view)
def test_feasts_spark_store_answers(case: Case, stores: dict[str, feast.FeatureStore]):
    assert outcome(case, stores[SPARK]) == (case.ours if case.spark == SAME else case.spark)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.title)
@pytest.mark.parametrize("kind", [OURS, DUCKDB])
def test_what_is_online_after_news(sequence: Sequence, kind: str, tmp_path: Path):
    patient = feast.Entity(name="patient_id", join_keys=["patient_id"], value_type=feast.ValueType.STRING)
    store = repository_with(tmp_path, kind)
    (tmp_path / "log").mkdir()
    view = view_of("log", str(tmp_path / "log" / "*.parquet"), "value", 0, patient, kind)
    store.apply([patient, view])
    for number, (what, until, rows, online) in enumerate(sequence.steps):
        ats, createds, values = zip(*rows, strict=True)
        columns = {"at": [instant(at) for at in ats], "created": [instant(each) for each in createds]}
        table = {"patient_id": ["a"] * len(rows), **columns, "value": pa.array(values, pa.int64())}
        pq.write_table(pa.table(table), tmp_path / "log" / f"{number}.parquet")
        if number:
            store.materialize_incremental(end_date=instant(until))
        else:
            store.materialize(BEGINNING, instant(until))
        served = store.get_online_features(features=["log:value"], entity_rows=[{"patient_id": "a"}]).to_dict()
        assert served["value"] == [online], what


def test_the_page_is_as_the_tables_are():
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/feast.md is stale: run `make docs`"
