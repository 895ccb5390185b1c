"""Values waiting for a name: what the methods of a series give, and what arithmetic and comparison make of it.

Raises DefinitionError of one line.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import NoReturn

from fhir_features.errors import DefinitionError
from fhir_features.features.compile import kind_of
from fhir_features.features.nodes import Expression, Feature, Number, Value
from fhir_features.features.wording import in_words


class Unnamed:
    """A feature without a name yet. Numbers can be subtracted, divided and compared, with each other and constants."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<Unnamed: {in_words(self.value)}>"

    def named(self, name: str, description: str = "") -> Feature:
        """The feature, under the name of its column: lower-case letters, digits and underscores."""
        return Feature(name=name, value=self.value, description=description)

    def __truediv__(self, other: Unnamed | float) -> Unnamed:
        return expression("ratio", self, other)

    def __rtruediv__(self, other: float) -> Unnamed:
        return expression("ratio", other, self)

    def __sub__(self, other: Unnamed | float) -> Unnamed:
        return expression("difference", self, other)

    def __rsub__(self, other: float) -> Unnamed:
        return expression("difference", other, self)

    def __gt__(self, other: Unnamed | float) -> Unnamed:
        return expression("greater", self, other)

    def __lt__(self, other: Unnamed | float) -> Unnamed:
        return expression("less", self, other)

    def __ge__(self, other: Unnamed | float) -> Unnamed:
        return expression("at_least", self, other)

    def __le__(self, other: Unnamed | float) -> Unnamed:
        return expression("at_most", self, other)

    def __eq__(self, other: object) -> Unnamed:  # type: ignore[override]
        return expression("equal", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Unnamed:  # type: ignore[override]
        return expression("unequal", self, other)  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> NoReturn:
        # Of `one and other` Python would keep the other alone.
        raise DefinitionError("a feature has no truth before it is asked: 'and', 'or', 'not' and 1 < x < 2 say nothing")


def expression(operator: str, *arguments: Unnamed | float) -> Unnamed:
    """A value made of numeric ones (`operators.EXPRESSIONS`)."""
    values: list[Value] = []
    for argument in arguments:
        value = argument.value if isinstance(argument, Unnamed) else Number(number=finite(operator, argument))
        if kind_of(value) not in ("number", "count"):
            raise DefinitionError(f"a {operator} is of numbers: of features that give one, and of constants")
        values.append(value)
    return Unnamed(Expression(operator=operator, arguments=tuple(values)))


def finite(what: str, number: object) -> float:
    """A constant of a definition as a number. Raises DefinitionError for what is none."""
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        said = number if isinstance(number, str | Real) else type(number).__name__
        raise DefinitionError(f"{what}: '{said}' is no finite number")
    return float(number)
