"""What new versions take from other resources: birth dates, encounters' starts and ends, reports, Provenances.

In go the staging, `new_versions` and the lake; out come temporary tables with a row a resource that something new
points to. The latest version of it counts, held or new.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake import EVENT_TABLES, literal
from fhir_features.normalize.staging import staged
from fhir_features.sources import LandedRun

# By what the latest version of a resource is chosen, from a row `v` of versions.
_LATEST = "(coalesce(v.last_updated, v.received_at), v.received_at, v.run_id, v.row_no)"

_LATEST_OF = """
CREATE TEMP TABLE {name} AS
WITH versions_of_it AS (
  SELECT v.{key}, {new}, {latest} AS latest
  FROM {staged} s
  JOIN new_versions v USING (row_no)
  SEMI JOIN of_conditions USING ({key})
  UNION ALL
  SELECT v.{key}, {held}, {latest}
  FROM (
    SELECT site, resource_id, version, {held}
    FROM lake.{table}
    SEMI JOIN of_conditions USING ({key})
    WHERE site = {site} AND state = 1 AND {then}
  ) h
  JOIN lake.versions v USING (site, resource_id, version)
  WHERE v.resource_type = '{resource_type}'
)
SELECT {key}, {latest_held}
FROM versions_of_it
GROUP BY {key}"""

# What conditions take from a table of events, each column by what it is staged as.
_OF_CONDITIONS = (
    ("patients_of_conditions", "Patient", "patient_id", {"birth_date": "birth_date"}),
    (
        "encounters_of_conditions",
        "Encounter",
        "resource_id",
        {"start_at": "start_first", "end_latest_at": "end_last", "admission_diagnoses": "admission_diagnoses"},
    ),
)

# When a result was first reported, by the reports that are held or have come in this run. A report that names a panel
# reports what the panel has, as far as that comes with it.
_REPORT_ISSUES = """
CREATE TEMP TABLE report_issues AS
WITH RECURSIVE issues AS (
  SELECT s.observation_id, s.issued_last AS issued_at
  FROM staged_reported_results s
  JOIN new_versions v USING (row_no)
  WHERE v.outcome = 'normalized' AND NOT v.withdrawn
  UNION ALL
  SELECT observation_id, issued_at
  FROM lake.reported_results
  WHERE site = {site} AND {then}
),
panels AS (
  SELECT v.resource_id AS panel_id, unnest(s.members) AS member_id
  FROM staged_observations s
  JOIN new_versions v USING (row_no)
  WHERE s.component = 0 AND len(s.members) > 0
),
reported AS (
  SELECT observation_id, issued_at
  FROM issues
  SEMI JOIN new_versions v ON v.resource_type = 'Observation' AND v.resource_id = issues.observation_id
  UNION
  SELECT p.member_id, r.issued_at
  FROM reported r
  JOIN panels p ON p.panel_id = r.observation_id
)
SELECT observation_id, min(issued_at) AS issued_at
FROM reported
GROUP BY observation_id"""

# When a resource was first recorded, and first recorded as having come from another system.
_PROVENANCE_DATES = """
CREATE TEMP TABLE provenance_dates AS
WITH provenances AS (
  SELECT s.target_type, s.target_id, s.recorded_last AS recorded_at, s.transmitted
  FROM staged_provenances s
  JOIN new_versions v USING (row_no)
  WHERE v.outcome = 'normalized'
  UNION ALL
  SELECT target_type, target_id, recorded_at, transmitted
  FROM lake.provenances
  WHERE site = {site} AND {then}
)
SELECT
  target_type AS resource_type,
  target_id AS resource_id,
  min(recorded_at) AS recorded_at,
  min(recorded_at) FILTER (WHERE transmitted) AS transmitted_at
FROM provenances
SEMI JOIN new_versions v ON v.resource_type = target_type AND v.resource_id = target_id
GROUP BY ALL"""


def create_context(con: duckdb.DuckDBPyConnection, run: LandedRun, until: int | None = None) -> None:
    """Make `patients_of_conditions` and `encounters_of_conditions`, `report_issues` for results, and `provenance_dates`
    for whatever Provenances are about.

    With `until`, only what came with the runs of the commits up to it counts as held.
    """
    then = "true"
    if until is not None:
        then = f"(source, run_id) IN (SELECT (source, run_id) FROM lake.commits WHERE store_seq <= {until})"
    con.execute("""
CREATE TEMP TABLE of_conditions AS
SELECT DISTINCT v.patient_id, c.encounter_id AS resource_id
FROM staged_conditions c
JOIN new_versions v USING (row_no)""")
    for name, resource_type, key, columns in _OF_CONDITIONS:
        con.execute(
            _LATEST_OF.format(
                name=name,
                key=key,
                new=", ".join(f"s.{staged_as} AS {column}" for column, staged_as in columns.items()),
                held=", ".join(columns),
                latest_held=", ".join(f"arg_max_null({column}, latest) AS {column}" for column in columns),
                latest=_LATEST,
                staged=staged(resource_type),
                table=EVENT_TABLES[resource_type].name,
                resource_type=resource_type,
                site=literal(run.site),
                then=then,
            )
        )
    con.execute(_REPORT_ISSUES.format(site=literal(run.site), then=then))
    con.execute(_PROVENANCE_DATES.format(site=literal(run.site), then=then))
