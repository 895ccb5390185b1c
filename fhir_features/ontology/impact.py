"""What does a new release do to a concept set: what does it gain, lose, and silently miss from then on?

In: the ontologies before and after, the set, and the changes between the releases. Out: codes. Rows and patients that
have them are for the warehouse to count. A code that is retired stays in the set, so nothing of the past is lost; but
if what took its place is not in the set, patients coded with that from now on are missed, and nothing else says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhir_features.ontology.concept_sets import ConceptSet
from fhir_features.ontology.diff import LOST, Change
from fhir_features.ontology.systems import Concept

if TYPE_CHECKING:
    from fhir_features.ontology.ontologies import Ontologies


@dataclass(frozen=True, slots=True)
class Retired:
    """A code of the set that the new release retires, and those of its successors that are not in the set."""

    concept: Concept
    missed: tuple[Concept, ...]


@dataclass(frozen=True, slots=True)
class Impact:
    """What a release does to a set: codes that count from now on, that count no longer, and that are retired."""

    gained: tuple[Concept, ...]
    lost: tuple[Concept, ...]
    retired: tuple[Retired, ...]

    @property
    def changes_something(self) -> bool:
        """Whether a feature over the set can answer otherwise: more or fewer codes, or successors that it misses."""
        return bool(self.gained or self.lost or any(retired.missed for retired in self.retired))


def impact(old: Ontologies, new: Ontologies, concepts: ConceptSet, system: str, changes: list[Change]) -> Impact:
    """The effect on a concept set of going from the old ontologies to the new, given the changes of one system."""
    before, after = frozenset(old.reach(concepts)), frozenset(new.reach(concepts))
    retired = [
        Retired(Concept(system, change.code), _missed(system, change, after))
        for change in changes
        if change.kind in LOST and Concept(system, change.code) in after
    ]
    return Impact(tuple(sorted(after - before)), tuple(sorted(before - after)), tuple(retired))


def _missed(system: str, change: Change, members: frozenset[Concept]) -> tuple[Concept, ...]:
    successors = (Concept(system, code) for code in change.successors)
    return tuple(successor for successor in successors if successor not in members)
