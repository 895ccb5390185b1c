"""What is told of merged patients beside their answers: feature tables, audits and explanations (TIME rule 13)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_rows import LakeRows, at, memory_lake, refill

from fhir_features.features import FeatureView, observation, patient
from fhir_features.features.engine import stand_at
from fhir_features.features.table_log import table_folder
from fhir_features.features.tables import build
from fhir_features.features.terms import ontologies
from fhir_features.store import FeatureStore

HBA1C = observation("loinc:4548-4", unit="%").last()
VIEW = FeatureView(name="merged", entity=patient, features=[HBA1C.named("last")])
NAMES = "abc"


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = memory_lake()
    yield con
    con.close()


def day(number: float) -> dt.datetime:
    return at("2024-01-01") + dt.timedelta(days=number)


def linked(rows: LakeRows, one: str, other: str, since: dt.datetime) -> dict[str, Any]:
    """A version of one record that says that another one replaces it."""
    return rows.patient(one, version="linked", known_at=since, replaced_by=[other])


def build_to(con: duckdb.DuckDBPyConnection, rows: LakeRows, folder: Path, reach: dt.datetime) -> dict[str, Any]:
    """Build up to an instant; what the newest row of each record says then."""
    rows.watermark(reach)
    refill(con, rows)
    stand_at(con, ontologies(), rows.store_seq)
    build(con, ontologies(), VIEW, folder, store_seq=rows.store_seq)
    files = table_folder(folder, VIEW).glob("*.parquet")
    table = [row for file in files for row in pq.read_table(file).to_pylist()]
    own = {name: [row for row in table if row["patient_id"] == name] for name in NAMES}
    return {name: max(own[name], key=lambda row: row["answered_at"])["last"] if own[name] else None for name in NAMES}


def test_a_table_follows_a_link_both_ways_and_back(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = LakeRows()
    result = {"resource_id": "r", "patient_id": "a", "effective_at": day(1)}
    rows.observation("loinc:4548-4", 6.1, "%", **result)
    for name in NAMES:
        rows.patient(name)
    rows.resolve()
    link = linked(rows, "a", "b", day(3))
    assert build_to(con, rows, tmp_path, day(2)) == {"a": 6.1, "b": None, "c": None}
    assert build_to(con, rows, tmp_path, day(4)) == {"a": 6.1, "b": 6.1, "c": None}
    rows.close(link, day(5))
    assert build_to(con, rows, tmp_path, day(6)) == {"a": 6.1, "b": None, "c": None}


def test_news_of_a_record_is_news_of_the_other(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = LakeRows()
    for name in NAMES:
        rows.patient(name)
    linked(rows, "a", "b", day(1))
    rows.code("loinc:4548-4")
    rows.resolve()
    assert build_to(con, rows, tmp_path, day(4)) == {"a": None, "b": None, "c": None}
    rows.store_seq = 2
    late = rows.observation("loinc:4548-4", 6.1, "%", patient_id="b", effective_at=day(2))
    assert build_to(con, rows, tmp_path, day(5)) == {"a": 6.1, "b": 6.1, "c": None}
    rows.store_seq = 3
    rows.close(late, day(3), "entered-in-error")
    assert build_to(con, rows, tmp_path, day(6)) == {"a": None, "b": None, "c": None}


def test_a_link_that_turns_out_never_to_have_been_parts_those_whom_it_joined_through_a_third(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    rows = LakeRows()
    for name in NAMES:
        rows.patient(name)
    rows.observation("loinc:4548-4", 6.1, "%", patient_id="a", effective_at=day(1))
    rows.resolve()
    link = linked(rows, "a", "b", day(2))
    linked(rows, "b", "c", day(3))
    assert build_to(con, rows, tmp_path, day(4)) == {"a": 6.1, "b": 6.1, "c": 6.1}
    rows.store_seq = 2
    rows.close(link, day(2.5), "entered-in-error")
    assert build_to(con, rows, tmp_path, day(5)) == {"a": 6.1, "b": None, "c": None}


def merged_on_the_fifth() -> LakeRows:
    """A result of record a, which is known to be of b from the fifth day until the eighth."""
    rows = LakeRows()
    for name in NAMES:
        rows.patient(name)
    rows.close(linked(rows, "a", "b", day(5)), day(8))
    rows.observation("loinc:4548-4", 6.1, "%", patient_id="a", effective_at=day(1))
    rows.resolve()
    return rows


@pytest.mark.parametrize(
    ("asked", "answer", "verdict"),
    [
        (4, None, "its record was not known to be of the same person"),
        (5, 6.1, "counts"),
        (8, None, "its record was not known to be of the same person"),
    ],
)
def test_an_explanation_shows_the_other_records(
    lake_of: Callable[[LakeRows], FeatureStore], asked: int, answer: float | None, verdict: str
) -> None:
    store = lake_of(merged_on_the_fifth())
    explained = store.explain("diabetes:hba1c_last_1y", "b", day(asked))
    shown = [(row["patient_id"], row["verdict"]) for row in explained.rows.to_pylist()]
    assert (explained.answer, shown) == (answer, [("a", verdict)])
    assert store.explain("diabetes:hba1c_last_1y", "c", day(asked)).rows.num_rows == 0


def test_a_value_that_a_merge_brought_later_has_leaked(lake_of: Callable[[LakeRows], FeatureStore]) -> None:
    times = pa.array([day(4), day(6)], pa.timestamp("us", "UTC"))
    spine = pa.table({"patient_id": ["b", "b"], "event_timestamp": times, "theirs": [6.1, 6.1]})
    audit = lake_of(merged_on_the_fifth()).audit_leakage(spine, "diabetes:hba1c_last_1y", value="theirs")
    assert audit.rows["verdict"].to_pylist() == ["leaked", "fine"]
    assert audit.late_by() == [dt.timedelta(days=1)]
