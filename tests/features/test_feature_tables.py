"""The files of a feature table: one a build, appended, never replaced, and what makes a build refuse."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_rows import LakeRows, at

from fhir_features import FeatureView, observation, patient
from fhir_features.errors import FeatureTableError
from fhir_features.features.tables import table_folder

KEYS = ["site", "patient_id", "answered_at", "published_at", "store_seq"]


def first_rows() -> LakeRows:
    rows = LakeRows()
    rows.patient()
    rows.observation("loinc:4548-4", 7.0, "%", effective_at=at("2024-01-01"), known_at=at("2024-01-02"))
    rows.watermark(at("2024-02-01"))
    rows.resolve()
    return rows


def table_rows(store: Any, view: str = "diabetes") -> list[tuple[Any, ...]]:
    files = sorted(table_folder(store.tables, store.view(view)).glob("*.parquet"))
    return [
        (row["answered_at"], row["published_at"], row["store_seq"], row["hba1c_last_1y"])
        for file in files
        for row in pq.read_table(file).to_pylist()
        if row["answered_at"] > at("2023-12-01")
    ]


def test_a_build_appends_what_is_new_and_a_second_one_nothing(project: Any) -> None:
    rows = first_rows()
    project.write(rows)
    store = project.store
    built = store.build("diabetes")
    assert built.file.name == "0_20240201T000000000000Z_1.parquet"
    assert built.watermarks == {"north": at("2024-02-01")}
    assert store.build("diabetes").file is None

    # A late result, drawn and known before the watermark: it was not served then, and is from the next one on.
    rows.store_seq = 2
    rows.observation("loinc:4548-4", 9.0, "%", effective_at=at("2024-01-10"), known_at=at("2024-01-11"))
    project.write(rows)
    assert store.build("diabetes").file is None
    rows.store_seq = 3
    rows.watermark(at("2024-03-01"))
    project.write(rows)
    assert store.build("diabetes").file.name == "20240201T000000000000Z_20240301T000000000000Z_3.parquet"
    assert table_rows(store) == [
        (at("2024-01-02"), at("2024-02-01"), 1, 7.0),
        (at("2024-02-01"), at("2024-02-01"), 1, 7.0),
        (at("2024-03-01"), at("2024-03-01"), 3, 9.0),
    ]


def test_a_value_leaves_its_window_without_any_news(project: Any) -> None:
    rows = first_rows()
    project.write(rows)
    store = project.store
    store.build("diabetes")
    rows.store_seq = 2
    rows.watermark(at("2025-02-01"))
    project.write(rows)
    store.build("diabetes")
    assert table_rows(store)[2:] == [
        (at("2024-05-17"), at("2025-02-01"), 2, 7.0),
        (at("2024-12-31"), at("2025-02-01"), 2, None),
    ]


def test_a_file_says_what_it_is_and_keeps_its_types(project: Any) -> None:
    project.write(first_rows())
    file = project.store.build("diabetes").file
    schema = pq.read_schema(file)
    assert schema.names[:5] == KEYS
    assert schema.field("answered_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("t2dm_active").type == pa.bool_()
    assert project.store.view("diabetes").version.encode() in schema.metadata[b"fhir_features"]
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_two_builds_of_the_same_lake_give_the_same_bytes(project: Any) -> None:
    project.write(first_rows())
    file = project.store.build("diabetes").file
    before = file.read_bytes()
    file.unlink()
    assert project.store.build("diabetes").file.read_bytes() == before


def test_a_changed_definition_starts_a_new_version_that_answers_every_patient(project: Any) -> None:
    rows = first_rows()
    project.write(rows)
    old = project.store.build("diabetes")
    definitions = project.folder / "feature_repo" / "features.py"
    project.define(definitions.read_text().replace('within="365d"', 'within="300d"'))
    new = project.store.build("diabetes")
    assert new.file.parent != old.file.parent
    assert old.file.exists()
    newest = pq.read_table(new.file).to_pylist()[-1]
    assert (newest["patient_id"], newest["answered_at"]) == ("p1", at("2024-02-01"))


def test_a_feature_that_changes_at_every_instant_is_refused(project: Any) -> None:
    project.write(first_rows())
    since = observation("loinc:4548-4").time_since_last().named("since")
    view = FeatureView(name="v", entity=patient, features=[since])
    with pytest.raises(FeatureTableError, match="'since' of view 'v' changes at every instant"):
        project.store.build(view)


def test_without_watermarks_there_is_nothing_to_build_up_to(project: Any) -> None:
    rows = first_rows()
    rows.tables["watermarks"] = []
    rows.watermark(at("2024-02-01"), types=["Patient", "Observation"])
    project.write(rows)
    with pytest.raises(FeatureTableError, match="no site has a watermark for all of Condition, Encounter"):
        project.store.build("diabetes")


def test_a_file_of_another_make_is_not_built_upon(project: Any) -> None:
    project.write(first_rows())
    folder = table_folder(project.store.tables, project.store.view("diabetes"))
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), folder / "a_b_1.parquet")
    with pytest.raises(FeatureTableError, match="is no feature table file of this package"):
        project.store.build("diabetes")
