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
    """One operator. `number`: it needs rows with a number, so that the rows must name a unit."""

    kind: Kind
    tables: tuple[str, ...]
    aggregates: tuple[str, ...]
    answer: str
    says: str
    number: bool = False
    empty: str | None = None
    windowed: bool = True
    instant: bool = False  # its answer changes at every instant


_ALL = ("observations", "conditions", "medication_requests", "encounters")
_NUMBERS = ("observations",)

OPERATORS: dict[str, Operator] = {
    "last": Operator("number", _NUMBERS, ("arg_max(value, tie)",), "{0}", "the newest value", number=True),
    "first": Operator("number", _NUMBERS, ("arg_min(value, tie)",), "{0}", "the oldest value", number=True),
    "min": Operator("number", _NUMBERS, ("min(value)",), "{0}", "the smallest value", number=True),
    "max": Operator("number", _NUMBERS, ("max(value)",), "{0}", "the largest value", number=True),
    "sum": Operator(
        "number", _NUMBERS, (f"sum(CAST(value AS {EXACT}))",), "CAST({0} AS DOUBLE)", "the exact sum", number=True
    ),
    "mean": Operator(
        "number",
        _NUMBERS,
        (f"sum(CAST(value AS {EXACT}))", "count(*)"),
        "CAST({0} AS DOUBLE) / {1}",
        "the exact sum divided by the count",
        number=True,
    ),
    "count": Operator("count", _ALL, ("count(*)",), "{0}", "how many rows", empty="0"),
    "exists": Operator("boolean", _ALL, ("count(*)",), "{0} > 0", "whether there is a row", empty="false"),
    "ever": Operator(
        "boolean",
        ("conditions", "medication_requests"),
        ("count(*)",),
        "{0} > 0",
        "whether there has been one at or before T",
        empty="false",
        windowed=False,
    ),
    "active": Operator(
        "boolean",
        ("conditions", "medication_requests"),
        ("count_if(active)",),
        "{0} > 0",
        "whether one is active at T",
        empty="false",
        windowed=False,
    ),
    "time_since_last": Operator(
        "number",
        _ALL,
        ("max(effective_at)",),
        f"(epoch_us(t) - epoch_us({{0}})) / {DAY}",
        "days from the newest row to T",
        instant=True,
    ),
}

# Over the visible version of the patient's own record; known at K is all that it takes (TIME section C).
PATIENT_OPERATORS: dict[str, tuple[Kind, str]] = {
    "age": ("count", "completed years at T, by UTC dates"),
    "sex": ("text", "Patient.gender"),
}
