"""Which records are one person, and since when that is known: merged patients as a dated, reversible alias.

In go a connection that stands at a store_seq and its table `persons` (site, bucket, patient_id, …); out comes the
temporary table `people`, a row for each record asked for itself and one for each other record of the same person and
each interval in which that was known (TIME rule 13). Nothing is rewritten: a link that is taken back ends its interval.
Whose answers a link may ever have changed stands in the temporary table `kin`.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake import bucket_count, bucket_sql

# FHIR R4 Patient.link: replaced-by and replaces are the two ends of one merge; refer and seealso merge nothing.
# https://hl7.org/fhir/R4/patient.html#links
# Records are one person while a path of links joins them: an interval is the intersection of those along a path, and
# intervals that touch or overlap, of several versions or paths, are one. The recursion ends because UNION drops what
# was reached before and intervals only shrink.
_PEOPLE = """
CREATE OR REPLACE TEMP TABLE people AS
WITH RECURSIVE stated AS (
  SELECT
    site, patient_id, unnest(list_concat(replaced_by, replaces)) AS other_id,
    known_at AS since, coalesce(known_to, TIMESTAMPTZ 'infinity') AS until
  FROM patients
  WHERE len(list_concat(replaced_by, replaces)) > 0
),
links AS (
  SELECT site, patient_id, other_id, since, until
  FROM stated
  WHERE since < until
  UNION
  SELECT site, other_id, patient_id, since, until
  FROM stated
  WHERE since < until
),
reached AS (
  SELECT site, patient_id AS asked_patient_id, other_id AS patient_id, since, until
  FROM links
  SEMI JOIN persons USING (site, patient_id)
  UNION
  SELECT r.site, r.asked_patient_id, l.other_id, greatest(r.since, l.since), least(r.until, l.until)
  FROM reached r
  JOIN links l
    ON l.site = r.site
    AND l.patient_id = r.patient_id
    AND l.since < r.until
    AND l.until > r.since
),
begun AS (
  SELECT *, (since <= max(until) OVER earlier) IS NOT TRUE AS begins
  FROM reached
  WHERE patient_id <> asked_patient_id
  WINDOW earlier AS (
    PARTITION BY site, asked_patient_id, patient_id
    ORDER BY since, until
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
  )
),
numbered AS (
  SELECT
    *,
    count(*) FILTER (WHERE begins) OVER (
      PARTITION BY site, asked_patient_id, patient_id
      ORDER BY since, until
      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS interval_no
  FROM begun
)
SELECT
  site AS asked_site, patient_id AS asked_patient_id, site, bucket, patient_id,
  NULL::TIMESTAMPTZ AS since, NULL::TIMESTAMPTZ AS until
FROM persons
UNION ALL
SELECT
  site, asked_patient_id, site, {bucket}, patient_id,
  min(since), nullif(max(until), TIMESTAMPTZ 'infinity')
FROM numbered
GROUP BY site, asked_patient_id, patient_id, interval_no
ORDER BY asked_site, asked_patient_id, patient_id, since"""


def create_people(con: duckdb.DuckDBPyConnection) -> None:
    """Create the temporary table `people` (asked_site, asked_patient_id, site, bucket, patient_id, since, until).

    One row for each record asked for itself, with `since` and `until` null; and for each other record of the same
    person one row for each interval [since, until) in which that was known (UTC; until null: it still is). A row of
    another record counts for the one asked for while it is known itself and that interval lasts.
    """
    con.execute(_PEOPLE.format(bucket=bucket_sql("site", "patient_id", bucket_count(con))))


_KIN = """
CREATE OR REPLACE TEMP TABLE kin AS
WITH RECURSIVE stated AS (
  SELECT site, patient_id, unnest(list_concat(replaced_by, replaces)) AS other_id
  FROM patients
  WHERE len(list_concat(replaced_by, replaces)) > 0
),
links AS (
  SELECT site, patient_id, other_id
  FROM stated
  UNION
  SELECT site, other_id, patient_id
  FROM stated
),
reached AS (
  SELECT site, patient_id, other_id
  FROM links
  UNION
  SELECT r.site, r.patient_id, l.other_id
  FROM reached r
  JOIN links l
    ON l.site = r.site
    AND l.patient_id = r.other_id
)
SELECT site, {bucket} AS bucket, patient_id, {other_bucket} AS other_bucket, other_id
FROM reached
WHERE other_id <> patient_id
ORDER BY bucket, site, patient_id, other_id"""


def create_kin(con: duckdb.DuckDBPyConnection) -> None:
    """Create the temporary table `kin` (site, bucket, patient_id, other_bucket, other_id).

    A row for each two records that a path of links has ever joined, whenever each was known, and those taken back too:
    news of a link can concern records that no interval joins any more.
    """
    buckets = bucket_count(con)
    bucket, other_bucket = (bucket_sql("site", name, buckets) for name in ("patient_id", "other_id"))
    con.execute(_KIN.format(bucket=bucket, other_bucket=other_bucket))
