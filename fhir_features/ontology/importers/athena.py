"""OMOP vocabularies from Athena (https://ohdsi.github.io/CommonDataModel/): all that we know the systems of.

Files are named .csv and hold tabs, or commas with quotation marks in smaller extracts. A vocabulary's codes are a
fragment: OMOP holds no dated releases, and writes names over. Its dates of a code are kept; 1970-01-01 and 2099-12-31
stand for unknown ones. Of CONCEPT_ANCESTOR the pairs one level apart are taken as edges.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.errors import UsageError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.importers.reading import find_file, find_optional, read_table, refuse_rows
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

_CONCEPT = (
    "concept_id concept_name vocabulary_id concept_class_id concept_code valid_start_date valid_end_date invalid_reason"
).split()

# OMOP vocabulary and our short name of its system.
_SYSTEMS = {
    "SNOMED": "snomed",
    "ICD10CM": "icd10cm",
    "ICD10": "icd10",
    "ICD9CM": "icd9cm",
    "RxNorm": "rxnorm",
    "NDC": "ndc",
    "ATC": "atc",
    "CVX": "cvx",
    "LOINC": "loinc",
    "CPT4": "cpt",
    "ICD10PCS": "icd10pcs",
    "ICDO3": "icdo",
}


def import_release(request: Import) -> list[Manifest]:
    """Import a code system for each known vocabulary, and a map for each pair that "Maps to" joins."""
    import duckdb

    connection = duckdb.connect()
    concept = find_file(request.path, "CONCEPT.csv")
    relationship = find_file(request.path, "CONCEPT_RELATIONSHIP.csv")
    ancestor = find_optional(request.path, "CONCEPT_ANCESTOR.csv")
    _read(connection, request, "concept_rows", concept, _CONCEPT)
    _read(
        connection,
        request,
        "relationships",
        relationship,
        "concept_id_1 concept_id_2 relationship_id invalid_reason".split(),
    )
    if ancestor:
        columns = "ancestor_concept_id descendant_concept_id min_levels_of_separation".split()
        _read(connection, request, "ancestors", ancestor, columns)
    else:
        connection.execute(
            "CREATE TABLE ancestors (ancestor_concept_id VARCHAR, descendant_concept_id VARCHAR, "
            "min_levels_of_separation VARCHAR)"
        )
    for day in ("valid_start_date", "valid_end_date"):
        query = f"SELECT line, {day}\nFROM concept_rows\nWHERE TRY_STRPTIME(replace({day}, '-', ''), '%Y%m%d') IS NULL"
        refuse_rows(connection, concept, day, query)
    query = "SELECT line, {0}\nFROM relationships\nWHERE {0} NOT IN (SELECT concept_id FROM concept_rows)"
    for end in ("concept_id_1", "concept_id_2"):
        refuse_rows(connection, relationship, "a relationship of a concept that is not there,", query.format(end))
    version = request.version or _version(connection, request)
    names = ", ".join(f"('{vocabulary}', '{system}')" for vocabulary, system in _SYSTEMS.items())
    connection.execute(f"CREATE TABLE systems AS\nFROM (VALUES {names}) AS names(vocabulary_id, system)")
    connection.execute(_CODES)
    sources = [file for file in (concept, relationship, ancestor) if file]
    return [*_write_systems(connection, request, version, sources), *_write_maps(connection, request, version, sources)]


def _read(connection: duckdb.DuckDBPyConnection, request: Import, name: str, file: Path, columns: list[str]) -> None:
    request.progress(file.name)
    with file.open(encoding="utf-8") as stream:
        tabs = "\t" in stream.readline()
    read_table(connection, name, file, columns, delimiter="\t" if tabs else ",", header=True, quoted=not tabs)


def _version(connection: duckdb.DuckDBPyConnection, request: Import) -> str:
    file = find_optional(request.path, "VOCABULARY.csv")
    if file is None:
        raise UsageError(f"{request.path} has no VOCABULARY.csv that says its version: give it with --version")
    _read(connection, request, "vocabularies", file, ["vocabulary_id", "vocabulary_version"])
    sql = "SELECT vocabulary_version\nFROM vocabularies\nWHERE vocabulary_id = 'None'"
    row = connection.execute(sql).fetchone()
    if row is None:
        raise UsageError(f"{file} does not say its version (vocabulary None): give it with --version")
    return str(row[0]).replace(" ", "-")


def _write_systems(
    connection: duckdb.DuckDBPyConnection, request: Import, version: str, sources: list[Path]
) -> list[Manifest]:
    manifests = []
    for (system,) in connection.execute("SELECT DISTINCT system\nFROM codes\nORDER BY 1").fetchall():
        request.progress(system)
        manifest = external_manifest(
            system=system,
            version=f"omop-{version}",
            title=f"{system} in the OMOP vocabularies {version}",
            content="fragment",
            licence="OMOP vocabularies",
            sources=sources,
        )
        tables = {name: query.replace("$system", f"'{system}'") for name, query in _TABLES.items()}
        manifests.append(write_artifact(connection, request.target, manifest, tables))
    return manifests


def _write_maps(
    connection: duckdb.DuckDBPyConnection, request: Import, version: str, sources: list[Path]
) -> list[Manifest]:
    manifests = []
    for source, target in connection.execute(
        f"SELECT DISTINCT source_system, target_system\nFROM ({_MAPS_TO})\nORDER BY ALL"
    ).fetchall():
        request.progress(f"{source} to {target}")
        manifest = external_manifest(
            kind="map",
            system=source,
            target_system=target,
            version=f"omop-{version}",
            title=f"{source} to {target} in the OMOP vocabularies {version}",
            content="fragment",
            licence="OMOP vocabularies",
            sources=sources,
        )
        query = f"FROM ({_MAPS_TO})\nWHERE source_system = '{source}'\n  AND target_system = '{target}'"
        manifests.append(write_artifact(connection, request.target, manifest, {"map": query}))
    return manifests


# Dates are written 20240131, or 2024-01-31 in smaller extracts.
_CODES = """
CREATE TABLE codes AS
SELECT
  concept_id,
  system,
  concept_code AS code,
  concept_name AS display,
  concept_class_id AS kind,
  invalid_reason IS NULL AS active,
  nullif(CAST(strptime(replace(valid_start_date, '-', ''), '%Y%m%d') AS DATE), DATE '1970-01-01') AS valid_from,
  nullif(CAST(strptime(replace(valid_end_date, '-', ''), '%Y%m%d') AS DATE), DATE '2099-12-31') AS valid_to
FROM concept_rows
JOIN systems USING (vocabulary_id)
"""

# An invalid code was valid until the end of its last day.
_STATES = """
SELECT
  * REPLACE (TRUE AS active, CASE WHEN NOT active THEN CAST(valid_to + 1 AS DATE) END AS valid_to)
FROM codes
WHERE active
  OR valid_to IS NOT NULL
UNION ALL
SELECT
  * REPLACE (CAST(valid_to + 1 AS DATE) AS valid_from, NULL AS valid_to)
FROM codes
WHERE NOT active
"""

_RELATIONS = """
SELECT
  lower_end.system,
  lower_end.code AS child,
  upper_end.code AS parent,
  CASE relationship_id
    WHEN 'Is a' THEN 'is_a'
    WHEN 'RxNorm has ing' THEN 'has_ingredient'
    WHEN 'Consists of' THEN 'consists_of'
    WHEN 'Contains' THEN 'contains'
    WHEN 'Tradename of' THEN 'tradename_of'
  END AS relation
FROM relationships
JOIN codes AS lower_end ON lower_end.concept_id = concept_id_1
JOIN codes AS upper_end ON upper_end.concept_id = concept_id_2
WHERE invalid_reason IS NULL
  AND lower_end.system = upper_end.system
  AND relationship_id IN ('Is a', 'RxNorm has ing', 'Consists of', 'Contains', 'Tradename of')
UNION
SELECT
  lower_end.system,
  lower_end.code,
  upper_end.code,
  'is_a'
FROM ancestors
JOIN codes AS lower_end ON lower_end.concept_id = descendant_concept_id
JOIN codes AS upper_end ON upper_end.concept_id = ancestor_concept_id
WHERE min_levels_of_separation = '1'
  AND lower_end.system = upper_end.system
"""

_REPLACED = """
SELECT DISTINCT
  old_code.system,
  old_code.code,
  'replaced_by' AS kind,
  new_code.code AS successor
FROM relationships
JOIN codes AS old_code ON old_code.concept_id = concept_id_1
JOIN codes AS new_code ON new_code.concept_id = concept_id_2
WHERE invalid_reason IS NULL
  AND relationship_id IN ('Concept replaced by', 'Maps to')
  AND old_code.system = new_code.system
  AND old_code.code <> new_code.code
  AND NOT old_code.active
"""

_MAPS_TO = """
SELECT
  old_code.system AS source_system,
  new_code.system AS target_system,
  old_code.code AS source,
  new_code.code AS target,
  'relatedto' AS equivalence,
  row_number() OVER (PARTITION BY old_code.system, old_code.code, new_code.system ORDER BY new_code.code) AS map_group,
  1 AS map_priority
FROM relationships
JOIN codes AS old_code ON old_code.concept_id = concept_id_1
JOIN codes AS new_code ON new_code.concept_id = concept_id_2
WHERE invalid_reason IS NULL
  AND relationship_id = 'Maps to'
  AND old_code.system <> new_code.system
"""

_TABLES: dict[TableName, str] = {
    "concept": f"SELECT *, TRUE AS selectable\nFROM ({_STATES})\nWHERE system = $system",
    "edge": f"FROM ({_RELATIONS})\nWHERE system = $system",
    "history": f"FROM ({_REPLACED})\nWHERE system = $system",
}
