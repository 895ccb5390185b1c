"""Entity frames at their edges: every kind of column that can be read is, and what cannot be is refused in one line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from lake_rows import LakeRows, at
from test_retrieval import some_rows

from fhir_features import FeatureStore, FeatureView, condition, encounter, medication, observation, patient
from fhir_features.errors import SpineError
from fhir_features.features.spine import read_spine

Make = Callable[[LakeRows], FeatureStore]
INSTANT = pa.timestamp("us", tz="UTC")
IDS = ["p1", "007"]
TIMES = [at("2024-01-06 10:30"), at("1969-12-31 23:59")]
BERLIN = dt.timezone(dt.timedelta(hours=1))


def frame(ids: Any = IDS, times: Any = None) -> pa.Table:
    times = pa.array(TIMES, INSTANT) if times is None else times
    return pa.table({"patient_id": ids, "event_timestamp": times})


def written(times: list[dt.datetime]) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": IDS, "event_timestamp": pd.Series(times, dtype=object)})


READABLE: dict[str, Any] = {
    "large_string": frame(pa.array(IDS, pa.large_string())),
    "string_view": frame(pa.array(IDS, pa.string_view())),
    "dictionary": frame(pa.array(IDS).dictionary_encode()),
    "dictionary of large_string": frame(pa.array(IDS, pa.large_string()).dictionary_encode()),
    "seconds": frame(times=pa.array(TIMES, pa.timestamp("s", tz="UTC"))),
    "milliseconds of another zone": frame(times=pa.array(TIMES, pa.timestamp("ms", tz="Europe/Berlin"))),
    "nanoseconds of another zone": frame(times=pa.array(TIMES, pa.timestamp("ns", tz="+01:00"))),
    "several chunks": pa.concat_tables([frame().slice(0, 1), frame().slice(1, 1)]),
    "record batch": frame().to_batches()[0],
    "pandas objects": written(TIMES),
    "pandas objects of another zone": written([time.astimezone(BERLIN) for time in TIMES]),
    "pandas categories": frame().to_pandas().astype({"patient_id": "category"}),
    "polars categories": pl.from_arrow(frame()).with_columns(pl.col("patient_id").cast(pl.Categorical)),
    "polars milliseconds": pl.from_arrow(frame()).cast({"event_timestamp": pl.Datetime("ms", "Asia/Tokyo")}),
}


@pytest.mark.parametrize("entities", READABLE.values(), ids=READABLE)
def test_what_can_be_read_is_text_and_utc_microseconds(entities: Any) -> None:
    table = read_spine(entities, sites=("north",))
    assert table.select(["site", "patient_id", "event_timestamp"]).to_pydict() == {
        "site": ["north"] * 2,
        "patient_id": IDS,
        "event_timestamp": TIMES,
    }
    assert table.schema.field("patient_id").type == pa.string()
    assert table.schema.field("event_timestamp").type == INSTANT


SECRET = "Jane-Doe-1960"
REFUSED: dict[str, tuple[Any, str]] = {
    "a lazy frame": (pl.from_arrow(frame()).lazy(), "call .collect() on it first"),
    "mixed ids": (pd.DataFrame({"patient_id": [SECRET, 7], "event_timestamp": TIMES}), "column patient_id"),
    "naive Python datetimes": (written([dt.datetime(2024, 1, 1)] * 2), "has no time zone"),
    "dates": (written([dt.date(2024, 1, 1)] * 2), "holds date32[day], not instants"),
    "instants that no clock shows": (frame(times=pa.array([2**60, 0], pa.timestamp("s", tz="UTC"))), "no clock will"),
    "instants before the year 1": (
        frame(times=pa.array([-70_000_000_000, 0], pa.timestamp("s", tz="UTC"))),
        "no clock",
    ),
    "instants after 9999": (frame(times=pa.array([260_000_000_000, 0], pa.timestamp("s", tz="UTC"))), "no clock"),
    "instants that are no number to DuckDB": (frame(times=pa.array([2**63 - 1, 0], INSTANT)), "no clock"),
    "two columns of one name": (
        pa.table([IDS, IDS, TIMES], ["patient_id", "patient_id", "event_timestamp"]),
        "two col",
    ),
    "numbers for instants": (frame(times=[1, 2]), "holds int64, not instants"),
    "bytes for ids": (frame([b"p1", b"p2"]), "holds binary, not text"),
}


@pytest.mark.parametrize(("entities", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_without_its_values(entities: Any, says: str) -> None:
    with pytest.raises(SpineError) as refused:
        read_spine(entities, sites=("north",))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.csv", f"patient_id,event_timestamp\n{SECRET},2024-01-01T00:00:00Z,3\n".encode()),
        ("s.csv", f"patient_id,event_timestamp\n{SECRET}\xff".encode("latin1")),
        ("s.csv", b""),
        ("s.parquet", SECRET.encode()),
    ],
)
def test_a_broken_file_is_refused_without_what_is_in_it(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SpineError, match="cannot be read") as refused:
        read_spine(file, sites=("north",))
    assert SECRET not in str(refused.value)
    with pytest.raises(SpineError, match="there is no such file"):
        read_spine(tmp_path / f"other-{name}", sites=("north",))


def test_columns_between_semicolons_are_said(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text(f"patient_id;event_timestamp\n{SECRET};2024-01-01T00:00:00Z\n")
    with pytest.raises(SpineError, match=r"s\.csv has semicolons between its columns: write it with commas$"):
        read_spine(file, sites=("north",))


VIEW = FeatureView(
    name="edges",
    entity=patient,
    features=[
        observation("loinc:4548-4", unit="%").last(within="365d").named("last"),
        observation("loinc:4548-4", unit="%").count().named("count"),
        observation("loinc:2160-0", unit="mg/dL").mean().named("absent_mean"),
        observation("loinc:2160-0", unit="mg/dL").count().named("absent_count"),
        condition("icd10cm:C34", descendants=True).ever().named("absent_ever"),
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("metformin"),
        encounter("inpatient").count(within="365d").named("stays"),
        patient.age().named("age"),
    ],
)


def test_the_edges_of_time_and_codes_that_nobody_has_are_answered(lake_of: Make) -> None:
    times = [at("0001-01-01"), at("1899-12-31"), at("1950-01-01"), at("2024-01-06"), at("2030-01-01"), at("9999-12-31")]
    training = lake_of(some_rows()).get_historical_features(frame(["p1"] * 6, pa.array(times, INSTANT)), [VIEW])
    rows = training.to_arrow().drop_columns(["site", "patient_id", "event_timestamp"])
    unknown = dict.fromkeys(feature.name for feature in VIEW.features)
    nothing = {**unknown, "count": 0, "absent_count": 0, "absent_ever": False, "metformin": False, "stays": 0}
    assert rows.to_pylist() == [
        unknown,
        unknown,
        nothing,
        {**nothing, "last": 8.0, "count": 1, "metformin": True, "age": 53},
        {**nothing, "count": 1, "age": 59},
        {**nothing, "count": 1, "age": 8029},
    ]
    assert (training.summary.unknown_patients, training.summary.incomplete) == (2, 2)


def test_a_serving_may_go_back_to_before_the_year_1(lake_of: Make) -> None:
    training = lake_of(some_rows()).get_historical_features(frame(), [VIEW], serving="lag 999999d")
    assert training.to_arrow()["count"].to_pylist() == [None, None]
