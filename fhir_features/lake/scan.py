"""What a reader sees: one view an event table, with `known_to` from the closings, as the store stood at a store_seq.

In goes a connection with the lake attached; out come temporary views `patients`, `encounters`, `observations`,
`conditions` and `medication_requests`, whose rows are the versions of the event table with one more column, `known_to`
(null while the version is open), and the dictionaries `codings`, `units` and `measured_units`. `patients_in(first,
last)` and so on give the rows of some buckets, and read no others.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake.attach import in_buckets_sql
from fhir_features.lake.ledger import WATERMARKS
from fhir_features.lake.schema import EVENT_TABLES, MEDICATION_REQUESTS

# Of a USMALLINT, which buckets are numbered with.
_LAST_BUCKET = 65_535

# An order that points to a Medication has that Medication's code, whenever the Medication itself came: which drug was
# ordered was known with the order. The first version of it that the store saw counts.
_MEDICATION = (
    " REPLACE (coalesce(e.code_id, m.code_id) AS code_id)",
    """
LEFT JOIN first_medications m ON m.site = e.site AND m.resource_id = e.medication_id""",
)


def newest_store_seq(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the last commit; 0 in an empty lake."""
    row = con.execute("SELECT coalesce(max(store_seq), 0) FROM lake.commits").fetchone()
    assert row is not None
    return int(row[0])


def create_views(con: duckdb.DuckDBPyConnection, store_seq: int) -> None:
    """Create the temporary views and macros over the lake as it stood after commit `store_seq`.

    `watermarks` has a row a site and type: what all servers of the site have been read up to. A folder is whole
    whenever it is read, so it holds nothing back; a site that has only folders is seen up to the last of them.
    """
    as_of = int(store_seq)
    # To look for closings in a lake that has none takes longer than to read a small table.
    (closings,) = con.execute("SELECT count(*) FROM lake.closings").fetchone() or (0,)
    known_to, closed = "CAST(NULL AS TIMESTAMPTZ) AS known_to", ""
    if closings:
        known_to, closed = "c.known_to", "\nLEFT JOIN first_closings c USING (version_no, state)"
    for resource_type, table in EVENT_TABLES.items():
        code, joins = _MEDICATION if table is MEDICATION_REQUESTS else ("", "")
        con.execute(f"""
CREATE OR REPLACE TEMP MACRO {table.name}_in(first_bucket, last_bucket) AS TABLE
WITH first_closings AS (
  SELECT version_no, state, min(closed_at) AS known_to
  FROM lake.closings
  WHERE resource_type = '{resource_type}' AND store_seq <= {as_of}
    AND {in_buckets_sql("bucket", "first_bucket", "last_bucket")}
  GROUP BY ALL
),
first_medications AS (
  SELECT site, resource_id, arg_min(code_id, (store_seq, version)) AS code_id
  FROM lake.medications
  WHERE store_seq <= {as_of}
  GROUP BY ALL
)
SELECT e.*{code}, {known_to}
FROM lake.{table.name} e{closed}{joins}
WHERE e.store_seq <= {as_of}
  AND {in_buckets_sql("e.bucket", "first_bucket", "last_bucket")}""")
        con.execute(f"CREATE OR REPLACE TEMP VIEW {table.name} AS FROM {table.name}_in(0, {_LAST_BUCKET})")
    for name in ("codings", "units", "measured_units"):
        con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM lake.{name} WHERE store_seq <= {as_of}")
    con.execute(f"""
CREATE OR REPLACE TEMP VIEW {WATERMARKS.name} AS
WITH seen AS (
  SELECT site, resource_type, source, kind, max(watermark) AS watermark
  FROM lake.{WATERMARKS.name}
  WHERE store_seq <= {as_of}
  GROUP BY ALL
)
SELECT
  site,
  resource_type,
  coalesce(min(watermark) FILTER (WHERE kind <> 'files'), max(watermark)) AS watermark
FROM seen
GROUP BY ALL""")
