"""Our offline store over feature tables: what it reads, what it answers on the fly, and what it refuses."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast.types import Int64, String
from project import Project

from fhir_features.errors import FeatureTableError, SpineError
from fhir_features.feast import FhirOfflineStore, feast_objects
from fhir_features.features.table_log import newest_file, reached, table_folder
from fhir_features.lake import reading

FEATURES = ["kidney:creatinine_last", "diabetes:glucose_last", "diabetes:glucose_count_1y", "diabetes:t2dm_active"]
NAMES = [each.split(":")[1] for each in FEATURES]


def registered(project: Project) -> feast.FeatureStore:
    """Feast's store over the repository of a project, as after `feast apply`."""
    store = feast.FeatureStore(repo_path=str(project.folder / "feature_repo"))
    store.apply(list(feast_objects(project.store).values()))
    return store


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with built tables, which a test that changes it copies."""
    project = Project(tmp_path_factory.mktemp("built"))
    project.receive(project.resources)
    return project


@pytest.fixture(scope="module")
def serving(built: Project) -> feast.FeatureStore:
    """Feast's store over the built project, which no test changes."""
    return registered(built)


@pytest.fixture
def copied(built: Project, tmp_path: Path) -> Project:
    """A copy of the built project, to change."""
    shutil.copytree(built.folder, tmp_path, dirs_exist_ok=True)
    project = Project.__new__(Project)
    project.folder, project.resources = tmp_path, built.resources
    return project


def watermark(project: Project, view: str = "kidney") -> dt.datetime:
    newest = newest_file(table_folder(project.store.tables, project.store.view(view)))
    assert newest is not None
    return reached(newest).watermarks["north"]


def asked(project: Project, rows: int = 40) -> pd.DataFrame:
    """Patients at instants over the two years before the watermark."""
    with reading(project.store.lake) as con:
        patients = [
            each for (each,) in con.execute("SELECT DISTINCT patient_id FROM lake.patients ORDER BY 1").fetchall()
        ]
    random = np.random.default_rng(5)
    before = [dt.timedelta(minutes=int(minutes)) for minutes in random.integers(0, 2 * 365 * 1440, rows)]
    return pd.DataFrame(
        {
            "event_timestamp": [watermark(project) - each for each in before],
            "patient_id": random.choice(patients, rows),
            "site": "north",
            "outcome": random.integers(0, 2, rows),
        }
    )


def test_a_training_set_from_tables_is_that_of_the_engine_with_and_without_them(copied: Project):
    frame = asked(copied)
    serving = registered(copied)
    ours = serving.get_historical_features(entity_df=frame, features=FEATURES).to_arrow()
    assert ours.column_names == [*frame.columns, *NAMES]
    engine = copied.store.get_historical_features(frame, FEATURES).to_arrow()
    assert ours.select(NAMES) == engine.select(NAMES)
    assert ours.schema.field("glucose_count_1y").type == pa.int64()
    assert sum(ours.column("creatinine_last").is_valid().to_pylist()) > 10

    # Without its table a view is answered by the engine, also where a row of the frame has no patient.
    shutil.rmtree(copied.store.tables / "kidney")
    gap = pa.Table.from_pandas(pd.concat([frame[:1].assign(patient_id=None), frame]), preserve_index=False)
    live = serving.get_historical_features(entity_df=gap, features=FEATURES).to_arrow()
    assert live.column("creatinine_last")[0].as_py() is None
    assert live.slice(1).select(NAMES).to_pylist() == ours.select(NAMES).to_pylist()
    with pytest.raises(FeatureTableError, match="fhir-features build kidney"):
        serving.materialize(dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), ["kidney"])


def test_frames_come_back_as_they_were_with_integers_beside_them(built: Project, serving: feast.FeatureStore):
    frame = asked(built)
    counts = ["diabetes:glucose_count_1y"]
    answers = serving.get_historical_features(entity_df=frame, features=counts).to_df()
    assert str(answers["glucose_count_1y"].dtype) == "Int64"
    pd.testing.assert_frame_equal(answers[frame.columns], frame)
    for other in (pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        told = serving.get_historical_features(entity_df=other, features=counts, full_feature_names=True).to_arrow()
        assert told.column("diabetes__glucose_count_1y").to_pylist() == answers["glucose_count_1y"].tolist()
    texts = frame.assign(event_timestamp=frame["event_timestamp"].map(str))
    told = serving.get_historical_features(entity_df=texts, features=counts).to_df()
    assert told["glucose_count_1y"].tolist() == answers["glucose_count_1y"].tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patient_id": None}, "no column 'patient_id'"),
        ({"event_timestamp": None}, "no column 'event_timestamp'"),
        ({"event_timestamp": "yesterday"}, "no instants: write"),
        ({"creatinine_last": 1.0}, "a column 'creatinine_last', as a feature has"),
    ],
)
def test_a_frame_that_cannot_be_asked_is_refused(
    built: Project, serving: feast.FeatureStore, change: dict[str, Any], said: str
):
    frame = asked(built).assign(**change)
    frame = frame.drop(columns=[name for name, value in change.items() if value is None])
    with pytest.raises(SpineError, match=said) as refused:
        serving.get_historical_features(entity_df=frame, features=["kidney:creatinine_last"]).to_df()
    assert "\n" not in str(refused.value)
    assert "yesterday" not in str(refused.value)


def test_a_view_that_changed_since_it_was_registered_is_refused_until_it_is_built_and_applied(copied: Project):
    serving, frame = registered(copied), asked(copied)
    definitions = copied.folder / "feature_repo" / "features.py"
    definitions.write_text(definitions.read_text().replace('within="365d"', 'within="30d"'))
    beginning = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    for call in (
        lambda: serving.get_historical_features(entity_df=frame, features=["diabetes:glucose_count_1y"]),
        lambda: serving.materialize(beginning, watermark(copied), ["diabetes"]),
    ):
        with pytest.raises(FeatureTableError, match="run `fhir-features build diabetes`, then `feast apply`"):
            call()
    # Another view is served on.
    assert serving.get_historical_features(entity_df=frame, features=["kidney:creatinine_last"]).to_df().shape[0] == 40
    copied.store.build("diabetes")
    counts = (
        registered(copied).get_historical_features(entity_df=frame, features=["diabetes:glucose_count_1y"]).to_arrow()
    )
    engine = copied.store.get_historical_features(frame, ["diabetes:glucose_count_1y"]).to_arrow()
    assert counts.column("glucose_count_1y") == engine.column("glucose_count_1y")


def test_plain_feast_loads_from_the_beginning_and_never_beyond_the_watermark(copied: Project):
    """Of patients without news for a year, Feast's default start of 52 weeks ago would load nothing."""
    serving = registered(copied)
    until = watermark(copied)
    with pytest.raises(FeatureTableError, match=f"end at {until.isoformat().replace('+', '.')}"):
        serving.materialize_incremental(end_date=until + dt.timedelta(microseconds=1), feature_views=["kidney"])
    serving.materialize_incremental(end_date=until, feature_views=["kidney"])
    keys = asked(copied)[["site", "patient_id"]].drop_duplicates()
    online = serving.get_online_features(
        features=["kidney:creatinine_last"], entity_rows=keys.to_dict("records")
    ).to_dict()
    now = serving.get_historical_features(
        entity_df=keys.assign(event_timestamp=until), features=["kidney:creatinine_last"]
    ).to_df()
    assert online["creatinine_last"] == now["creatinine_last"].where(now["creatinine_last"].notna(), None).tolist()

    copied.receive_later()
    rows = pd.read_parquet(copied.store.tables / "kidney")[:1]
    with pytest.raises(FeatureTableError, match="nothing but `fhir-features build` writes"):
        serving.write_to_offline_store("kidney", rows)
    # A start after what was loaded leaves no gap, and what was loaded is not read again.
    later = watermark(copied)
    source = serving.get_feature_view("kidney").batch_source
    pulled = FhirOfflineStore.pull_all_from_table_or_query(
        serving.config, source, ["site", "patient_id"], [], "answered_at", "published_at", later, later
    )
    assert pulled.to_df()["answered_at"].min() == until
    serving.materialize(later, later, ["kidney"])
    online = serving.get_online_features(
        features=["kidney:creatinine_last"], entity_rows=keys.to_dict("records")
    ).to_dict()
    now = serving.get_historical_features(
        entity_df=keys.assign(event_timestamp=later), features=["kidney:creatinine_last"]
    ).to_df()
    assert online["creatinine_last"] == now["creatinine_last"].where(now["creatinine_last"].notna(), None).tolist()


def test_one_patient_id_at_two_sites_is_two_patients_under_other_names_too(tmp_path: Path):
    at = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    rows = pd.DataFrame({"site": ["north", "south"], "patient_id": "a", "at": at, "parity": [2, 0]})
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "feature_store.yaml").write_text(
        "project: cases\nprovider: local\nregistry: registry.db\noffline_store:\n"
        "  type: fhir_features.feast.FhirOfflineStore\nentity_key_serialization_version: 3\n"
    )
    keys = [
        feast.Entity(name=key, join_keys=[key], value_type=feast.ValueType.STRING) for key in ("site", "patient_id")
    ]
    view = feast.FeatureView(
        name="births",
        entities=keys,
        ttl=dt.timedelta(0),
        schema=[*(feast.Field(name=key.name, dtype=String) for key in keys), feast.Field(name="parity", dtype=Int64)],
        source=feast.FileSource(name="rows", path="rows.parquet", timestamp_field="at"),
    )
    children = view.with_name("child").with_join_key_map({"patient_id": "patient_id"})
    mothers = view.with_name("mother").with_join_key_map({"patient_id": "mother_id"})
    store = feast.FeatureStore(repo_path=str(tmp_path))
    store.apply([*keys, view, feast.FeatureService(name="births", features=[children, mothers])])
    frame = pd.DataFrame({"site": ["north", "south"], "patient_id": "b", "mother_id": "a", "event_timestamp": at})
    service = store.get_feature_service("births")
    told = store.get_historical_features(entity_df=frame, features=service, full_feature_names=True).to_df()
    assert told["mother__parity"].tolist() == [2, 0]
    assert told["child__parity"].isna().all()
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(FeatureTableError, match="has no Parquet files at"):
        store.get_historical_features(entity_df=frame, features=service, full_feature_names=True).to_df()
