"""Could the values of a training table that was made elsewhere have been known? Each row is judged against the engine.

In go an entity frame with a column of values, and the feature that they claim to be; out comes an `Audit`. A value that
is not the answer at T with what was known at T, but is the answer at T with what became known later, has leaked.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fhir_features.errors import UsageError
from fhir_features.features.cadence import EXACT, Serving
from fhir_features.features.compile import Plan, compile_features
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Feature
from fhir_features.features.spine import INSTANT, KEYS, TIME
from fhir_features.features.summary import resource_types
from fhir_features.features.terms import create_members
from fhir_features.lake import EVENT_TABLES
from fhir_features.ontology import Ontologies
from fhir_features.sources.progress import Progress, silent
from fhir_features.times import epoch_us

# `fine`: what was known at T. `leaked`: what the answer became later. `missing`: no value, where there was an answer.
# `different`: never the answer at T, so of another definition, unit or source, or of after T; it cannot be judged.
VERDICTS = ("fine", "leaked", "missing", "different")

# Numbers are the same when they differ by no more than this part of the greater.
TOLERANCE = 1e-9

_QUESTIONS_A_PASS = 500_000
_KINDS = {pa.float64(): "a number", pa.int64(): "a count", pa.bool_(): "true or false", pa.string(): "text"}


@dataclass(frozen=True)
class Audit:
    """The verdicts on a table.

    `rows` has a row for each of the table's, in its order: row (from 0), site, patient_id, event_timestamp, value,
    known_by (K: T, moved back by a serving, and no later than `known_as_of`), answer (with what was known at K),
    verdict (`VERDICTS`), and for what leaked known_from, the first instant (UTC) from which the value was the answer.
    """

    rows: pa.Table

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each verdict."""
        found = {each["values"]: each["counts"] for each in self.rows["verdict"].value_counts().to_pylist()}
        return {verdict: found.get(verdict, 0) for verdict in VERDICTS}

    @property
    def leaked(self) -> pa.Table:
        """The rows whose value could not have been known."""
        return self.rows.filter(pc.equal(self.rows["verdict"], "leaked"))

    def late_by(self) -> list[dt.timedelta]:
        """Of each row that leaked, how long after K its value was known."""
        late = pc.subtract(self.leaked["known_from"], self.leaked["known_by"])
        return [dt.timedelta(microseconds=us) for us in late.cast(pa.int64()).to_pylist()]


def audit_leakage(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    feature: Feature,
    spine: pa.Table,
    value: str,
    serving: Serving = EXACT,
    known_as_of: dt.datetime | None = None,
    progress: Progress = silent,
) -> Audit:
    """Judge the column `value` of a spine (`spine.read_spine`) as answers to a feature, as they were served.

    A value that the serving did not have yet has leaked, also when it was the answer at T itself. The connection must
    stand at a store_seq (`engine.stand_at`). Raises UsageError for a column that is not there or does not hold what the
    feature gives.
    """
    plan = compile_features((feature,))
    create_members(con, known, plan)
    values = _values(spine, value, feature, plan.schema.field(feature.name).type)
    questions = _as_served(spine, serving, known_as_of)
    answer = _answers(con, plan, questions)
    progress(feature.name, "rows", spine.num_rows, spine.num_rows)
    fine = _same(values, answer)
    missing = pc.and_(pc.is_null(values), pc.is_valid(answer)).to_numpy(zero_copy_only=False)
    asked_again = _asked_again(questions, spine, ~fine & ~missing)
    known_from = _known_from(con, known, plan, asked_again, values, progress)
    leaked = known_from.is_valid().to_numpy(zero_copy_only=False)
    verdict = np.select([fine, leaked, missing], ["fine", "leaked", "missing"], "different")
    columns = {"row": questions["question"], **{name: spine[name] for name in (*KEYS, TIME)}}
    columns |= {"value": values, "known_by": questions["k"], "answer": answer}
    return Audit(pa.table({**columns, "verdict": pa.array(verdict), "known_from": known_from}))


def _as_served(spine: pa.Table, serving: Serving, known_as_of: dt.datetime | None) -> pa.Table:
    """The questions (question, site, patient_id, t, k) whose answers were served at the rows of a spine."""
    t = serving.answered_at(spine[TIME].cast(pa.int64()).to_numpy())
    k = t if known_as_of is None else np.minimum(t, epoch_us(known_as_of))
    instants = {name: pa.array(us).cast(INSTANT) for name, us in (("t", t), ("k", k))}
    return pa.table({"question": np.arange(spine.num_rows), **{key: spine[key] for key in KEYS}, **instants})


def _asked_again(questions: pa.Table, spine: pa.Table, chosen: NDArray[np.bool_]) -> pa.Table:
    """Some of the questions, and where a serving has moved one back from T, that of T itself after it (`at_t`)."""
    moved = pc.less(questions["t"], spine[TIME]).to_numpy()
    at_t = questions.set_column(3, "t", spine[TIME]).set_column(4, "k", spine[TIME]).filter(pa.array(chosen & moved))
    as_served = questions.filter(pa.array(chosen))
    return pa.concat_tables(
        [
            as_served.append_column("at_t", pa.repeat(False, as_served.num_rows)),
            at_t.append_column("at_t", pa.repeat(True, at_t.num_rows)),
        ]
    )


def _values(spine: pa.Table, value: str, feature: Feature, wanted: pa.DataType) -> pa.Array:
    if value not in spine.column_names:
        raise UsageError(f"the table has no column '{value}': name the one with the values of '{feature.name}'")
    column = spine[value].combine_chunks()
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        # A count may come as 3.0, and true as 1, as frames with nulls hold them.
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(
            f"column '{value}' holds {column.type}, but '{feature.name}' is {_KINDS[wanted]}: convert it"
        ) from None


def _answers(con: duckdb.DuckDBPyConnection, plan: Plan, questions: pa.Table) -> pa.Array:
    """The answers to questions (question, site, patient_id, t, k), in the order of their numbers."""
    ask(con, questions)
    found = pa.concat_tables(list(answers(con, plan)) or [plan.schema.empty_table()])
    return found.sort_by("question").column(plan.names[0]).combine_chunks()


def _same(values: pa.Array, answer: pa.Array) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_]
    if pa.types.is_floating(values.type):
        one, other = (each.fill_null(np.nan).to_numpy(zero_copy_only=False) for each in (values, answer))
        equal = np.abs(one - other) <= TOLERANCE * np.maximum(np.abs(one), np.abs(other))
    else:
        equal = pc.fill_null(pc.equal(values, answer), False).to_numpy(zero_copy_only=False)
    equal |= pc.and_(pc.is_null(values), pc.is_null(answer)).to_numpy(zero_copy_only=False)
    return equal


def _known_from(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    plan: Plan,
    rows: pa.Table,
    values: pa.Array,
    progress: Progress,
) -> pa.Array:
    """For each value the first K later than the one served at which the answer was the value; null where it never was.

    `rows` are the questions that are asked again: with K at each instant at which anything that was true at T became
    known, to be of the person too, or was closed; those of T itself also with K at T. The answer can come and go, so
    all of them are asked.
    """
    con.register("asked_again", rows)
    con.execute(_LATER.format(changes="\n  UNION ALL\n".join(_changes(table) for table in _tables(plan))))
    con.unregister("asked_again")
    (number,) = con.execute("SELECT count(*) FROM later_questions").fetchone() or (0,)
    first = np.full(len(values), np.iinfo(np.int64).max)
    for start in range(0, number, _QUESTIONS_A_PASS):
        asked = con.execute(
            "SELECT * FROM later_questions WHERE question >= ? AND question < ? ORDER BY question",
            [start, start + _QUESTIONS_A_PASS],
        ).to_arrow_table()
        answer = _answers(con, plan, asked.drop_columns("row"))
        places = asked["row"].combine_chunks()
        same = _same(values.take(places), answer)
        np.minimum.at(first, places.to_numpy()[same], asked["k"].cast(pa.int64()).to_numpy()[same])
        progress(plan.names[0], "later instants", start + asked.num_rows, number)
    never = first == np.iinfo(np.int64).max
    return pa.array(first, pa.int64(), mask=never).cast(INSTANT)


def _tables(plan: Plan) -> list[str]:
    return [EVENT_TABLES[resource_type].name for resource_type in resource_types(plan)]


def _changes(table: str) -> str:
    # `people` stands since the answers at T: the records of all who are in the spine.
    return f"""  SELECT
    p.asked_site AS site, p.asked_patient_id AS patient_id, e.effective_at,
    unnest([greatest(e.known_at, p.since), least(e.known_to, p.until)]) AS k
  FROM {table} e
  JOIN people p
    ON p.site = e.site
    AND p.bucket = e.bucket
    AND p.patient_id = e.patient_id
  WHERE (p.asked_site, p.asked_patient_id) IN (SELECT (site, patient_id) FROM asked_again)"""


_LATER = """
CREATE OR REPLACE TEMP TABLE later_questions AS
WITH changes AS (
{changes}
),
later AS (
  SELECT a.question AS row, a.site, a.patient_id, a.t, c.k
  FROM asked_again a
  JOIN changes c USING (site, patient_id)
  WHERE c.k > a.k
    AND c.effective_at <= a.t
  UNION
  SELECT question, site, patient_id, t, k
  FROM asked_again
  WHERE at_t
)
SELECT row_number() OVER (ORDER BY row, t, k) - 1 AS question, *
FROM later"""
