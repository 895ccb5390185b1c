"""SNOMED CT in Release Format 2 (https://confluence.ihtsdotools.org/display/DOCRELFMT): Full or Snapshot.

A Full release says from when a concept was active and from when no longer; a Snapshot says what it is at its date. Of
names, relationships, history and maps the state at the date of the release counts, from either. Files are text with
tabs and without quoting: terms hold unbalanced quotation marks.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.errors import OntologyError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.importers.reading import find_file, find_optional, read_table, refuse_rows
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

_COMPONENT = ("id", "effectiveTime", "active")
_FSN = "900000000000003001"
_IS_A = "116680003"
_INFERRED = "900000000000011006"

# Historical association reference sets. SAME AS and REPLACED BY may be followed; the others are for a person to judge.
_ASSOCIATIONS = {
    "900000000000526001": "replaced_by",
    "900000000000527005": "same_as",
    "900000000000523009": "possibly_equivalent",
    "900000000000528000": "was_a",
}

# Map reference sets and the system that they map to.
_MAPS = {
    "447562003": "icd10",
    "6011000124106": "icd10cm",
    "446608001": "icdo",
    "900000000000497000": "ctv3",
}

_LICENCE = "SNOMED CT affiliate"


def import_release(request: Import) -> list[Manifest]:
    """Import the code system and each map of a release. Raises OntologyError for one that does not add up."""
    import duckdb

    connection = duckdb.connect()
    kind = "Full" if find_optional(request.path, "sct2_Concept_Full*.txt") else "Snapshot"
    concepts = find_file(request.path, f"sct2_Concept_{kind}*.txt")
    version, day = _version(concepts)
    request.progress("concepts")
    _read(connection, "concepts", concepts, ())
    connection.execute("CREATE TABLE concept_states AS\nFROM every_state")
    request.progress("descriptions")
    descriptions = find_file(request.path, f"sct2_Description_{kind}*.txt")
    _read(connection, "descriptions", descriptions, ("conceptId", "languageCode", "typeId", "term"))
    request.progress("relationships")
    relationships = find_file(request.path, f"sct2_Relationship_{kind}*.txt")
    _read(connection, "relationships", relationships, ("sourceId", "destinationId", "typeId", "characteristicTypeId"))
    _check_references(connection, descriptions, relationships)
    request.progress("history")
    associations = find_optional(request.path, f"der2_cRefset_Association*{kind}*.txt")
    _read_or_empty(connection, "associations", associations, ("refsetId", "referencedComponentId", "targetComponentId"))
    sources = [file for file in (concepts, descriptions, relationships, associations) if file]
    manifest = external_manifest(
        system="snomed",
        version=request.version or version,
        title=f"SNOMED CT {version}",
        content="complete",
        licence=_LICENCE,
        sources=sources,
    ).model_copy(update={"effective_from": day})
    request.progress("writing")
    tables: dict[TableName, str] = {**_TABLES, "concept": _CONCEPTS_IN_TIME if kind == "Full" else _CONCEPTS}
    written = write_artifact(connection, request.target, manifest, tables)
    return [written, *_import_maps(connection, request, kind, manifest.version)]


def _import_maps(connection: duckdb.DuckDBPyConnection, request: Import, kind: str, version: str) -> Iterator[Manifest]:
    extended = find_optional(request.path, f"der2_iisssccRefset_ExtendedMap*{kind}*.txt")
    simple = find_optional(request.path, f"der2_sRefset_SimpleMap*{kind}*.txt")
    rules = ("mapGroup", "mapPriority", "mapRule", "mapAdvice")
    _read_or_empty(connection, "extended", extended, ("refsetId", "referencedComponentId", *rules, "mapTarget"))
    _read_or_empty(connection, "simple", simple, ("refsetId", "referencedComponentId", "mapTarget"))
    for number in ("mapGroup", "mapPriority"):
        if extended:
            query = f"SELECT line, {number}\nFROM extended\nWHERE TRY_CAST({number} AS INTEGER) IS NULL"
            refuse_rows(connection, extended, number, query)
    for name, file in (("extended", extended), ("simple", simple)):
        _check_known(connection, name, "referencedComponentId", file, "a map")
    for refset, target in _MAPS.items():
        present = connection.execute(f"SELECT 1\nFROM ({_ALL_MAPS})\nWHERE refset = ?\nLIMIT 1", [refset]).fetchone()
        if present:
            request.progress(f"map to {target}")
            manifest = external_manifest(
                kind="map",
                system="snomed",
                target_system=target,
                version=version,
                title=f"SNOMED CT reference set {refset} to {target}",
                content="fragment",
                licence=_LICENCE,
                sources=[file for file in (extended, simple) if file],
            )
            yield write_artifact(connection, request.target, manifest, {"map": _MAP.replace("$refset", f"'{refset}'")})


def _read(connection: duckdb.DuckDBPyConnection, name: str, file: Path, columns: tuple[str, ...]) -> None:
    """Read a component file and keep of each component the row of the latest effectiveTime, as the table `name`."""
    read_table(connection, "every_state", file, (*_COMPONENT, *columns), delimiter="\t", header=True)
    for what, wrong in _WRONG_COMPONENTS.items():
        refuse_rows(connection, file, what, f"SELECT line, {what}\nFROM every_state\nWHERE {wrong}")
    connection.execute(
        f'CREATE OR REPLACE TABLE "{name}" AS\n'
        "FROM every_state\n"
        "QUALIFY row_number() OVER (PARTITION BY id ORDER BY effectiveTime DESC, active DESC, line) = 1"
    )


def _read_or_empty(
    connection: duckdb.DuckDBPyConnection, name: str, file: Path | None, columns: tuple[str, ...]
) -> None:
    if file:
        _read(connection, name, file, columns)
    else:
        types = ", ".join(f'"{column}" VARCHAR' for column in (*_COMPONENT, *columns))
        connection.execute(f'CREATE OR REPLACE TABLE "{name}" ({types})')


def _check_references(connection: duckdb.DuckDBPyConnection, descriptions: Path, relationships: Path) -> None:
    _check_known(connection, "descriptions", "conceptId", descriptions, "a description")
    for end in ("sourceId", "destinationId"):
        _check_known(connection, "relationships", end, relationships, "a relationship")


def _check_known(connection: duckdb.DuckDBPyConnection, name: str, column: str, file: Path | None, what: str) -> None:
    if file:
        query = f"SELECT line, {column}\nFROM {name}\nWHERE {column} NOT IN (SELECT id FROM concepts)"
        if what == "a map":
            query += f"\n  AND refsetId IN ({', '.join(repr(refset) for refset in _MAPS)})"
        refuse_rows(connection, file, f"{what} of a concept that is not there", query)


def _version(concepts: Path) -> tuple[str, dt.date]:
    match = re.fullmatch(r"sct2_Concept_\w+_(\w+)_(\d{8})", concepts.stem)
    if match is None:
        raise OntologyError(f"{concepts}: the name does not end in edition and date, as RF2 prescribes: keep its name")
    return f"{match[1]}-{match[2]}", dt.datetime.strptime(match[2], "%Y%m%d").date()


_WRONG_COMPONENTS = {
    "effectiveTime": "TRY_STRPTIME(effectiveTime, '%Y%m%d') IS NULL",
    "active": "active NOT IN ('0', '1')",
}

_CONCEPTS = f"""
SELECT
  concepts.id AS code,
  any_value(descriptions.term ORDER BY descriptions.languageCode, descriptions.id) AS display,
  concepts.active = '1' AS active,
  TRUE AS selectable
FROM concepts
LEFT JOIN descriptions ON descriptions.conceptId = concepts.id
  AND descriptions.typeId = '{_FSN}'
  AND descriptions.active = '1'
GROUP BY ALL
"""

# A concept whose definition alone changes has a row of its own in the file, but stays in its state.
_CONCEPTS_IN_TIME = f"""
WITH names AS (
  {_CONCEPTS}
), states AS (
  SELECT
    id AS code,
    active = '1' AS active,
    CAST(strptime(effectiveTime, '%Y%m%d') AS DATE) AS valid_from
  FROM concept_states
  QUALIFY row_number() OVER (PARTITION BY id, effectiveTime ORDER BY active DESC, line) = 1
), changes AS (
  FROM states
  QUALIFY active IS DISTINCT FROM lag(active) OVER (PARTITION BY code ORDER BY valid_from)
)
SELECT
  changes.code,
  names.display,
  changes.active,
  TRUE AS selectable,
  changes.valid_from,
  lead(changes.valid_from) OVER (PARTITION BY changes.code ORDER BY changes.valid_from) AS valid_to
FROM changes
JOIN names USING (code)
"""

_DESIGNATIONS = f"""
SELECT
  conceptId AS code,
  languageCode AS language,
  term AS text
FROM descriptions
WHERE active = '1'
  AND typeId <> '{_FSN}'
"""

_EDGES = f"""
SELECT DISTINCT
  sourceId AS child,
  destinationId AS parent,
  'is_a' AS relation
FROM relationships
WHERE active = '1'
  AND typeId = '{_IS_A}'
  AND characteristicTypeId = '{_INFERRED}'
"""

_HISTORY = f"""
SELECT DISTINCT
  associations.referencedComponentId AS code,
  kinds.kind,
  associations.targetComponentId AS successor
FROM associations
JOIN (VALUES {", ".join(f"('{refset}', '{kind}')" for refset, kind in _ASSOCIATIONS.items())}) AS kinds(refset, kind)
  ON kinds.refset = associations.refsetId
JOIN concepts ON concepts.id = associations.referencedComponentId
WHERE associations.active = '1'
"""

_ALL_MAPS = """
SELECT
  refsetId AS refset,
  referencedComponentId AS source,
  mapTarget,
  CAST(mapGroup AS INTEGER) AS map_group,
  CAST(mapPriority AS INTEGER) AS map_priority,
  mapRule AS rule,
  mapAdvice AS advice
FROM extended
WHERE active = '1'
UNION ALL
SELECT
  refsetId,
  referencedComponentId,
  mapTarget,
  1,
  1,
  NULL,
  NULL
FROM simple
WHERE active = '1'
"""

# A target such as S82.? leaves a 7th character open: it is the code above, S82.
_MAP = f"""
SELECT
  source,
  nullif(rtrim(rtrim(mapTarget, '?'), '.'), '') AS target,
  CASE WHEN mapTarget IS NULL OR mapTarget = '' THEN 'unmatched' ELSE 'relatedto' END AS equivalence,
  map_group,
  map_priority,
  rule,
  advice
FROM ({_ALL_MAPS})
WHERE refset = $refset
"""

_TABLES: dict[TableName, str] = {
    "designation": _DESIGNATIONS,
    "edge": _EDGES,
    "history": _HISTORY,
}
