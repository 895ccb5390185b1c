"""Which rows do the features of a view look at? One statement an event table, and what each value makes of its rows.

In go the features of a view; out comes a `Plan`: the statements, and the selections (distinct rows nodes, numbered per
table) whose members `terms` looks up. A statement reads the views of `lake.create_views`, the member tables, and
`asked_people` (`engine`), and has a row for each event row of somebody asked about and selection that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from fhir_features.features import counting
from fhir_features.features.nodes import Aggregate, Expression, Feature, Kind, Number, PatientFact, Rows, Value, Window
from fhir_features.features.operators import ARROW_TYPES, EXPRESSIONS, OPERATORS, PATIENT_OPERATORS

# Its place among them, from 1 on. A function of a text is computed once a word where a file has a dictionary of words.
_SOURCE = f"CAST(coalesce(list_position({list(counting.KNOWN_AT_SOURCES)}, e.known_at_source), 0) AS UTINYINT)"


@dataclass(frozen=True)
class Selection:
    """What is asked of the rows of one rows node: its values, and the window that holds all of theirs."""

    rows: Rows
    values: tuple[Aggregate, ...]
    reach: Window


@dataclass(frozen=True)
class Plan:
    """A compiled view: its features, and by table what is asked of it and the statement that gives its rows."""

    features: tuple[Feature, ...]
    asked: dict[str, tuple[Selection, ...]] = field(hash=False)
    statements: dict[str, str] = field(hash=False)
    reads_encounters: bool = False

    @property
    def selections(self) -> dict[str, tuple[Rows, ...]]:
        """By table the rows nodes, in the order of their numbers."""
        return {table: tuple(each.rows for each in chosen) for table, chosen in self.asked.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(feature.name for feature in self.features)

    @property
    def sql(self) -> str:
        """The statements, as a person reads them."""
        return "\n\n".join(f"-- {table}\n{statement}" for table, statement in self.statements.items())

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
    asked: dict[str, tuple[Selection, ...]] = {
        table: _selections([value for value in values if value.rows.table == table])
        for table in dict.fromkeys(value.rows.table for value in values)
    }
    reads_encounters = any(_reads_encounters(value) for value in values)
    statements = {table: _statement(table, chosen) for table, chosen in asked.items()}
    return Plan(features, asked, statements, reads_encounters)


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
        return EXPRESSIONS[value.operator].kind
    return "number" if isinstance(value, Number) else OPERATORS[value.operator].kind


def seen_window(value: Aggregate) -> Window:
    """The window of the rows that a value looks at: without a beginning where a row may last into the value's own."""
    reaches_back = OPERATORS[value.operator].reaches_back
    return Window(end_us=value.window.end_us) if reaches_back else value.window


def encounters_statement() -> str:
    """The statement that gives the encounters that other rows may belong to."""
    read = ("resource_id", "end_at", "class_code")
    return _rows_of("encounters", (), {name: counting.ROW_COLUMNS["encounters"][name] for name in read})


def _selections(values: list[Aggregate]) -> tuple[Selection, ...]:
    chosen = []
    for rows in dict.fromkeys(value.rows for value in values):
        own = tuple(value for value in values if value.rows == rows)
        chosen.append(Selection(rows, own, _reach([seen_window(value) for value in own])))
    return tuple(chosen)


def _reach(windows: list[Window]) -> Window:
    """The window that holds all of them."""
    starts = [window.start_us for window in windows]
    start = None if None in starts else max(us for us in starts if us is not None)
    return Window(start_us=start, end_us=min(window.end_us for window in windows))


def _reads_encounters(value: Aggregate) -> bool:
    is_active_condition = value.rows.table == "conditions" and value.operator == "active"
    return is_active_condition or bool(getattr(value.rows, "encounter_classes", ()))


def _statement(table: str, chosen: tuple[Selection, ...]) -> str:
    values = [value for selection in chosen for value in selection.values]
    read = {column for value in values for column in OPERATORS[value.operator].reads}
    if any(value.operator == "active" for value in values):
        read.update(counting.ACTIVE_READS[table])
    if any(getattr(selection.rows, "encounter_classes", ()) for selection in chosen):
        read.add("encounter_id")
    columns = {name: sql for name, sql in counting.ROW_COLUMNS[table].items() if name in read}
    return _rows_of(table, chosen, columns)


def _rows_of(table: str, chosen: tuple[Selection, ...], columns: dict[str, str]) -> str:
    """The rows of a table that count, a row a selection; of no selections, the rows of one that asks for nothing."""
    joins = f"\nJOIN {table}_members m ON {counting.MEMBERS[table]}" if chosen else ""
    joins += counting.JOIN_CONVERSIONS if table == "observations" else ""
    if "v.concept" in columns.values():
        joins += f"\nLEFT JOIN canonical v ON v.code_id = {counting.CONCEPT_OF[table]}"
    if "ingredients" in columns:
        joins += "\nLEFT JOIN ingredients i ON i.code_id = e.code_id"
    excluded = counting.EXCLUDED if table == "observations" else "0"
    listed = "".join(f",\n  {sql} AS {name}" for name, sql in columns.items())
    rules = counting.row_rules(table, tuple(selection.rows for selection in chosen)).values()
    where = "".join(f"\n  AND {predicate}" for predicate in (*_within(chosen), *rules))
    return f"""SELECT
  e.version_no,
  e.state,
  {"e.component" if table == "observations" else "0"} AS component,
  a.person,
  CAST({"m.selection" if chosen else "0"} AS USMALLINT) AS selection,
  e.effective_at,
  e.known_at,
  greatest(e.known_at, a.since) AS visible_from,
  least(e.known_to, a.until) AS visible_to,
  {_SOURCE} AS known_at_source,
  CAST({excluded} AS UTINYINT) AS excluded{listed}
FROM {table}_in($first_bucket, $last_bucket) e
JOIN asked_people a
  ON a.site = e.site
  AND a.patient_id = e.patient_id{joins}
WHERE a.asked_bucket BETWEEN $first_asked AND $last_asked
  AND e.known_at <= a.last_k{where}"""


def _within(chosen: tuple[Selection, ...]) -> Iterator[str]:
    """Bounds on effective_at: what no window of anybody's reaches lets files be skipped, what none of the person's does
    is not read."""
    yield "e.effective_at <= $last_t"
    yield "e.effective_at <= a.last_t"
    starts = [selection.reach.start_us for selection in chosen]
    if any(start is not None for start in starts):
        # As whole numbers: an interval off a TIMESTAMPTZ goes through the calendar, a fifth of the whole statement.
        yield "coalesce(epoch_us(e.effective_at) > epoch_us(a.first_t) - m.start_us, true)"
        if None not in starts:
            reach = max(us for us in starts if us is not None)
            yield f"e.effective_at > $first_t - to_microseconds({reach})"
