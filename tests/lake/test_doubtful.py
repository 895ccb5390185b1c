"""The data files of a commit that failed are there, should the commit turn out to be one all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from fhir_features import files
from fhir_features.errors import LakeError
from fhir_features.lake import attach, reading, writing
from fhir_features.lake.attach import transaction
from fhir_features.lake.doubtful import doubtful, keep


def data_files(lake: Path) -> set[Path]:
    return set((lake / "data").glob("*/*/*.parquet"))


def names(lake: Path) -> Path:
    return doubtful(lake / attach.CATALOG)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake whose last commit is in its catalog, and has only the second names of its files."""
    folder = tmp_path / "lake"
    with writing(folder, buckets=4):
        pass
    keep(data_files(folder), names(folder))
    for file in data_files(folder):
        file.unlink()
    files._intact.clear()
    return folder


def change(lake: Path) -> None:
    with writing(lake, buckets=4) as con, transaction(con, "change"):
        con.execute("UPDATE lake.meta SET value = '5' WHERE key = 'buckets'")


def test_who_reads_has_them(lake: Path) -> None:
    with reading(lake) as con:
        assert con.execute("SELECT count(*) FROM lake.meta").fetchall() == [(2,)]


def test_they_are_kept_until_a_later_commit_is_made(lake: Path) -> None:
    with writing(lake, buckets=4) as con:
        assert con.execute("SELECT count(*) FROM lake.meta").fetchall() == [(2,)]
    assert len(list(names(lake).iterdir())) == len(data_files(lake)) == 1
    change(lake)
    assert not names(lake).exists()


def test_a_disk_that_does_not_take_them_back_is_said(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(LakeError, match="No space left on device"), reading(lake):
            pass
    with reading(lake):
        pass


def test_two_may_put_them_back_at_once(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link: Callable[..., None] = os.link

    def late(source: Path, to: Path) -> None:
        link(source, to)
        link(source, to)

    monkeypatch.setattr(os, "link", late)
    with reading(lake):
        assert len(data_files(lake)) == 1


def test_a_commit_that_fails_leaves_them(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    with suppress(duckdb.Error), writing(lake, buckets=4) as con, transaction(con, "change"):
        con.execute("UPDATE lake.meta SET value = '4' WHERE key = 'buckets'")
        # That it is gone, COMMIT finds out.
        with attach._connected(lake) as other:
            attach.attach(other, lake, "META_JOURNAL_MODE 'WAL'")
            other.execute("DROP TABLE lake.meta")
    assert len(list(names(lake).iterdir())) == 2
