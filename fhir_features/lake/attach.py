"""How the lake is reached: a DuckDB connection with the lake attached, for reading or, one at a time, for writing.

The lake is DuckLake: Parquet files and a catalog in SQLite. Its extensions come as wheels and are loaded from there,
never downloaded. Two writers corrupt a SQLite catalog, so a writer takes an exclusive file lock before it attaches.
"""

from __future__ import annotations

import fcntl
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from fhir_features.errors import LakeError, LakeLocked
from fhir_features.lake.canonical import canonical_views
from fhir_features.lake.evidence import evidence_view
from fhir_features.lake.schema import FORMAT_VERSION, TABLES
from fhir_features.private import owner_only

CATALOG = "catalog.sqlite"
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
    con = duckdb.connect(config=_CONFIG)
    con.execute("SET TimeZone = 'UTC'")
    # With DuckDB's own 1 MB the threads that fill it wait for the one that reads it.
    con.execute("SET streaming_buffer_size = '64MB'")
    for package in _EXTENSIONS:
        con.execute(f"LOAD {literal(str(_extension_file(package)))}")
    return con


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads the lake in a folder as `lake`. Raises LakeError when there is none."""
    if not (path / CATALOG).exists():
        raise LakeError(f"there is no lake at {path}: run 'fhir-features pull' and 'fhir-features normalize' first")
    with owner_only(), connect() as con:
        _attach(con, path, "READ_ONLY")
        _check_format(con, path)
        yield con


@contextmanager
def writing(path: Path, *, buckets: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that may write the lake in a folder as `lake`, which is made when it is not there.

    Only one process can hold it. Raises LakeLocked when another does, and LakeError when `buckets` differs from what
    the lake was made with.
    """
    with owner_only():
        path.mkdir(parents=True, exist_ok=True)
    with owner_only(), (path / "writer.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LakeLocked(f"another process is writing to {path}: wait until it is done") from None
        con = connect()
        try:
            # A run is staged in memory up to here, and on disk beyond.
            con.execute("SET memory_limit = '1GB'")
            _attach(con, path, "META_JOURNAL_MODE 'WAL'")
            _create_missing(con, buckets)
            _check_format(con, path)
            _check_buckets(con, path, buckets)
            yield con
        finally:
            con.close()


@contextmanager
def in_memory() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with an empty lake that lives in memory, all patients in one bucket: for a handful of rows."""
    con = connect()
    try:
        con.execute("ATTACH ':memory:' AS lake")
        _create_tables(con, buckets=1)
        yield con
    finally:
        con.close()


@contextmanager
def commit(con: duckdb.DuckDBPyConnection, message: str) -> Iterator[int]:
    """One transaction over all tables. Gives its store_seq; an error inside leaves the lake as it was."""
    con.execute("BEGIN TRANSACTION")
    try:
        yield _next_store_seq(con)
        con.execute("CALL lake.set_commit_message('fhir_features', ?)", [message])
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise


def first_version_no(con: duckdb.DuckDBPyConnection) -> int:
    """The number from which on the next commit counts its versions, each by its place in the run: no other has them."""
    return _next_store_seq(con) << 32


def _next_store_seq(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute("SELECT coalesce(max(store_seq), 0) + 1 FROM lake.commits").fetchone()
    assert row is not None
    return int(row[0])


def bucket_count(con: duckdb.DuckDBPyConnection) -> int:
    """Into how many buckets the patients of the attached lake are divided."""
    return int(_meta(con)["buckets"])


def bucket_sql(site: str, patient_id: str, buckets: int) -> str:
    """The bucket of a patient as a SQL expression over two column expressions.

    Pinned for ever: MD5, since DuckDB's own hash() may change between versions. The length makes ('1', '11') and
    ('11', '1') differ; patients that share a bucket share nothing else.
    """
    return f"CAST(md5_number_lower(concat(length({site}), ':', {site}, {patient_id})) % {int(buckets)} AS USMALLINT)"


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


def _attach(con: duckdb.DuckDBPyConnection, path: Path, option: str) -> None:
    catalog = literal(f"ducklake:sqlite:{path / CATALOG}")
    data = literal(str(path / "data"))
    # What does not fit into memory is patient data too: it stays in the warehouse, not in the current folder.
    con.execute(f"SET temp_directory = {literal(str(path / 'spill'))}")
    try:
        con.execute(
            f"ATTACH {catalog} AS lake (DATA_PATH {data}, OVERRIDE_DATA_PATH true, DATA_INLINING_ROW_LIMIT 0, {option})"
        )
    except duckdb.Error as error:
        raise LakeError(f"the lake at {path} cannot be opened: {str(error).splitlines()[0]}") from None


def _create_missing(con: duckdb.DuckDBPyConnection, buckets: int) -> None:
    have = {
        name
        for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'").fetchall()
    }
    if "meta" in have:
        return
    con.execute("BEGIN TRANSACTION")
    _create_tables(con, buckets)
    for view in (*canonical_views(), evidence_view()):
        con.execute(view)
    con.execute("COMMIT")
    con.execute("CALL lake.set_option('parquet_compression', 'zstd')")


def _create_tables(con: duckdb.DuckDBPyConnection, buckets: int) -> None:
    for table in TABLES:
        columns = ",\n  ".join(f"{identifier(name)} {kind}" for name, kind in table.columns)
        con.execute(f"CREATE TABLE lake.{identifier(table.name)} (\n  {columns}\n)")
    con.execute(
        "INSERT INTO lake.meta VALUES ('format_version', ?), ('buckets', ?)", [str(FORMAT_VERSION), str(buckets)]
    )


def _meta(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(con.execute("SELECT key, value FROM lake.meta").fetchall())


def _check_format(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    try:
        found = _meta(con)["format_version"]
    except (duckdb.Error, KeyError):
        raise LakeError(f"{path} holds no lake of this package: name another warehouse") from None
    if found != str(FORMAT_VERSION):
        raise LakeError(
            f"the lake at {path} has format {found}, not {FORMAT_VERSION}: normalize the landing into a new warehouse"
        )


def _check_buckets(con: duckdb.DuckDBPyConnection, path: Path, buckets: int) -> None:
    made_with = bucket_count(con)
    if made_with != buckets:
        raise LakeError(
            f"the lake at {path} was made with {made_with} buckets, not {buckets}: set warehouse.buckets = {made_with}"
        )
