"""RxNorm in Rich Release Format (https://www.nlm.nih.gov/research/umls/rxnorm/docs/techdoc.html).

Fields are divided by `|`, with one more at the end of each line, without header or quoting. A relation reads "RXCUI2
RELA RXCUI1". Only RxNorm's own names and relations (SAB RXNORM) are taken; obsolete and merged concepts stay as retired
ones.
"""

from __future__ import annotations

import re

from fhir_features.errors import UsageError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.importers.reading import find_file, find_optional, read_table, refuse_rows
from fhir_features.ontology.write import write_artifact

_CONSO = "RXCUI LAT TS LUI STT SUI ISPREF RXAUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF END".split()
_REL = "RXCUI1 RXAUI1 STYPE1 REL RXCUI2 RXAUI2 STYPE2 RELA RUI SRUI SAB SL DIR RG SUPPRESS CVF END".split()
_SAT = "RXCUI LUI SUI RXAUI STYPE CODE ATUI SATUI ATN SAB ATV SUPPRESS CVF END".split()
_ARCHIVE = (
    "RXAUI AUI STR ARCHIVE_TIMESTAMP CREATED_TIMESTAMP UPDATED_TIMESTAMP CODE IS_BRAND LAT LAST_RELEASED SAUI VSAB "
    "RXCUI SAB TTY MERGED_TO_RXCUI END"
).split()
_LICENCE = "UMLS (RxNorm)"


def import_release(request: Import) -> list[Manifest]:
    """Import the code system and the map from NDC. The version comes from RXNSAB.RRF, else from the user."""
    import duckdb

    connection = duckdb.connect()
    conso, rel = find_file(request.path, "RXNCONSO.RRF"), find_file(request.path, "RXNREL.RRF")
    sat, archive = find_file(request.path, "RXNSAT.RRF"), find_optional(request.path, "RXNATOMARCHIVE.RRF")
    version = request.version or _version(request)
    for name, file, columns in (("conso", conso, _CONSO), ("rel", rel, _REL), ("sat", sat, _SAT)):
        request.progress(file.name)
        read_table(connection, name, file, columns, delimiter="|", header=False)
    if archive:
        request.progress(archive.name)
        read_table(connection, "archive", archive, _ARCHIVE, delimiter="|", header=False)
    else:
        archive_columns = ", ".join(f'"{column}" VARCHAR' for column in _ARCHIVE)
        connection.execute(f"CREATE TABLE archive ({archive_columns})")
    connection.execute(f"CREATE TABLE concepts AS\n{_CONCEPTS}")
    for end in ("RXCUI1", "RXCUI2"):
        query = f"SELECT line, {end}\nFROM ({_RELATIONS})\nWHERE {end} NOT IN (SELECT code FROM concepts)"
        refuse_rows(connection, rel, "a relation of a concept that RXNCONSO.RRF does not have,", query)
    drugs = external_manifest(
        system="rxnorm",
        version=version,
        title=f"RxNorm {version}",
        content="complete",
        licence=_LICENCE,
        sources=[file for file in (conso, rel, archive) if file],
    )
    codes = external_manifest(
        kind="map",
        system="ndc",
        target_system="rxnorm",
        version=version,
        title=f"NDC to RxNorm {version}",
        content="fragment",
        licence=_LICENCE,
        sources=[sat],
    )
    request.progress("writing")
    return [
        write_artifact(connection, request.target, drugs, _TABLES),
        write_artifact(connection, request.target, codes, {"map": _NDC}),
    ]


def _version(request: Import) -> str:
    file = find_optional(request.path, "RXNSAB.RRF")
    match = re.search(r"\|RXNORM_(\w+)\|", file.read_text(encoding="utf-8")) if file else None
    if match is None:
        raise UsageError(
            f"{request.path} has no RXNSAB.RRF that says its version: give it with --version, such as 20251006"
        )
    return match[1]


# One name a concept: the names of these types are other names of it (TTY, RxNorm appendix 5).
_OTHER_NAMES = "('SY', 'TMSY', 'PSN', 'ET')"

_CONCEPTS = f"""
SELECT
  RXCUI AS code,
  any_value(STR ORDER BY SUPPRESS, TTY, STR) AS display,
  any_value(TTY ORDER BY SUPPRESS, TTY, STR) AS kind,
  bool_or(SUPPRESS = 'N') AS active,
  bool_or(SUPPRESS = 'N') AS selectable
FROM conso
WHERE SAB = 'RXNORM'
  AND TTY NOT IN {_OTHER_NAMES}
GROUP BY RXCUI
"""

_RETIRED = """
SELECT
  archive.RXCUI AS code,
  any_value(archive.STR ORDER BY archive.TTY, archive.STR) AS display,
  any_value(archive.TTY ORDER BY archive.TTY, archive.STR) AS kind,
  FALSE AS active,
  FALSE AS selectable
FROM archive
ANTI JOIN concepts ON concepts.code = archive.RXCUI
WHERE archive.SAB = 'RXNORM'
GROUP BY archive.RXCUI
"""

_RELATIONS = """
SELECT
  line,
  RXCUI1,
  RXCUI2,
  RELA
FROM rel
WHERE SAB = 'RXNORM'
  AND SUPPRESS = 'N'
  AND RXCUI1 IS NOT NULL
  AND RXCUI2 IS NOT NULL
  AND RELA IN (
    'has_ingredient', 'has_precise_ingredient', 'consists_of', 'contains', 'tradename_of', 'form_of', 'has_part', 'isa'
  )
"""

_MERGED = """
SELECT
  RXCUI AS code,
  CASE WHEN count(DISTINCT MERGED_TO_RXCUI) = 1 THEN 'merged' ELSE 'split' END AS kind,
  unnest(list_sort(list(DISTINCT MERGED_TO_RXCUI))) AS successor
FROM archive
WHERE SAB = 'RXNORM'
  AND MERGED_TO_RXCUI <> RXCUI
  AND RXCUI NOT IN (SELECT code FROM concepts)
GROUP BY RXCUI
"""

_TABLES: dict[TableName, str] = {
    "concept": f"FROM concepts\nUNION ALL BY NAME\n{_RETIRED}",
    "designation": f"SELECT RXCUI AS code, 'en' AS language, STR AS text\nFROM conso\nWHERE SAB = 'RXNORM'\n"
    f"  AND TTY IN {_OTHER_NAMES}",
    "edge": "SELECT DISTINCT\n  RXCUI2 AS child,\n  RXCUI1 AS parent,\n"
    f"  CASE RELA WHEN 'isa' THEN 'is_a' ELSE RELA END AS relation\nFROM ({_RELATIONS})",
    "history": _MERGED,
}

_NDC = """
SELECT DISTINCT
  ATV AS source,
  RXCUI AS target,
  'equivalent' AS equivalence,
  1 AS map_group,
  1 AS map_priority
FROM sat
WHERE ATN = 'NDC'
  AND SAB = 'RXNORM'
  AND regexp_full_match(ATV, '[0-9]{11}')
"""
