"""Which answers are news? Of the answers of a build, those that differ from the patient's answer before.

In go the answers of a pass, in the order of `asked`, and the temporary tables of the build: `asked` and `persons` of
the engine, `spans`, and `previous`, the newest row of each patient in the table so far. Out come rows of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.features.arrays import Array
from fhir_features.features.compile import Plan
from fhir_features.features.spine import INSTANT
from fhir_features.lake import identifier

_KEYS = ["site", "patient_id", "answered_at", "published_at", "store_seq"]

# Questions are numbered in the order of the table, which DuckDB keeps.
_ASKED = """
SELECT person, epoch_us(t) AS t
FROM asked
WHERE question BETWEEN $first AND $last"""

# A row a person: what the build adds for the site, and what the table so far says, its answers last.
_ABOUT = 9
_PERSONS = """
SELECT
  n.site, n.patient_id, epoch_us(reach) AS reach, epoch_us(news_at) AS news_at, answers_all, restates, built_seq,
  p.site IS NOT NULL AS is_held, coalesce(epoch_us(p.answered_at), 0) AS held_at{columns}
FROM persons n
JOIN spans USING (site)
LEFT JOIN previous p USING (site, patient_id)
WHERE person BETWEEN $first AND $last
ORDER BY person"""


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
    person, t = con.execute(_ASKED, bounds).fetchnumpy().values()
    columns = "".join(f", p.{identifier(name)}" for name in plan.names)
    bounds = {"first": int(person[0]), "last": int(person[-1])}
    persons = con.execute(_PERSONS.format(columns=columns), bounds).to_arrow_table()
    lines = _lines(person - person[0], t, persons, store_seq)
    held = pa.table(persons.columns[_ABOUT:], names=list(plan.names)).filter(persons["is_held"])
    answers = answered.select(list(plan.names))
    if len(held) or len(lines.place) < len(answers):
        answers = pa.concat_tables([answers, held]).take(pa.array(lines.place))
    all_given = persons["answers_all"].to_numpy()[lines.person] & (
        lines.t == persons["news_at"].to_numpy()[lines.person]
    )
    is_written = lines.is_new & (all_given | _is_other(lines.person, answers))
    whose = pa.array(lines.person[is_written])
    keys = [
        persons["site"].take(whose),
        persons["patient_id"].take(whose),
        pa.array(lines.t[is_written]).cast(INSTANT),
        persons["reach"].take(whose).cast(INSTANT),
        pa.array(lines.store_seq[is_written]),
    ]
    return pa.table([*keys, *answers.filter(pa.array(is_written)).columns], names=[*_KEYS, *plan.names])


@dataclass(frozen=True)
class _Lines:
    """Answers and what the table so far says, in the order of person and instant. `place`: among the answers, then
    among what the table says."""

    person: Array
    t: Array
    place: Array
    is_new: Array
    store_seq: Array


def _lines(person: Array, t: Array, persons: pa.Table, store_seq: int) -> _Lines:
    """The lines of a pass. In a restatement what the table says stands in the answer's place at `reach`."""
    reach, restates, built_seq, held_at = (
        persons[name].to_numpy() for name in ("reach", "restates", "built_seq", "held_at")
    )
    place = np.flatnonzero(~restates[person] | (t < reach[person]))
    held = np.flatnonzero(persons["is_held"].to_numpy())
    if not len(held):
        return _Lines(person[place], t[place], place, np.ones(len(place), bool), np.full(len(place), store_seq))
    whose = np.concatenate([person[place], held])
    at = np.concatenate([t[place], np.where(restates, reach, held_at)[held]])
    order = np.lexsort((at, whose))
    return _Lines(
        whose[order],
        at[order],
        np.concatenate([place, len(person) + np.arange(len(held))])[order],
        np.concatenate([np.ones(len(place), bool), restates[held]])[order],
        np.concatenate([np.full(len(place), store_seq), built_seq[held]])[order],
    )


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
