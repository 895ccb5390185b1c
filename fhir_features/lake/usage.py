"""Which codes occur in the event tables, and how often? In: a connection that reads the lake. Out: counts.

Every version counts as received, state 1 only: the earlier state that a snapshot implies is the same resource.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import pyarrow as pa

from fhir_features.lake.schema import CONDITIONS, EVENT_TABLES, MEDICATION_REQUESTS, OBSERVATIONS

_CODED = "\n  UNION ALL\n".join(
    f"  SELECT {code_id} AS code_id, site, patient_id, '{resource_type}' AS resource_type\n"
    f"  FROM lake.{table.name}\n  WHERE state = 1 AND {where}"
    for resource_type, table in EVENT_TABLES.items()
    for code_id, where in {
        OBSERVATIONS: (("code_id", "true"), ("value_code_id", "value_type = 'CodeableConcept'")),
        CONDITIONS: (("code_id", "true"),),
        MEDICATION_REQUESTS: (("code_id", "medication_id IS NULL"),),
    }.get(table, ())
)


def code_counts(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """How many rows, and how many patients, have each code: (code_id, site, resource_type, rows, patients).

    code_id is null where there is only text.
    """
    return con.execute(f"""
SELECT code_id, site, resource_type, count(*) AS rows, count(DISTINCT patient_id) AS patients
FROM (
{_CODED}
)
GROUP BY ALL
ORDER BY ALL""").to_arrow_table()


def rows_and_patients(
    con: duckdb.DuckDBPyConnection, lock_id: str, concepts: Iterable[tuple[str, str]]
) -> tuple[int, int]:
    """How many rows, and how many patients, have one of some (system, code) as a source wrote them."""
    pairs = list(concepts)
    systems, codes = [system for system, _ in pairs], [code for _, code in pairs]
    con.register(
        "asked_concepts", pa.table({"system": pa.array(systems, pa.string()), "code": pa.array(codes, pa.string())})
    )
    found = con.execute(
        f"""
WITH asked_codes AS (
  SELECT DISTINCT code_id
  FROM lake.resolution
  SEMI JOIN asked_concepts USING (system, code)
  WHERE lock_id = ? AND via = 'direct'
)
SELECT count(*), count(DISTINCT (site, patient_id))
FROM (
{_CODED}
)
SEMI JOIN asked_codes USING (code_id)""",
        [lock_id],
    ).fetchone()
    con.unregister("asked_concepts")
    assert found is not None
    return int(found[0]), int(found[1])
