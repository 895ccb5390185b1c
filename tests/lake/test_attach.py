"""A lake that cannot be attached, or is none, is refused in one line that says why."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import duckdb
import pytest

from fhir_features.errors import LakeError
from fhir_features.lake import attach, reading, writing
from fhir_features.lake.attach import transaction


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    with writing(tmp_path / "lake", buckets=4):
        pass
    return tmp_path / "lake"


def change(lake: Path, sql: str) -> None:
    with writing(lake, buckets=4) as con, transaction(con, "change"):
        con.execute(sql)


def refused(lake: Path) -> str:
    with pytest.raises(LakeError) as error, reading(lake):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_disk_that_refuses_the_catalog_is_said_with_what_to_do(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with pytest.raises(LakeError) as error, writing(tmp_path / "lake", buckets=4):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = (
        f"the lake at {tmp_path / 'lake'} cannot be read or written (disk I/O error): correct that, then run this again"
    )
    assert str(error.value) == said


def test_a_folder_without_a_lake_is_none(tmp_path: Path) -> None:
    assert "there is no lake at" in refused(tmp_path)


def test_a_lake_that_is_just_being_made_is_none_yet(tmp_path: Path) -> None:
    (tmp_path / attach.CATALOG).touch()
    assert "there is no lake at" in refused(tmp_path)


def test_a_lake_without_its_tables_is_none(lake: Path) -> None:
    change(lake, "DROP TABLE lake.meta")
    assert "there is no lake at" in refused(lake)


def test_a_lake_of_another_format_is_made_anew(lake: Path) -> None:
    change(lake, "UPDATE lake.meta SET value = '0' WHERE key = 'format_version'")
    assert "has format 0, not" in refused(lake)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM lake.meta WHERE key = 'format_version'",
        "DELETE FROM lake.meta WHERE key = 'buckets'",
        "UPDATE lake.meta SET value = 'four' WHERE key = 'buckets'",
    ],
)
def test_a_lake_that_does_not_say_what_it_is_is_damaged(lake: Path, sql: str) -> None:
    change(lake, sql)
    assert "run 'fhir-features verify'" in refused(lake)


def test_wherever_a_catalog_is_damaged_it_is_said_in_one_line(lake: Path) -> None:
    catalog = lake / attach.CATALOG
    whole, refusals = catalog.read_bytes(), 0
    for at in range(0, len(whole), 4096):
        catalog.write_bytes(whole[:at] + b"\xff" * 2000 + whole[at + 2000 :])
        for opened in (reading(lake), writing(lake, buckets=4)):
            try:
                with opened:
                    pass
            except LakeError as error:
                refusals += 1
                assert "\n" not in str(error)
    assert refusals > len(whole) // 4096


def test_a_lake_of_other_buckets_is_not_written(lake: Path) -> None:
    with (
        pytest.raises(LakeError, match=r"made with 4 buckets, not 8: set warehouse\.buckets = 4"),
        writing(lake, buckets=8),
    ):
        pass


def test_a_lake_on_a_disk_that_cannot_be_written_is_read(lake: Path) -> None:
    (lake / "readers.lock").unlink()
    (lake / "readers.lock").mkdir()
    with reading(lake) as con:
        assert con.execute("SELECT count(*) FROM lake.meta").fetchall() == [(2,)]


def test_a_disk_that_fails_while_the_lake_is_read_is_said(lake: Path) -> None:
    with pytest.raises(LakeError, match="cannot be read or written"), reading(lake):
        raise duckdb.IOException(f"Could not read: {os.strerror(errno.EIO)}")


def test_a_disk_that_fails_while_the_lake_is_opened_is_said(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(con: duckdb.DuckDBPyConnection) -> int:
        raise duckdb.IOException(f"Could not read: {os.strerror(errno.EIO)}")

    monkeypatch.setattr(attach, "newest_snapshot", fails)
    with pytest.raises(LakeError, match="cannot be read or written"), reading(lake):
        pass


def test_a_mistake_in_a_statement_is_no_failure_of_the_disk(lake: Path) -> None:
    with pytest.raises(duckdb.ParserException), reading(lake) as con:
        con.execute("SELEC 1")


def test_an_extension_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb, "__version__", "0.0.1")
    with pytest.raises(LakeError, match=r"has no extension for DuckDB 0\.0\.1: install the versions pinned here"):
        attach.connect()
