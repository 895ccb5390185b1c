"""How ICD-10-CM as it is published becomes artifacts: the order file, the tabular list, the conversion table."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from imports import codes, imported

from fhir_features.errors import OntologyError
from fhir_features.ontology import Concept, Ontologies, concept_set, load_ontologies
from fhir_features.ontology.importers import import_release


@pytest.fixture(scope="module")
def order_lines(ontologies: Ontologies) -> list[str]:
    """FY2027 as an order file has it, invented: FY2026, where A99 is divided and G35.E is new."""
    sql = "SELECT code, selectable, display\nFROM concept\nWHERE artifact = 'icd10cm@FY2026'"
    codes = {code: (billable, title) for code, billable, title in ontologies._catalog.query(sql)}
    codes |= {"A99": (False, "Fevers"), "A99.0X": (False, "Other fevers"), "A99.0X1": (True, "Fever, right")}
    codes["G35.E"] = (True, "New sclerosis")
    return [
        f"{n:05d} {code.replace('.', ''):<7} {int(billable)} {title[:60]:<60} {title}\n"
        for n, (code, (billable, title)) in enumerate(sorted(codes.items()), 1)
    ]


def order_file(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "icd10cm-order-2027.txt"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def next_year(order_lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a site that has imported FY2027."""
    folder = tmp_path_factory.mktemp("icd10cm")
    imported("icd10cm", order_file(folder, order_lines), folder / "home")
    return folder / "home"


def test_an_order_file_becomes_the_release_of_its_year(next_year: Path) -> None:
    ontologies = load_ontologies(next_year)
    cholera = [row for row in ontologies.resolve_code("icd10cm", "A00.0") if row.valid_from is not None]
    assert [(str(row.valid_from), row.status) for row in cholera][-1] == ("2027-10-01", "valid")
    assert codes(ontologies, "icd10cm:A99", descendants=True) == {"A99", "A99.0X", "A99.0X1"}
    assert codes(ontologies, "icd10cm:A99.0X", descendants=True) >= {"A99.0X", "A99.0X1"}, "a header may end in X"
    assert "S01.00XA" in codes(ontologies, "icd10cm:S01.00", descendants=True), "a placeholder is no header"
    new = {str(row.valid_from): row.status for row in ontologies.resolve_code("icd10cm", "G35.E")}
    assert new == {"None": "not_yet_valid", "2018-10-01": "not_yet_valid", "2026-10-01": "valid", "2027-10-01": "valid"}


def test_an_imported_release_knows_the_one_before_it(next_year: Path) -> None:
    ontologies = load_ontologies(next_year)
    assert next(m.predecessor for m in ontologies.manifests if m.id == "icd10cm@FY2027") == "icd10cm@FY2026"
    assert ontologies.candidates(Concept("icd10cm", "A99")) == [("split", Concept("icd10cm", "A99.0X1"))]
    (fever,) = ontologies.impacts([concept_set("icd10cm:A99")], "icd10cm@FY2026", "icd10cm@FY2027")
    assert [str(missed) for missed in fever.retired[0].missed] == ["icd10cm:A99.0X1"]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda lines: lines[:50_000], "line 50000 is the last, icd10cm@FY2026 has 98,186 codes"),
        (lambda lines: lines[:7] + lines[8:], "line 8 has the number 00009"),
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "line 98189 is cut off"),
        (lambda lines: [*lines[:3], lines[3][:70] + "\n"], "line 4 is not one of an ICD-10-CM order file"),
    ],
)
def test_a_damaged_order_file_is_refused(
    tmp_path: Path, order_lines: list[str], harm: Callable[[list[str]], list[str]], says: str
) -> None:
    with pytest.raises(OntologyError, match=says):
        import_release("icd10cm", order_file(tmp_path, harm(order_lines)), tmp_path / "home")


def test_a_tabular_list_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "icd10cm-tabular-2027.xml"
    file.write_text("<ICD10CM.tabular>\n<chapter>\n<section>", encoding="utf-8")
    with pytest.raises(OntologyError, match="line 3 is not of a whole file"):
        import_release("icd10cm", file, tmp_path / "home")


CONVERSIONS = [
    ("Current code assignment", "Effective", "Previous Code(s) Assignment"),
    ("T40.415A", "45017", "T40.4X5A"),
    ("Q51.21", "2021", "Q51.20-Q51.20; Q51.999 and Q51.998"),
]


def as_csv(file: Path) -> None:
    file.write_text("".join(f'{a},{b},"{c}"\n' for a, b, c in CONVERSIONS), encoding="utf-8")


def as_text(file: Path) -> None:
    file.write_text("".join(f"{a}\t{b}\t{c}\n" for a, b, c in CONVERSIONS), encoding="utf-8")


def as_workbook(file: Path) -> None:
    texts = [cell for row in CONVERSIONS for cell in (row[0], row[2])]
    strings = "".join(f"<si><t>{text}</t></si>" for text in texts)
    rows = "".join(
        f'<row r="{n}"><c r="A{n}" t="s"><v>{2 * n - 2}</v></c><c r="B{n}"><v>{day}</v></c>'
        f'<c r="C{n}" t="s"><v>{2 * n - 1}</v></c></row>'
        for n, (_, day, _) in enumerate(CONVERSIONS, 1)
    )
    sheet = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("xl/sharedStrings.xml", f"<sst {sheet}>{strings}</sst>")
        parts.writestr("xl/worksheets/sheet1.xml", f"<worksheet {sheet}><sheetData>{rows}</sheetData></worksheet>")


@pytest.mark.parametrize(("suffix", "write"), [("csv", as_csv), ("txt", as_text), ("xlsx", as_workbook)])
def test_a_conversion_table_makes_one_successor_safe(
    tmp_path: Path, suffix: str, write: Callable[[Path], None]
) -> None:
    table = tmp_path / f"icd10cm-conversion-table-FY2026.{suffix}"
    write(table)
    ontologies = imported("icd10cm", table, tmp_path / "home")
    assert ontologies.candidates(Concept("icd10cm", "T40.4X5A"))[0] == ("replaced_by", Concept("icd10cm", "T40.415A"))
    assert ontologies.candidates(Concept("icd10cm", "Q51.999")) == [("replaced_by", Concept("icd10cm", "Q51.21"))]


def test_a_conversion_table_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "icd10cm-conversion-table-FY2026.xlsx"
    as_csv(table)
    with pytest.raises(OntologyError, match="not a whole Excel workbook"):
        import_release("icd10cm", table, tmp_path / "home")
