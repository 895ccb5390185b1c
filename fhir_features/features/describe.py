"""What is a feature, for who reads a catalog? In goes a feature; out come its unit, its concept sets and a description.

Units are UCUM, as definitions write them. What the author of a feature has not described is described by its operator.
"""

from __future__ import annotations

from fhir_features.features.compile import leaves
from fhir_features.features.nodes import Aggregate, Encounters, Expression, Feature, Number, PatientFact, Value
from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.times import duration_text

# Of operators that do not give a value in the unit of their rows. UCUM: a is the year, d the day.
_UNITS = {
    "share_outside_range": "1",
    "proportion_covered": "1",
    "days": "d",
    "time_since_last": "d",
    "time_since_onset": "d",
    "time_since_recorded": "d",
    "time_since_discharge": "d",
    "age": "a",
    "age_days": "d",
}
_COUNT = "{count}"


def unit_of(value: Value) -> str | None:
    """The UCUM unit of a value's answers; None of a truth or a text, which have none."""
    if isinstance(value, Number):
        return "1"
    if isinstance(value, Expression):
        return _unit_of_expression(value)
    if value.operator in _UNITS:
        return _UNITS[value.operator]
    if isinstance(value, PatientFact) or OPERATORS[value.operator].kind in ("boolean", "text"):
        return None
    if OPERATORS[value.operator].kind == "count":
        return _COUNT
    unit: str | None = getattr(value.rows, "unit", None)
    return f"{unit}/d" if value.operator == "slope" and unit else unit


def concepts_of(feature: Feature) -> tuple[str, ...]:
    """The concept sets that a feature looks at, as they are written; of encounters their classes."""
    sets = []
    for value in leaves(feature.value):
        if isinstance(value, Aggregate):
            rows = value.rows
            sets.append(", ".join(rows.classes) if isinstance(rows, Encounters) else str(rows.concepts))
    return tuple(dict.fromkeys(each for each in sets if each))


def description_of(feature: Feature) -> str:
    """What a feature says: its own description, else its operator, window and concept sets."""
    return feature.description or _said(feature.value)


def _said(value: Value) -> str:
    if isinstance(value, Number):
        return f"{value.number:g}"
    if isinstance(value, PatientFact):
        return PATIENT_OPERATORS[value.operator][1]
    if isinstance(value, Expression):
        one, other = (_said(argument) for argument in value.arguments)
        return f"{EXPRESSIONS[value.operator].says} ({one}; {other})"
    rows = value.rows
    what = ", ".join(rows.classes) or "any class" if isinstance(rows, Encounters) else str(rows.concepts)
    return f"{OPERATORS[value.operator].says}{_window(value)}: {rows.table} of {what}"


def _window(value: Aggregate) -> str:
    start, end = value.window.start_us, value.window.end_us
    if start is None:
        return f", up to {duration_text(end)} before T" if end else ""
    return (
        f", from {duration_text(start)} to {duration_text(end)} before T" if end else f", within {duration_text(start)}"
    )


def _unit_of_expression(value: Expression) -> str | None:
    if EXPRESSIONS[value.operator].kind == "boolean":
        return None
    units = [unit_of(argument) for argument in value.arguments if not isinstance(argument, Number)]
    if value.operator != "ratio":
        return units[0] if units else "1"
    one, other = (unit_of(argument) for argument in value.arguments)
    if one == other:
        return "1"
    return one if other == "1" else f"{one}/{other}" if one != "1" else f"1/{other}"
