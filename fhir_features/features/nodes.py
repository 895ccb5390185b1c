"""What a feature is, as frozen values: the rows it looks at, the window, the operator, the name.

The sugar in `define` makes these nodes and checks them once; the engines, the version hash and the receipts read only
them. In goes what the sugar has validated, or the canonical JSON of an earlier definition; out come values that can be
compared, hashed and written down. All durations are whole microseconds before T.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fhir_features.ontology import ConceptSet

Kind = Literal["number", "count", "boolean", "text"]


class Node(BaseModel):
    """The base of all nodes: frozen, strict about what it is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Node):
    """The rows with T - `start_us` < effective_at <= T - `end_us`; a start of None is unbounded (TIME rule 2)."""

    start_us: int | None = None
    end_us: int = 0


class Observations(Node):
    """Results of a concept set. With a unit, only those with a number that can be expressed in it.

    Of a filter that is empty or None, nothing is asked. `low` and `high` are in the unit, and count as inside.
    """

    table: Literal["observations"] = "observations"
    concepts: ConceptSet
    unit: str | None = None
    sites: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    interpretations: tuple[str, ...] = ()
    encounter_classes: tuple[str, ...] = ()
    method: ConceptSet | None = None
    coded: ConceptSet | None = None
    low: float | None = None
    high: float | None = None
    without_comparator: bool = False


class Conditions(Node):
    """Diagnoses and problems of a concept set."""

    table: Literal["conditions"] = "conditions"
    concepts: ConceptSet
    sites: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    clinical_statuses: tuple[str, ...] = ()
    verification_statuses: tuple[str, ...] = ()
    encounter_classes: tuple[str, ...] = ()


class Medications(Node):
    """Orders of the medications of a concept set. `assume_us`: how long one lasts that says nothing about its end."""

    table: Literal["medication_requests"] = "medication_requests"
    concepts: ConceptSet
    assume_us: int | None = None
    sites: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    encounter_classes: tuple[str, ...] = ()


class Encounters(Node):
    """Encounters of some classes (codes of v3 ActCode); of none named, all."""

    table: Literal["encounters"] = "encounters"
    classes: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


Rows = Annotated[Observations | Conditions | Medications | Encounters, Field(discriminator="table")]


class Aggregate(Node):
    """One operator (`operators.OPERATORS`) over the rows in a window."""

    node: Literal["aggregate"] = "aggregate"
    rows: Rows
    operator: str
    window: Window = Window()


class PatientFact(Node):
    """What the patient's own record says (`operators.PATIENT_OPERATORS`)."""

    node: Literal["patient"] = "patient"
    operator: str


class Number(Node):
    """A number that stands in an expression."""

    node: Literal["number"] = "number"
    number: float


class Expression(Node):
    """A value made of other values (`operators.EXPRESSIONS`)."""

    node: Literal["expression"] = "expression"
    operator: str
    arguments: tuple[Value, ...]


Value = Annotated[Aggregate | PatientFact | Number | Expression, Field(discriminator="node")]
Expression.model_rebuild()


class Feature(Node):
    """A value with the name of its column. The description says it in the words of the clinic; it changes no answer."""

    name: str
    value: Value
    description: str = ""

    def __repr__(self) -> str:
        from fhir_features.features.wording import in_words

        return f"<Feature {self.name}: {in_words(self.value)}>"

    __str__ = __repr__


def canonical_json(value: Any) -> str:
    """Plain data as JSON in one way only: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
