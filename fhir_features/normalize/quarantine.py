"""What was set aside, where does it lie, and why? In: a staged run, or the configuration. Out: rows of the quarantine,
those still open of them by source, type and rule, and one by one with their place in the landing. None carries a value
of a resource: whoever must see one looks into the landing, at the place that is named."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.config import Config
from fhir_features.lake import literal, reading
from fhir_features.sources import LandedRun

# The rows `q` that no retry has resolved. What a retry set aside for another reason is of the retry's commit.
OPEN = """
FROM lake.quarantine q
ANTI JOIN lake.quarantine_resolved r
  ON r.source = q.source AND r.run_id = q.run_id AND r.row_no = q.row_no AND r.store_seq > q.store_seq"""


@dataclass(frozen=True)
class Count:
    """How many resource versions of a source and type are set aside by a rule; the type is null where none was read."""

    source: str
    resource_type: str | None
    rule: str
    rows: int


@dataclass(frozen=True)
class SetAside:
    """One resource version that is set aside, and where it lies: in `<landing>/<source>/<run_id>/<file>`, on `line` (of
    a Bundle file: its entry), and where that line is a Bundle, its `entry`. Both count from 1."""

    source: str
    run_id: str
    file: str
    line: int
    entry: int | None
    resource_type: str | None
    resource_id: str | None
    json_path: str | None
    rule: str
    reason: str


def counts(config: Config) -> list[Count]:
    """What is set aside, by source, type and rule. Raises LakeError when there is no lake."""
    sql = f"""
SELECT q.source, q.resource_type, q.rule, count(*)
{OPEN}
GROUP BY ALL
ORDER BY ALL"""
    with reading(config.warehouse.path / "lake") as con:
        return [Count(*row) for row in con.execute(sql).fetchall()]


def set_aside(
    config: Config, *, source: str | None = None, resource_type: str | None = None, rule: str | None = None
) -> list[SetAside]:
    """What is set aside, one by one, of all or of one source, type or rule. Raises LakeError when there is no lake."""
    sql = f"""
SELECT q.source, q.run_id, q.file, q.line, q.entry, q.resource_type, q.resource_id, q.json_path, q.rule, q.reason
{OPEN}
WHERE q.source = coalesce($source, q.source)
  AND ($resource_type IS NULL OR q.resource_type = $resource_type)
  AND q.rule = coalesce($rule, q.rule)
ORDER BY q.source, q.run_id, q.file, q.line, q.entry"""
    with reading(config.warehouse.path / "lake") as con:
        found = con.execute(sql, {"source": source, "resource_type": resource_type, "rule": rule})
        return [SetAside(*row) for row in found.fetchall()]


def insert_quarantine(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int, rows: str = "true") -> None:
    """Insert what is staged as set aside, or those rows `q` of it for which a SQL condition holds."""
    create_run_files(con, run)
    con.execute(f"""
INSERT INTO lake.quarantine
SELECT {literal(run.source)}, {literal(run.site)}, {literal(run.run_id)}, q.row_no, f.file, q.line, q.entry,
  q.resource_type, q.resource_id, q.json_path, q.rule, q.reason, {store_seq}
FROM staged_quarantine q
JOIN run_files f USING (file_no)
WHERE {rows}
ORDER BY f.file, q.line, q.entry""")


def create_run_files(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Make `run_files` (file_no, file): the names of a run's files in the landing. Names that a source gave its files
    often hold a patient's: these stay in the landing."""
    con.execute("CREATE OR REPLACE TEMP TABLE run_files (file_no INTEGER, file VARCHAR)")
    for file_no, file in enumerate(run.files):
        con.execute("INSERT INTO run_files VALUES (?, ?)", [file_no, file.name])
