"""Which snapshots are no longer snapshots, because what arrives now proves when they began (TIME rules 6 and 7)?

In go `ordered_versions`, the policies and the lake; out come `restated` (a row a held version, with the name and the
known_at that it has from now on) and `restated_closings`. A snapshot that is on record keeps its rows, each closed as
early as it was known, and gets one new row that counts as if the run that brings its predecessor had come first: in
whichever order runs are normalized, the same versions are known from the same instants.
"""

from __future__ import annotations

import duckdb

from fhir_features.config import Source
from fhir_features.lake import EVENT_TABLES, first_version_no, identifier, literal
from fhir_features.normalize.policies import HAVE_CATEGORIES, SERVER_AT, add_policies
from fhir_features.sources import LandedRun

# What stands behind the version's name in the row that states it anew.
_MARK = "~witnessed"

_REWITNESSED = """
CREATE TEMP TABLE rewitnessed AS
SELECT
  resource_type, resource_id, version, concat(version, '{mark}') AS restated_as,
  -({first_version_no} + row_number() OVER (ORDER BY resource_type, resource_id, version)) AS restated_no,
  states, received_at, last_updated
FROM ordered_versions
WHERE is_held AND outcome = 'normalized' AND witnessed AND NOT was_witnessed"""

_RESTATED = """
CREATE TEMP TABLE {restated_table} AS
WITH clocked AS (
  SELECT v.*, p.categories, p.policy, {server_at} AS server_at
  FROM rewitnessed v
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
    r.stated_at AS known_at,
    CASE WHEN r.stated_at = r.server_at THEN 'last_updated' ELSE 'received' END AS known_at_source
  ),
  e.version AS replaced,
  e.version_no AS replaced_no,
  e.known_at AS replaced_known_at,
  coalesce(e.effective_precision, 'derived') = 'derived' AND e.effective_at = e.known_at AS true_when_known
FROM lake.{table} e
JOIN stated r ON r.resource_id = e.resource_id AND r.version = e.version AND r.categories = {categories}
WHERE e.site = {site} AND (r.states > 1 OR r.stated_at <> e.known_at)"""


def restate_snapshots(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source) -> None:
    """Make `restated` and `restated_closings`, and for each resource type concerned `restated_<table>`."""
    con.execute(_REWITNESSED.format(mark=_MARK, first_version_no=first_version_no(con)))
    con.execute("""
CREATE TEMP TABLE restated (
  resource_type VARCHAR, resource_id VARCHAR, version VARCHAR, restated_as VARCHAR, restated_no BIGINT,
  known_at TIMESTAMPTZ)""")
    con.execute("""
CREATE TEMP TABLE restated_closings (
  bucket USMALLINT, patient_id VARCHAR, resource_type VARCHAR, resource_id VARCHAR, version VARCHAR,
  version_no BIGINT, state UTINYINT, closed_at TIMESTAMPTZ, reason VARCHAR, closed_by VARCHAR)""")
    for resource_type in _types(con, "rewitnessed"):
        _restate_type(con, run, source, resource_type)


def _restate_type(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, resource_type: str) -> None:
    table = EVENT_TABLES[resource_type].name
    site = literal(run.site)
    has_categories = resource_type in HAVE_CATEGORIES
    if has_categories:
        new = con.execute(f"""
SELECT DISTINCT e.categories
FROM lake.{table} e
SEMI JOIN rewitnessed r ON r.resource_type = '{resource_type}' AND r.resource_id = e.resource_id
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
SELECT DISTINCT '{resource_type}', resource_id, replaced, version, version_no, known_at
FROM restated_{table}""")
    con.execute(f"""
INSERT INTO restated_closings
SELECT DISTINCT bucket, patient_id, '{resource_type}', resource_id, replaced, replaced_no, state, replaced_known_at,
  'witnessed', version
FROM restated_{table}""")


def insert_restated(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int) -> None:
    """Insert the rows of what was restated, and their entries of the index, under the commit `store_seq`."""
    for resource_type in _types(con, "restated"):
        table = EVENT_TABLES[resource_type]
        con.execute(f"""
INSERT INTO lake.{table.name}
SELECT * EXCLUDE (replaced, replaced_no, replaced_known_at, true_when_known) REPLACE (
  CASE WHEN true_when_known THEN known_at ELSE effective_at END AS effective_at, {store_seq} AS store_seq)
FROM restated_{table.name}
WHERE state = 1
ORDER BY {", ".join(identifier(name) for name in table.sort)}""")
        con.execute(f"""
INSERT INTO lake.versions BY NAME
SELECT h.* REPLACE (
  r.restated_as AS version, r.restated_no AS version_no, true AS witnessed, 1 AS states, r.known_at AS known_at,
  {store_seq} AS store_seq)
FROM lake.versions h
JOIN restated r USING (resource_type, resource_id, version)
WHERE h.site = {literal(run.site)} AND h.resource_type = '{resource_type}' AND h.outcome = 'normalized'
ORDER BY h.resource_id, h.version""")


def _types(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    found = con.execute(f"SELECT DISTINCT resource_type FROM {table} ORDER BY resource_type").fetchall()
    return [resource_type for (resource_type,) in found]
