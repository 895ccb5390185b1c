"""What follows of staged resources? In go a run as it is staged and the lake; out come the temporary tables of what is
new, their rows in the lake, and the balance of the run: received = normalized + quarantined + duplicates + ignored."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import duckdb

from fhir_features.config import Source
from fhir_features.errors import LakeError
from fhir_features.lake import bucket_count, spill_folder
from fhir_features.normalize.clocks import read_clocks
from fhir_features.normalize.context import create_context
from fhir_features.normalize.dictionaries import insert_dictionary, insert_resolution
from fhir_features.normalize.events import insert_events
from fhir_features.normalize.findings import insert_findings
from fhir_features.normalize.policies import create_policies
from fhir_features.normalize.restating import create_reopened, insert_restated, restate_versions
from fhir_features.normalize.staging import Staging
from fhir_features.normalize.versions import close_versions, order_versions
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


def derive(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, until: int | None = None) -> None:
    """Make the temporary tables of all that follows of what is staged of a run.

    With `until`, the commit that brought the run first, rows of its quarantine are read again: what other resources
    say counts as it stood then.
    """
    order_versions(con, run, source)
    create_context(con, run, until)
    create_policies(con, source)
    read_clocks(con, source)
    if until is not None:
        create_reopened(con, run)
    restate_versions(con, run, source)
    close_versions(con, run)


def insert(
    con: duckdb.DuckDBPyConnection,
    run: LandedRun,
    source: Source,
    staging: Staging,
    ontologies: Ontologies,
    store_seq: int,
) -> None:
    """Insert what `derive` made, what the codings and units of the run mean, and what validation found, under the
    commit `store_seq`."""
    insert_events(con, run, store_seq, source.timezone, bucket_count(con))
    insert_restated(con, run, store_seq)
    insert_dictionary(con, staging, store_seq)
    insert_resolution(con, ontologies, store_seq)
    insert_findings(con, run, store_seq)


def balance(con: duckdb.DuckDBPyConnection, run: LandedRun, staging: Staging) -> Balance:
    """Count what became of what was staged. Raises LakeError when the counts do not add up."""
    normalized = count(con, "SELECT count(*) FROM new_versions WHERE outcome <> 'quarantined'")
    quarantined = count(con, "SELECT count(*) FROM staged_quarantine")
    duplicates = count(con, "SELECT count(*) FROM staged_versions WHERE outcome <> 'quarantined'") - normalized
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
SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND starts_with(view_name, 'staged_')
ORDER BY ALL""").fetchall()
    for kind, name in made:
        con.execute(f"DROP {kind} {name}")
    shutil.rmtree(spill_folder(con) / "staged", ignore_errors=True)
