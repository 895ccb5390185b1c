"""The LOINC table and its MapTo (https://loinc.org/kb/users-guide/loinc-database-structure/): quoted CSV."""

from __future__ import annotations

from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.importers.reading import find_file, find_optional, read_table
from fhir_features.ontology.write import write_artifact

_COLUMNS = (
    "LOINC_NUM",
    "COMPONENT",
    "CLASS",
    "STATUS",
    "SHORTNAME",
    "LONG_COMMON_NAME",
    "EXAMPLE_UCUM_UNITS",
    "VersionLastChanged",
)


def import_release(request: Import) -> list[Manifest]:
    """Import the code system. Its version is the latest VersionLastChanged of a term, else what the user names."""
    import duckdb

    connection = duckdb.connect()
    terms = find_file(request.path, "Loinc.csv")
    map_to = find_optional(request.path, "MapTo.csv")
    request.progress(terms.name)
    read_table(connection, "terms", terms, _COLUMNS, delimiter=",", header=True, quoted=True)
    if map_to:
        read_table(connection, "map_to", map_to, ("LOINC", "MAP_TO"), delimiter=",", header=True, quoted=True)
    else:
        connection.execute("CREATE TABLE map_to (LOINC VARCHAR, MAP_TO VARCHAR)")
    found = connection.execute(_VERSION).fetchone()
    version = request.version or (found[0] if found else "")
    manifest = external_manifest(
        system="loinc",
        version=version,
        title=f"LOINC {version}",
        content="complete",
        licence="LOINC",
        sources=[file for file in (terms, map_to) if file],
    )
    request.progress("writing")
    return [write_artifact(connection, request.target, manifest, _TABLES)]


_VERSION = """
SELECT VersionLastChanged
FROM terms
ORDER BY list_transform(string_split(VersionLastChanged, '.'), part -> TRY_CAST(part AS INTEGER)) DESC NULLS LAST
LIMIT 1
"""

_TABLES: dict[TableName, str] = {
    "concept": """
SELECT
  LOINC_NUM AS code,
  LONG_COMMON_NAME AS display,
  CLASS AS kind,
  STATUS <> 'DEPRECATED' AS active,
  TRUE AS selectable,
  nullif(trim(string_split(EXAMPLE_UCUM_UNITS, ';')[1]), '') AS unit
FROM terms
""",
    "designation": """
SELECT LOINC_NUM AS code, 'en' AS language, SHORTNAME AS text
FROM terms
WHERE SHORTNAME <> ''
UNION
SELECT LOINC_NUM, 'en', COMPONENT
FROM terms
WHERE COMPONENT <> ''
""",
    # A term that maps to several others must be judged by a person.
    "history": """
SELECT
  LOINC AS code,
  CASE WHEN count(*) OVER (PARTITION BY LOINC) = 1 THEN 'replaced_by' ELSE 'possibly_equivalent' END AS kind,
  MAP_TO AS successor
FROM map_to
""",
}
