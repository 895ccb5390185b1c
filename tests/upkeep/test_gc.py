"""What belongs to nothing is removed, and nothing else: not what is live, nor what is just being written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from test_upkeep import content

from fhir_features.config import load_config
from fhir_features.errors import LakeLocked
from fhir_features.features import table_files
from fhir_features.files import alone, written_aside
from fhir_features.lake import commit, writing
from fhir_features.lake.attach import CATALOG
from fhir_features.lake.doubtful import doubtful, keep
from fhir_features.upkeep import gc, verify


def killed(work: Callable[[], None]) -> None:
    """Do something in a process that ends by SIGKILL in the middle of it."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def files(folder: Path) -> set[Path]:
    paths = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {path for path in paths if path.is_file() and not path.name.endswith(("-wal", "-shm"))}


def commit_half(project: Path) -> None:
    config = load_config(project)
    with writing(config.warehouse.path / "lake", buckets=config.warehouse.buckets) as con, commit(con, "half"):
        con.execute("INSERT INTO lake.observations FROM lake.observations")
        kill()


ROWS = pa.table({"answer": [1]})


def build_half(table: Path) -> None:
    def rows() -> Iterator[pa.Table]:
        yield ROWS
        kill()

    table_files.write_file(table / "half.parquet", ROWS.schema, rows())


def build_all_but_its_name(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", kill)
    table_files.write_file(table / "unnamed.parquet", ROWS.schema, iter([ROWS]))


def test_what_killed_processes_have_left_is_removed_and_nothing_else(project: Path, monkeypatch: pytest.MonkeyPatch):
    config = load_config(project)
    live, before = files(project), content(project)
    (table,) = (project / "warehouse" / "features" / "kidney").glob("*/")
    killed(lambda: commit_half(project))
    killed(lambda: build_half(table))
    killed(lambda: build_all_but_its_name(table, monkeypatch))
    killed(lambda: write_half(project / "feature_repo" / "data" / "registry.db"))
    left = files(project) - live
    assert {path.suffix for path in left if path.parent == table} == {".tmp", ".sha256"}
    assert any(path.parent.name == "observations" for path in left)
    assert any(path.parent.name == "data" and path.parent.parent.name == "feature_repo" for path in left)
    with written_aside(project / "warehouse" / "views" / "another") as aside:
        aside.write_text("being written")
        assert {orphan.path for orphan in gc(config, dry_run=True)} == left
        assert files(project) == live | left | {aside}
        assert {orphan.path for orphan in gc(config)} == left
        assert files(project) == live | {aside}
    assert gc(config) == []
    assert content(project) == before
    assert verify(config).findings == ()


def write_half(file: Path) -> None:
    with written_aside(file) as aside:
        aside.write_text("half")
        kill()


def test_the_second_names_of_a_commit_that_failed_are_removed_when_the_catalog_has_been_read(project: Path):
    config = load_config(project)
    before, (observations, *_) = content(project), sorted(project.rglob("main/observations/*.parquet"))
    kept = doubtful(project / "warehouse" / "lake" / CATALOG)
    keep({observations}, kept)
    observations.unlink()
    assert [(orphan.path, orphan.why) for orphan in gc(config)] == [(kept, "is of a commit that failed")]
    assert gc(config) == []
    assert content(project) == before


def test_nothing_is_taken_from_under_a_build_or_a_pull(project: Path):
    config = load_config(project)
    for lock in ("features/kidney/.build.lock", "landing/ward/pull.lock", "lake/writer.lock"):
        with (
            alone(project / "warehouse" / lock, "this is being made"),
            pytest.raises(LakeLocked, match=f"by process {os.getpid()} on"),
        ):
            gc(config)
