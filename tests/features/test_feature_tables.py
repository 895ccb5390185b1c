"""The files of a feature table: one a build, appended, never replaced, and what makes a build refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from lake_rows import LakeRows, at

from fhir_features import FeatureView, observation, patient
from fhir_features.cli import cli
from fhir_features.errors import FeatureTableError, UsageError
from fhir_features.features.engine import stand_at
from fhir_features.features.table_log import newest_file, newest_rows, reached, table_folder
from fhir_features.features.tables import refresh
from fhir_features.features.terms import ontologies
from fhir_features.lake import reading

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
        # The first instant after the fill answers everyone.
        (at("2025-02-01"), at("2025-02-01"), 2, None),
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
    for name in ("a_b_1.parquet", "other.parquet"):
        pq.write_table(pa.table({"a": [1]}), folder / name)
        with pytest.raises(FeatureTableError, match=f"{name} is no feature table file of this package"):
            project.store.build("diabetes")
        (folder / name).unlink()


def test_a_file_of_another_make_says_nothing_of_how_far_a_table_goes(tmp_path: Path) -> None:
    file = tmp_path / "0_20240201T000000000000Z_1.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(FeatureTableError, match=f"{file.name} is no feature table file of this package"):
        reached(file)
    file.rename(tmp_path / "other.parquet")
    with pytest.raises(FeatureTableError, match=r"other\.parquet is no feature table file of this package"):
        newest_file(tmp_path)


def test_what_was_just_built_is_not_refreshed_and_has_no_newer_rows(project: Any) -> None:
    project.write(first_rows())
    store = project.store
    built = store.build("diabetes")
    view = store.view("diabetes")
    with reading(store.lake) as con:
        stand_at(con, ontologies(), 1)
        assert refresh(con, ontologies(), view, store.tables, [("north", "p1")], store_seq=1).file is None
    newest = [list(newest_rows(built.file.parent, view, after=after, rows=9)) for after in (None, built.file.stem)]
    assert [sum(batch.num_rows for batch in batches) for batches in newest] == [1, 0]


def test_a_schedule_is_built_up_to_its_last_instant(project: Any) -> None:
    definitions = (project.folder / "feature_repo" / "features.py").read_text()
    project.define(definitions.replace("entity=patient,", 'entity=patient, cadence="daily@02:00 Europe/Berlin",'))
    rows = first_rows()
    rows.tables["watermarks"] = []
    rows.watermark(at("2024-02-01 12:00"))
    project.write(rows)
    store = project.store
    built = store.build("diabetes")
    assert built.watermarks == {"north": at("2024-02-01 01:00")}
    # Known at midnight, answered at two o'clock in Berlin.
    filled = [
        (at("2024-01-02 01:00"), at("2024-02-01 01:00"), 1, 7.0),
        (at("2024-02-01 01:00"), at("2024-02-01 01:00"), 1, 7.0),
    ]
    assert table_rows(store) == filled

    rows.store_seq = 2
    rows.watermark(at("2024-02-02 00:59"))
    project.write(rows)
    assert store.build("diabetes").file is None

    # Late news is answered at the next instant, where everyone is for the first time since the deployment.
    rows.store_seq = 3
    rows.observation("loinc:4548-4", 9.0, "%", effective_at=at("2024-01-10"), known_at=at("2024-01-11"))
    rows.watermark(at("2024-02-05"))
    project.write(rows)
    assert store.build("diabetes").watermarks == {"north": at("2024-02-04 01:00")}
    assert table_rows(store) == [*filled, (at("2024-02-02 01:00"), at("2024-02-04 01:00"), 3, 9.0)]

    rows.store_seq = 4
    rows.observation("loinc:4548-4", 8.0, "%", effective_at=at("2024-01-12"), known_at=at("2024-01-13"))
    rows.watermark(at("2024-02-06 12:00"))
    project.write(rows)
    store.build("diabetes")
    assert table_rows(store)[3:] == [(at("2024-02-05 01:00"), at("2024-02-06 01:00"), 4, 8.0)]


def test_a_schedule_can_hold_what_changes_at_every_instant(project: Any) -> None:
    rows = first_rows()
    project.write(rows)
    hba1c = observation("loinc:4548-4")
    view = FeatureView(
        name="v", entity=patient, features=[hba1c.time_since_last().named("since")], cadence="daily@00:00 UTC"
    )
    # From the first result on, not from when the patient was born.
    built = project.store.build(view)
    assert pq.read_table(built.file)["since"].to_pylist() == [float(day) for day in range(1, 32)]


def test_a_restatement_tells_the_history_anew_and_leaves_the_newest_row(project: Any) -> None:
    rows = first_rows()
    project.write(rows)
    store = project.store
    first = store.build("diabetes")
    rows.store_seq = 2
    rows.observation("loinc:4548-4", 9.0, "%", effective_at=at("2024-01-10"), known_at=at("2024-01-11"))
    project.write(rows)
    restated = store.restate("diabetes")
    assert restated.file.parent.name == f"{first.file.parent.name}-r1"
    assert first.file.exists()
    expected = [
        (at("2024-01-02"), at("2024-02-01"), 2, 7.0),
        (at("2024-01-11"), at("2024-02-01"), 2, 9.0),
        (at("2024-02-01"), at("2024-02-01"), 1, 7.0),
    ]
    assert table_rows(store) == expected

    # The next build goes on from it, and answers the news.
    rows.store_seq = 3
    rows.watermark(at("2024-03-01"))
    project.write(rows)
    assert store.build("diabetes").file.parent == restated.file.parent
    assert table_rows(store) == [*expected, (at("2024-03-01"), at("2024-03-01"), 3, 9.0)]
    assert store.restate("diabetes").file.parent.name == f"{first.file.parent.name}-r2"
    assert table_rows(store) == [
        (at("2024-01-02"), at("2024-03-01"), 3, 7.0),
        (at("2024-01-11"), at("2024-03-01"), 3, 9.0),
        (at("2024-03-01"), at("2024-03-01"), 3, 9.0),
    ]


def test_only_a_table_that_is_there_can_be_restated(project: Any) -> None:
    project.write(first_rows())
    with pytest.raises(FeatureTableError, match="run `fhir-features build diabetes` first"):
        project.store.restate("diabetes")
    words = ["--config", str(project.folder), "build", "--restate"]
    assert isinstance(CliRunner().invoke(cli, words).exception, UsageError)
    project.store.build("diabetes")
    (restated,) = json.loads(CliRunner().invoke(cli, [*words, "--json", "diabetes"], catch_exceptions=False).stdout)
    assert Path(restated["file"]).parent.name.endswith("-r1")


def test_an_order_whose_medication_comes_later_is_news(project: Any) -> None:
    rows = first_rows()
    order = rows.medication("rxnorm:860975", effective_at=at("2024-01-20"), medication_id="m1")
    code_id = order.pop("code_id")
    rows.tables["resolution"] = []
    rows.resolve()
    project.write(rows)
    store = project.store
    store.build("diabetes")
    rows.store_seq = 2
    rows.watermark(at("2024-02-02"))
    project.write(rows)
    store.build("diabetes")
    rows.store_seq = 3
    rows.tables["medications"].append(
        {"site": "north", "resource_id": "m1", "version": "1", "code_id": code_id, "store_seq": 3}
    )
    rows.watermark(at("2024-02-03"))
    project.write(rows)
    newest = pq.read_table(store.build("diabetes").file).to_pylist()[-1]
    assert (newest["answered_at"], newest["on_metformin"]) == (at("2024-02-03"), True)
