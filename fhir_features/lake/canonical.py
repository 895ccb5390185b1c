"""Views that stay in the lake, for people who look into it with any DuckDB: the source's codes and what they mean.

`canonical_observations`, `canonical_conditions` and `canonical_medication_requests` show each event row with its
`known_to`, the first coding and the unit that the source wrote (`source_…`), and the canonical concept and UCUM unit
under the newest lock in the store (`concept_…`, `unit`). Meanings are joined in, never stored in rows.
"""

from __future__ import annotations

from fhir_features.lake.schema import CONDITIONS, EVENT_TABLES, MEDICATION_REQUESTS, OBSERVATIONS

# The date that controls coding chooses the release: when it was recorded, ordered or reported, not when it began.
_CODED_ON = {OBSERVATIONS: "e.known_at", CONDITIONS: "e.recorded_at", MEDICATION_REQUESTS: "e.authored_at"}


def canonical_views() -> list[str]:
    """The statements that create the views, in the schema that is in use."""
    return [_view(resource_type) for resource_type, table in EVENT_TABLES.items() if table in _CODED_ON]


def _view(resource_type: str) -> str:
    table = EVENT_TABLES[resource_type]
    code_id = "e.code_id"
    joins = unit = ""
    if table is OBSERVATIONS:
        unit = ",\n  u.unit AS source_unit,\n  coalesce(n.ucum, u.code) AS unit"
        joins = "\nLEFT JOIN units u ON u.unit_id = e.unit_id\nLEFT JOIN newest_units n ON n.unit_id = e.unit_id"
    if table is MEDICATION_REQUESTS:
        code_id = "coalesce(e.code_id, m.code_id)"
        joins = "\nLEFT JOIN first_medications m ON m.site = e.site AND m.resource_id = e.medication_id"
    return f"""
CREATE VIEW lake.canonical_{table.name} AS
WITH first_closings AS (
  SELECT version_no, state, min(closed_at) AS known_to
  FROM closings
  WHERE resource_type = '{resource_type}'
  GROUP BY ALL
),
first_medications AS (
  SELECT site, resource_id, arg_min(code_id, (store_seq, version)) AS code_id
  FROM medications
  GROUP BY ALL
),
newest AS (
  SELECT *
  FROM resolution
  WHERE lock_id = (SELECT arg_max(lock_id, store_seq) FROM resolution) AND rank = 0
),
newest_units AS (
  SELECT unit_id, ucum
  FROM unit_resolution
  WHERE lock_id = (SELECT arg_max(lock_id, store_seq) FROM unit_resolution)
)
SELECT
  e.*,
  k.known_to,
  s.system AS source_system,
  s.code AS source_code,
  s.display AS source_display,
  r.system AS concept_system,
  r.code AS concept_code,
  r.display AS concept_display,
  r.status AS concept_status,
  r.via AS concept_via{unit}
FROM {table.name} e
LEFT JOIN first_closings k USING (version_no, state){joins}
LEFT JOIN codings s ON s.code_id = {code_id} AND s.ordinal = 0
LEFT JOIN newest r ON r.code_id = {code_id}
  AND timezone('UTC', coalesce({_CODED_ON[table]}, e.known_at))::DATE >= coalesce(r.valid_from, DATE '0001-01-01')
  AND timezone('UTC', coalesce({_CODED_ON[table]}, e.known_at))::DATE < coalesce(r.valid_to, DATE '9999-12-31')"""
