"""What new versions take from other resources: birth dates, encounters' starts and ends, reports of results.

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
  SELECT v.{key}, s.{new} AS {value}, {latest} AS latest
  FROM {staged} s
  JOIN new_versions v USING (row_no)
  UNION ALL
  SELECT v.{key}, h.{held}, {latest}
  FROM lake.{table} h
  JOIN lake.versions v USING (site, resource_id, version)
  WHERE h.site = {site} AND h.state = 1 AND v.resource_type = '{resource_type}'
)
SELECT {key}, arg_max_null({value}, latest) AS {value}
FROM versions_of_it
SEMI JOIN (
  SELECT v.patient_id, c.encounter_id AS resource_id
  FROM staged_conditions c
  JOIN new_versions v USING (row_no)
) USING ({key})
GROUP BY {key}"""

# When a result was first reported, by the reports that are held or have come in this run.
_REPORT_ISSUES = """
CREATE TEMP TABLE report_issues AS
WITH issues AS (
  SELECT s.observation_id, s.issued_last AS issued_at
  FROM staged_reported_results s
  JOIN new_versions v USING (row_no)
  WHERE v.outcome = 'normalized' AND NOT v.withdrawn
  UNION ALL
  SELECT observation_id, issued_at
  FROM lake.reported_results
  WHERE site = {site}
)
SELECT observation_id, min(issued_at) AS issued_at
FROM issues
SEMI JOIN new_versions v ON v.resource_type = 'Observation' AND v.resource_id = issues.observation_id
GROUP BY observation_id"""


def create_context(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Make `birth_dates`, `encounter_starts` and `encounter_ends` for conditions, and `report_issues` for results."""
    for name, resource_type, key, new, held, value in (
        ("birth_dates", "Patient", "patient_id", "birth_date", "birth_date", "birth_date"),
        ("encounter_starts", "Encounter", "resource_id", "start_first", "start_at", "start_at"),
        ("encounter_ends", "Encounter", "resource_id", "end_last", "end_latest_at", "ended_at"),
    ):
        con.execute(
            _LATEST_OF.format(
                name=name,
                key=key,
                new=new,
                held=held,
                value=value,
                latest=_LATEST,
                staged=staged(resource_type),
                table=EVENT_TABLES[resource_type].name,
                resource_type=resource_type,
                site=literal(run.site),
            )
        )
    con.execute(_REPORT_ISSUES.format(site=literal(run.site)))
