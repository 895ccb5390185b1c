"""Is all of a warehouse as it was written? In: a configuration. Out: what is not, file by file, with what to do about
it. Everything is read: the landing, the lake with its catalog, the feature tables, recorded views, kept spines and the
ontologies in use. Nothing is changed, but that a doubtful commit's files get their names back, as whenever the lake is
opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.config import Config
from fhir_features.errors import DefinitionError, FhirFeaturesError, LandingError, OntologyError
from fhir_features.features.content_hash import table_hash
from fhir_features.features.history import recorded_view
from fhir_features.features.table_files import recorded_digest
from fhir_features.files import sha256_of
from fhir_features.lake.attach import CATALOG, DATA, attach, connect, in_use
from fhir_features.lake.digests import METADATA, data_files
from fhir_features.lake.doubtful import doubtful, put_back
from fhir_features.ontology import load_ontologies
from fhir_features.sources.landing import RECORD, RUN_FOLDERS, LandedRun, read_record
from fhir_features.sources.progress import Progress, silent

_FROM_BACKUP = "restore it from a backup"
_REBUILD = "restore the lake from a backup, or make it anew with 'fhir-features rebuild'"
_REBUILD_TABLE = (
    "restore it and its .sha256 from a backup, or move its folder away and build the view anew, which answers for all "
    "times by what is known now"
)


@dataclass(frozen=True)
class Finding:
    """What is wrong, with which file (its path below the warehouse), and what to do."""

    path: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Verified:
    """How much was checked, and what was found."""

    files: int
    bytes: int
    findings: tuple[Finding, ...]


def verify(config: Config, progress: Progress = silent) -> Verified:
    """Check all files of the warehouse against the digests that they were written with. Raises LakeLocked while the
    lake is cleared up or made anew."""
    check = _Check(config.warehouse.path, progress)
    runs = set(check.landing())
    check.lake(runs)
    check.feature_tables()
    check.recorded_views()
    check.spines()
    check.ontologies()
    return Verified(check.files, check.bytes, tuple(check.findings))


class _Check:
    def __init__(self, warehouse: Path, progress: Progress) -> None:
        self._warehouse = warehouse
        self._progress = progress
        self.findings: list[Finding] = []
        self.files = 0
        self.bytes = 0
        self._part = ("", "", 0)
        self._passed = 0

    def landing(self) -> Iterator[tuple[str, str]]:
        """Check the landing; the runs in it, as (source, run_id)."""
        records = sorted((self._warehouse / "landing").glob(f"[!.]*/{RUN_FOLDERS}/{RECORD}"))
        runs = {record: _run_of(record) for record in records}
        self._begin("landing", "files", len(runs) + sum(len(run.files) for run in runs.values() if run))
        for record, run in runs.items():
            self._count(record)
            if run is None:
                self._find(record, "cannot be read, or is not as it was written", _FROM_BACKUP)
                continue
            for file in run.files:
                self._compare(run.folder / file.name, file.sha256, _FROM_BACKUP)
            yield run.source, run.run_id

    def lake(self, runs: set[tuple[str, str]]) -> None:
        """Check the catalog and the data files, and that the landing has the runs that they were made from."""
        lake = self._warehouse / "lake"
        catalog = lake / CATALOG
        if not catalog.exists():
            return
        with in_use(lake):
            self._begin("lake", "catalog", 1)
            self._count(catalog)
            if not _is_sound(catalog):
                self._find(catalog, "is a damaged SQLite database", _REBUILD)
                return
            con = connect()
            try:
                attach(con, lake, "READ_ONLY")
                put_back(con, lake / DATA, doubtful(catalog))
                files = data_files(con)
                self._begin("lake", "files", len(files))
                for file in files:
                    self._compare(lake / DATA / file.name, file.sha256, _REBUILD)
                self._check_catalog(con, lake / DATA)
                committed = con.execute("SELECT DISTINCT source, run_id FROM lake.commits WHERE source IS NOT NULL")
                for source, run_id in sorted(set(committed.fetchall()) - runs):
                    self._find(
                        self._warehouse / "landing" / source / run_id,
                        "is in the lake, and not in the landing: the lake could not be made anew from it",
                        _FROM_BACKUP,
                    )
            except (duckdb.Error, FhirFeaturesError):
                self._find(catalog, "cannot be read to its end", _REBUILD)
            finally:
                con.close()

    def _check_catalog(self, con: duckdb.DuckDBPyConnection, data: Path) -> None:
        """What the catalog says of a data file must be what the file says of itself."""
        rows = con.execute(f"""
SELECT concat(s.path, t.path, f.path), f.record_count, f.file_size_bytes
FROM {METADATA}.ducklake_data_file f
JOIN {METADATA}.ducklake_table t USING (table_id)
JOIN {METADATA}.ducklake_schema s USING (schema_id)
WHERE f.end_snapshot IS NULL
ORDER BY ALL""").fetchall()
        for name, records, size in rows:
            file = data / name
            if not file.exists():
                continue
            try:
                same = (records, size) == (pq.read_metadata(file).num_rows, file.stat().st_size)
            except (OSError, pa.ArrowException):
                continue
            if not same:
                self._find(data.parent / CATALOG, f"says other things of {name} than the file does", _REBUILD)

    def feature_tables(self) -> None:
        """Check each file of each feature table."""
        for file in self._all("features", "*/*/*.parquet"):
            self._compare(file, recorded_digest(file) or None, _REBUILD_TABLE)

    def recorded_views(self) -> None:
        """Check that each recorded version of a view is the one that its name says."""
        for file in self._all("views", "*/*.json"):
            self._count(file)
            try:
                is_other = recorded_view(file).version != file.stem
            except DefinitionError:
                is_other = True
            if is_other:
                self._find(file, "is no version of a view of this package, or was changed", _FROM_BACKUP)

    def spines(self) -> None:
        """Check that each kept spine has the content that its name says."""
        for file in self._all("spines", "*.parquet"):
            self._count(file)
            try:
                same = table_hash(pq.read_table(file)).sha256 == file.stem
            except (OSError, pa.ArrowException, FhirFeaturesError):
                same = False
            if not same:
                self._find(file, "is not the spine that it was", _FROM_BACKUP)

    def ontologies(self) -> None:
        """Check the ontologies in use against their lock."""
        try:
            known = load_ontologies()
            self._begin("ontologies", "artifacts", len(known.manifests))
            for _ in known.verify():
                self._pass()
        except OntologyError as error:
            self.findings.append(Finding("ontologies", *str(error).rsplit(": ", 1)))

    def _all(self, part: str, pattern: str) -> list[Path]:
        files = sorted((self._warehouse / part).glob(pattern))
        self._begin(part, "files", len(files))
        return files

    def _begin(self, part: str, what: str, total: int) -> None:
        self._part, self._passed = (part, what, total), 0

    def _pass(self) -> None:
        part, what, total = self._part
        self._passed += 1
        self._progress(part, what, self._passed, total)

    def _compare(self, file: Path, sha256: str | None, remedy: str) -> None:
        if not file.exists():
            self._pass()
            self._find(file, "is missing", remedy)
            return
        self._count(file)
        try:
            if sha256_of(file) != sha256:
                self._find(file, "is not as it was written", remedy)
        except OSError:
            self._find(file, "cannot be read", remedy)

    def _count(self, file: Path) -> None:
        self.files += 1
        self.bytes += file.stat().st_size
        self._pass()

    def _find(self, path: Path, problem: str, remedy: str) -> None:
        self.findings.append(Finding(path.relative_to(self._warehouse).as_posix(), problem, remedy))


def _run_of(record: Path) -> LandedRun | None:
    try:
        return read_record(record)
    except LandingError:
        return None


def _is_sound(catalog: Path) -> bool:
    try:
        with closing(sqlite3.connect(catalog)) as database:
            return bool(database.execute("PRAGMA integrity_check").fetchall() == [("ok",)])
    except sqlite3.Error:
        return False
