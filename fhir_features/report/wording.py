"""How does a person read a definition? In go the frozen values of `features.nodes`; out come a line of words, such as
`last of loinc:4548-4 within 365d, in %`, and a unit.
"""

from __future__ import annotations

from collections.abc import Iterator

from fhir_features.features.compile import kind_of
from fhir_features.features.explain import title
from fhir_features.features.nodes import Aggregate, Expression, Number, Observations, PatientFact, Value

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
# Fields of rows that are told elsewhere in the line, or that nobody would look for.
_TOLD = frozenset({"table", "concepts", "unit", "assume_us", "method"})


def in_words(value: Value) -> str:
    """A value in a line."""
    if isinstance(value, Number):
        return f"{value.number:g}"
    if isinstance(value, Expression):
        one, other = (in_words(each) for each in value.arguments)
        return f"({one}) {_SIGNS[value.operator]} ({other})"
    return title(value) if isinstance(value, PatientFact) else ", ".join([title(value), *_asked(value)])


def _asked(value: Aggregate) -> Iterator[str]:
    """What is asked of the rows beside their codes, the unit last."""
    for name, given in value.rows.model_dump().items():
        if given and name not in _TOLD:
            yield f"{name.replace('_', ' ')} {', '.join(given) if isinstance(given, list | tuple) else given}"
    if isinstance(value.rows, Observations) and value.rows.unit is not None:
        yield f"in {value.rows.unit}"


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
