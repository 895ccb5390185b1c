"""The starter fragments and maps that we wrote, and UCUM: only manifests are made, the tables lie there as text.

They cover the Synthea sample: the codes that occur in it, with their names as observed and LOINC's example units,
RxNorm with ingredients, and a SNOMED CT to ICD-10-CM map from clinical knowledge. An edited table needs a new version.
UCUM has no table, because its licence allows no other form of it than its file: the manifest pins that by its hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.ontology.artifacts import (
    MANIFEST_FILE,
    TABLES,
    Licence,
    Manifest,
    SourceFile,
    TableFile,
    content_hash,
    manifest_text,
    rows_hash,
    table_sql,
    ucum_source,
)

if TYPE_CHECKING:
    import duckdb

_SNOMED_NOTICE = (
    "This material includes SNOMED Clinical Terms (SNOMED CT) identifiers and names as they occur in synthetic sample "
    "data, used with permission of SNOMED International. It is a fragment without hierarchy; use of SNOMED CT needs a "
    "licence from SNOMED International or a national member."
)
_RXNORM_NOTICE = (
    "This product uses publicly available data courtesy of the U.S. National Library of Medicine (NLM), National "
    "Institutes of Health, Department of Health and Human Services; NLM is not responsible for the product and does "
    "not endorse or recommend this or any other product."
)
_UCUM_NOTICE = (
    "This product includes all or a portion of the UCUM table, UCUM codes, and UCUM definitions or is derived from it, "
    "subject to a license from Regenstrief Institute, Inc. and The UCUM Organization (https://ucum.org/license)."
)
_LOINC_NOTICE = (
    "This material contains content from LOINC (http://loinc.org). LOINC is copyright Regenstrief Institute, Inc. and "
    "the Logical Observation Identifiers Names and Codes (LOINC) Committee and is available at no cost under the "
    "license at http://loinc.org/license."
)


def build(connection: duckdb.DuckDBPyConnection, home: Path) -> list[Manifest]:
    """Write the manifests of the authored artifacts beside their tables."""
    return [_with_manifest(connection, home, manifest) for manifest in [*_manifests(), _ucum()]]


def _ucum() -> Manifest:
    return Manifest(
        id="ucum@2.2",
        kind="codesystem",
        system="ucum",
        version="2.2",
        title="UCUM, as ucumvert carries it",
        content="fragment",
        notes="Its codes are made by a grammar and are not listed.",
        licence=_licence("UCUM-1.1", _UCUM_NOTICE),
        sources=(ucum_source(),),
        tables=(),
        content_sha256="",
    )


def _manifests() -> list[Manifest]:
    return [
        _starter("snomed", "SNOMED CT, codes of the Synthea sample", _licence("SNOMED-CT-fragment", _SNOMED_NOTICE)),
        _starter("rxnorm", "RxNorm, drugs of the Synthea sample", _licence("US-public-domain", _RXNORM_NOTICE)),
        _starter("loinc", "LOINC, codes of the Synthea sample and common laboratory", _licence("LOINC", _LOINC_NOTICE)),
        _starter(
            "cvx", "CVX, vaccines of the Synthea sample", _licence("US-public-domain", "CVX is a work of the CDC.")
        ),
        _starter(
            "snomed",
            "Conditions of the Synthea sample in ICD-10-CM",
            _licence("Apache-2.0 and SNOMED-CT-fragment", f"Authored by this project. {_SNOMED_NOTICE}"),
            target_system="icd10cm",
        ),
    ]


def _licence(identifier: str, attribution: str) -> Licence:
    return Licence(id=identifier, redistributable=True, attribution=attribution)


def _starter(system: str, title: str, licence: Licence, target_system: str | None = None) -> Manifest:
    name = f"{system}__{target_system}" if target_system else system
    return Manifest(
        id=f"{name}@starter-1",
        kind="map" if target_system else "codesystem",
        system=system,
        target_system=target_system,
        version="starter-1",
        title=title,
        content="fragment",
        licence=licence,
        sources=(SourceFile(file="written by this project"),),
        tables=(),
        content_sha256="",
    )


def _with_manifest(connection: duckdb.DuckDBPyConnection, home: Path, manifest: Manifest) -> Manifest:
    folder = home / manifest.folder
    tables = []
    for name in sorted(TABLES):
        file = folder / f"{name}.tsv"
        if file.is_file():
            rows, digest = rows_hash(connection, name, table_sql(name, file))
            tables.append(TableFile(name=name, file=file.name, rows=rows, content_sha256=digest))
    digest = content_hash(tables, manifest.sources)
    written = manifest.model_copy(update={"tables": tuple(tables), "content_sha256": digest})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_FILE).write_text(manifest_text(written), encoding="utf-8")
    return written
