"""One SQL a feature view: which statement answers its features for a set of questions.

In go the features of a view; out comes a `Plan`: the statement, and the selections (distinct rows nodes, numbered per
table) whose members `terms` looks up. The statement reads the views of `lake.create_views`, a table `asked` (question,
site, bucket, patient_id, t, k: T and K of TIME rule 1), the member tables, and two parameters, the first and the last
bucket. It gives one row a question with a column a feature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from fhir_features.features import counting
from fhir_features.features.nodes import Aggregate, Expression, Feature, Kind, Number, PatientFact, Rows, Value, Window
from fhir_features.features.operators import ARROW_TYPES, EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.lake import identifier

_UNITS = (("w", 604_800_000_000), ("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))


@dataclass(frozen=True)
class Plan:
    """A compiled view: the statement, its columns, and the selections of each table in their order."""

    sql: str
    features: tuple[Feature, ...]
    selections: dict[str, tuple[Rows, ...]] = field(hash=False)
    reads_encounters: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(feature.name for feature in self.features)

    @property
    def schema(self) -> pa.Schema:
        """The columns of an answer: `question` and the features."""
        return pa.schema(
            [("question", pa.int64())] + [(each.name, ARROW_TYPES[kind_of(each.value)]) for each in self.features]
        )


def compile_features(features: tuple[Feature, ...]) -> Plan:
    """The plan that answers these features."""
    read = [value for feature in features for value in leaves(feature.value)]
    values = list(dict.fromkeys(value for value in read if isinstance(value, Aggregate)))
    tables = dict.fromkeys(value.rows.table for value in values)
    parts = [_TablePart(table, [value for value in values if value.rows.table == table]) for table in tables]
    ctes = [_questions(values)]
    if any(part.needs_open_encounters for part in parts):
        ctes.append(counting.OPEN_ENCOUNTERS)
    for part in parts:
        ctes += part.ctes()
    ctes.append(counting.KNOWN_PATIENTS)
    answered = {value: part.answer(value) for part in parts for value in part.values}
    columns = ",\n  ".join(f"{_answer(each.value, answered)} AS {identifier(each.name)}" for each in features)
    joins = "".join(part.joins() for part in parts)
    sql = (
        "WITH "
        + ",\n".join(ctes)
        + f"\nSELECT\n  q.question,\n  {columns}\nFROM questions q"
        + f"\nLEFT JOIN known_patients p ON p.question = q.question{joins}"
    )
    return Plan(
        sql,
        features,
        {part.table: part.selections for part in parts},
        reads_encounters=any(part.needs_open_encounters for part in parts),
    )


def leaves(value: Value) -> Iterator[Aggregate | PatientFact]:
    """The values that a value is computed from."""
    if isinstance(value, Expression):
        for argument in value.arguments:
            yield from leaves(argument)
    elif not isinstance(value, Number):
        yield value


def kind_of(value: Value) -> Kind:
    """Which kind of answer a value gives."""
    if isinstance(value, PatientFact):
        return PATIENT_OPERATORS[value.operator][0]
    if isinstance(value, Expression):
        return EXPRESSIONS[value.operator][0]
    return "number" if isinstance(value, Number) else OPERATORS[value.operator].kind


def duration_text(us: int) -> str:
    """A length in microseconds as a person writes it: `365d`."""
    unit, length = next((unit, length) for unit, length in _UNITS if us % length == 0)
    return f"{us // length}{unit}"


def _questions(values: list[Aggregate]) -> str:
    """The questions of the buckets at hand, with the edges of all windows worked out once a question."""
    edges = {us for value in values for us in (value.window.start_us, value.window.end_us) if us}
    columns = "".join(f",\n    t - to_microseconds({edge}) AS {_edge(edge)}" for edge in sorted(edges))
    return f"""questions AS (
  SELECT
    question, site, bucket, patient_id, t, k{columns}
  FROM asked
  WHERE bucket BETWEEN $first_bucket AND $last_bucket
)"""


def _edge(us: int) -> str:
    return f"t_minus_{duration_text(us)}" if us else "t"


def _answer(value: Value, answered: dict[Aggregate, str]) -> str:
    """A value as an expression: what its rows gave, or what nothing means for a patient who is known."""
    if isinstance(value, Number):
        return f"CAST({value.number!r} AS DOUBLE)"
    if isinstance(value, PatientFact):
        return counting.PATIENT_FACTS[value.operator]
    if isinstance(value, Expression):
        arguments = [f"({_answer(argument, answered)})" for argument in value.arguments]
        return EXPRESSIONS[value.operator][1].format(*arguments)
    answer = answered[value]
    empty = OPERATORS[value.operator].empty
    if empty is None:
        return answer
    return f"coalesce(nullif({answer}, {empty}), CASE WHEN p.known THEN {empty} END)"


class _TablePart:
    """The CTEs of one event table: its rows selected once, seen from each question, aggregated once a selection."""

    def __init__(self, table: str, values: list[Aggregate]) -> None:
        self.table = table
        self.values = values
        self.selections = tuple(dict.fromkeys(value.rows for value in values))
        self.windows = list(dict.fromkeys(value.window for value in values))
        self.widest = _widest(self.windows)
        self.aggregates = self._aggregates()
        read = set(re.findall(r"\w+", " ".join(self.aggregates)))
        self.pair_columns = {name: sql for name, sql in counting.PAIR_COLUMNS[table].items() if name in read}
        self.needs_open_encounters = table == "conditions" and "active" in self.pair_columns
        self.pair_joins = counting.JOIN_OPEN_ENCOUNTERS if self.needs_open_encounters else ""
        read |= set(re.findall(r"e\.(\w+)", " ".join([*self.pair_columns.values(), self.pair_joins])))
        self.row_columns = {name: sql for name, sql in counting.ROW_COLUMNS[table].items() if name in read}

    def ctes(self) -> list[str]:
        """What was selected, what of it is visible, and the aggregates, a row a question and selection."""
        return [self._selected(), self._visible(), self._aggregated()]

    def joins(self) -> str:
        """The aggregates of each selection beside the questions."""
        # A join a selection: to turn the rows into columns by grouping them costs four times as much.
        return "".join(
            f"\nLEFT JOIN aggregated_{self.table} {self.table}_{number}"
            f" ON {self.table}_{number}.question = q.question AND {self.table}_{number}.selection = {number}"
            for number in range(len(self.selections))
        )

    def answer(self, value: Aggregate) -> str:
        """What a value's operator makes of its aggregates."""
        operator = OPERATORS[value.operator]
        columns = [self.aggregates[self._filtered(aggregate, value.window)] for aggregate in operator.aggregates]
        beside = f"{self.table}_{self.selections.index(value.rows)}"
        return operator.answer.format(*[f"{beside}.{column}" for column in columns])

    def _aggregates(self) -> dict[str, str]:
        """Each distinct aggregate with its window, and the name of its column."""
        wanted: dict[str, str] = {}
        for value in self.values:
            for aggregate in OPERATORS[value.operator].aggregates:
                wanted.setdefault(self._filtered(aggregate, value.window), f"a{len(wanted)}")
        return wanted

    def _filtered(self, aggregate: str, window: Window) -> str:
        return aggregate if window == self.widest else f"{aggregate} FILTER (WHERE {_flag(window)})"

    def _selected(self) -> str:
        table = self.table
        joins = f"JOIN {table}_members m ON {counting.MEMBERS[table]}"
        joins += counting.JOIN_CONVERSIONS if table == "observations" else ""
        if "v.concept" in self.row_columns.values():
            joins += f"\n  LEFT JOIN canonical v ON v.code_id = {counting.CONCEPT_OF[table]}"
        component = "e.component, " if table == "observations" else ""
        columns = "".join(f",\n    {sql} AS {name}" for name, sql in self.row_columns.items())
        where = "".join(f"\n    AND {predicate}" for predicate in counting.rules(table, self.selections).values())
        return f"""selected_{table} AS (
  SELECT
    m.selection, e.site, e.patient_id, e.effective_at, e.known_at, e.known_to,
    ROW(e.effective_at, e.known_at, e.resource_id, {component}e.version, e.state) AS tie{columns}
  FROM {table} e
  {joins}
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket{where}
)"""

    def _visible(self) -> str:
        flags = {_flag(window): f"({_inside(window)})" for window in self.windows if window != self.widest}
        plain = {name: f"e.{name}" for name in self.row_columns}
        columns = "".join(f",\n    {sql} AS {name}" for name, sql in {**plain, **self.pair_columns, **flags}.items())
        return f"""visible_{self.table} AS (
  SELECT
    q.question, e.selection, e.effective_at, e.tie{columns}
  FROM questions q
  JOIN selected_{self.table} e
    ON e.site = q.site
    AND e.patient_id = q.patient_id{self.pair_joins}
  WHERE {counting.VISIBLE}
    AND {_inside(self.widest)}
)"""

    def _aggregated(self) -> str:
        columns = "".join(f",\n    {sql} AS {name}" for sql, name in self.aggregates.items())
        return f"""aggregated_{self.table} AS MATERIALIZED (
  SELECT
    question, selection{columns}
  FROM visible_{self.table}
  GROUP BY question, selection
)"""


def _widest(windows: list[Window]) -> Window:
    """The window that holds all of them."""
    starts = [window.start_us for window in windows]
    start = None if None in starts else max(us for us in starts if us is not None)
    return Window(start_us=start, end_us=min(window.end_us for window in windows))


def _inside(window: Window) -> str:
    before = f"e.effective_at <= q.{_edge(window.end_us)}"
    if window.start_us is None:
        return before
    return f"e.effective_at > q.{_edge(window.start_us)} AND {before}"


def _flag(window: Window) -> str:
    start = "ever" if window.start_us is None else f"within_{duration_text(window.start_us)}"
    return start if window.end_us == 0 else f"{start}_until_{duration_text(window.end_us)}"
