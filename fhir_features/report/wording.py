"""How does a person read a definition? In go the frozen values of `features.nodes`; out come a line of words, such as
`last, within 365d, of results of loinc:4548-4 in %`, and a unit.
"""

from __future__ import annotations

from fhir_features.features.compile import kind_of
from fhir_features.features.nodes import Aggregate, Encounters, Expression, Number, Observations, PatientFact, Value
from fhir_features.times import duration_text

_SIGNS = {
    "ratio": "/",
    "difference": "-",
    "coalesce": "or, if null,",
    "greater": ">",
    "less": "<",
    "at_least": ">=",
    "at_most": "<=",
}
# Of these operators the answer has the unit of the values; those of the second, of the values and a day.
_OF_THE_VALUES = frozenset({"last", "first", "min", "max", "sum", "mean", "median", "std", "delta", "change"})
_UNITS = {"slope": "{}/d", "share_outside_range": "share", "proportion_covered": "share"}
_NAMES = {
    "observations": "results",
    "conditions": "conditions",
    "medication_requests": "orders",
    "encounters": "encounters",
}


def in_words(value: Value) -> str:
    """A value in a line."""
    if isinstance(value, Number):
        return f"{value.number:g}"
    if isinstance(value, PatientFact):
        return f"{value.operator} of the patient".replace("_", " ")
    if isinstance(value, Expression):
        one, other = (in_words(each) for each in value.arguments)
        return f"({one}) {_SIGNS[value.operator]} ({other})"
    return f"{value.operator.replace('_', ' ')}{window_in_words(value)}, of {rows_in_words(value)}"


def window_in_words(value: Aggregate) -> str:
    """The window of a value; nothing where it is all of the past."""
    window = value.window
    if window.start_us is None:
        return ""
    if window.end_us:
        return f", from {duration_text(window.start_us)} to {duration_text(window.end_us)} before"
    return f", within {duration_text(window.start_us)}"


def rows_in_words(value: Aggregate) -> str:
    """Which rows a value looks at, with what is asked of them beside their codes."""
    rows = value.rows
    if isinstance(rows, Encounters):
        said = f"encounters of class {', '.join(rows.classes)}" if rows.classes else "all encounters"
    else:
        said = f"{_NAMES[rows.table]} of {rows.concepts}"
    if isinstance(rows, Observations) and rows.unit is not None:
        said += f" in {rows.unit}"
    asked = {
        name: given
        for name, given in rows.model_dump().items()
        if given and name not in ("table", "concepts", "classes", "unit", "assume_us", "method")
    }
    filters = [
        f"{name.replace('_', ' ')} {', '.join(given) if isinstance(given, list | tuple) else given}"
        for name, given in asked.items()
    ]
    return f"{said} ({'; '.join(filters)})" if filters else said


def unit_of(value: Value) -> str:
    """The unit of the answers; nothing where they have none."""
    if isinstance(value, PatientFact):
        return {"age": "a", "age_days": "d"}.get(value.operator, "")
    if isinstance(value, Expression):
        units = {unit_of(each) for each in value.arguments if not isinstance(each, Number)}
        return units.pop() if value.operator in ("difference", "coalesce") and len(units) == 1 else ""
    if isinstance(value, Number):
        return ""
    unit = getattr(value.rows, "unit", None) or ""
    if value.operator in _OF_THE_VALUES:
        return unit
    if value.operator in _UNITS:
        return _UNITS[value.operator].format(unit)
    if value.operator == "days" or value.operator.startswith("time_since"):
        return "d"
    return "count" if kind_of(value) == "count" else ""
