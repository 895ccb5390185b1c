"""Which versions on record are to be stated anew, because what arrives now shows them in another light?

In go `ordered_versions`, the policies and the lake; out come `restated` (a row a held version, with the name, the
states and the known_at that it has from now on), `restated_closings`, and rows that are put aside. What is on record
keeps its rows, each closed as early as it was known, and gets new ones. Two cases:

- `witnessed`: a snapshot whose beginning is proven now (TIME rules 6 and 7) counts as if the run that brings its
  predecessor had come first: in whichever order runs are normalized, the same versions are known from the same
  instants.
- `reopened`: what was closed by something in the quarantine that a retry reads as known later, or as a duplicate, is
  closed by whatever closes it now.
"""

from __future__ import annotations

import duckdb

from fhir_features.config import Source
from fhir_features.lake import EVENT_TABLES, first_version_no, literal
from fhir_features.lake.schema import VERSIONS
from fhir_features.normalize.policies import HAVE_CATEGORIES, SERVER_AT, add_policies
from fhir_features.normalize.run_tables import RunTables
from fhir_features.sources import LandedRun

_REOPENED = """
CREATE TEMP TABLE reopened AS
WITH read_again AS (
  SELECT resource_type, resource_id, version AS closed_by, row_no
  FROM lake.versions
  SEMI JOIN resolved_rows USING (row_no)
  WHERE source = {source} AND run_id = {run_id} AND outcome = 'quarantined'
),
read_now AS (
  SELECT row_no, c.known_at
  FROM new_versions
  JOIN version_clocks c USING (row_no)
)
SELECT DISTINCT resource_type, resource_id, c.version
FROM lake.closings c
JOIN read_again USING (resource_type, resource_id, closed_by)
LEFT JOIN read_now n USING (row_no)
WHERE c.site = {site} AND c.reason = 'quarantined' AND (n.known_at <= c.closed_at) IS NOT TRUE"""

# The reason stands behind the version's name in the row that states it anew. What has no events has none to state.
_TO_RESTATE = """
CREATE OR REPLACE TEMP TABLE to_restate AS
WITH shown_anew AS (
  SELECT
    o.*,
    r.version IS NOT NULL AS is_reopened,
    CASE WHEN witnessed AND NOT was_witnessed THEN 'witnessed' ELSE 'reopened' END AS reason
  FROM ordered_versions o
  LEFT JOIN reopened r USING (resource_type, resource_id, version)
  WHERE is_held AND outcome = 'normalized' AND resource_type IN ({of_events})
)
SELECT
  resource_type, resource_id, version, concat(version, '~', reason) AS restated_as,
  -({first_version_no} + row_number() OVER (ORDER BY resource_type, resource_id, version)) AS restated_no,
  reason, is_reopened, states, received_at, last_updated
FROM shown_anew
WHERE reason = 'witnessed' OR is_reopened"""

_RESTATED = """
CREATE OR REPLACE TEMP TABLE {restated_table} AS
WITH clocked AS (
  SELECT v.*, p.categories, p.policy, {server_at} AS server_at
  FROM to_restate v
  JOIN policies p USING (resource_type)
  WHERE resource_type = '{resource_type}'
),
stated AS (
  SELECT
    *,
    CASE WHEN policy = 'received' THEN received_at ELSE least(server_at, received_at) END AS stated_at
  FROM clocked
)
SELECT
  e.* REPLACE (
    r.restated_as AS version,
    r.restated_no AS version_no,
    CASE WHEN reason = 'reopened' THEN e.known_at ELSE r.stated_at END AS known_at,
    CASE
      WHEN reason = 'reopened' THEN e.known_at_source
      WHEN r.stated_at = r.server_at THEN 'last_updated'
      ELSE 'received'
    END AS known_at_source
  ),
  r.reason,
  CASE WHEN reason = 'reopened' THEN r.states ELSE 1 END AS states,
  e.version AS replaced,
  e.version_no AS replaced_no,
  e.known_at AS replaced_known_at,
  reason = 'witnessed' AND coalesce(e.effective_precision, 'derived') = 'derived' AND e.effective_at = e.known_at
    AS true_when_known
FROM lake.{table} e
JOIN stated r ON r.resource_id = e.resource_id AND r.version = e.version AND r.categories = {categories}
WHERE e.site = {site} AND (r.states > 1 OR r.stated_at <> e.known_at OR r.is_reopened)"""


def create_reopened(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Make `reopened`: what was closed by a reading of one of the `resolved_rows` of a run, and would not be now."""
    con.execute(_REOPENED.format(site=literal(run.site), source=literal(run.source), run_id=literal(run.run_id)))


def restate_versions(
    con: duckdb.DuckDBPyConnection, tables: RunTables, run: LandedRun, source: Source, first: int
) -> int:
    """Make `restated` and `restated_closings` of the open part, and put aside the rows of what is restated.

    Gives how many versions that are, numbered from `first` on.
    """
    con.execute("""
CREATE TEMP TABLE IF NOT EXISTS reopened (resource_type VARCHAR, resource_id VARCHAR, version VARCHAR)""")
    of_events = ", ".join(map(literal, EVENT_TABLES))
    con.execute(_TO_RESTATE.format(of_events=of_events, first_version_no=first_version_no(con) + first))
    con.execute("""
CREATE OR REPLACE TEMP TABLE restated (
  resource_type VARCHAR, resource_id VARCHAR, version VARCHAR, restated_as VARCHAR, restated_no BIGINT,
  reason VARCHAR, states UTINYINT, known_at TIMESTAMPTZ)""")
    con.execute("""
CREATE OR REPLACE TEMP TABLE restated_closings (
  bucket USMALLINT, patient_id VARCHAR, resource_type VARCHAR, resource_id VARCHAR, version VARCHAR,
  version_no BIGINT, state UTINYINT, closed_at TIMESTAMPTZ, reason VARCHAR, closed_by VARCHAR)""")
    for (resource_type,) in con.execute("SELECT DISTINCT resource_type FROM to_restate ORDER BY ALL").fetchall():
        _restate_type(con, run, source, resource_type)
        _put_restated(tables, run, resource_type)
    ((versions,),) = con.execute("SELECT count(*) FROM to_restate").fetchall()
    return int(versions)


def _restate_type(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, resource_type: str) -> None:
    table = EVENT_TABLES[resource_type].name
    site = literal(run.site)
    has_categories = resource_type in HAVE_CATEGORIES
    if has_categories:
        new = con.execute(f"""
SELECT DISTINCT e.categories
FROM lake.{table} e
SEMI JOIN to_restate r ON r.resource_type = '{resource_type}' AND r.resource_id = e.resource_id
ANTI JOIN policies p ON p.resource_type = '{resource_type}' AND p.categories = e.categories
WHERE e.site = {site}""").fetchall()
        add_policies(con, source, resource_type, [categories for (categories,) in new])
    con.execute(
        _RESTATED.format(
            restated_table=f"restated_{table}",
            table=table,
            resource_type=resource_type,
            server_at=SERVER_AT,
            categories="e.categories" if has_categories else "[]::VARCHAR[]",
            site=site,
        )
    )
    con.execute(f"""
INSERT INTO restated
SELECT DISTINCT '{resource_type}', resource_id, replaced, version, version_no, reason, states, known_at
FROM restated_{table}
WHERE state = 1""")
    con.execute(f"""
INSERT INTO restated_closings
SELECT DISTINCT bucket, patient_id, '{resource_type}', resource_id, replaced, replaced_no, state, replaced_known_at,
  reason, version
FROM restated_{table}
UNION ALL
SELECT DISTINCT bucket, patient_id, '{resource_type}', resource_id, version, version_no, 0, known_at, 'revised', version
FROM restated_{table}
WHERE state = 1 AND states = 2""")


def _put_restated(tables: RunTables, run: LandedRun, resource_type: str) -> None:
    """Put aside the rows of what was restated of a type, and their entries of the index."""
    table = EVENT_TABLES[resource_type].name
    tables.put(
        table,
        f"""
SELECT * EXCLUDE (store_seq, reason, states, replaced, replaced_no, replaced_known_at, true_when_known) REPLACE (
  CASE WHEN true_when_known THEN known_at ELSE effective_at END AS effective_at)
FROM restated_{table}
WHERE state >= 2 - states""",
    )
    tables.put(
        VERSIONS.name,
        f"""
SELECT h.* EXCLUDE (store_seq) REPLACE (
  r.restated_as AS version, r.restated_no AS version_no, h.witnessed OR r.reason = 'witnessed' AS witnessed,
  r.states AS states, r.known_at AS known_at)
FROM lake.versions h
JOIN restated r USING (resource_type, resource_id, version)
WHERE h.site = {literal(run.site)} AND h.resource_type = '{resource_type}' AND h.outcome = 'normalized'""",
    )
