"""How does an official release that a site is licensed for become an artifact?

In: the release as its publisher ships it (a folder, a file or a zip). Out: artifacts below the site's ontologies
folder, complete or not at all. A file that is wrong or cut short is refused, with its name and line. Nothing imported
is ever put into the package: the lock names it as external, by hash.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fhir_features.errors import OntologyError, UsageError, did_you_mean
from fhir_features.files import disk_errors, folder_aside
from fhir_features.ontology.artifacts import VERSION, Licence, Manifest, SourceFile
from fhir_features.ontology.importers.reading import unpacked
from fhir_features.ontology.write import publish

# Kind of release: the module that reads it, and what it is.
KINDS: dict[str, str] = {
    "rf2": "SNOMED CT RF2, Full or Snapshot: concepts, descriptions, is-a, history, simple and extended maps",
    "rrf": "RxNorm RRF: concepts, relations to ingredients, NDCs, merged concepts",
    "icd10cm": "ICD-10-CM order file, tabular XML or conversion table",
    "loinc": "LOINC table (CSV) with MapTo",
    "athena": "OMOP vocabularies from Athena: concepts, relationships, ancestors",
    "fhir": "FHIR R4 CodeSystem, ValueSet or ConceptMap (JSON)",
}


@dataclass(frozen=True)
class Import:
    """What an importer gets: the unpacked release, the site's ontologies folder, the folder to write to until all of
    the release is there, and the version if the user named one."""

    path: Path
    home: Path
    target: Path
    version: str | None
    progress: Callable[[str], None]


class Importer(Protocol):
    """The face of each importer module."""

    def import_release(self, request: Import) -> list[Manifest]:
        """Read a release and write its artifacts."""


def import_release(
    kind: str,
    path: Path,
    home: Path,
    version: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> list[Manifest]:
    """Import a release of a kind (see KINDS) into an ontologies folder; `progress` is told each step.

    All artifacts of the release come to be, or none; on a dry run none. Raises UsageError for an unknown kind or path,
    OntologyError for a release that is wrong or incomplete.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no importer for '{kind}': {did_you_mean(kind, KINDS)}")
    if not path.exists():
        raise UsageError(f"there is nothing at {path}: name the folder, file or zip of the release")
    module = importlib.import_module(f"fhir_features.ontology.importers.{kind}")
    importer: Importer = module
    with disk_errors(OntologyError, str(home)), unpacked(path) as folder, folder_aside(home) as partial:
        manifests = importer.import_release(Import(folder, home, partial, version, progress))
        if not dry_run:
            publish(partial, home, manifests)
    return manifests


def external_manifest(
    *,
    system: str,
    version: str,
    title: str,
    content: Literal["complete", "fragment"],
    licence: str,
    sources: list[Path],
    kind: Literal["codesystem", "map", "history", "valueset"] = "codesystem",
    target_system: str | None = None,
) -> Manifest:
    """The manifest of an imported artifact before its tables are written: it must not be passed on."""
    if not VERSION.fullmatch(version):
        raise UsageError(f"'{version}' cannot be a version: give one of letters, digits and '.-_' with --version")
    name = {"codesystem": system, "valueset": f"valueset.{system}"}.get(kind, f"{system}__{target_system}")
    return Manifest(
        id=f"{name}@{version}",
        kind=kind,
        system=system,
        target_system=target_system,
        version=version,
        title=title,
        content=content,
        licence=Licence(id=licence, redistributable=False, attribution=f"Imported under the user's {licence} licence."),
        sources=tuple(SourceFile(file=source.name, sha256=_file_hash(source)) for source in sources),
        tables=(),
        content_sha256="",
    )


def _file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
