"""Which versions are new, in which order do they stand, and what does each close (TIME rules 6, 7 and 13)?

In goes a staged run and the lake. `order_versions` makes `ordered_versions`: every version, new or held, of each
resource that the run touches, in the order of its beginning, with what makes it witnessed. `close_versions` makes
`new_closings`, once `clocks` has said when each version became known.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake import bucket_sql, literal
from fhir_features.sources import LandedRun

# `_history` is not pulled yet, so the order is (lastUpdated, versionId where it is an integer, receipt, content hash).
_ORDER = """coalesce(last_updated, received_at), version_number NULLS FIRST, received_at, row_no NULLS FIRST,
    content_hash NULLS FIRST, version"""

_HELD = """
CREATE TEMP TABLE held_versions AS
SELECT h.*
FROM lake.versions h
SEMI JOIN staged_versions s USING (resource_type, resource_id)
WHERE h.site = {site}"""

# A version is named by its versionId. One without is named by its lastUpdated and content; one without either by its
# receipt, and then content equal to the latest held is a duplicate. '~' is in no versionId of FHIR. Where a version
# was read twice, the reading that could be normalized counts.
_NEW = """
CREATE TEMP TABLE new_versions AS
WITH named AS (
  SELECT
    *,
    TRY_CAST(version_id AS BIGINT) AS version_number,
    version_id IS NULL AND last_updated IS NULL AS anonymous,
    CASE
      WHEN version_id IS NOT NULL THEN version_id
      WHEN last_updated IS NOT NULL THEN concat('~', epoch_us(last_updated), '~', content_hash)
      ELSE concat('~received~', epoch_us(received_at), '~', row_no)
    END AS version
  FROM staged_versions
  WHERE outcome <> 'quarantined' OR version_id IS NOT NULL OR last_updated IS NOT NULL
),
latest_held AS (
  SELECT resource_type, resource_id, arg_max(content_hash, (coalesce(last_updated, received_at), received_at)) AS latest
  FROM held_versions
  GROUP BY ALL
),
compared AS (
  SELECT
    n.*,
    anonymous AND content_hash = coalesce(
      lag(content_hash) OVER (PARTITION BY resource_type, resource_id, anonymous ORDER BY received_at, row_no), l.latest
    ) AS same_as_latest,
    row_number() OVER (
      PARTITION BY resource_type, resource_id, version ORDER BY outcome = 'quarantined', row_no
    ) AS reading
  FROM named n
  LEFT JOIN latest_held l USING (resource_type, resource_id)
)
SELECT * EXCLUDE (same_as_latest, reading, anonymous)
FROM compared
ANTI JOIN held_versions USING (resource_type, resource_id, version)
WHERE reading = 1 AND same_as_latest IS NOT TRUE"""

# A version is witnessed when a version before it is held, or when a complete earlier pull, up to `since`, lacked it.
_ORDERED = f"""
CREATE TEMP TABLE ordered_versions AS
WITH together AS (
  SELECT resource_type, resource_id, version, version_number, last_updated, received_at, content_hash, outcome,
    patient_id, withdrawn, row_no, NULL::TIMESTAMPTZ AS known_at, NULL::UTINYINT AS states, NULL::USMALLINT AS bucket
  FROM new_versions
  UNION ALL
  SELECT resource_type, resource_id, version, version_number, last_updated, received_at, content_hash, outcome,
    patient_id, false, NULL, known_at, states, bucket
  FROM held_versions
)
SELECT
  o.*,
  row_number() OVER beginnings AS place,
  lag(version) OVER beginnings IS NOT NULL OR (o.last_updated > p.since) IS TRUE AS witnessed
FROM together o
LEFT JOIN pulled_types p USING (resource_type)
WINDOW beginnings AS (
  PARTITION BY resource_type, resource_id
  ORDER BY {_ORDER}
)"""


def order_versions(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Make `held_versions`, `new_versions` and `ordered_versions`."""
    con.execute("CREATE TEMP TABLE pulled_types (resource_type VARCHAR, since TIMESTAMPTZ)")
    for resource_type, landed in run.types.items():
        con.execute("INSERT INTO pulled_types VALUES (?, ?)", [resource_type, landed.since])
    con.execute(_HELD.format(site=literal(run.site)))
    con.execute(_NEW)
    con.execute(_ORDERED)


# Each version is closed by whichever of its successors was known first. A held version gets another closing only when
# a new successor was known earlier than those that it had.
_CLOSINGS = """
CREATE TEMP TABLE new_closings AS
WITH known AS (
  SELECT o.* REPLACE (coalesce(v.known_at, o.known_at) AS known_at, coalesce(v.states, o.states) AS states)
  FROM ordered_versions o
  LEFT JOIN version_clocks v USING (row_no)
),
succeeded AS (
  SELECT
    v.resource_type,
    v.resource_id,
    v.version,
    v.row_no,
    v.states,
    v.patient_id,
    v.bucket,
    arg_min(s, (s.known_at, s.place)) AS first,
    min(s.known_at) FILTER (WHERE s.row_no IS NULL) AS closed_before
  FROM known v
  JOIN known s ON s.resource_type = v.resource_type AND s.resource_id = v.resource_id AND s.place > v.place
  WHERE v.states > 0
  GROUP BY ALL
)
SELECT
  coalesce(bucket, {bucket}) AS bucket,
  patient_id,
  resource_type,
  resource_id,
  version,
  unnest(range(2 - states, 2))::UTINYINT AS state,
  first.known_at AS closed_at,
  CASE
    WHEN first.outcome IN ('deleted', 'quarantined') THEN first.outcome
    WHEN first.patient_id <> patient_id THEN 'subject-changed'
    WHEN first.withdrawn THEN 'entered-in-error'
    ELSE 'superseded'
  END AS reason,
  first.version AS closed_by
FROM succeeded
WHERE row_no IS NOT NULL OR closed_before IS NULL OR first.known_at < closed_before
UNION ALL
SELECT {bucket}, n.patient_id, n.resource_type, n.resource_id, n.version, 0, c.known_at, 'revised', n.version
FROM new_versions n
JOIN version_clocks c USING (row_no)
WHERE c.states = 2"""


def close_versions(con: duckdb.DuckDBPyConnection, run: LandedRun, buckets: int) -> None:
    """Make `new_closings` from `ordered_versions` and `version_clocks` (row_no, known_at, states)."""
    con.execute(_CLOSINGS.format(bucket=bucket_sql(literal(run.site), "patient_id", buckets)))
