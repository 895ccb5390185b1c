"""Training sets: as many rows out as in, in their order, whatever the frame is made of."""

from __future__ import annotations

import datetime as dt
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from lake_rows import LakeRows, at

from fhir_features import FeatureService, FeatureStore, FeatureView, condition, observation, patient
from fhir_features.errors import SpineError, UsageError

Make = Callable[[LakeRows], FeatureStore]


def some_rows() -> LakeRows:
    rows = LakeRows()
    rows.patient()
    rows.patient("p2", birth_date=dt.date(2000, 1, 1))
    first = rows.observation(
        "loinc:4548-4", 7.0, "%", effective_at=at("2024-01-01 08:00"), known_at=at("2024-01-01 14:00")
    )
    rows.close(first, at("2024-01-05"))
    rows.observation(
        "loinc:4548-4",
        8.0,
        "%",
        resource_id=first["resource_id"],
        version="2",
        status="corrected",
        effective_at=at("2024-01-01 08:00"),
        known_at=at("2024-01-05"),
    )
    rows.observation("loinc:4548-4", 42.0, "kg", effective_at=at("2024-01-02"))
    rows.condition("icd10cm:E11.9", effective_at=at("2024-01-03"))
    rows.medication("rxnorm:860975", effective_at=at("2024-01-03"))
    rows.watermark(at("2024-01-10"))
    rows.resolve()
    return rows


def spine(**columns: Any) -> pa.Table:
    times = ["2024-01-06", "2024-01-01 10:00", "2024-01-03", "2024-01-06"]
    return pa.table(
        {
            "label": [1, 0, 1, 0],
            "patient_id": ["p1", "p1", "p1", "nobody"],
            "event_timestamp": pa.array([at(text) for text in times], pa.timestamp("us", tz="UTC")),
            **columns,
        }
    )


FRAMES: dict[str, Callable[[pa.Table, Path], Any]] = {
    "arrow": lambda table, folder: table,
    "polars": lambda table, folder: pl.from_arrow(table),
    "pandas": lambda table, folder: table.to_pandas(),
    "pandas ns": lambda table, folder: table.to_pandas().astype({"event_timestamp": "datetime64[ns, Europe/Berlin]"}),
    "parquet": lambda table, folder: pq.write_table(table, folder / "s.parquet") or folder / "s.parquet",
    "csv": lambda table, folder: csv.write_csv(table, folder / "s.csv") or str(folder / "s.csv"),
    "dictionary": lambda table, folder: table.set_column(1, "patient_id", table["patient_id"].dictionary_encode()),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_any_frame_is_answered_in_its_order(lake_of: Make, tmp_path: Path, frame: str) -> None:
    answered = lake_of(some_rows()).get_historical_features(FRAMES[frame](spine(), tmp_path), ["diabetes"])
    table = answered.to_arrow()
    assert table["label"].to_pylist() == [1, 0, 1, 0]
    assert table["hba1c_last_1y"].to_pylist() == [8.0, None, 7.0, None]
    assert table["t2dm_active"].to_pylist() == [True, False, True, None]
    assert table["on_metformin"].to_pylist() == [True, False, True, None]
    assert table["age"].to_pylist() == [53, 53, 53, None]
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert answered.to_polars()["hba1c_last_1y"].to_list() == [8.0, None, 7.0, None]
    assert list(answered.to_df()["label"]) == [1, 0, 1, 0]


def test_the_summary_counts_what_to_know(lake_of: Make) -> None:
    late = spine()
    late = late.set_column(2, "event_timestamp", pa.array([at("2024-01-11")] * 4, pa.timestamp("us", tz="UTC")))
    summary = lake_of(some_rows()).get_historical_features(late, ["diabetes:hba1c_last_1y"]).summary
    assert (summary.rows, summary.unknown_patients, summary.incomplete) == (4, 1, 4)
    assert summary.excluded_values == 1
    assert summary.shares == {"issued": 1.0}
    assert not [line for line in summary.warnings if "known then" in line]


def test_it_warns_when_nobody_is_known(lake_of: Make) -> None:
    strangers = spine().set_column(1, "patient_id", pa.array(["nobody"] * 4))
    summary = lake_of(some_rows()).get_historical_features(strangers, ["diabetes:hba1c_last_1y"]).summary
    assert summary.unknown_patients == 4
    assert "no row's patient was known then: see that patient_id, site and instants are as meant" in summary.warnings


def test_it_warns_when_nothing_is_asked(lake_of: Make) -> None:
    nobody = spine().slice(0, 0)
    summary = lake_of(some_rows()).get_historical_features(nobody, ["diabetes:hba1c_last_1y"]).summary
    assert summary.warnings == ["there are no rows: the entity frame is empty, or nobody has its anchors"]


def test_duplicate_rows_are_answered_each(lake_of: Make) -> None:
    twice = pa.concat_tables([spine(), spine()])
    table = lake_of(some_rows()).get_historical_features(twice, ["diabetes:hba1c_last_1y"]).to_arrow()
    assert table["hba1c_last_1y"].to_pylist() == [8.0, None, 7.0, None] * 2


def test_a_spine_of_no_rows_gives_the_columns(lake_of: Make) -> None:
    table = lake_of(some_rows()).get_historical_features(spine().slice(0, 0), ["diabetes"]).to_arrow()
    assert table.num_rows == 0
    assert table.schema.field("t2dm_active").type == pa.bool_()


def test_known_as_of_hides_what_came_after_it(lake_of: Make) -> None:
    store = lake_of(some_rows())
    one = spine().slice(0, 1)
    answered = store.get_historical_features(one, ["diabetes"], known_as_of=at("2024-01-04"))
    assert answered.to_arrow()["hba1c_last_1y"].to_pylist() == [7.0]


def test_nanoseconds_are_cut_off_towards_the_past(lake_of: Make) -> None:
    ns = pd.DataFrame(
        {
            "patient_id": ["p1", "p1"],
            "event_timestamp": pd.to_datetime(
                ["2024-01-01T13:59:59.999999999Z", "1969-12-31T23:59:59.999999999Z"], utc=True
            ),
        }
    )
    table = lake_of(some_rows()).get_historical_features(ns, ["diabetes:hba1c_last_1y"]).to_arrow()
    assert table["hba1c_last_1y"].to_pylist() == [None, None]
    assert table["event_timestamp"][1].as_py() == at("1970-01-01") - dt.timedelta(microseconds=1)


def without(name: str) -> pa.Table:
    return spine().drop_columns(name)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (without("event_timestamp"), "no column 'event_timestamp'"),
        (without("patient_id"), "no column 'patient_id'"),
        (spine(patient_id=["p1", None, "p1", "p1"]), "'patient_id' has 1 nulls"),
        (spine(patient_id=[1, 2, 3, 4]), "'patient_id' holds int64, not text"),
        (spine(event_timestamp=[at("2024-01-01"), None, None, None]), "'event_timestamp' has 3 nulls"),
        (spine(event_timestamp=[dt.datetime(2024, 1, 1)] * 4), "'event_timestamp' has no time zone"),
        (spine(event_timestamp=["2024-01-01T00:00:00Z"] * 4), "'event_timestamp' holds string, not instants"),
        (spine(event_timestamp=[dt.date(2024, 1, 1)] * 4), "holds date32"),
        (spine(age=[1, 2, 3, 4]), "a column 'age', as a feature has"),
        ({"patient_id": []}, "not dict"),
        ("nowhere.parquet", "nowhere.parquet cannot be read"),
        ("entities.xlsx", "neither .parquet nor .csv"),
    ],
)
def test_a_frame_that_is_no_spine_is_refused_in_one_line(lake_of: Make, frame: Any, says: str) -> None:
    with pytest.raises(SpineError) as refused:
        lake_of(some_rows()).get_historical_features(frame, ["diabetes"])
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_site_must_be_said_where_there_are_two(project: Any) -> None:
    config = project.folder / "fhir_features.toml"
    more = '[sources.b]\nkind = "files"\npath = "in"\nsite = "south"\ntimezone = "UTC"\n'
    config.write_text(config.read_text() + more)
    project.write(some_rows())
    with pytest.raises(SpineError, match="no column 'site', and there are 2 sites"):
        project.store.get_historical_features(spine(), ["diabetes"])
    table = project.store.get_historical_features(spine(site=["south"] * 4), ["diabetes:age"]).to_arrow()
    assert table["age"].to_pylist() == [None] * 4


@pytest.mark.parametrize("features", ["diabetes:age", FeatureService(name="s", features=["diabetes:age"])])
def test_one_feature_or_a_service_may_be_asked_for(lake_of: Make, features: Any) -> None:
    store = lake_of(some_rows())
    expected = store.get_historical_features(spine(), ["diabetes:age"]).to_arrow()
    assert store.get_historical_features(spine(), features).to_arrow().equals(expected)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (["diabetis"], "did you mean 'diabetes'"),
        (["diabetes:hba1c"], "has no feature 'hba1c'"),
        ([], "name at least one"),
        ([3], "not int"),
    ],
)
def test_what_is_not_defined_is_refused(lake_of: Make, features: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lake_of(some_rows()).get_historical_features(spine(), features)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"known_as_of": "2024-01-01T00:00:00Z"}, "known_as_of is no instant with a time zone"),
        ({"known_as_of": dt.datetime(2024, 1, 1)}, "known_as_of is no instant with a time zone"),
        ({"known_as_of": dt.date(2024, 1, 1)}, "known_as_of is no instant with a time zone"),
        ({"serving": dt.timedelta(hours=6)}, "not timedelta"),
    ],
)
def test_a_cut_off_of_another_type_is_refused(lake_of: Make, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lake_of(some_rows()).get_historical_features(spine(), ["diabetes"], **asked)


def test_what_cannot_be_written_is_said_in_one_line(lake_of: Make, tmp_path: Path) -> None:
    training = lake_of(some_rows()).get_historical_features(spine(tags=[["a"]] * 4), ["diabetes:age"])
    with pytest.raises(UsageError, match=r"out\.json is neither \.parquet nor \.csv"):
        training.save(tmp_path / "out.json")
    with pytest.raises(UsageError, match="there is no folder"):
        training.save(tmp_path / "nowhere" / "out.csv")
    with pytest.raises(UsageError, match="cannot hold a column of the entity frame"):
        training.save(tmp_path / "out.csv")
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(UsageError, match=r"cannot be written \(Is a directory\): correct that"):
        training.save(tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_of_a_file_that_does_not_fit_on_the_disk_nothing_is_left(lake_of: Make, tmp_path: Path, name: str) -> None:
    training = lake_of(some_rows()).get_historical_features(spine(), ["diabetes:age"])
    training.save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(UsageError, match=r"cannot be written \(File too large\): correct that"):
            training.save(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_two_views_with_a_feature_of_one_name_are_refused(lake_of: Make) -> None:
    other = FeatureView(name="other", entity=patient, features=[patient.age().named("age")])
    with pytest.raises(UsageError, match="two views give a feature 'age'"):
        lake_of(some_rows()).get_historical_features(spine(), ["diabetes", other])


def test_codes_are_resolved_in_memory_where_the_lake_has_not(lake_of: Make) -> None:
    rows = some_rows()
    rows.tables["resolution"] = []
    table = lake_of(rows).get_historical_features(spine(), ["diabetes"]).to_arrow()
    assert table["hba1c_last_1y"].to_pylist() == [8.0, None, 7.0, None]


def test_values_of_other_units_are_converted_and_never_averaged_as_they_are(lake_of: Make) -> None:
    rows = LakeRows()
    for value, unit in ((90.0, "mg/dL"), (10.0, "mmol/L"), (5.0, "Cel"), (300.0, None)):
        rows.observation("loinc:2345-7", value, unit, effective_at=at("2024-01-01"))
    view = FeatureView(
        name="glucose",
        entity=patient,
        features=[observation("loinc:2345-7", unit="mg/dL").mean().named("mean")],
    )
    answered = lake_of(rows).get_historical_features(spine().slice(0, 1), [view])
    assert answered.to_arrow()["mean"].to_pylist() == [pytest.approx((90 + 180.156) / 2)]
    assert answered.summary.excluded_values == 2


def test_a_feature_over_a_code_that_the_data_has_none_of_is_null_and_warned_of(lake_of: Any) -> None:
    rows = LakeRows()
    rows.patient()
    rows.observation("loinc:4548-4", 7.0, "%", effective_at=at("2024-01-01"))
    rows.observation("loinc:4548-4", 7.0, "kg", effective_at=at("2024-01-02"))
    rows.observation("loinc:4548-4", 99.0, "%", effective_at=at("2024-01-03"))
    rows.watermark(at("2025-01-01"))
    rows.resolve()
    view = FeatureView(
        name="v",
        entity=patient,
        features=[
            observation("loinc:4548-4", unit="%").where(low=3, high=20).max().named("hba1c"),
            observation("loinc:2345-7", unit="mg/dL").last().named("glucose"),
            condition("icd10cm:I10").count().named("hypertension"),
        ],
    )
    spine = pa.table({"patient_id": ["p1"], "event_timestamp": pa.array([at("2024-06-01")])})
    with pytest.warns(UserWarning, match="2 features are over codes that the data has none of: glucose, hypertension"):
        answered = lake_of(rows).get_historical_features(spine, [view])
    assert answered.to_arrow().select(["hba1c", "glucose", "hypertension"]).to_pylist() == [
        {"hba1c": 7.0, "glucose": None, "hypertension": 0}
    ]
    assert (answered.summary.excluded_values, answered.summary.out_of_range) == (1, 1)
