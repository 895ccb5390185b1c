"""How does a person read a definition? In go the frozen values of `features.nodes`; out come a line of words, such as
`last, within 365d, of results of loinc:4548-4 in %`, the unit of the answers, in UCUM as definitions write it, and the
concept sets.
"""

from __future__ import annotations

from fhir_features.features.compile import leaves
from fhir_features.features.nodes import (
    Aggregate,
    Encounters,
    Expression,
    Feature,
    Number,
    Observations,
    PatientFact,
    Rows,
    Value,
    Window,
)
from fhir_features.features.operators import EXPRESSIONS, OPERATORS
from fhir_features.times import duration_text

_SIGNS = {
    "ratio": "/",
    "difference": "-",
    "coalesce": "or, if null,",
    "greater": ">",
    "less": "<",
    "at_least": ">=",
    "at_most": "<=",
    "equal": "==",
    "unequal": "!=",
}
_NAMES = {
    "observations": "results",
    "conditions": "conditions",
    "medication_requests": "orders",
    "encounters": "encounters",
}

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
# UCUM that nobody says aloud; of a count its name says enough.
_SPOKEN = {"1": "", "a": "years", "d": "days", _COUNT: ""}
_SPOKEN |= {"mm[Hg]": "mmHg", "Cel": "°C", "[lb_av]": "lb", "kg/m2": "kg/m²", "mL/min/{1.73_m2}": "mL/min/1.73 m²"}
_SPOKEN |= {"10*3/uL": "10³/µL", "10*6/uL": "10⁶/µL", "10*9/L": "10⁹/L", "umol/L": "µmol/L", "ug/L": "µg/L"}


def in_words(value: Value) -> str:
    """A value in a line."""
    if isinstance(value, Number):
        return f"{value.number:g}"
    if isinstance(value, PatientFact):
        return f"{value.operator} of the patient".replace("_", " ")
    if isinstance(value, Expression):
        one, other = (in_words(each) for each in value.arguments)
        return f"({one}) {_SIGNS[value.operator]} ({other})"
    said = (value.operator.replace("_", " "), window_in_words(value.window), f"of {rows_in_words(value.rows)}")
    return ", ".join(part for part in said if part)


def window_in_words(window: Window) -> str:
    """A window; nothing where it is all of the past."""
    if window.start_us is None:
        return ""
    if window.end_us:
        return f"from {duration_text(window.start_us)} to {duration_text(window.end_us)} before"
    return f"within {duration_text(window.start_us)}"


def rows_in_words(rows: Rows) -> str:
    """Rows of one kind, with what is asked of them beside their codes."""
    if isinstance(rows, Encounters):
        said = f"encounters of class {', '.join(rows.classes)}" if rows.classes else "all encounters"
    else:
        said = f"{_NAMES[rows.table]} of {rows.concepts}"
    if isinstance(rows, Observations) and rows.unit is not None:
        said += f" in {rows.unit}"
    asked = {
        name.replace("_", " "): given
        for name, given in rows
        if name not in ("table", "concepts", "classes", "unit", "assume_us") and _is_asked(given)
    }
    filters = [name if given is True else f"{name} {_given(given)}" for name, given in asked.items()]
    return f"{said} ({'; '.join(filters)})" if filters else said


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


def unit_in_words(unit: str | None) -> str:
    """A unit as a person says it; nothing where there is none."""
    return _SPOKEN.get(unit, unit) if unit else ""


def concepts_of(feature: Feature) -> tuple[str, ...]:
    """The concept sets that a feature looks at, as they are written; of encounters their classes."""
    sets = []
    for value in leaves(feature.value):
        if isinstance(value, Aggregate):
            rows = value.rows
            sets.append(", ".join(rows.classes) if isinstance(rows, Encounters) else str(rows.concepts))
    return tuple(dict.fromkeys(each for each in sets if each))


def _is_asked(given: object) -> bool:
    # A limit of 0 is one.
    return given is not None and given is not False and given != ()


def _given(asked: object) -> str:
    if isinstance(asked, tuple):
        return ", ".join(asked)
    return f"{asked:g}" if isinstance(asked, float) else str(asked)


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
