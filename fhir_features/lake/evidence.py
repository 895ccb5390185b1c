"""What does it rest on that rows count as known when they do (TIME rule 11)? In: the lake. Out: counts of resource
versions by source, resource type and `known_at_source`, as the view `evidence` of the lake and as records; and the
versions themselves with their clocks, whatever their type.

A version that was stated anew counts once, as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.lake.schema import EVENT_TABLES, OBSERVATIONS, PATIENTS
from fhir_features.lake.table import Table


@dataclass(frozen=True)
class Evidence:
    """How many versions of a resource type of a source have a known_at that was found in one way.

    `versions` as received, whichever are open; of them `known_before_effective` have a known_at before their
    effective_at, which is kept as it came (TIME rule 14).
    """

    site: str
    source: str
    resource_type: str
    known_at_source: str
    versions: int
    known_before_effective: int


_OF_TYPE = """
SELECT
  e.site, e.source, '{resource_type}' AS resource_type, e.bucket, e.patient_id, e.version_no,
  e.effective_at, e.effective_precision, e.known_at, e.known_at_source, {first_known_at} AS first_known_at
FROM {schema}{table} e{earlier}
ANTI JOIN restated r ON r.resource_type = '{resource_type}' AND r.site = e.site AND r.resource_id = e.resource_id
  AND r.version = e.version
WHERE e.state = 1{own_row}"""


def evidence_view() -> str:
    """The statement that creates the view, in the schema that is in use."""
    return f"""
CREATE VIEW lake.evidence AS
WITH counted AS ({_received("")}
)
SELECT
  site,
  source,
  resource_type,
  known_at_source,
  count(*) AS versions,
  count(*) FILTER (WHERE known_at < effective_at) AS known_before_effective
FROM counted
GROUP BY ALL"""


def create_received_versions(con: duckdb.DuckDBPyConnection) -> None:
    """Create the temporary view `received_versions`: a row a version in the attached lake, as it was received.

    It has site, source, resource_type, bucket, patient_id, version_no, effective_at, effective_precision, known_at and
    known_at_source as the event tables have them, and `first_known_at`, which is earlier where a snapshot implies an
    earlier state of the version (TIME rule 9).
    """
    con.execute(f"CREATE OR REPLACE TEMP VIEW received_versions AS\nFROM ({_received('lake.')}\n)")


def _received(schema: str) -> str:
    """The statement that gives the versions of all types as they were received."""
    restated = f"""
WITH restated AS (
  SELECT DISTINCT site, resource_type, resource_id, version
  FROM {schema}closings
  WHERE reason IN ('witnessed', 'reopened')
)"""
    return restated + "\nUNION ALL".join(_of_type(schema, *each) for each in EVENT_TABLES.items())


def _of_type(schema: str, resource_type: str, table: Table) -> str:
    revised = table not in (OBSERVATIONS, PATIENTS)
    earlier = f"\nLEFT JOIN {schema}{table.name} o ON o.version_no = e.version_no AND o.state = 0" if revised else ""
    return _OF_TYPE.format(
        resource_type=resource_type,
        schema=schema,
        table=table.name,
        earlier=earlier,
        first_known_at="coalesce(o.known_at, e.known_at)" if revised else "e.known_at",
        own_row=" AND e.component = 0" if table is OBSERVATIONS else "",
    )


def evidence(con: duckdb.DuckDBPyConnection) -> list[Evidence]:
    """The counts of an attached lake: by site, source and resource type, the most frequent way of finding out first."""
    rows = con.execute("""
SELECT site, source, resource_type, known_at_source, versions, known_before_effective
FROM lake.evidence
ORDER BY site, source, resource_type, versions DESC, known_at_source""").fetchall()
    return [Evidence(*row) for row in rows]
