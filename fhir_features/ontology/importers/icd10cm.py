"""ICD-10-CM as CMS and NCHS publish it: the order file, the tabular list (XML), or the conversion table.

The order file has fixed columns: code without dot in 7 to 13, 0 or 1 for header or billable in 15, title from 78 on.
The conversion table (as CSV) says for each new code which codes it takes the place of, as lists and ranges with mixed
separators.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.errors import OntologyError, UsageError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.icd10cm import Code, tabular_codes
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.systems import code_forms, systems
from fhir_features.ontology.write import write_artifact

if TYPE_CHECKING:
    import duckdb

_LICENCE = "US-public-domain"


def import_release(request: Import) -> list[Manifest]:
    """Import a release, or the history that a conversion table gives. The fiscal year is in the name, or --version."""
    import duckdb

    file = _release_file(request.path)
    connection = duckdb.connect()
    request.progress(file.name)
    if file.suffix == ".csv":
        return [_import_history(connection, request, file)]
    codes = list(tabular_codes(file.read_bytes())) if file.suffix == ".xml" else _order_codes(file)
    return [_import_codes(connection, request, file, codes)]


def _release_file(path: Path) -> Path:
    files = (
        [path]
        if path.is_file()
        else sorted(f for f in path.rglob("*") if re.search(r"order|tabular|conversion", f.name))
    )
    files = [file for file in files if file.suffix in (".txt", ".xml", ".csv")]
    if len(files) != 1:
        raise UsageError(
            f"{path} has {len(files)} order files, tabular lists and conversion tables: name the file itself"
        )
    return files[0]


def _order_codes(file: Path) -> list[Code]:
    rows: dict[str, tuple[str, bool]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        code, valid, title = line[6:13].strip(), line[14:15], line[77:].strip()
        forms = code_forms(systems()["icd10cm"], code) if code else ()
        if not forms or valid not in ("0", "1") or not title:
            raise OntologyError(f"{file}: line {number} is not one of an ICD-10-CM order file; get the file again")
        rows[forms[0]] = (title, valid == "1")
    return [Code(code, title, _parent(code, rows), billable) for code, (title, billable) in rows.items()]


def _parent(code: str, known: dict[str, tuple[str, bool]]) -> str | None:
    for length in range(len(code) - 1, 2, -1):
        shorter = code[:length].rstrip(".")
        if shorter in known:
            return shorter
    return None


def _import_codes(connection: duckdb.DuckDBPyConnection, request: Import, file: Path, codes: list[Code]) -> Manifest:
    import pyarrow as pa

    year = _fiscal_year(request, file)
    columns = {
        "code": [code.code for code in codes],
        "display": [code.display for code in codes],
        "parent": pa.array([code.parent for code in codes], pa.string()),
        "billable": [code.billable for code in codes],
    }
    connection.register("codes", pa.table(columns))
    manifest = external_manifest(
        system="icd10cm",
        version=f"FY{year}",
        title=f"ICD-10-CM, fiscal year {year}",
        content="complete",
        licence=_LICENCE,
        sources=[file],
    ).model_copy(update={"effective_from": dt.date(year - 1, 10, 1), "effective_to": dt.date(year, 10, 1)})
    tables: dict[TableName, str] = {
        "concept": "SELECT code, display, TRUE AS active, billable AS selectable\nFROM codes",
        "edge": "SELECT code AS child, parent, 'is_a' AS relation\nFROM codes\nWHERE parent IS NOT NULL",
    }
    return write_artifact(connection, request.target, manifest, tables)


def _fiscal_year(request: Import, file: Path) -> int:
    match = re.search(r"20\d\d", request.version or file.name)
    if match is None:
        raise UsageError(f"the name of {file} does not say its fiscal year: give it with --version, such as FY2027")
    return int(match[0])


def _import_history(connection: duckdb.DuckDBPyConnection, request: Import, file: Path) -> Manifest:
    import pyarrow as pa

    successors: dict[str, set[str]] = defaultdict(set)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.reader(stream), 1):
            current = code_forms(systems()["icd10cm"], row[0]) if row else ()
            if current and len(row) < 3:
                raise OntologyError(f"{file}: line {number} has no previous code; get the file again")
            for previous in _previous_codes(row[2]) if current else ():
                successors[previous].add(current[0])
    if not successors:
        raise OntologyError(f"{file}: line 1 is not of a conversion table: current code, effective, previous code(s)")
    rows = [
        (code, "replaced_by" if len(found) == 1 else "split", successor)
        for code, found in sorted(successors.items())
        for successor in sorted(found)
        if successor != code
    ]
    columns = ("code", "kind", "successor")
    connection.register("rows", pa.table({name: [row[i] for row in rows] for i, name in enumerate(columns)}))
    year = _fiscal_year(request, file)
    manifest = external_manifest(
        kind="history",
        system="icd10cm",
        target_system="icd10cm",
        version=f"conversion-FY{year}",
        title=f"ICD-10-CM conversion table, fiscal year {year}",
        content="fragment",
        licence=_LICENCE,
        sources=[file],
    )
    return write_artifact(connection, request.target, manifest, {"history": "FROM rows"})


_CODE = r"[A-Z][0-9A][0-9A-Z](?:\.[0-9A-Z]{1,4})?"
_RANGE = re.compile(rf"({_CODE})(?:\s*-\s*({_CODE}))?")


def _previous_codes(text: str) -> list[str]:
    """The codes of a list such as `H02.101-H02.106; H02.109 and H02.10`; a range counts in its last digits,
    of one that ends in letters only the ends are taken."""
    codes: list[str] = []
    for first, last in _RANGE.findall(text.upper()):
        codes += _between(first, last) if last else [first]
    return codes


def _between(first: str, last: str) -> list[str]:
    digits = re.search(r"\d+$", first)
    end = re.search(r"\d+$", last)
    if digits is None or end is None or first[: digits.start()] != last[: end.start()] or len(first) != len(last):
        return [first, last]
    width = len(digits[0])
    return [f"{first[: digits.start()]}{number:0{width}d}" for number in range(int(digits[0]), int(end[0]) + 1)]
