"""Many commits leave many small files: how does each table become one sorted file again, though nothing that it says
changes? In: a connection that writes the lake. Out: one commit in which each table that has several files is written
anew, and, once nobody reads, the removal of what it replaces.

DuckLake's own merging is not used, since it has lost rows (duckdb/ducklake issues 815, 955, 1108): this is an ordinary
transaction of a DELETE and an INSERT a table, which is refused unless the rows before and after are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fhir_features.errors import LakeError
from fhir_features.lake.attach import attach, detach, identifier, transaction
from fhir_features.lake.digests import METADATA, data_files, found_files, newest_snapshot
from fhir_features.lake.schema import TABLES
from fhir_features.lake.table import Table

_COMPACT = "compact"


@dataclass(frozen=True)
class Compacted:
    """A table of the lake that was written anew: into how many files, out of how many, and its rows."""

    table: str
    files_before: int
    files: int
    rows: int


def compact_tables(
    con: duckdb.DuckDBPyConnection, path: Path, progress: Callable[[str, int, int], None]
) -> list[Compacted]:
    """Write each table that has several files anew, in the order of its rows, as one commit over all of them.

    `progress` is called with a table, how many of its rows are written, and of how many. Readers go on with what they
    have. Raises LakeError, and changes nothing, if a table would not say the same.
    """
    before = _files_and_rows(con)
    tables = [table for table in TABLES if table.name in before and before[table.name][0] > 1]
    if not tables:
        return []
    kept = {file.name: file.sha256 for file in data_files(con) if file.sha256}
    attach(con, path, f"READ_ONLY, SNAPSHOT_VERSION {newest_snapshot(con)}", name="before")
    try:
        with transaction(con, _COMPACT, kept=kept):
            for table in tables:
                rows = before[table.name][1]
                progress(table.name, 0, rows)
                _rewrite(con, table)
                progress(table.name, rows, rows)
    finally:
        detach(con, "before")
    after = _files_and_rows(con)
    return [Compacted(table.name, before[table.name][0], *after[table.name]) for table in tables]


def remove_replaced(con: duckdb.DuckDBPyConnection, data: Path, *, dry_run: bool) -> list[Path]:
    """Remove the data files that the lake does not consist of: those before the last compaction, and those of commits
    that never came to be. Nobody may be reading. What was removed, or would be."""
    live = {data / file.name for file in data_files(con)}
    orphans = sorted(found_files(data) - live)
    if not dry_run:
        _forget_before_compaction(con)
        for file in orphans:
            file.unlink(missing_ok=True)
    return orphans


def _rewrite(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    name = identifier(table.name)
    order = ", ".join(identifier(column) for column in table.sort)
    con.execute(f"DELETE FROM lake.{name}")
    con.execute(f"INSERT INTO lake.{name}\nSELECT *\nFROM before.{name}\nORDER BY {order}")
    if _fingerprint(con, "lake", name) != _fingerprint(con, "before", name):
        raise LakeError(f"table {table.name} would not say the same when compacted: report this, nothing changed")


def _fingerprint(con: duckdb.DuckDBPyConnection, lake: str, name: str) -> tuple[int, ...]:
    """The number of rows, and two sums that no loss, doubling or change of a row leaves as they were."""
    row = con.execute(f"""
SELECT count(*), coalesce(sum(hash(t)::HUGEINT), 0), coalesce(bit_xor(hash(t, 1)), 0)
FROM {lake}.{name} t""").fetchone()
    assert row is not None
    return tuple(int(number) for number in row)


def _files_and_rows(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    found = con.execute(f"""
SELECT t.table_name, count(*), sum(f.record_count)
FROM {METADATA}.ducklake_data_file f
JOIN {METADATA}.ducklake_table t USING (table_id)
WHERE f.end_snapshot IS NULL AND t.end_snapshot IS NULL
GROUP BY ALL""").fetchall()
    return {table: (files, int(rows)) for table, files, rows in found}


def _forget_before_compaction(con: duckdb.DuckDBPyConnection) -> None:
    """Take out of the catalog what only snapshots before the last compaction have: its record has all digests."""
    older = con.execute(
        f"""
WITH compactions AS (
  SELECT max(snapshot_id) AS last
  FROM {METADATA}.ducklake_snapshot_changes
  WHERE commit_message = ?
)
SELECT list(snapshot_id ORDER BY snapshot_id)
FROM {METADATA}.ducklake_snapshot
WHERE snapshot_id < (SELECT last FROM compactions)""",
        [_COMPACT],
    ).fetchone()
    if older and older[0]:
        con.execute(f"CALL ducklake_expire_snapshots('lake', versions => {older[0]})")
        con.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")
