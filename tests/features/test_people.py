"""Merged patients: which records are one person, and in which interval that was known (TIME rule 13)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from lake_rows import LakeRows, at, memory_lake, refill
from people_reference import same_person

from fhir_features.features.engine import ask
from fhir_features.features.people import create_people
from fhir_features.lake import bucket_count, bucket_sql, create_views

Interval = tuple[str, int | None, int | None]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = memory_lake()
    yield con
    con.close()


def day(number: int) -> dt.datetime:
    return at("2024-01-01") + dt.timedelta(days=number)


def record(rows: LakeRows, patient_id: str, *links: tuple[int, int | None, str]) -> None:
    """The versions of one Patient: (known on day, closed on day, the record that it is replaced by)."""
    for version, (since, until, other) in enumerate(links):
        row = rows.patient(patient_id, version=str(version), known_at=day(since), replaced_by=[other] if other else [])
        if until is not None:
            rows.close(row, day(until))


def people(con: duckdb.DuckDBPyConnection, rows: LakeRows, *asked: str) -> list[tuple[Any, ...]]:
    refill(con, rows)
    create_views(con, 1)
    instants = pa.array([day(0)] * len(asked), pa.timestamp("us", tz="UTC"))
    numbers = pa.array(range(len(asked)), pa.int64())
    frame = {"question": numbers, "site": ["north"] * len(asked), "patient_id": list(asked)}
    ask(con, pa.table({**frame, "t": instants, "k": instants}))
    create_people(con)
    return con.execute("SELECT asked_patient_id, patient_id, since, until FROM people").fetchall()


def others(con: duckdb.DuckDBPyConnection, rows: LakeRows, asked: str) -> list[Interval]:
    """The other records of a person, with the days between which they were."""
    found = people(con, rows, asked)
    assert found.count((asked, asked, None, None)) == 1
    days = [
        (other, since and (since - day(0)).days, until and (until - day(0)).days) for _, other, since, until in found
    ]
    return sorted(each for each in days if each[0] != asked)


def test_without_links_everyone_is_alone(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    rows.patient("a")
    rows.patient("b")
    assert people(con, rows, "a", "b", "a") == [("a", "a", None, None), ("b", "b", None, None)]


def test_a_merge_joins_both_ways_from_when_it_was_known_until_it_is_taken_back(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    record(rows, "old", (0, 3, ""), (3, 8, "new"), (8, None, ""))
    record(rows, "new", (0, None, ""))
    assert others(con, rows, "old") == [("new", 3, 8)]
    assert others(con, rows, "new") == [("old", 3, 8)]


def test_a_record_that_was_never_received_is_still_another_name(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    rows.patient("new", known_at=day(2), replaces=["old"])
    assert others(con, rows, "old") == [("new", 2, None)]


def test_both_ends_and_later_versions_of_a_link_are_one_interval(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    record(rows, "old", (1, 4, "new"), (4, 6, "new"), (9, None, "new"))
    rows.close(rows.patient("new", known_at=day(2), replaces=["old"]), day(7))
    assert others(con, rows, "new") == [("old", 1, 7), ("old", 9, None)]


def test_a_chain_lasts_as_long_as_all_of_its_links(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    record(rows, "a", (1, 5, "b"))
    record(rows, "b", (3, 9, "c"))
    assert others(con, rows, "a") == [("b", 1, 5), ("c", 3, 5)]
    assert others(con, rows, "c") == [("a", 3, 5), ("b", 3, 9)]


def test_rings_end(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    for one, other in pairwise("abcda"):
        record(rows, one, (1, None, other))
    assert others(con, rows, "a") == [(name, 1, None) for name in "bcd"]


def test_a_link_is_of_its_site(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    rows.patient("a", site="south", replaced_by=["b"])
    assert others(con, rows, "a") == []


def test_the_bucket_is_that_of_the_other_record(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    record(rows, "a", (1, None, "b"))
    people(con, rows, "a")
    bucket = bucket_sql("site", "patient_id", bucket_count(con))
    assert con.execute(f"SELECT count(*), bool_and(bucket = {bucket}) FROM people").fetchone() == (2, True)


@pytest.mark.parametrize("seed", range(24))
def test_intervals_equal_the_reference_at_every_day(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    random = Random(seed)
    rows = LakeRows()
    names = "abcde"
    for name in names:
        edges = sorted(random.sample(range(10), random.randint(2, 5)))
        record(
            rows,
            name,
            *((since, until, random.choice(["", *names.replace(name, "")])) for since, until in pairwise(edges)),
        )
    found = people(con, rows, *names)
    for k in range(-1, 11):
        for name in names:
            expected = same_person(rows.tables, "north", name, day(k))
            visible = {
                other: since
                for asked, other, since, until in found
                if asked == name and (since is None or since <= day(k)) and (until is None or day(k) < until)
            }
            assert visible == expected, (seed, k, name)
