"""The ontologies in use, under one lock: the object that the rest of the package asks.

In: a folder with `ontologies.lock` (the shipped one, or the one that holds a site's imports). Out: expansions of
concept sets, the resolution of a dictionary of codings, and units.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.ontology import expand
from fhir_features.ontology.artifacts import Lock, Manifest, check_usable, read_lock, verify_artifact
from fhir_features.ontology.catalog import Catalog
from fhir_features.ontology.concept_sets import ConceptSet
from fhir_features.ontology.diff import Change, release_changes
from fhir_features.ontology.impact import Impact, impact
from fhir_features.ontology.search import Found, search, titles
from fhir_features.ontology.systems import Concept, ontologies_home, systems
from fhir_features.ontology.units import Units
from fhir_features.ontology.value_sets import locked_value_set

if TYPE_CHECKING:
    import pyarrow as pa

    from fhir_features.ontology.resolve import Resolved


def load_ontologies(path: Path | None = None) -> Ontologies:
    """The ontologies that the lock in a folder names (none given: `ontologies_home()`).

    Reads the lock alone; tables are read when they are used. Raises OntologyError if there is no lock.
    """
    home = path or ontologies_home()
    return Ontologies(Catalog(home, read_lock(home)))


def ontologies_under(lock: Lock) -> Ontologies:
    """The ontologies under a lock that was in use before, its artifacts found where those of the lock in use are.

    Raises OntologyError that names what of it is gone: each artifact with its hash, or the rules and facts it needs.
    """
    home = ontologies_home()
    check_usable(lock, home)
    return Ontologies(Catalog(home, lock))


class Ontologies:
    """The code systems, maps and units under one lock."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.units = Units()
        self._expanded: dict[ConceptSet, tuple[Concept, ...]] = {}
        self._reached: dict[ConceptSet, tuple[Concept, ...]] = {}

    @property
    def lock(self) -> Lock:
        """The exact artifacts in use, and the rules and facts that they are read with."""
        return self._catalog.lock

    @property
    def lock_id(self) -> str:
        """The hash of the lock: it changes when any release, map or resolver rule does."""
        return self.lock.id

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """What each artifact in the lock says of itself, by id."""
        return self._catalog.manifests

    def expand(self, concepts: ConceptSet) -> tuple[Concept, ...]:
        """The concepts of a set over all releases in the lock, sorted: codes that were retired are among them."""
        if concepts not in self._expanded:
            self._expanded[concepts] = tuple(sorted(expand.expand(self._catalog, concepts)))
        return self._expanded[concepts]

    def value_set(self, name: str) -> ConceptSet:
        """What a value set in the lock means (`valueset.NAME@VERSION`). Raises UsageError if there is none."""
        return locked_value_set(self._catalog, name)

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

    def up_to(self, release: str) -> Ontologies:
        """The same lock as it was before any later release of the same code system, and of the maps that came with it.

        Raises UsageError if the lock has no such release.
        """
        known = self._catalog.release(release)
        releases = self._catalog.code_systems(known.system)
        versions = {manifest.version for manifest in releases[releases.index(known) + 1 :]}
        later = {
            manifest.id
            for manifest in self._catalog.manifests
            if known.system in (manifest.system, manifest.target_system) and manifest.version in versions
        }
        lock = self._catalog.lock
        artifacts = tuple(artifact for artifact in lock.artifacts if artifact.id not in later)
        return Ontologies(Catalog(self._catalog.home, lock.model_copy(update={"artifacts": artifacts})))

    def changes(self, old: str, new: str) -> list[Change]:
        """What changed from one release of a code system to another, such as `icd10cm@FY2025` and `icd10cm@FY2026`.

        Raises UsageError for ids that are not two releases of one system.
        """
        return release_changes(self._catalog, old, new)

    def reach(self, concepts: ConceptSet) -> tuple[Concept, ...]:
        """Every code that counts as in the set when it is met in data: the expansion, codes that maps translate into
        it for certain, and retired codes whose safe successor is in it. Sorted."""
        if concepts not in self._reached:
            self._reached[concepts] = tuple(sorted(expand.reach(self._catalog, frozenset(self.expand(concepts)))))
        return self._reached[concepts]

    def digest(self, concepts: ConceptSet) -> str:
        """A hash of all in the lock that a feature over this set rests on, and of nothing else."""
        members = [str(concept) for concept in self.expand(concepts)]
        reached = self.reach(concepts)
        sources = [str(concept) for concept in reached]
        known = [systems()[name].facts for name in sorted({concept.system for concept in reached})]
        lines = [f"rules {self._catalog.lock.rules}", *known, "", *members, "", *sources]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def units_digest(self, concepts: ConceptSet) -> str:
        """A hash of the facts on units that decide how numbers of this set are converted, and of nothing else."""
        loincs = sorted({concept.code for concept in self.expand(concepts) if concept.system == "loinc"})
        return hashlib.sha256("\n".join(self.units.facts(loincs)).encode()).hexdigest()

    def ingredients(self, codes: Sequence[str]) -> dict[str, frozenset[str]]:
        """By RxNorm code the RxCUIs of its ingredients, over all releases in the lock; of an unknown one itself."""
        return expand.ingredients(self._catalog, codes)

    def impacts(self, sets: Sequence[ConceptSet], old: str, new: str) -> list[Impact]:
        """What going from one release to another does to each concept set (`fhir_features.ontology.impact`)."""
        before, after, changes = self.up_to(old), self.up_to(new), self.changes(old, new)
        system = self._catalog.release(new).system
        return [impact(before, after, concepts, system, changes) for concepts in sets]

    def search(self, term: str, system: str | None = None, limit: int = 50) -> list[Found]:
        """The concepts whose names have all words of a term, the shortest names first, each code once."""
        return search(self._catalog, term, system, limit)

    def titles(self, concepts: Sequence[Concept]) -> dict[Concept, str]:
        """The names of concepts in the latest release that has them; those without one are left out."""
        return titles(self._catalog, concepts)

    def resolve_code(self, system: str, code: str, on: dt.date | None = None) -> list[Resolved]:
        """What one code stands for on a date, or at all times, as `resolve_dictionary` answers.

        `system` is a short name, URI or OID. Retired codes that are not followed have their candidates in
        `candidates`.
        """
        from fhir_features.ontology.resolve import Coding, resolve

        rows = resolve(self._catalog, [Coding(0, 0, system, code, None, None, None)])
        return [
            row for row in rows if on is None or ((row.valid_from or dt.date.min) <= on < (row.valid_to or dt.date.max))
        ]

    def candidates(self, concept: Concept) -> list[tuple[str, Concept]]:
        """What a retired concept may have become: kind of association and successor, sorted."""
        from fhir_features.ontology.facts import successors

        return sorted({(kind, successor) for _, kind, successor, _ in successors(self._catalog, [concept])})

    def verify(self) -> Iterator[Manifest]:
        """Recompute every hash in the lock, artifact by artifact. Raises OntologyError at the first that differs."""
        for artifact in self._catalog.lock.artifacts:
            yield verify_artifact(self._catalog.home, artifact)

    def expected_unit(self, concept: Concept) -> str | None:
        """The example UCUM unit that LOINC gives for an observation code, if the lock has one."""
        return self._example_units.get(concept)

    @cached_property
    def _example_units(self) -> dict[Concept, str]:
        sql = (
            "SELECT system, code, any_value(unit ORDER BY artifact)\nFROM concept\nWHERE unit IS NOT NULL\nGROUP BY ALL"
        )
        return {Concept(system, code): unit for system, code, unit in self._catalog.query(sql)}
