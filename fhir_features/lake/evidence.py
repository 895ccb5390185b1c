"""What does it rest on that rows count as known when they do (TIME rule 11)? In: the lake. Out: counts of resource
versions by source, resource type and `known_at_source`, as the view `evidence` of the lake and as records.

A version that was stated anew counts once, as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.lake.schema import EVENT_TABLES, OBSERVATIONS


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
SELECT site, source, '{resource_type}' AS resource_type, known_at_source, known_at < effective_at AS early
FROM {table} e
ANTI JOIN restated r ON r.resource_type = '{resource_type}' AND r.site = e.site AND r.resource_id = e.resource_id
  AND r.version = e.version
WHERE state = 1{own_row}"""


def evidence_view() -> str:
    """The statement that creates the view, in the schema that is in use."""
    types = "\nUNION ALL".join(
        _OF_TYPE.format(
            resource_type=resource_type,
            table=table.name,
            own_row=" AND component = 0" if table is OBSERVATIONS else "",
        )
        for resource_type, table in EVENT_TABLES.items()
    )
    return f"""
CREATE VIEW lake.evidence AS
WITH restated AS (
  SELECT DISTINCT site, resource_type, resource_id, version
  FROM closings
  WHERE reason IN ('witnessed', 'reopened')
),
counted AS ({types}
)
SELECT
  site,
  source,
  resource_type,
  known_at_source,
  count(*) AS versions,
  count(*) FILTER (WHERE early) AS known_before_effective
FROM counted
GROUP BY ALL"""


def evidence(con: duckdb.DuckDBPyConnection) -> list[Evidence]:
    """The counts of an attached lake: by site, source and resource type, the most frequent way of finding out first."""
    rows = con.execute("""
SELECT site, source, resource_type, known_at_source, versions, known_before_effective
FROM lake.evidence
ORDER BY site, source, resource_type, versions DESC, known_at_source""").fetchall()
    return [Evidence(*row) for row in rows]
