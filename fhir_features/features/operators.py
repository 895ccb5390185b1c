"""Which operators there are: on which rows, of which kind of value, as which SQL aggregates.

An operator's `aggregates` are computed once a question, selection and window; `answer` is an expression over them
(`{0}`, `{1}`, ...). `empty` is the answer over no rows for a patient who is known (DESIGN.md, "What every part keeps").
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from fhir_features.features.nodes import Kind

# Sums must not depend on the order of rows, which floating ones do. 15 decimals keep doubles of clinical size exactly
# as written; MAGNITUDE keeps a million rows of the largest value below the type's 23 digits before the point.
EXACT = "DECIMAL(38, 15)"
MAGNITUDE = 1e17

DAY = "86400000000.0"

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "count": pa.int64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
}


@dataclass(frozen=True)
class Operator:
    """One operator. `number`: it needs a unit; `instant`: its answer changes at every instant."""

    kind: Kind
    tables: tuple[str, ...]
    aggregates: tuple[str, ...]
    answer: str
    says: str
    number: bool = False
    empty: str | None = None
    instant: bool = False


_ALL = ("observations", "conditions", "medication_requests", "encounters")
_NUMBERS = ("observations",)

_SUM = f"sum(CAST(value AS {EXACT}))"
_LAST_TWO = "arg_max(value, tie, 2)"


def _number(says: str, answer: str, *aggregates: str) -> Operator:
    return Operator("number", _NUMBERS, aggregates, answer, says, number=True)


def _since(says: str, tables: tuple[str, ...], aggregate: str) -> Operator:
    return Operator("number", tables, (aggregate,), f"(epoch_us(q.t) - epoch_us({{0}})) / {DAY}", says, instant=True)


def _count(says: str, tables: tuple[str, ...], aggregate: str) -> Operator:
    return Operator("count", tables, (aggregate,), "{0}", says, empty="0")


def _any(says: str, tables: tuple[str, ...], aggregate: str) -> Operator:
    return Operator("boolean", tables, (aggregate,), "{0} > 0", says, empty="false")


# Ordered by the tie rule where the order of a floating computation would show in its last bits.
OPERATORS: dict[str, Operator] = {
    "last": _number("the newest value", "{0}", "arg_max(value, tie)"),
    "first": _number("the oldest value", "{0}", "arg_min(value, tie)"),
    "min": _number("the smallest value", "{0}", "min(value)"),
    "max": _number("the largest value", "{0}", "max(value)"),
    "sum": _number("the sum of the values", "CAST({0} AS DOUBLE)", _SUM),
    "mean": _number("the mean of the values", "CAST({0} AS DOUBLE) / {1}", _SUM, "count(*)"),
    "median": _number("the median of the values", "{0}", "median(value)"),
    "std": _number("the sample standard deviation; of fewer than two, null", "{0}", "stddev_samp(value ORDER BY tie)"),
    "slope": _number(
        "the change per day, by least squares; at a single instant, null",
        "CASE WHEN {1} < {2} THEN {0} END",
        "regr_slope(value, day ORDER BY tie)",
        "min(day)",
        "max(day)",
    ),
    "delta": _number("the newest value minus the oldest", "{0} - {1}", "arg_max(value, tie)", "arg_min(value, tie)"),
    "change": _number("the newest value minus the one before it", "{0}[1] - {0}[2]", _LAST_TWO),
    "share_outside_range": Operator(
        "number",
        _NUMBERS,
        ("count_if(outside)", "count(outside)"),
        "{0} / nullif({1}, 0)",
        "of the results with a reference range, the share outside of it",
    ),
    "count_abnormal": _count("how many are interpreted as abnormal", _NUMBERS, "count_if(abnormal)"),
    "last_code": Operator("text", _NUMBERS, ("arg_max(coded_value, tie)",), "{0}", "the newest coded value"),
    "mode_code": Operator(
        "text",
        _NUMBERS,
        ("histogram(coded_value)",),
        "list_sort(list_transform(map_entries({0}), lambda entry: ROW(-entry.value, entry.key)))[1][2]",
        "the most frequent coded value; of equals the first in the alphabet",
    ),
    "count": _count("how many there are", _ALL, "count(*)"),
    "count_concepts": _count(
        "how many different concepts there are", ("conditions", "medication_requests"), "count(DISTINCT concept)"
    ),
    "exists": _any("whether there is one", _ALL, "count(*)"),
    "ever": _any("whether there has been one at or before T", _ALL, "count(*)"),
    "active": _any("whether one is active at T", _ALL[1:], "count_if(active)"),
    "time_since_last": _since("days from the newest to T", _ALL, "max(effective_at)"),
    "time_since_onset": _since("days from the first onset to T", ("conditions",), "min(effective_at)"),
    "time_since_recorded": _since("days from when the first was recorded to T", ("conditions",), "min(recorded_at)"),
    "time_since_discharge": _since("days from the newest discharge to T", ("encounters",), "max(ended_at)"),
}

# Over the visible version of the patient's own record; known at K is all that it takes (TIME section C).
PATIENT_OPERATORS: dict[str, tuple[Kind, str]] = {
    "age": ("count", "completed years at T, by UTC dates"),
    "age_days": ("count", "days since birth, by UTC dates"),
    "sex": ("text", "Patient.gender"),
    "deceased": ("boolean", "whether the patient is known to have died"),
}

# Over the answers of other values; null where one that is needed is null.
EXPRESSIONS: dict[str, tuple[Kind, str, str]] = {
    "ratio": ("number", "{0} / nullif(CAST({1} AS DOUBLE), 0)", "one divided by the other; null where that is 0"),
    "difference": ("number", "CAST({0} AS DOUBLE) - {1}", "one minus the other"),
    "coalesce": (
        "number",
        "coalesce(CAST({0} AS DOUBLE), CASE WHEN p.known THEN {1} END)",
        "one, or for a patient who is known, where it is null, the other",
    ),
    "greater": ("boolean", "{0} > {1}", "whether one is greater than the other"),
    "less": ("boolean", "{0} < {1}", "whether one is less than the other"),
}

# Their answers change although nothing happens, so that no table of cadence on_change can hold them.
INSTANT_OPERATORS = frozenset({name for name, each in OPERATORS.items() if each.instant} | {"age_days"})
