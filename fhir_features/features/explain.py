"""Why is the answer what it is: which resource versions count for a feature at T, and by which rule others do not.

In go a feature and one question, and a connection that stands at a store_seq; out comes the answer and an Arrow table,
a row for each version of each resource of the patient with a code of the feature, or with one that means nothing under
the lock; where records are merged, of all records of the person.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.features.compile import compile_features, leaves
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Aggregate, Feature, PatientFact
from fhir_features.features.spine import INSTANT
from fhir_features.features.summary import unknown_questions
from fhir_features.features.terms import create_members
from fhir_features.features.verdicts import COUNTS, verdicts
from fhir_features.features.wording import in_words
from fhir_features.ontology import Ontologies


@dataclass(frozen=True)
class Explanation:
    """The answer to a feature, and why.

    `t` and `k`: the instants that it is of, after the serving has moved them back; nothing after `t` counts as true,
    nothing after `k` as known. `is_known`: whether the patient was known at K; of one who was not every answer is null.
    `ties`: how many rows that count were true and known at the same instants as another (TIME rule 5).

    `rows`: `part` (which value of the feature, such as `last of loinc:4548-4 within 365d`), resource_type, patient_id
    (the record that it is of), resource_id, version, state, component, effective_at, `effective_text` (as its source
    wrote it), known_at, known_to, known_at_source, status, `source_changed` (a result that it is made from was closed
    after it was known: TIME rule 16), `written` (a result as its source wrote it, with its unit), `number` (in the
    feature's unit), `text` (the coded value; of other rows their concept or class), `verdict`:
    `counts`, or the rule by which the row was left out; and `decides`: whether the answer rests on it, as that of
    `last` rests on the newest of the rows that count. Instants are UTC microseconds.
    """

    answer: Any
    t: dt.datetime
    k: dt.datetime
    is_known: bool
    ties: int
    rows: pa.Table

    def __repr__(self) -> str:
        # No answer and no row: this is what a log has.
        told = ", ".join(f"{number:,} {verdict}" for verdict, number in self.verdicts.items())
        return f"<Explanation as of {self.t:%Y-%m-%d %H:%M:%SZ}: {told or 'no rows'}>"

    def _repr_html_(self) -> str:
        from fhir_features.notebook import explanation_html

        return explanation_html(self)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many rows have each verdict, those that count first, then by number."""
        found = Counter(self.rows["verdict"].to_pylist())
        return dict(sorted(found.items(), key=lambda item: (item[0] != COUNTS, -item[1], item[0])))

    def to_json(self) -> str:
        """{answer, t, k, is_known, ties, verdicts, rows} as JSON, instants in ISO 8601."""
        told = {**vars(self), "verdicts": self.verdicts, "rows": self.rows.to_pylist()}
        return json.dumps(told, indent=2, default=lambda instant: instant.isoformat())


def explain(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    feature: Feature,
    *,
    site: str,
    patient_id: str,
    t: dt.datetime,
    k: dt.datetime,
) -> Explanation:
    """The answer to a feature at T with what was known at K, and the verdict on each row that bears on it."""
    question = {"question": [0], "site": [site], "patient_id": [patient_id]}
    ask(con, pa.table({**question, "t": pa.array([t], INSTANT), "k": pa.array([k], INSTANT)}))
    answer = _answer(con, known, feature)
    parts = []
    for value in dict.fromkeys(leaves(feature.value)):
        if value != feature.value:
            # Each value alone, so that its selection is the first.
            _answer(con, known, Feature(name=feature.name, value=value))
        parts.append(_judged(con, value, t))
    is_known = not len(unknown_questions(con))
    return Explanation(answer, t, k, is_known, sum(_ties(part) for part in parts), pa.concat_tables(parts))


def _answer(con: duckdb.DuckDBPyConnection, known: Ontologies, feature: Feature) -> Any:
    plan = compile_features((feature,))
    create_members(con, known, plan)
    return next(answers(con, plan)).column(feature.name)[0].as_py()


def _judged(con: duckdb.DuckDBPyConnection, value: Aggregate | PatientFact, t: dt.datetime) -> pa.Table:
    """The rows that bear on a value."""
    table = con.execute(verdicts(value)).to_arrow_table()
    places = [place for place, verdict in enumerate(table["verdict"].to_pylist()) if verdict == COUNTS]
    read = table["read"].to_pylist()
    deciding = _deciding(value.operator, [(place, read[place]) for place in places if read[place] is not None], t)
    decides = pa.array([place in deciding for place in range(table.num_rows)], pa.bool_())
    part = pa.array([in_words(value)] * table.num_rows, pa.string())
    return table.drop_columns("read").add_column(0, "part", part).append_column("decides", decides)


# A place among the rows, and what the operator reads of the row.
_Read = tuple[int, Any]


def _extreme(best: Callable[..., Any]) -> Callable[[list[_Read], dt.datetime], list[_Read]]:
    return lambda rows, t: [row for row in rows if row[1] == best(value for _, value in rows)]


def _most_frequent(rows: list[_Read], t: dt.datetime) -> list[_Read]:
    often = Counter(value for _, value in rows)
    return [row for row in rows if row[1] == min(often, key=lambda value: (-often[value], value))]


def _newest_end(rows: list[_Read], t: dt.datetime) -> list[_Read]:
    return _extreme(max)([row for row in rows if row[1] <= t], t)


# On which of the rows that count an answer rests; of operators that are not here, on all.
_DECIDING: dict[str, Callable[[list[_Read], dt.datetime], list[_Read]]] = {
    "last": lambda rows, t: rows[-1:],
    "first": lambda rows, t: rows[:1],
    "min": _extreme(min),
    "max": _extreme(max),
    "delta": lambda rows, t: [*rows[:1], *rows[-1:]],
    "change": lambda rows, t: rows[-2:],
    "share_outside_range": lambda rows, t: [row for row in rows if row[1] >= 0],
    "count_abnormal": lambda rows, t: [row for row in rows if row[1]],
    "last_code": lambda rows, t: rows[-1:],
    "mode_code": _most_frequent,
    "time_since_last": _extreme(max),
    "time_since_onset": _extreme(min),
    "time_since_recorded": _extreme(min),
    "time_since_discharge": _newest_end,
    **dict.fromkeys(("age", "age_days", "sex", "deceased"), lambda rows, t: rows[-1:]),
}


def _deciding(operator: str, rows: list[_Read], t: dt.datetime) -> set[int]:
    chosen = _DECIDING[operator](rows, t) if operator in _DECIDING else rows
    return {place for place, _ in chosen}


def _ties(judged: pa.Table) -> int:
    """How many of the rows that count for a value share both instants with another one."""
    counting_rows = (row for row in judged.to_pylist() if row["verdict"] == COUNTS)
    instants = Counter((row["effective_at"], row["known_at"]) for row in counting_rows)
    return sum(number for number in instants.values() if number > 1)
