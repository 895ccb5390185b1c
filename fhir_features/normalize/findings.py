"""What did validation find in what was normalized? In: a staged run. Out: rows of `findings` in the lake, each with its
place in the landing as rows of the quarantine have it, and how often each finding was made."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.lake import literal
from fhir_features.normalize.quarantine import create_run_files
from fhir_features.sources import LandedRun


@dataclass(frozen=True)
class Finding:
    """How many new resource versions of a type break a rule at a JSON path."""

    resource_type: str
    json_path: str
    rule: str
    versions: int


def find_new(con: duckdb.DuckDBPyConnection) -> None:
    """Add to `new_findings` what was found in new versions of the open slice: what was set aside after all, or received
    before, has no findings."""
    con.execute("""
INSERT INTO new_findings
SELECT f.*
FROM staged_findings f
SEMI JOIN (FROM new_versions WHERE outcome = 'normalized') v USING (row_no)""")


def insert_findings(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int) -> None:
    """Insert the findings in the new versions of a run."""
    create_run_files(con, run)
    con.execute(f"""
INSERT INTO lake.findings
SELECT {literal(run.source)}, {literal(run.site)}, {literal(run.run_id)}, n.file, f.line, f.entry, f.resource_type,
  f.resource_id, f.json_path, f.rule, {store_seq}
FROM new_findings f
JOIN run_files n USING (file_no)
ORDER BY n.file, f.line, f.entry, f.json_path, f.rule""")


def count_findings(con: duckdb.DuckDBPyConnection) -> tuple[Finding, ...]:
    """The findings in the new versions of a run."""
    sql = """
SELECT resource_type, json_path, rule, count(*)
FROM new_findings
GROUP BY ALL
ORDER BY ALL"""
    return tuple(Finding(*row) for row in con.execute(sql).fetchall())
