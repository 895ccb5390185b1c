"""How the lake is reached: a DuckDB connection with the lake attached, for reading or, one at a time, for writing.

The lake is DuckLake: Parquet files and a catalog in SQLite. Its extensions come as wheels and are loaded from there,
never downloaded. Two writers corrupt a SQLite catalog, so a writer takes an exclusive file lock before it attaches.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType

import duckdb

from fhir_features.cores import cores
from fhir_features.errors import LakeError, LakeLocked
from fhir_features.files import alone, disk_errors, make_folder, refusal
from fhir_features.lake.canonical import canonical_views
from fhir_features.lake.digests import SNAPSHOT, check_data, digests_of, found_files, newest_snapshot
from fhir_features.lake.doubtful import doubtful, forget, keep, put_back
from fhir_features.lake.evidence import evidence_view
from fhir_features.lake.schema import FORMAT_VERSION, TABLES
from fhir_features.private import owner_only

CATALOG = "catalog.sqlite"
DATA = "data"
SPILL = "spill"
# The variables of a connection that writes that say where the files of data are, and second names of those of a commit.
_DATA = "lake_data"
_DOUBTFUL = "lake_doubtful"
# The variable of a connection that says into how many buckets the patients are divided.
_BUCKETS = "lake_buckets"
_EXTENSIONS = ("duckdb_extension_ducklake", "duckdb_extension_sqlite_scanner")

# To check their signatures takes 0.65 CPU seconds a connection, and proves nothing of files that pip has installed
# beside DuckDB itself. So that no other file is loaded on that trust, nothing is loaded but what `connect` names.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "allow_unsigned_extensions": True,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in UTC, with the extensions of the lake loaded and nothing attached."""
    con = duckdb.connect(config={**_CONFIG, "threads": cores()})
    con.execute("SET TimeZone = 'UTC'")
    # With DuckDB's own 1 MB the threads that fill it wait for the one that reads it.
    con.execute("SET streaming_buffer_size = '64MB'")
    for package in _EXTENSIONS:
        con.execute(f"LOAD {literal(str(_extension_file(package)))}")
    return con


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads the lake in a folder as `lake`, as it stands now: what is written meanwhile is not seen.

    Raises LakeError when there is none, or a data file is not as it was committed.
    """
    if not (path / CATALOG).exists():
        raise _no_lake(path)
    with owner_only(), in_use(path), _connected(path) as con:
        with _opening(path):
            attach(con, path, "READ_ONLY")
            snapshot = newest_snapshot(con)
            detach(con, "lake")
            attach(con, path, f"READ_ONLY, SNAPSHOT_VERSION {snapshot}")
            con.execute(f"SET VARIABLE {SNAPSHOT} = {snapshot}")
            put_back(con, path / DATA, doubtful(path / CATALOG))
            check_data(con, path / DATA)
            _read_meta(con, path)
        yield con


@contextmanager
def writing(
    path: Path, *, buckets: int, to_remove: bool = False, catalog: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that may write the lake in a folder as `lake`, which is made when it is not there.

    Only one process can hold it; `to_remove` files, while nobody reads. `catalog`: another file than the lake's own,
    for a lake that is to take its place. Raises LakeLocked when another process has it, and LakeError when `buckets`
    differs from what the lake was made with, a data file is not as it was committed, or the disk refuses.
    """
    with owner_only(), disk_errors(LakeError, f"the lake at {path}"):
        make_folder(path)
        with (
            alone(path / "writer.lock", f"the lake at {path} is being written"),
            being_rebuilt(path) if to_remove else nullcontext(),
            in_use(path, to_remove=to_remove),
            _connected(path) as con,
        ):
            # Beyond it DuckDB spills; who normalizes sets a limit of its own.
            con.execute("SET memory_limit = '300MB'")
            with _opening(path):
                attach(con, path, "META_JOURNAL_MODE 'WAL'", catalog=catalog)
                names = doubtful(catalog or path / CATALOG)
                con.execute(f"SET VARIABLE {_DATA} = {literal(str(path / DATA))}")
                con.execute(f"SET VARIABLE {_DOUBTFUL} = {literal(str(names))}")
                _create_missing(con, buckets)
                put_back(con, path / DATA, names)
                check_data(con, path / DATA)
                _read_meta(con, path)
                _check_buckets(con, path, buckets)
            yield con


def being_rebuilt(path: Path) -> AbstractContextManager[None]:
    """Make the lake anew, or have nobody do so: files that no commit names may be a new lake's. Raises LakeLocked."""
    return alone(path / "rebuild.lock", f"the lake at {path} is being made anew")


@contextmanager
def in_use(path: Path, *, to_remove: bool = False, wait: bool = False) -> Iterator[None]:
    """Have the files of a lake stay where they are while it is read; or, `to_remove` some, have nobody read it.

    Raises LakeLocked when that is not to be had now, unless it is to `wait`.
    """
    try:
        lock = (path / "readers.lock").open("a")
    except OSError:
        # On a disk that cannot be written to nothing is ever removed.
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if to_remove else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            why = "is being read" if to_remove else "is being cleared up or made anew"
            raise LakeLocked(f"the lake at {path} {why} by another process: run this again when it has ended") from None
        yield


@contextmanager
def _connected(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose spill has a folder of its own: two processes would overwrite each other's.

    What does not fit into memory is patient data too: it stays in the warehouse, not in the current folder.
    """
    spill = path / f"{SPILL}-{os.getpid()}-{secrets.token_hex(4)}"
    con = connect()
    try:
        con.execute(f"SET temp_directory = {literal(str(spill))}")
        yield con
    except duckdb.Error as error:
        if refused := refusal(error):
            raise LakeError(
                f"the lake at {path} cannot be read or written ({refused}): correct that, then run this again"
            ) from None
        raise
    finally:
        con.close()
        shutil.rmtree(spill, ignore_errors=True)


@contextmanager
def in_memory() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with an empty lake that lives in memory, all patients in one bucket: for a handful of rows."""
    con = connect()
    try:
        con.execute("ATTACH ':memory:' AS lake")
        _create_tables(con, buckets=1)
        con.execute(f"SET VARIABLE {_BUCKETS} = 1")
        yield con
    finally:
        con.close()


@contextmanager
def commit(con: duckdb.DuckDBPyConnection, message: str) -> Iterator[int]:
    """One transaction over all tables. Gives its store_seq; an error inside leaves the lake as it was.

    When it returns, what was written survives a power cut; the record of the commit has the SHA-256 of its data files.
    """
    with transaction(con, message):
        yield _next_store_seq(con)


@contextmanager
def transaction(
    con: duckdb.DuckDBPyConnection, message: str, *, kept: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """What `commit` is made of. `kept`: digests of earlier files that the record of this commit is to have, too."""
    row = con.execute(f"SELECT getvariable('{_DATA}'), getvariable('{_DOUBTFUL}')").fetchone()
    assert row is not None
    data, names = map(Path, row)
    before = found_files(data)
    con.execute("BEGIN TRANSACTION")
    try:
        yield
        new = found_files(data) - before
        brought = digests_of(new, data, kept)
        keep(new, names)
        con.execute("CALL lake.set_commit_message('fhir_features', ?, extra_info => ?)", [message, brought])
        con.execute("COMMIT")
    except BaseException:
        # A COMMIT that fails ends the transaction itself.
        with suppress(duckdb.Error):
            con.execute("ROLLBACK")
        raise
    forget(names)


def first_version_no(con: duckdb.DuckDBPyConnection) -> int:
    """The number from which on the next commit counts its versions, each by its place in the run: no other has them."""
    return _next_store_seq(con) << 32


def _next_store_seq(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute("SELECT coalesce(max(store_seq), 0) + 1 FROM lake.commits").fetchone()
    assert row is not None
    return int(row[0])


def bucket_count(con: duckdb.DuckDBPyConnection) -> int:
    """Into how many buckets the patients of the attached lake are divided."""
    row = con.execute(f"SELECT getvariable('{_BUCKETS}')").fetchone()
    assert row is not None
    return int(row[0])


def spill_folder(con: duckdb.DuckDBPyConnection) -> Path:
    """The folder, which may not be there yet, of what a connection to a lake spills: it is gone with the connection."""
    row = con.execute("SELECT current_setting('temp_directory')").fetchone()
    assert row is not None
    return Path(row[0])


def patient_hash_sql(site: str, patient_id: str) -> str:
    """A number of 64 bits for a patient as a SQL expression over two column expressions.

    Pinned for ever: MD5, since DuckDB's own hash() may change between versions. The length makes ('1', '11') and
    ('11', '1') differ.
    """
    return f"md5_number_lower(concat(length({site}), ':', {site}, {patient_id}))"


def bucket_sql(site: str, patient_id: str, buckets: int) -> str:
    """The bucket of a patient as a SQL expression; patients that share a bucket share nothing else."""
    return f"CAST({patient_hash_sql(site, patient_id)} % {int(buckets)} AS USMALLINT)"


def in_buckets_sql(column: str, first: str, last: str) -> str:
    """Whether a column of buckets lies between two SQL expressions. Compared with a wider type than its own, the column
    would be cast, and no row group skipped."""
    return f"{column} BETWEEN CAST({first} AS USMALLINT) AND CAST({last} AS USMALLINT)"


def identifier(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL literal, for the few statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def _extension_file(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    files = (
        sorted(Path(spec.origin).parent.glob(f"extensions/v{duckdb.__version__}/*.duckdb_extension"))
        if spec and spec.origin
        else []
    )
    if not files:
        raise LakeError(
            f"package {package} has no extension for DuckDB {duckdb.__version__}: install the versions pinned here"
        )
    return files[0]


def attach(
    con: duckdb.DuckDBPyConnection, path: Path, options: str, *, name: str = "lake", catalog: Path | None = None
) -> None:
    """Attach the lake in a folder, by its own catalog or by another one over the same data. Raises LakeError, and what
    DuckDB raises when the disk refuses."""
    file = literal(f"ducklake:sqlite:{catalog or path / CATALOG}")
    settings = f"DATA_PATH {literal(str(path / DATA))}, OVERRIDE_DATA_PATH true, DATA_INLINING_ROW_LIMIT 0, {options}"
    try:
        con.execute(f"ATTACH {file} AS {name} ({settings})")
    except duckdb.Error as error:
        # Another process is just making it.
        if "creating a new DuckLake is explicitly disabled" in str(error):
            raise _no_lake(path) from None
        # What the disk refuses is said by whoever has the connection.
        if refusal(error):
            raise
        raise LakeError(f"the lake at {path} cannot be opened: {str(error).splitlines()[0]}") from None


def detach(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Detach a lake."""
    con.execute(f"DETACH {name}")


def _create_missing(con: duckdb.DuckDBPyConnection, buckets: int) -> None:
    try:
        # Binds, and reads nothing: whether it can be read is not the question here.
        con.execute("EXPLAIN SELECT key FROM lake.meta")
    except duckdb.CatalogException:
        with transaction(con, "create"):
            con.execute("CALL lake.set_option('parquet_compression', 'zstd')")
            # Instants as differences: an eighth less to store, a fifth less to read.
            con.execute("CALL lake.set_option('parquet_version', 2)")
            _create_tables(con, buckets)
            for view in (*canonical_views(), evidence_view()):
                con.execute(view)


def _create_tables(con: duckdb.DuckDBPyConnection, buckets: int) -> None:
    for table in TABLES:
        columns = ",\n  ".join(f"{identifier(name)} {kind}" for name, kind in table.columns)
        con.execute(f"CREATE TABLE lake.{identifier(table.name)} (\n  {columns}\n)")
    con.execute(
        "INSERT INTO lake.meta VALUES ('format_version', ?), ('buckets', ?)", [str(FORMAT_VERSION), str(buckets)]
    )


def _read_meta(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Refuse a lake of another format, and have the connection know into how many buckets it is divided."""
    try:
        meta = dict(con.execute("SELECT key, value FROM lake.meta").fetchall())
        found, buckets = meta["format_version"], int(meta["buckets"])
    except duckdb.CatalogException:
        raise _no_lake(path) from None
    except (KeyError, ValueError):
        raise _unreadable(path) from None
    if found != str(FORMAT_VERSION):
        raise LakeError(
            f"the lake at {path} has format {found}, not {FORMAT_VERSION}: make it anew from the landing with "
            "'fhir-features rebuild'"
        )
    con.execute(f"SET VARIABLE {_BUCKETS} = {buckets}")


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Say in one line that a lake cannot be opened, wherever in its catalog the damage is. Raises LakeError."""
    try:
        yield
    except duckdb.Error as error:
        # What the disk refuses is said by whoever has the connection.
        if refusal(error):
            raise
        raise _unreadable(path) from None


def _unreadable(path: Path) -> LakeError:
    return LakeError(f"the lake at {path} cannot be read: run 'fhir-features verify' to see what is damaged")


def _no_lake(path: Path) -> LakeError:
    return LakeError(f"there is no lake at {path}: run 'fhir-features pull' and 'fhir-features normalize' first")


def _check_buckets(con: duckdb.DuckDBPyConnection, path: Path, buckets: int) -> None:
    made_with = bucket_count(con)
    if made_with != buckets:
        raise LakeError(
            f"the lake at {path} was made with {made_with} buckets, not {buckets}: set warehouse.buckets = {made_with}"
        )
