"""Which set of concepts does a definition mean? Written as an intention, expanded later under a lock.

In: `concept_set("icd10cm:E11", descendants=True)`, put together with `|` and `-`. Out: a frozen, serializable value
that says what was meant, not what it came to; `Ontologies.expand` gives the codes.
"""

from __future__ import annotations

from textwrap import shorten
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from fhir_features.errors import DefinitionError
from fhir_features.ontology.systems import Concept, parse_concept, systems

Reach = Literal["self", "descendants", "ingredient", "class"]


class ConceptSet(BaseModel):
    """A set of concepts as a definition means it: one concept and what it reaches, or a union or difference of sets.

    `reach` of a single concept: `self`; `descendants` (and itself: SNOMED CT's `<<`); `ingredient` (and every drug
    that contains it); `class` (the codes that a classification such as CCSR puts into it).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operation: Literal["concept", "union", "difference"]
    concept: str | None = None
    reach: Reach = "self"
    parts: tuple[ConceptSet, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> ConceptSet:
        if (self.concept is not None) != (self.operation == "concept") or (self.operation == "concept") == bool(
            self.parts
        ):
            raise ValueError("a concept set is one concept, or the union or difference of others")
        self.selections()
        return self

    def __or__(self, other: ConceptSet) -> ConceptSet:
        return ConceptSet(operation="union", parts=(self, other))

    def __sub__(self, other: ConceptSet) -> ConceptSet:
        return ConceptSet(operation="difference", parts=(self, other))

    def __str__(self) -> str:
        if self.operation == "concept":
            words = {"self": "", "descendants": " and below", "ingredient": " as ingredient", "class": ""}
            return f"{self.concept}{words[self.reach]}"
        sign = " | " if self.operation == "union" else " - "
        return "(" + sign.join(str(part) for part in self.parts) + ")"

    def __repr__(self) -> str:
        return f"<ConceptSet: {shorten(str(self), 120, placeholder=' ...')}>"

    def _repr_html_(self) -> str:
        from fhir_features.notebook import concept_set_html

        return concept_set_html(self)

    def selections(self) -> tuple[tuple[Concept, Reach], ...]:
        """Every concept that the definition names, with what it reaches, in the order of writing."""
        if self.concept is not None:
            return ((parse_concept(self.concept), self.reach),)
        return tuple(selection for part in self.parts for selection in part.selections())


def concept_set(*concepts: str, descendants: bool = False, ingredient: bool = False) -> ConceptSet:
    """The set of one or more concepts such as `icd10cm:E11`, `rxnorm:6809`, `loinc:4548-4` or `ccsr:END002`.

    `descendants` adds everything below each; `ingredient` (RxNorm) adds every drug that contains it. A code of a
    classification stands for the codes in that class. Raises DefinitionError for a concept that is not written right.
    """
    if not concepts:
        raise DefinitionError("a concept set needs a concept: write one such as 'icd10cm:E11'")
    sets = [_single(text, descendants, ingredient) for text in concepts]
    return sets[0] if len(sets) == 1 else ConceptSet(operation="union", parts=tuple(sets))


def _single(text: str, descendants: bool, ingredient: bool) -> ConceptSet:
    system = systems()[parse_concept(text).system]
    if ingredient and system.name != "rxnorm":
        raise DefinitionError(
            f"'{text}' cannot be taken as an ingredient: only RxNorm has ingredients, drop ingredient="
        )
    if ingredient and descendants:
        raise DefinitionError(f"'{text}': ingredient=True covers every drug that contains it, drop descendants=")
    if system.classifies and descendants:
        raise DefinitionError(f"'{text}' is a class and stands for all codes in it, drop descendants=")
    reach: Reach = "class" if system.classifies else "ingredient" if ingredient else "self"
    return ConceptSet(operation="concept", concept=text, reach="descendants" if descendants else reach)
