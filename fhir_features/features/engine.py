"""What did we know about patient P at time T: the answers of a view to a table of questions.

In go a connection that reads the lake, as it stood at a store_seq, and questions (site, patient_id, t, k); out come
Arrow tables with a row a question and a column a feature. SQL selects the rows that count (`compile`), the kernel finds
what each question sees of them. Questions are answered some buckets at a time, so that memory is bounded by a pass.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa

from fhir_features.features import facts
from fhir_features.features.arrays import Array
from fhir_features.features.carrying import must_compute
from fhir_features.features.compile import Plan, Selection, encounters_statement, seen_window
from fhir_features.features.kernel import Columns, Questions, RowSet, answer_windows, in_order
from fhir_features.features.nodes import Aggregate, Expression, Number, PatientFact, Value, Window
from fhir_features.features.operators import EXPRESSIONS, OPERATORS
from fhir_features.features.people import create_people
from fhir_features.features.stays import ACTIVE, Stays
from fhir_features.features.summary import Summary
from fhir_features.features.terms import create_resolved
from fhir_features.lake import bucket_count, bucket_sql, create_views, in_buckets_sql
from fhir_features.ontology import Ontologies
from fhir_features.sources.progress import Progress

# How much of one pass is in memory: answers (questions times features), about 100 MB, and rows, about 200 MB.
_ANSWERS_A_PASS = 8_000_000
_ROWS_A_PASS = 1_500_000
# DuckDB reserves the memory of a whole batch of rows, also for the last one, and for none.
_ROWS_A_BATCH = 100_000

# In the order of the table, which DuckDB keeps: https://duckdb.org/docs/stable/sql/dialect/order_preservation
_ASKED = """
SELECT question, person, epoch_us(t) AS t, epoch_us(k) AS k
FROM asked
WHERE person BETWEEN ? AND ?"""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_YEAR_1 = -62_135_596_800_000_000


def stand_at(con: duckdb.DuckDBPyConnection, known: Ontologies, store_seq: int) -> None:
    """Let the connection show the lake after commit `store_seq`, its codes resolved under the lock."""
    create_views(con, store_seq)
    create_resolved(con, known)


def ask(con: duckdb.DuckDBPyConnection, questions: pa.Table) -> None:
    """Put questions (question, site, patient_id, t, k) to the connection, replacing those before.

    `question` is a distinct whole number; t and k are UTC instants, K of TIME rule 1 never later than T. They are the
    temporary tables `persons` (person: numbered from 0 in the order of bucket, site and patient_id) and `asked`
    (question, person, t, k), which keeps the order of its columns from person on.
    """
    con.register("questions_in", questions)
    bucket = bucket_sql("site", "patient_id", bucket_count(con))
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE persons AS
SELECT
  CAST(row_number() OVER (ORDER BY bucket, site, patient_id) - 1 AS INTEGER) AS person, site, bucket, patient_id
FROM (SELECT site, {bucket} AS bucket, patient_id FROM (SELECT DISTINCT site, patient_id FROM questions_in))""")
    con.execute("""
CREATE OR REPLACE TEMP TABLE asked AS
SELECT question, person, t, k
FROM questions_in
JOIN persons USING (site, patient_id)
ORDER BY person, t, k, question""")
    con.unregister("questions_in")


def answers(
    con: duckdb.DuckDBPyConnection,
    plan: Plan,
    *,
    summary: Summary | None = None,
    questions_a_pass: int | None = None,
    carry: bool = False,
) -> Iterator[pa.Table]:
    """The answers to what was asked, as tables of the plan's schema, in the order of bucket, site, patient, t and k.

    `create_members` must have been called for the plan. A summary given counts the rows that were read. With `carry`,
    what has not changed since a patient's question before is carried on instead of computed anew: for questions whose K
    is T, and of which a patient has many.
    """
    _create_asked_people(con)
    size = questions_a_pass or max(1, _ANSWERS_A_PASS // len(plan.features))
    for first, last in _passes(con, plan, size):
        yield _Pass(con, plan, first, last, summary, carry).answers()


def watched(passes: Iterable[pa.Table], progress: Progress, of: str, total: int) -> Iterator[pa.Table]:
    """Answers as they come, and to `progress` how many of all questions have theirs."""
    done = 0
    for answered in passes:
        done += answered.num_rows
        progress(of, "questions", done, total)
        yield answered


def _create_asked_people(con: duckdb.DuckDBPyConnection) -> None:
    """Whose rows each person who is asked about has: the records that are theirs, and between which instants they are
    asked about."""
    create_people(con)
    con.execute("""
CREATE OR REPLACE TEMP TABLE asked_people AS
WITH asked_between AS (
  SELECT person, min(t) AS first_t, max(t) AS last_t, max(k) AS last_k
  FROM asked
  GROUP BY person
)
SELECT
  person, persons.bucket AS asked_bucket, first_t, last_t, last_k,
  p.site, p.bucket, p.patient_id, p.since, p.until
FROM persons
JOIN asked_between USING (person)
JOIN people p
  ON p.asked_site = persons.site
  AND p.asked_patient_id = persons.patient_id""")


def _passes(con: duckdb.DuckDBPyConnection, plan: Plan, size: int) -> list[tuple[int, int]]:
    """Ranges of buckets with at most `size` questions each and not too many rows, or one bucket."""
    counts: Sequence[tuple[int, int]] = con.execute(
        "SELECT bucket, count(*) FROM asked JOIN persons USING (person) GROUP BY bucket ORDER BY bucket"
    ).fetchall()
    most = buckets_holding(con, plan, _ROWS_A_PASS)
    passes: list[tuple[int, int]] = []
    held = 0
    for bucket, count in counts:
        if passes and held + count <= size and bucket - passes[-1][0] < most:
            passes[-1] = (passes[-1][0], bucket)
            held += count
        else:
            passes.append((bucket, bucket))
            held = count
    return passes


def buckets_holding(con: duckdb.DuckDBPyConnection, plan: Plan, rows: int) -> int:
    """How many buckets hold about so many rows of the longest table that a plan reads: at least one, at most all."""
    longest = max(_row_count(con, table) for table in ("patients", *plan.asked))
    return max(1, bucket_count(con) * min(rows, longest) // longest) if longest else bucket_count(con)


def _row_count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM lake.{table}").fetchone()
    assert row is not None
    return int(row[0])


class _Pass:
    """The questions of some buckets, answered."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        plan: Plan,
        first: int,
        last: int,
        summary: Summary | None,
        carry: bool,
    ) -> None:
        self._con = con
        self._carry = carry
        self._plan = plan
        self._buckets = (first, last)
        self._summary = summary
        self._questions, self._first_person = self._asked()
        self._persons = int(self._questions.person[-1]) + 1
        self._facts = facts.Facts(self._row_set(self._fetch("patients", facts.STATEMENT)), self._questions)
        self._answered: dict[Aggregate, pa.Array] = {}

    def answers(self) -> pa.Table:
        """A table of the plan's schema."""
        stays = None
        if self._plan.reads_encounters:
            stays = Stays(self._row_set(self._fetch("encounters", encounters_statement())))
        for table, chosen in self._plan.asked.items():
            rows = self._fetch(table, self._plan.statements[table])
            for selection, order in zip(chosen, in_order(rows, self._selected(rows, len(chosen))), strict=True):
                self._answer_selection(table, selection, RowSet(rows, order, self._persons), stays)
        columns = [self._column(feature.value) for feature in self._plan.features]
        return pa.table([pa.array(self._questions.question), *columns], schema=self._plan.schema)

    def _asked(self) -> tuple[Questions, int]:
        """The questions, their persons numbered from 0, and the number that the first person has in `persons`."""
        ((first, last),) = self._con.execute(
            "SELECT min(person), max(person) FROM persons WHERE bucket BETWEEN ? AND ?", self._buckets
        ).fetchall()
        table = self._con.execute(_ASKED, (first, last)).to_arrow_table()
        # Copies, because the answers keep the questions' numbers, and these would keep a whole batch.
        question, person, t, k = (column.to_numpy().copy() for column in table.columns)
        return Questions(question, person - person[0], t, k), int(person[0])

    def _fetch(self, table: str, statement: str) -> Columns:
        """The rows of a statement over a table, with persons numbered as in the questions."""
        bounds = {
            "first_asked": self._buckets[0],
            "last_asked": self._buckets[1],
            "first_t": _instant(self._questions.t.min()),
            "last_t": _instant(self._questions.t.max()),
            "last_k": _instant(self._questions.k.max()),
        }
        used = {name: value for name, value in bounds.items() if f"${name}" in statement}
        ranges = [self._buckets, *self._other_buckets()]
        parts = [
            self._con.execute(statement, {**used, "first_bucket": first, "last_bucket": last}).to_arrow_table(
                _ROWS_A_BATCH
            )
            for first, last in ranges
        ]
        rows = pa.concat_tables(parts)
        person = pa.array(rows.column("person").to_numpy() - self._first_person)
        rows = rows.set_column(rows.column_names.index("person"), "person", person)
        return Columns(rows, partial(_names, self._con, table, ranges))

    def _other_buckets(self) -> list[tuple[int, int]]:
        """The buckets of records that are other names of the persons asked about."""
        others = self._con.execute(
            """
SELECT DISTINCT bucket
FROM asked_people
WHERE asked_bucket BETWEEN $first AND $last
  AND bucket NOT BETWEEN $first AND $last
ORDER BY bucket""",
            {"first": self._buckets[0], "last": self._buckets[1]},
        ).fetchall()
        return [(bucket, bucket) for (bucket,) in others]

    def _row_set(self, rows: Columns) -> RowSet:
        (order,) = in_order(rows, [np.arange(rows.table.num_rows)])
        return RowSet(rows, order, self._persons)

    def _selected(self, rows: Columns, selections: int) -> Iterator[Array]:
        """The places of each selection's rows, without those whose numbers cannot be used; what is read is counted."""
        selection, excluded = rows.column("selection"), rows.column("excluded")
        if self._summary is not None:
            self._summary.count(rows, self._last_k())
        order = np.argsort(selection, kind="stable")
        order = order[excluded[order] == 0]
        ends = np.searchsorted(selection[order], np.arange(selections + 1))
        for number in range(selections):
            yield order[ends[number] : ends[number + 1]]

    def _last_k(self) -> Array:
        """The latest K of each person."""
        begins = np.flatnonzero(np.append(True, np.diff(self._questions.person) > 0))
        latest: Array = np.maximum.reduceat(self._questions.k, begins)
        return latest

    def _answer_selection(self, table: str, selection: Selection, rows: RowSet, stays: Stays | None) -> None:
        """Compute all values of a selection."""
        windows = [seen_window(value) for value in selection.values]
        questions, same_as = self._to_compute(selection, windows, rows, stays)
        length = len(questions)
        dtypes = {"number": np.float64, "count": np.int64, "boolean": np.bool_, "text": np.int64}
        kinds = [OPERATORS[value.operator].kind for value in selection.values]
        answered: list[tuple[Array, Array]] = [
            (np.zeros(length, dtypes[kind]), np.ones(length, bool)) for kind in kinds
        ]
        classes = getattr(selection.rows, "encounter_classes", ())
        summary = not classes and all(OPERATORS[value.operator].summary for value in selection.values)
        for part, pairs, bounds in answer_windows(rows, questions, windows, selection.reach, summary=summary):
            if classes:
                assert stays is not None
                pairs.keep(stays.of_class(pairs, classes))
            if any(value.operator == "active" for value in selection.values):
                pairs.active = ACTIVE[table](pairs, stays)
            seen = {window: pairs.seen(*bound) for window, bound in zip(windows, bounds, strict=True)}
            for value, window, (values, missing) in zip(selection.values, windows, answered, strict=True):
                values[part], missing[part] = OPERATORS[value.operator].compute(seen[window], value.window)
        for value, (values, missing) in zip(selection.values, answered, strict=True):
            self._answered[value] = self._as_arrow(value, rows, values[same_as], missing[same_as])

    def _to_compute(
        self, selection: Selection, windows: Sequence[Window], rows: RowSet, stays: Stays | None
    ) -> tuple[Questions, Array | slice]:
        """The questions to compute a selection at, and for each question the one of them whose answer it has."""
        if not self._carry or any(OPERATORS[value.operator].instant for value in selection.values):
            return self._questions, slice(None)
        row_sets = (rows,) if stays is None else (rows, stays.rows)
        must = must_compute(self._questions, windows, *row_sets)
        return self._questions.at(np.flatnonzero(must)), np.cumsum(must) - 1

    def _as_arrow(self, value: Aggregate, rows: RowSet, values: Array, missing: Array) -> pa.Array:
        operator = OPERATORS[value.operator]
        if operator.kind == "text":
            return rows.words(operator.reads[0]).take(pa.array(values, mask=missing))
        if operator.empty is not None:
            values[missing] = operator.empty
            missing = (values == operator.empty) & ~self._facts.is_known
        return pa.array(values, mask=missing)

    def _column(self, value: Value) -> pa.Array:
        """The answers of a value."""
        if isinstance(value, Number):
            return pa.array(np.full(len(self._questions), value.number))
        if isinstance(value, PatientFact):
            return self._facts.answer(value.operator)
        if isinstance(value, Expression):
            one, other = (self._column(argument) for argument in value.arguments)
            return EXPRESSIONS[value.operator].compute(one, other, pa.array(self._facts.is_known))
        return self._answered[value]


def _names(
    con: duckdb.DuckDBPyConnection, table: str, ranges: Sequence[tuple[int, int]], version_no: Array
) -> pa.Table:
    """The resource_id and version of some versions in a table, which are in some ranges of buckets."""
    con.register("tied", pa.table({"version_no": version_no, "place": np.arange(len(version_no))}))
    is_here = in_buckets_sql("e.bucket", "?", "?")
    statement = f"""
SELECT tied.place, any_value(e.resource_id) AS resource_id, any_value(e.version) AS version
FROM lake.{table} e
JOIN tied USING (version_no)
WHERE {is_here}
GROUP BY tied.place"""
    names = pa.concat_tables([con.execute(statement, bounds).to_arrow_table() for bounds in ranges])
    con.unregister("tied")
    _, order = np.unique(names.column("place").to_numpy(), return_index=True)
    return names.take(order).drop_columns("place")


def _instant(us: int) -> dt.datetime:
    """An instant as a bound on rows, of which none is before the year 1: a serving can go back further."""
    return _EPOCH + dt.timedelta(microseconds=max(int(us), _YEAR_1))
