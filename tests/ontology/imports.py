"""A site that has imported a release: what it then knows."""

from pathlib import Path

from fhir_features.ontology import Ontologies, concept_set, load_ontologies
from fhir_features.ontology.artifacts import make_lock, write_lock
from fhir_features.ontology.importers import import_release


def imported(kind: str, release: Path, home: Path, version: str | None = None) -> Ontologies:
    import_release(kind, release, home, version)
    return locked(home)


def locked(home: Path) -> Ontologies:
    write_lock(home, make_lock(home))
    return load_ontologies(home)


def codes(ontologies: Ontologies, concept: str, **how: bool) -> set[str]:
    return {found.code for found in ontologies.expand(concept_set(concept, **how))}


def statuses(ontologies: Ontologies, system: str, code: str) -> set[tuple[str, str | None]]:
    return {(row.status, row.code) for row in ontologies.resolve_code(system, code)}


def periods(ontologies: Ontologies, system: str, code: str) -> list[tuple[str, str, tuple[str, ...]]]:
    rows = [row for row in ontologies.resolve_code(system, code) if row.code == code]
    return [(str(row.valid_from), row.status, row.flags) for row in rows]
