"""The ontologies in use, under one lock: the object that the rest of the package asks.

In: a folder with `ontologies.lock` (the shipped one, or the one that holds a site's imports). Out: expansions of
concept sets, the resolution of a dictionary of codings, and units.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.ontology import expand
from fhir_features.ontology.artifacts import Manifest
from fhir_features.ontology.catalog import Catalog
from fhir_features.ontology.concept_sets import ConceptSet
from fhir_features.ontology.systems import Concept, shipped_folder
from fhir_features.ontology.units import Units

if TYPE_CHECKING:
    import pyarrow as pa

HOME_VARIABLE = "FHIR_FEATURES_ONTOLOGIES"


def ontologies_home() -> Path:
    """The folder of the lock in use: $FHIR_FEATURES_ONTOLOGIES, else the shipped one."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) if home else shipped_folder()


def load_ontologies(path: Path | None = None) -> Ontologies:
    """The ontologies that the lock in a folder names (none given: `ontologies_home()`).

    Reads the lock alone; tables are read when they are used. Raises OntologyError if there is no lock.
    """
    return Ontologies(Catalog(path or ontologies_home()))


class Ontologies:
    """The code systems, maps and units under one lock."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.units = Units()
        self._expanded: dict[ConceptSet, tuple[Concept, ...]] = {}

    @property
    def lock_id(self) -> str:
        """The hash of the lock: it changes when any release, map or resolver rule does."""
        return self._catalog.lock.id

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """What each artifact in the lock says of itself, by id."""
        return self._catalog.manifests

    def expand(self, concepts: ConceptSet) -> tuple[Concept, ...]:
        """The concepts of a set over all releases in the lock, sorted: codes that were retired are among them."""
        if concepts not in self._expanded:
            self._expanded[concepts] = tuple(sorted(expand.expand(self._catalog, concepts)))
        return self._expanded[concepts]

    def check(self, concepts: ConceptSet) -> None:
        """Refuse a set with a code that does not exist. Raises DefinitionError with the nearest right code.

        Codes of a system of which the lock has but a fragment are checked for their form alone.
        """
        expand.check(self._catalog, concepts)

    def resolve_dictionary(self, codings: pa.Table) -> pa.Table:
        """What each code_id of a dictionary of codings stands for, and when (`fhir_features.ontology.resolve`).

        In: code_id int64, ordinal int16, system, code, version, display (strings), user_selected (bool), all but the
        first two nullable. Out: code_id, valid_from and valid_to (date32, half-open, null = unbounded), rank (0 = the
        canonical concept), system, code, display, status, via, flags; in the order of code_id, valid_from and rank.
        Never raises for what a source wrote, never drops a code_id.
        """
        from fhir_features.ontology.resolve import resolve_dictionary

        return resolve_dictionary(self._catalog, codings)

    def expected_unit(self, concept: Concept) -> str | None:
        """The example UCUM unit that LOINC gives for an observation code, if the lock has one."""
        return self._example_units.get(concept)

    @cached_property
    def _example_units(self) -> dict[Concept, str]:
        sql = (
            "SELECT system, code, any_value(unit ORDER BY artifact)\nFROM concept\nWHERE unit IS NOT NULL\nGROUP BY ALL"
        )
        return {Concept(system, code): unit for system, code, unit in self._catalog.query(sql)}
