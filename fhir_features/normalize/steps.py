"""What follows of staged resources? In go a run as it is staged and the lake; out come the rows of what is new, put
aside first and then in the lake, and the balance: received = normalized + quarantined + duplicates + ignored."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import duckdb

from fhir_features.config import Source
from fhir_features.errors import LakeError
from fhir_features.lake import spill_folder
from fhir_features.normalize.clocks import read_clocks
from fhir_features.normalize.context import create_context, gather_context
from fhir_features.normalize.dictionaries import find_measured, insert_dictionary, insert_resolution
from fhir_features.normalize.events import insert_rows, put_rows
from fhir_features.normalize.findings import find_new, insert_findings
from fhir_features.normalize.policies import create_policies
from fhir_features.normalize.restating import create_reopened, restate_versions
from fhir_features.normalize.staging import Staging
from fhir_features.normalize.versions import (
    close_revised,
    close_versions,
    find_crowded,
    name_versions,
    order_versions,
)
from fhir_features.ontology import Ontologies
from fhir_features.sources import LandedRun


@dataclass(frozen=True)
class Balance:
    """What became of what was received, in resource versions: `received` is the sum of the others."""

    received: int
    normalized: int
    quarantined: int
    duplicates: int
    ignored: int


_TALLY = """
INSERT INTO tally
SELECT resource_type, outcome, count(*), 0 FROM staged_versions GROUP BY ALL
UNION ALL
SELECT resource_type, outcome, 0, count(*) FROM new_versions GROUP BY ALL"""


def derive(
    con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, staging: Staging, until: int | None = None
) -> None:
    """Put aside all that follows of what is staged of a run.

    What needs all versions of a resource goes through those of resources that have several, part by part of them:
    first their order, in the end what they close. In between, all versions are dated, slice by slice of the run.

    With `until`, the commit that brought the run first, rows of its quarantine are read again: what other resources
    say counts as it stood then.
    """
    tables = staging.tables
    parts = find_crowded(con, tables, run, source, staging.slices)
    gather_context(tables, run, until)
    create_policies(con, source)
    find_measured(tables)
    con.execute("CREATE TEMP TABLE new_findings AS FROM staged_findings LIMIT 0")
    con.execute("CREATE TEMP TABLE tally (resource_type VARCHAR, outcome VARCHAR, staged BIGINT, new BIGINT)")
    for part in range(parts):
        tables.open(("crowded_versions",), part)
        order_versions(con, tables, part, staging.slices)
    for slice in range(staging.slices if tables.in_parts else 1):
        staging.open(slice)
        tables.open(("rows_of_crowded", "new_of_crowded"), slice)
        _date(con, run, source, staging, parts)
    if until is not None:
        create_reopened(con, run)
    restated = 0
    for part in range(parts):
        tables.open(("ordered_versions", "clocks_of_crowded", "held_closings"), part)
        restated += restate_versions(con, tables, run, source, restated)
        close_versions(tables, run)


def _date(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, staging: Staging, parts: int) -> None:
    """Find when the new versions of the open slice became known, and put their rows aside."""
    name_versions(con)
    create_context(con, staging.tables)
    read_clocks(con, staging.tables, source)
    close_revised(staging.tables, run, parts)
    put_rows(con, staging, run, source.timezone)
    find_new(con)
    con.execute(_TALLY)


def insert(
    con: duckdb.DuckDBPyConnection,
    run: LandedRun,
    staging: Staging,
    ontologies: Ontologies,
    store_seq: int,
) -> None:
    """Insert what `derive` put aside, what the codings and units of the run mean, and what validation found, under the
    commit `store_seq`."""
    insert_rows(con, staging.tables, store_seq)
    insert_dictionary(con, staging, store_seq)
    insert_resolution(con, ontologies, store_seq)
    insert_findings(con, run, store_seq)


def balance(con: duckdb.DuckDBPyConnection, run: LandedRun, staging: Staging) -> Balance:
    """Count what became of what was staged. Raises LakeError when the counts do not add up."""
    normalized = count(con, "SELECT coalesce(sum(new), 0) FROM tally WHERE outcome <> 'quarantined'")
    quarantined = count(con, "SELECT count(*) FROM staged_quarantine")
    duplicates = count(con, "SELECT coalesce(sum(staged), 0) FROM tally WHERE outcome <> 'quarantined'") - normalized
    ignored = staging.ignored.total()
    if staging.received != normalized + quarantined + duplicates + ignored:
        raise LakeError(
            f"run {run.run_id} of source '{run.source}' does not balance: {staging.received} received, {normalized} "
            f"normalized, {quarantined} quarantined, {duplicates} duplicates, {ignored} ignored; nothing was written"
        )
    return Balance(staging.received, normalized, quarantined, duplicates, ignored)


def insert_balance(con: duckdb.DuckDBPyConnection, run: LandedRun, of: Balance, store_seq: int) -> None:
    """Record the balance of a run, or by how much a retry changes it."""
    con.execute(
        "INSERT INTO lake.commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [store_seq, run.source, run.run_id, of.received, of.normalized, of.quarantined, of.duplicates, of.ignored],
    )


def count(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    """The one number that a query answers."""
    row = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def drop_temporary_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Drop what the run before left."""
    made = con.execute("""
SELECT 'TABLE', table_name FROM duckdb_tables() WHERE temporary
UNION ALL
SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND NOT internal
ORDER BY ALL""").fetchall()
    for kind, name in made:
        con.execute(f"DROP {kind} {name}")
    shutil.rmtree(spill_folder(con) / "staged", ignore_errors=True)
