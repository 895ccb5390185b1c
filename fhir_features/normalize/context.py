"""What new versions take from other resources: birth dates, encounters' starts and ends, reports, Provenances.

In go the staging and the lake. `gather_context` finds what the run and the lake say of the resources of the run; for
the open slice, `create_context` makes temporary tables with a row a resource that something new points to. The latest
version of it counts, held or staged.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake import EVENT_TABLES, literal
from fhir_features.normalize.run_tables import RunTables
from fhir_features.normalize.staging import staged
from fhir_features.sources import LandedRun

# What conditions take from a table of events by an id of theirs, each column by what it is staged as.
_OF_CONDITIONS = (
    ("patients_of_conditions", "Patient", "patient_id", {"birth_date": "birth_date"}),
    (
        "encounters_of_conditions",
        "Encounter",
        "encounter_id",
        {"start_at": "start_first", "end_latest_at": "end_last", "admission_diagnoses": "admission_diagnoses"},
    ),
)

# By what the latest version of a resource is chosen, from a row `v` of versions.
_LATEST = """struct_pack(
  said_at := coalesce(v.last_updated, v.received_at),
  received_at := v.received_at,
  run_id := {run_id},
  row_no := v.row_no
)"""

_TOLD = """
SELECT v.resource_id AS {key}, {new}, {new_latest} AS latest
FROM {rows} s
JOIN staged_versions v USING (row_no)
WHERE v.outcome = 'normalized'
UNION ALL
SELECT h.{key}, {held}, {held_latest}
FROM (
  SELECT resource_id AS {key}, version, {held}
  FROM lake.{table}
  SEMI JOIN (
    SELECT {key}
    FROM staged_conditions c
    JOIN staged_versions v USING (row_no)
  ) asked ON asked.{key} = resource_id
  WHERE site = {site} AND state = 1 AND {then}
) h
JOIN lake.versions v ON v.resource_id = h.{key} AND v.version = h.version
WHERE v.site = {site} AND v.resource_type = '{resource_type}'"""

_LATEST_OF = """
CREATE OR REPLACE TEMP TABLE {name} AS
SELECT {key}, {latest_told}
FROM told_{name}
SEMI JOIN (
  SELECT {key}
  FROM staged_conditions c
  JOIN new_versions v USING (row_no)
) asked USING ({key})
GROUP BY {key}"""

# When results were reported, by the reports that are held or have come in this run. A report that names a panel
# reports what the panel has, as far as that comes with it, and what panels in it have. `inner_id` is such a panel.
_REPORTS = """
WITH RECURSIVE reports AS (
  SELECT s.observation_id, s.issued_last AS issued_at
  FROM staged_reported_results s
  JOIN staged_versions v USING (row_no)
  WHERE v.outcome = 'normalized' AND NOT v.withdrawn
  UNION ALL
  SELECT observation_id, issued_at
  FROM lake.reported_results
  SEMI JOIN staged_versions v ON v.resource_type = 'Observation' AND v.resource_id = observation_id
  WHERE site = {site} AND {then}
),
panels AS (
  SELECT v.resource_id AS panel_id, unnest(s.members) AS member_id
  FROM staged_observations s
  JOIN staged_versions v USING (row_no)
  WHERE s.component = 0 AND len(s.members) > 0
),
nested AS (
  SELECT panel_id, member_id AS inner_id
  FROM panels
  SEMI JOIN (SELECT panel_id AS member_id FROM panels) USING (member_id)
),
inside AS (
  SELECT panel_id, inner_id
  FROM nested
  UNION
  SELECT i.panel_id, n.inner_id
  FROM inside i
  JOIN nested n ON n.panel_id = i.inner_id
)
SELECT observation_id, issued_at
FROM reports
UNION ALL
SELECT p.member_id, r.issued_at
FROM reports r
JOIN panels p ON p.panel_id = r.observation_id
UNION ALL
SELECT p.member_id, r.issued_at
FROM reports r
JOIN inside i ON i.panel_id = r.observation_id
JOIN panels p ON p.panel_id = i.inner_id"""

# When a result was first reported.
_REPORT_ISSUES = """
CREATE OR REPLACE TEMP TABLE report_issues AS
SELECT observation_id, min(issued_at) AS issued_at
FROM told_reports
SEMI JOIN new_versions v ON v.resource_type = 'Observation' AND v.resource_id = observation_id
GROUP BY observation_id"""

_PROVENANCES = """
SELECT s.target_type, s.target_id, s.recorded_last AS recorded_at, s.transmitted
FROM staged_provenances s
JOIN staged_versions v USING (row_no)
WHERE v.outcome = 'normalized'
UNION ALL
SELECT target_type, target_id, recorded_at, transmitted
FROM lake.provenances
SEMI JOIN staged_versions v ON v.resource_type = target_type AND v.resource_id = target_id
WHERE site = {site} AND {then}"""

# When a resource was first recorded, and first recorded as having come from another system.
_PROVENANCE_DATES = """
CREATE OR REPLACE TEMP TABLE provenance_dates AS
SELECT
  target_type AS resource_type,
  target_id AS resource_id,
  min(recorded_at) AS recorded_at,
  min(recorded_at) FILTER (WHERE transmitted) AS transmitted_at
FROM told_provenances
SEMI JOIN new_versions v ON v.resource_type = target_type AND v.resource_id = target_id
GROUP BY ALL"""


def gather_context(tables: RunTables, run: LandedRun, until: int | None = None) -> None:
    """Make `told_…` tables: what is said of conditions, of results by reports, and of any resource by Provenances.

    With `until`, only what came with the runs of the commits up to it counts as held.
    """
    then = "true"
    if until is not None:
        then = f"(source, run_id) IN (SELECT (source, run_id) FROM lake.commits WHERE store_seq <= {until})"
    given = {"site": literal(run.site), "then": then}
    for name, resource_type, key, columns in _OF_CONDITIONS:
        told = _TOLD.format(
            key=key,
            new=", ".join(f"s.{staged_as} AS {column}" for column, staged_as in columns.items()),
            held=", ".join(columns),
            new_latest=_LATEST.format(run_id=literal(run.run_id)),
            held_latest=_LATEST.format(run_id="v.run_id"),
            rows=staged(resource_type),
            table=EVENT_TABLES[resource_type].name,
            resource_type=resource_type,
            **given,
        )
        tables.keep(f"told_{name}", told)
    tables.keep("told_reports", _REPORTS.format(**given))
    tables.keep("told_provenances", _PROVENANCES.format(**given))


def create_context(con: duckdb.DuckDBPyConnection, tables: RunTables) -> None:
    """Make `patients_of_conditions` and `encounters_of_conditions`, `report_issues` for results, and `provenance_dates`
    for whatever Provenances are about, of the open slice."""
    if tables.has_rows(staged("Condition")):
        for name, _, key, columns in _OF_CONDITIONS:
            latest_told = ", ".join(f"arg_max_null({column}, latest) AS {column}" for column in columns)
            con.execute(_LATEST_OF.format(name=name, key=key, latest_told=latest_told))
    if tables.has_rows(staged("Observation")):
        con.execute(_REPORT_ISSUES)
    con.execute(_PROVENANCE_DATES)
