"""Events, features and labels in MEDS, held to the schemas of its own package; and labels of MEDS as entity frames."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from lake_rows import LakeRows, at, write_commits

from fhir_features import FeatureStore, FeatureView, observation, patient
from fhir_features.cli import cli
from fhir_features.errors import SpineError, UsageError
from fhir_features.interop import feature_events, labels
from fhir_features.lake import commit, writing

meds = pytest.importorskip("meds", reason="the extra `meds` is not installed")

CONFIG = """
[warehouse]
buckets = 4

[sources.ward]
kind = "files"
path = "in"
site = "north"
timezone = "UTC"
"""
VIEW = FeatureView(
    name="sugar",
    entity=patient,
    features=[observation("loinc:4548-4", unit="%").last().named("hba1c"), patient.sex().named("sex")],
)
T = at("2024-03-07 00:00")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Patient p1 has a result drawn on 5 March, reported on the 6th and corrected on the 8th; p2 has nothing."""
    folder = tmp_path_factory.mktemp("meds")
    (folder / "fhir_features.toml").write_text(CONFIG)
    (folder / "feature_repo").mkdir()
    rows = LakeRows()
    rows.patient("p1")
    rows.patient("p2", sex="male")
    drawn = {"effective_at": at("2024-03-05 08:00"), "resource_id": "o1"}
    first = rows.observation("loinc:4548-4", 7.8, "%", known_at=at("2024-03-06 09:00"), **drawn)
    corrected = at("2024-03-08 10:00")
    rows.observation("loinc:4548-4", 9.2, "%", known_at=corrected, version="2", status="corrected", **drawn)
    rows.close(first, corrected)
    withdrawn = {"effective_at": at("2024-03-05 09:00"), "status": "entered-in-error"}
    rows.observation("loinc:4548-4", 70.0, "%", **withdrawn)
    rows.encounter(effective_at=at("2024-03-05 07:00"), end_at=at("2024-03-09 07:00"))
    rows.resolve()
    with writing(folder / "warehouse" / "lake", buckets=4) as con:
        write_commits(con, rows, buckets=4)
        with commit(con, "who there is") as seq:
            con.execute(
                "INSERT INTO lake.versions BY NAME SELECT DISTINCT site, bucket, patient_id, ? AS store_seq"
                " FROM lake.patients",
                [seq],
            )
            con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [seq])
    return FeatureStore(folder)


@pytest.fixture(scope="module")
def dataset(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "meds"
    made = CliRunner().invoke(cli, ["--config", str(store.config.file), "export-meds", str(folder)])
    assert made.exception is None, made.exception
    assert made.stdout.splitlines()[1].split() == ["8", "2", str(folder)]
    return folder


def subjects(dataset: Path) -> dict[str, int]:
    rows = pq.read_table(dataset / "metadata" / "subjects.parquet").to_pylist()
    return {row["patient_id"]: row["subject_id"] for row in rows}


def test_an_event_stands_at_when_it_was_known(dataset: Path) -> None:
    one = subjects(dataset)["p1"]
    events = duckdb.sql(f"SELECT * FROM '{dataset}/data/*.parquet' WHERE subject_id = {one}").pl()
    told = events.select("time", "code", "numeric_value").rows()
    assert [(t, code, None if v is None else round(v, 1)) for t, code, v in told] == [
        (None, "GENDER//female", None),
        (dt.datetime(1970, 5, 17), "MEDS_BIRTH", None),
        (dt.datetime(2024, 3, 5, 7), "ENCOUNTER_START//IMP", None),
        (dt.datetime(2024, 3, 6, 9), "LOINC//4548-4", 7.8),
        (dt.datetime(2024, 3, 8, 10), "LOINC//4548-4", 9.2),
        (dt.datetime(2024, 3, 9, 7), "ENCOUNTER_END//IMP", None),
    ]
    first = events.filter(pl.col("known_to").is_not_null()).row(0, named=True)
    assert (first["effective_at"], first["known_to"], first["unit"]) == (
        at("2024-03-05 08:00"),
        at("2024-03-08 10:00"),
        "%",
    )


def test_every_shard_and_the_metadata_are_what_meds_says(dataset: Path) -> None:
    shards = sorted((dataset / meds.data_subdirectory).glob("*.parquet"))
    assert shards
    for shard in shards:
        table = pq.read_table(shard)
        meds.DataSchema.validate(table)
        order = [(row["subject_id"], row["time"] or dt.datetime.min) for row in table.to_pylist()]
        assert order == sorted(order)
    codes = pq.read_table(dataset / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    assert "LOINC//4548-4" in codes["code"].to_pylist()
    meds.DatasetMetadataSchema.validate(json.loads((dataset / meds.dataset_metadata_filepath).read_text()))


def test_labels_of_meds_are_an_entity_frame(store: FeatureStore, dataset: Path, tmp_path: Path) -> None:
    number = subjects(dataset)
    frame = pl.DataFrame(
        {
            "subject_id": [number["p2"], number["p1"]],
            "prediction_time": [T.replace(tzinfo=None)] * 2,
            "boolean_value": [False, True],
        },
        schema_overrides={"prediction_time": pl.Datetime("us")},
    )
    training = store.get_historical_features(frame, [VIEW])
    assert training.to_polars().select("patient_id", "hba1c", "sex", "boolean_value").rows() == [
        ("p2", None, "male", False),
        ("p1", 7.8, "female", True),
    ]
    receipt = training.save(tmp_path / "training.parquet")
    frame.write_parquet(tmp_path / "labels.parquet")
    assert store.reproduce(receipt, spine=tmp_path / "labels.parquet").same
    told = labels(training, "boolean_value")
    assert told["subject_id"].to_pylist() == [number["p2"], number["p1"]]
    assert told["boolean_value"].to_pylist() == [False, True]
    assert told["prediction_time"].to_pylist() == [T.replace(tzinfo=None)] * 2
    events = feature_events(training).to_pylist()
    assert {
        (e["subject_id"], e["code"], e["text_value"], e["numeric_value"] and round(e["numeric_value"], 1))
        for e in events
    } == {
        (number["p1"], "FEATURE//hba1c", None, 7.8),
        (number["p1"], "FEATURE//sex", "female", None),
        (number["p2"], "FEATURE//sex", "male", None),
    }


def test_an_export_that_was_interrupted_is_begun_again(store: FeatureStore, tmp_path: Path) -> None:
    whole = store.export_meds(tmp_path / "meds")
    shards = sorted(path.name for path in (tmp_path / "meds" / "data").iterdir())
    (tmp_path / "meds" / "metadata" / "dataset.json").unlink()
    (tmp_path / "meds" / "data" / "9999.parquet").write_bytes(b"half")
    assert store.export_meds(tmp_path / "meds") == whole
    assert sorted(path.name for path in (tmp_path / "meds" / "data").iterdir()) == shards
    (tmp_path / "meds" / "metadata" / "dataset.json").unlink()
    (tmp_path / "meds" / "notes.txt").write_text("of somebody else")
    with pytest.raises(UsageError, match="not empty"):
        store.export_meds(tmp_path / "meds")


def test_a_disk_that_refuses_is_a_line(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "meds"
    with pytest.raises(UsageError) as refused:
        store.export_meds(folder)
    said = f"the export at {folder} cannot be written (Not a directory): correct that, then run this again"
    assert str(refused.value) == said


def test_what_cannot_be_exported_or_asked_is_refused(store: FeatureStore, dataset: Path) -> None:
    with pytest.raises(UsageError, match="not empty"):
        store.export_meds(dataset)
    frame = pl.DataFrame({"subject_id": [1], "prediction_time": [dt.datetime(2024, 3, 7)]})
    with pytest.raises(SpineError, match="1 rows have a subject_id that no patient"):
        store.get_historical_features(frame, [VIEW])
    with pytest.raises(SpineError, match="prediction_time"):
        store.get_historical_features(frame.drop("prediction_time"), [VIEW])
    asked = pl.DataFrame({"patient_id": ["p1"], "event_timestamp": [T]})
    training = store.get_historical_features(asked, [VIEW])
    with pytest.raises(UsageError, match="no column 'label'"):
        labels(training, "label")
    with pytest.raises(UsageError, match="no MEDS label"):
        labels(training, "event_timestamp")


def test_mlflow_gets_the_receipt_and_no_patient(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fhir_features.interop import log_training_set

    training = store.get_historical_features(pl.DataFrame({"patient_id": ["p1"], "event_timestamp": [T]}), [VIEW])
    try:
        import mlflow
    except ImportError:
        with pytest.raises(UsageError, match="MLflow is not installed"):
            log_training_set(training)
        return
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    mlflow.set_experiment("sugar")
    with mlflow.start_run() as run:
        log_training_set(training)
    kept = mlflow.get_run(run.info.run_id)
    assert kept.data.tags["fhir_features.output_sha256"] == training.receipt.output.sha256
    (given,) = kept.inputs.dataset_inputs
    assert training.receipt.output.sha256.startswith(given.dataset.digest)
    receipt = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/fhir_features/receipt.json")
    assert receipt == json.loads(training.receipt.to_json())
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    assert store.reproduce(tmp_path / "receipt.json").same
