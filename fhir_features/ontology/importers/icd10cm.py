"""ICD-10-CM as CMS and NCHS publish it: the order file, the tabular list (XML), or the conversion table.

The order file has fixed columns: its own number in 1 to 5, code without dot in 7 to 13, 0 or 1 for header or billable
in 15, title from 78 on. The conversion table (Excel, CSV or text with tabs) says for each new code which codes it takes
the place of, as lists and ranges with mixed separators.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from fhir_features.errors import OntologyError, UsageError
from fhir_features.ontology.artifacts import Manifest, TableName, found_manifests, table_sql
from fhir_features.ontology.icd10cm import SPLIT_CODES, Code, tabular_codes
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.importers.reading import check_last_line
from fhir_features.ontology.systems import code_forms, shipped_folder, systems
from fhir_features.ontology.workbook import sheets
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
    if file.suffix in (".csv", ".xlsx") or "conversion" in file.name:
        return [_import_history(connection, request, file)]
    codes = _tabular_codes(file) if file.suffix == ".xml" else _order_codes(file)
    return [_import_codes(connection, request, file, codes)]


def _release_file(path: Path) -> Path:
    files = (
        [path]
        if path.is_file()
        else sorted(f for f in path.rglob("*") if re.search(r"order|tabular|conversion", f.name))
    )
    files = [file for file in files if file.suffix in (".txt", ".xml", ".csv", ".xlsx")]
    if len(files) != 1:
        raise UsageError(
            f"{path} has {len(files)} order files, tabular lists and conversion tables: name the file itself"
        )
    return files[0]


def _tabular_codes(file: Path) -> list[Code]:
    try:
        return list(tabular_codes(file.read_bytes()))
    except ElementTree.ParseError as error:
        raise OntologyError(f"{file}: line {error.position[0]} is not of a whole file; get it again") from None


def _order_codes(file: Path) -> list[Code]:
    check_last_line(file)
    rows: dict[str, tuple[str, bool]] = {}
    for number, raw in enumerate(file.read_bytes().splitlines(), 1):
        line = raw.decode("utf-8", errors="replace")
        code, valid, title = line[6:13].strip(), line[14:15], line[77:].strip()
        forms = code_forms(systems()["icd10cm"], code) if code else ()
        if not forms or valid not in ("0", "1") or not title or forms[0] in rows or "\ufffd" in line:
            raise OntologyError(f"{file}: line {number} is not one of an ICD-10-CM order file; get the file again")
        if line[:5] != f"{number:05d}":
            raise OntologyError(f"{file}: line {number} has the number {line[:5]}; lines are missing, get it again")
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
    predecessor = _releases_at_hand(request).get(f"icd10cm@FY{year - 1}")
    _check_size(request, file, year, len(codes))
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
    ).model_copy(
        update={
            "effective_from": dt.date(year - 1, 10, 1),
            "effective_to": dt.date(year, 10, 1),
            "predecessor": predecessor[0].id if predecessor else None,
        }
    )
    tables: dict[TableName, str] = {
        "concept": "SELECT code, display, TRUE AS active, billable AS selectable\nFROM codes",
        "edge": "SELECT code AS child, parent, 'is_a' AS relation\nFROM codes\nWHERE parent IS NOT NULL",
    }
    if predecessor:
        before = table_sql("concept", predecessor[1] / "concept.parquet")
        connection.execute(f"CREATE TABLE predecessor AS\nSELECT code, selectable AS billable\nFROM {before}")
        tables["history"] = SPLIT_CODES
    return write_artifact(connection, request.target, manifest, tables)


def _releases_at_hand(request: Import) -> dict[str, tuple[Manifest, Path]]:
    """The releases that are shipped and those that the site has imported, with their folders."""
    return {
        manifest.id: (manifest, home / manifest.folder)
        for home in (shipped_folder(), request.home)
        for manifest in found_manifests(home)
        if manifest.kind == "codesystem" and manifest.system == "icd10cm" and manifest.content == "complete"
    }


# A release differs from the next by some hundred codes of nearly a hundred thousand: one that is smaller by more than
# this share has lost its end.
_SMALLEST_SHARE = 0.95


def _check_size(request: Import, file: Path, year: int, codes: int) -> None:
    releases = [manifest for manifest, _ in _releases_at_hand(request).values() if manifest.effective_to]
    nearest = min(releases, key=lambda manifest: abs((manifest.effective_to or dt.date.max).year - year))
    (expected,) = [table.rows for table in nearest.tables if table.name == "concept"]
    if codes < _SMALLEST_SHARE * expected:
        raise OntologyError(
            f"{file}: line {codes} is the last, {nearest.id} has {expected:,} codes; lines are missing, get it again"
        )


def _fiscal_year(request: Import, file: Path) -> int:
    match = re.search(r"20\d\d", request.version or file.name)
    if match is None:
        raise UsageError(f"the name of {file} does not say its fiscal year: give it with --version, such as FY2027")
    return int(match[0])


def _import_history(connection: duckdb.DuckDBPyConnection, request: Import, file: Path) -> Manifest:
    import pyarrow as pa

    successors: dict[str, set[str]] = defaultdict(set)
    for number, current_code, previous_codes in _conversions(file):
        current = code_forms(systems()["icd10cm"], current_code)
        if current and not previous_codes:
            raise OntologyError(f"{file}: line {number} has no previous code; get the file again")
        for previous in _previous_codes(previous_codes) if current else ():
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


def _conversions(file: Path) -> Iterator[tuple[int, str, str]]:
    """The rows of a conversion table: number of the line, current code, previous codes; titles and headings too."""
    if file.suffix == ".xlsx":
        try:
            first_sheet, *_ = sheets(file.read_bytes())
        except ValueError:
            raise OntologyError(f"{file} is not a whole Excel workbook: get the file again") from None
        for number, cells in first_sheet:
            yield number, cells.get("A", ""), cells.get("C", "")
        return
    check_last_line(file)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, row in enumerate(csv.reader(stream, delimiter="," if file.suffix == ".csv" else "\t"), 1):
            current, _, previous, *_ = [*row, "", "", ""]
            yield number, current, previous


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
