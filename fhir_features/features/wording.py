"""How does a person read a definition? In go the frozen values of `features.nodes`; out come a line of words, such as
`last, within 365d, of results of loinc:4548-4 in %`.
"""

from __future__ import annotations

from fhir_features.features.nodes import (
    Encounters,
    Expression,
    Number,
    Observations,
    PatientFact,
    Rows,
    Value,
    Window,
)
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


def _is_asked(given: object) -> bool:
    # A limit of 0 is one.
    return given is not None and given is not False and given != ()


def _given(asked: object) -> str:
    if isinstance(asked, tuple):
        return ", ".join(asked)
    return f"{asked:g}" if isinstance(asked, float) else str(asked)
