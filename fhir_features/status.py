"""How does a store stand? In: a FeatureStore. Out: its sources and how far they have been seen, what is stored and how
large it is, what is built, who is writing, and the last runs. Read from what lies on the disk; nothing is asked of a
server or an online store, and nothing is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.errors import DefinitionError
from fhir_features.features.table_log import newest_file, reached, table_folder
from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.sources.landing import RUN_FOLDERS, runs_of_source

if TYPE_CHECKING:
    import duckdb

    from fhir_features.store import FeatureStore

_LAST_RUNS = 10


@dataclass(frozen=True)
class SourceStatus:
    """A source: when its last whole pull ended (UTC; null: never), how many runs of it have landed and are not
    normalized, and whether a pull of it was interrupted, or is going on."""

    source: str
    site: str
    kind: str
    last_pull: dt.datetime | None
    waiting: int
    unfinished: bool


@dataclass(frozen=True)
class WatermarkStatus:
    """Up to when (UTC) all there is of a type at a site has been seen."""

    site: str
    resource_type: str
    watermark: dt.datetime


@dataclass(frozen=True)
class TableStatus:
    """A table of the lake, or (`features/VIEW`) a feature table in use: its rows, files and bytes."""

    table: str
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True)
class ViewStatus:
    """A feature view: up to when it is built, by the site that has come least far (UTC; null: not built)."""

    view: str
    version: str
    cadence: str
    built_to: dt.datetime | None


@dataclass(frozen=True)
class RunStatus:
    """What one commit brought, in resource versions."""

    store_seq: int
    source: str
    run_id: str
    received: int
    normalized: int
    quarantined: int
    duplicates: int
    ignored: int


@dataclass(frozen=True)
class OnlineStatus:
    """The Feast repository: the kind of its online store (null: there is no feature_store.yaml), and whether its views
    were registered (`feast apply`; null: the registry is not a local file)."""

    kind: str | None
    registered: bool | None


@dataclass(frozen=True)
class JobStatus:
    """A run of `fhir-features materialize`: when it began and ended (UTC), and how: `done`, `failed`, `running`, or
    `cut off`, which was killed or interrupted; the number of its failures, and its exit code (null: it did not end)."""

    run_id: str
    started_at: dt.datetime
    finished_at: dt.datetime | None
    state: str
    failures: int
    exit_code: int | None


@dataclass(frozen=True)
class Status:
    """How a store stands. `bytes` is all that lies in the warehouse; `writer` is the process that is writing to the
    lake, null when none is (or when the system does not tell); `problem` says why the definitions cannot be read."""

    warehouse: Path
    bytes: int
    writer: int | None
    sources: tuple[SourceStatus, ...]
    watermarks: tuple[WatermarkStatus, ...]
    tables: tuple[TableStatus, ...]
    views: tuple[ViewStatus, ...]
    online: OnlineStatus
    runs: tuple[RunStatus, ...]
    jobs: tuple[JobStatus, ...]
    problem: str | None

    @property
    def next_step(self) -> str:
        """What to do next, in words."""
        if not self.sources:
            return "name a source in fhir_features.toml"
        if self.problem:
            return f"correct the definitions: {self.problem}"
        if never := [of.source for of in self.sources if of.last_pull is None or of.unfinished]:
            return f"`fhir-features pull {' '.join(never)}`"
        if any(of.waiting for of in self.sources):
            return "`fhir-features normalize`"
        if self.jobs and self.jobs[-1].state in ("failed", "cut off"):
            return f"`fhir-features materialize`: its last run ({self.jobs[-1].run_id}): {self.jobs[-1].state}"
        if any(of.built_to is None for of in self.views):
            return "ask for a training set (`fhir-features get`), or `fhir-features build` to serve features online"
        if self.online.registered is False:
            return "`feast apply` in the Feast repository, then `fhir-features materialize`"
        return "nothing: `fhir-features pull` when there is more"


def status(store: FeatureStore) -> Status:
    """How a store stands now. Raises LandingError for a record of a run, LakeError for a lake, that cannot be read."""
    runs: tuple[RunStatus, ...] = ()
    watermarks: tuple[WatermarkStatus, ...] = ()
    tables: list[TableStatus] = []
    if (store.lake / "catalog.sqlite").exists():
        with reading(store.lake) as con:
            runs, watermarks, tables = _runs(con), _watermarks(con), list(_lake_tables(con))
    views, problem = [], None
    try:
        views = [*_views(store)]
    except DefinitionError as error:
        problem = str(error)
    done = {(run.source, run.run_id) for run in runs}
    return Status(
        warehouse=store.config.warehouse.path,
        bytes=sum(path.stat().st_size for path in store.config.warehouse.path.rglob("*") if path.is_file()),
        writer=_holder(store.lake / "writer.lock"),
        sources=tuple(_source(store, name, done) for name in store.config.sources),
        watermarks=watermarks,
        tables=(*tables, *(_feature_table(store, view.view) for view in views if view.built_to)),
        views=tuple(views),
        online=_online(store.config.features.path),
        runs=runs[-_LAST_RUNS:],
        jobs=tuple(_jobs(store.config.warehouse.path / "runs")),
        problem=problem,
    )


def _source(store: FeatureStore, name: str, done: set[tuple[str, str]]) -> SourceStatus:
    folder = store.config.warehouse.path / "landing" / name
    landed = runs_of_source(folder)
    source = store.config.source(name)
    return SourceStatus(
        source=name,
        site=source.site,
        kind=source.kind,
        last_pull=max((run.finished_at for run in landed if run.kind != "reconcile"), default=None),
        waiting=sum((name, run.run_id) not in done for run in landed),
        unfinished=len(list(folder.glob(RUN_FOLDERS))) > len(landed),
    )


def _runs(con: duckdb.DuckDBPyConnection) -> tuple[RunStatus, ...]:
    columns = "store_seq, source, run_id, received, normalized, quarantined, duplicates, ignored"
    rows = con.execute(f"SELECT {columns} FROM lake.commits ORDER BY store_seq, source, run_id").fetchall()
    return tuple(RunStatus(*row) for row in rows)


def _watermarks(con: duckdb.DuckDBPyConnection) -> tuple[WatermarkStatus, ...]:
    create_views(con, newest_store_seq(con))
    rows = con.execute("SELECT site, resource_type, watermark FROM watermarks ORDER BY ALL").fetchall()
    return tuple(WatermarkStatus(*row) for row in rows)


def _lake_tables(con: duckdb.DuckDBPyConnection) -> Iterator[TableStatus]:
    rows = con.execute("SELECT table_name, file_count, file_size_bytes FROM ducklake_table_info('lake')").fetchall()
    for name, files, size in sorted(rows):
        counted = con.execute(f'SELECT count(*) FROM lake."{name}"').fetchone()
        assert counted is not None
        yield TableStatus(name, counted[0], files, size)


def _views(store: FeatureStore) -> Iterator[ViewStatus]:
    for view in store.views.values():
        newest = newest_file(table_folder(store.tables, view))
        watermarks = reached(newest).watermarks.values() if newest else ()
        yield ViewStatus(view.name, view.version, view.cadence, min(watermarks, default=None))


def _feature_table(store: FeatureStore, name: str) -> TableStatus:
    import pyarrow.parquet as pq

    files = sorted(table_folder(store.tables, store.view(name)).glob("*.parquet"))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    return TableStatus(f"features/{name}", rows, len(files), sum(file.stat().st_size for file in files))


def _online(repository: Path) -> OnlineStatus:
    import yaml

    file = repository / "feature_store.yaml"
    if not file.exists():
        return OnlineStatus(None, None)
    said = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    online, registry = said.get("online_store"), said.get("registry")
    kind = online.get("type") if isinstance(online, dict) else online
    # https://docs.feast.dev/reference/feature-repository/feature-store-yaml: a registry is a path, or a table with one.
    path = registry.get("path") if isinstance(registry, dict) else registry
    is_file = isinstance(path, str) and "://" not in path
    return OnlineStatus(str(kind or "sqlite"), (repository / str(path)).exists() if is_file else None)


def _jobs(folder: Path) -> Iterator[JobStatus]:
    from pydantic import ValidationError

    from fhir_features.job import RunRecord

    runner = _holder(folder / "run.lock")
    files = sorted(folder.glob("*.json"))[-_LAST_RUNS:]
    for file in files:
        try:
            run = RunRecord.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue
        is_cut_off = run.state == "running" and (runner is None or file != files[-1])
        state = "cut off" if is_cut_off else run.state
        yield JobStatus(run.run_id, run.started_at, run.finished_at, state, len(run.failures), run.exit_code)


def _holder(lock: Path) -> int | None:
    """Which process holds a lock file, as Linux tells (https://man7.org/linux/man-pages/man5/proc_locks.5.html).

    Trying to take the lock would, for an instant, keep a writer from it.
    """
    try:
        inode = lock.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None
