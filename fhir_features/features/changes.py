"""Which answers are news? Of the answers of a build, those that differ from the patient's answer before.

In go the answers of a pass, in the order of `asked`, and the temporary tables of the build: `asked` and `persons` of
the engine, `spans`, and `previous`, the newest row of each patient in the table so far. Out come rows of the table.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.features.compile import Plan
from fhir_features.features.kernel import Array
from fhir_features.lake import identifier

_KEYS = ["site", "patient_id", "answered_at", "published_at", "store_seq"]

_PREVIOUS_HERE = """SELECT person, {columns}
FROM previous
JOIN persons USING (site, patient_id)
WHERE person IN (
  SELECT person
  FROM asked
  WHERE question BETWEEN $first AND $last
)
ORDER BY person"""

# A line is an answer, or what the table so far says; in a restatement that stands in the answer's place at `reach`.
_LINES = """WITH lines AS (
  SELECT person, t AS answered_at, question - $first AS place, true AS is_new, $store_seq AS store_seq
  FROM asked
  JOIN persons USING (person)
  JOIN spans USING (site)
  WHERE question BETWEEN $first AND $last
    AND (NOT restates OR t < reach)
  UNION ALL
  SELECT person, CASE WHEN restates THEN reach ELSE answered_at END, place, restates, built_seq
  FROM previous_here
  JOIN persons USING (person)
  JOIN previous USING (site, patient_id)
  JOIN spans USING (site)
)
SELECT
  place, person, site, patient_id, answered_at, reach AS published_at, CAST(store_seq AS BIGINT) AS store_seq,
  is_new, answers_all AND answered_at = news_at AS is_given
FROM lines
JOIN persons USING (person)
JOIN spans USING (site)
ORDER BY person, answered_at"""


def create_previous(con: duckdb.DuckDBPyConnection, plan: Plan, files: list[Path]) -> None:
    """Create the temporary table `previous`: the newest row of each patient in the files of a table."""
    columns = ", ".join(identifier(name) for name in plan.names)
    if files:
        newest = f"""
SELECT site, patient_id, answered_at, {columns}
FROM read_parquet($files)
QUALIFY row_number() OVER (PARTITION BY site, patient_id ORDER BY answered_at DESC) = 1"""
        con.execute(f"CREATE OR REPLACE TEMP TABLE previous AS {newest}", {"files": [str(file) for file in files]})
        return
    con.register("no_rows", plan.schema.empty_table())
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE previous AS
SELECT NULL::VARCHAR AS site, NULL::VARCHAR AS patient_id, NULL::TIMESTAMPTZ AS answered_at, {columns}
FROM no_rows""")
    con.unregister("no_rows")


def changed_rows(con: duckdb.DuckDBPyConnection, plan: Plan, answered: pa.Table, store_seq: int) -> pa.Table:
    """Of the answers those that differ from the patient's answer before, or stand where all are given."""
    bounds = {"first": answered["question"][0].as_py(), "last": answered["question"][-1].as_py()}
    names = list(plan.names)
    answers = answered.select(names)
    columns = ", ".join(identifier(name) for name in names)
    previous = con.execute(_PREVIOUS_HERE.format(columns=columns), bounds).to_arrow_table()
    places = pa.array(range(len(answers), len(answers) + len(previous)), pa.int64())
    con.register("previous_here", pa.table({"person": previous["person"], "place": places}))
    lines = con.execute(_LINES, {**bounds, "store_seq": store_seq}).to_arrow_table()
    con.unregister("previous_here")
    if len(previous) or len(lines) < len(answers):
        answers = pa.concat_tables([answers, previous.select(names)]).take(lines["place"])
    is_new, is_given = (lines[name].to_numpy() for name in ("is_new", "is_given"))
    is_written = is_new & (is_given | _is_other(lines["person"].to_numpy(), answers))
    rows = pa.table([*lines.select(_KEYS).columns, *answers.columns], names=[*_KEYS, *names])
    return rows.filter(pa.array(is_written))


def _is_other(person: Array, answers: pa.Table) -> Array:
    """For each line whether it says something else than the person's line before; of a first one, whether anything."""
    begins = np.append(True, person[1:] != person[:-1])[: len(person)]
    is_other = np.zeros(len(person), bool)
    for column in answers.columns:
        says = pc.is_valid(column).to_numpy()
        unequal = pc.fill_null(pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)), False).to_numpy()
        is_other[begins] |= says[begins]
        is_other[1:] |= ~begins[1:] & (unequal | (says[1:] != says[:-1]))
    return is_other
