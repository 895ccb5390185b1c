"""How official releases become artifacts: whole and right, or refused with file and line."""

import json
import shutil
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from releases import DISEASE, FEVER, OLD_FEVER, ROOT, SPLIT, VAGUE, athena, rf2, rrf

from fhir_features.errors import DefinitionError, OntologyError, UsageError
from fhir_features.ontology import Concept, Ontologies, concept_set, load_ontologies
from fhir_features.ontology.artifacts import LOCK_FILE, make_lock
from fhir_features.ontology.importers import import_release
from fhir_features.ontology.importers.fhir import value_set


def imported(kind: str, release: Path, home: Path, version: str | None = None) -> Ontologies:
    import_release(kind, release, home, version)
    return locked(home)


def locked(home: Path) -> Ontologies:
    (home / LOCK_FILE).write_text(make_lock(home).text(), encoding="utf-8")
    return load_ontologies(home)


def codes(ontologies: Ontologies, concept: str, **how: bool) -> set[str]:
    return {found.code for found in ontologies.expand(concept_set(concept, **how))}


def statuses(ontologies: Ontologies, system: str, code: str) -> set[tuple[str, str | None]]:
    return {(row.status, row.code) for row in ontologies.resolve_code(system, code)}


def test_rf2_gives_hierarchy_names_and_the_state_at_its_date(tmp_path: Path) -> None:
    ontologies = imported("rf2", rf2(tmp_path / "release"), tmp_path / "home")
    assert codes(ontologies, f"snomed:{ROOT}", descendants=True) == {ROOT, DISEASE, FEVER, SPLIT}
    assert codes(ontologies, f"snomed:{DISEASE}", descendants=True) == {DISEASE, FEVER, SPLIT}
    assert [hit.concept.code for hit in ontologies.search("daily fever")] == [FEVER]
    row, *_ = ontologies.resolve_code("snomed", FEVER, date(2020, 6, 1))
    assert (row.status, row.display) == ("valid", 'Fever "quotidian (disorder)')


def test_rf2_history_is_followed_only_where_it_is_safe(tmp_path: Path) -> None:
    ontologies = imported("rf2", rf2(tmp_path / "release"), tmp_path / "home")
    assert {("followed", FEVER), ("retired", OLD_FEVER), ("mapped", "R50.9")} <= statuses(
        ontologies, "snomed", OLD_FEVER
    )
    assert statuses(ontologies, "snomed", VAGUE) == {("valid", VAGUE), ("retired", VAGUE)}
    assert ontologies.candidates(Concept("snomed", VAGUE)) == [
        ("possibly_equivalent", Concept("snomed", FEVER)),
        ("possibly_equivalent", Concept("snomed", SPLIT)),
    ]


def periods(ontologies: Ontologies, system: str, code: str) -> list[tuple[str, str, tuple[str, ...]]]:
    rows = [row for row in ontologies.resolve_code(system, code) if row.code == code]
    return [(str(row.valid_from), row.status, row.flags) for row in rows]


def test_rf2_full_says_what_a_concept_was_on_a_date(tmp_path: Path) -> None:
    ontologies = imported("rf2", rf2(tmp_path / "release"), tmp_path / "home")
    assert periods(ontologies, "snomed", OLD_FEVER) == [
        ("None", "valid", ("outside_releases",)),
        ("2020-01-31", "valid", ()),
        ("2021-01-31", "retired", ()),
    ]
    before, after = (
        [row.code for row in ontologies.resolve_code("snomed", OLD_FEVER, on)]
        for on in (date(2020, 6, 1), date(2021, 6, 1))
    )
    assert (before, after) == ([OLD_FEVER], [FEVER, OLD_FEVER, "R50.9", "S82", "X76EI"])


def test_rf2_full_does_not_know_a_concept_before_it_was_made(tmp_path: Path) -> None:
    release = rf2(tmp_path / "release")
    (concepts,) = release.rglob("sct2_Concept_Full*")
    lines = concepts.read_text(encoding="utf-8").replace(f"{SPLIT}\t20200131", f"{SPLIT}\t20200731")
    concepts.write_text(lines, encoding="utf-8", newline="")
    ontologies = imported("rf2", release, tmp_path / "home")
    assert periods(ontologies, "snomed", SPLIT) == [("None", "not_yet_valid", ()), ("2020-07-31", "valid", ())]


def test_a_snapshot_says_what_a_concept_is_at_its_date(tmp_path: Path) -> None:
    release = rf2(tmp_path / "release")
    for file in sorted(release.rglob("*Full*.txt")):
        file.rename(file.with_name(file.name.replace("Full", "Snapshot")))
    ontologies = imported("rf2", release, tmp_path / "home")
    assert periods(ontologies, "snomed", OLD_FEVER) == [("None", "retired", ())]


def test_a_coding_is_judged_by_the_version_that_it_names(tmp_path: Path) -> None:
    ontologies = imported("rf2", rf2(tmp_path / "release"), tmp_path / "home")
    edition = "http://snomed.info/sct/900000000000207008/version/"
    for version, status, flags in (
        ("20200731", "valid", ()),
        ("20210131", "retired", ()),
        ("latest", "retired", ("version_not_in_lock",)),
    ):
        rows = ontologies.resolve_code(f"{edition}{version}", OLD_FEVER, date(2024, 1, 1))
        assert [(row.status, row.flags) for row in rows if row.code == OLD_FEVER] == [(status, flags)]


def test_rf2_maps_keep_groups_rules_and_the_lack_of_a_target(tmp_path: Path) -> None:
    ontologies = imported("rf2", rf2(tmp_path / "release"), tmp_path / "home")
    fever = statuses(ontologies, "snomed", FEVER)
    assert {("mapped", "R50.9"), ("mapped", "S82")} <= fever, "two groups are two codes, both needed"
    assert ("mapped", "X76EI") in fever, "a simple map"
    assert {("candidate", "O26.90"), ("mapped", "R68.83")} <= statuses(ontologies, "snomed", SPLIT)
    assert statuses(ontologies, "snomed", DISEASE) == {("valid", DISEASE)}


def test_rrf_reaches_every_drug_from_its_ingredient(tmp_path: Path) -> None:
    ontologies = imported("rrf", rrf(tmp_path / "release"), tmp_path / "home", "20251006")
    assert {"1", "2", "3", "4"} <= codes(ontologies, "rxnorm:1", ingredient=True)
    assert statuses(ontologies, "ndc", "0071-0155-23") == {("unverified", "00071015523"), ("mapped", "3")}
    assert statuses(ontologies, "rxnorm", "5") == {("retired", "5"), ("followed", "1")}
    assert [hit.concept.code for hit in ontologies.search("testamine tablet", "rxnorm")] == ["3", "4"]


def test_rrf_without_the_archive_is_the_prescribable_content(tmp_path: Path) -> None:
    release = rrf(tmp_path / "release")
    (release / "rrf/RXNATOMARCHIVE.RRF").unlink()
    ontologies = imported("rrf", release, tmp_path / "home", "20251006")
    assert statuses(ontologies, "rxnorm", "3") == {("valid", "3")}
    (row,) = ontologies.resolve_code("rxnorm", "5")
    assert row.flags == ("unknown_code",)


def test_an_ndc_without_hyphens_is_taken_only_if_one_reading_exists(tmp_path: Path) -> None:
    ontologies = imported("rrf", rrf(tmp_path / "release"), tmp_path / "home", "20251006")
    assert ("mapped", "3") in statuses(ontologies, "ndc", "0071015523")
    (row,) = ontologies.resolve_code("ndc", "9999915523")
    assert (row.status, row.flags) == ("unmapped", ("ambiguous_ndc",))


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


def test_loinc_gives_units_and_replacements(tmp_path: Path) -> None:
    header = "LOINC_NUM,COMPONENT,CLASS,STATUS,SHORTNAME,LONG_COMMON_NAME,EXAMPLE_UCUM_UNITS,VersionLastChanged\n"
    (tmp_path / "Loinc.csv").write_text(
        header
        + '"2345-7","Glucose","CHEM","ACTIVE","Glucose SerPl","Glucose, serum","mg/dL; mmol/L","2.9"\n'
        + '"1742-6","ALT","CHEM","DEPRECATED","ALT","ALT, old","U/L","2.10"\n',
        encoding="utf-8",
    )
    (tmp_path / "MapTo.csv").write_text("LOINC,MAP_TO,COMMENT\n1742-6,2345-7,\n", encoding="utf-8")
    ontologies = imported("loinc", tmp_path, tmp_path / "home")
    assert "loinc@2.10" in {manifest.id for manifest in ontologies.manifests}, "2.10 comes after 2.9"
    assert ontologies.expected_unit(Concept("loinc", "2345-7")) == "mg/dL"
    assert ("followed", "2345-7") in statuses(ontologies, "loinc", "1742-6")
    with pytest.raises(DefinitionError, match="is in no release of LOINC"):
        ontologies.check(concept_set("loinc:98979-8"))


def test_athena_gives_edges_history_and_maps(tmp_path: Path) -> None:
    ontologies = imported("athena", athena(tmp_path / "release"), tmp_path / "home", "20210131")
    assert codes(ontologies, f"snomed:{DISEASE}", descendants=True) == {DISEASE, FEVER}
    assert ("followed", FEVER) in statuses(ontologies, "snomed", OLD_FEVER)
    assert ("mapped", FEVER) in statuses(ontologies, "icd9cm", "780.60")
    assert periods(ontologies, "snomed", OLD_FEVER) == [
        ("None", "valid", ("outside_releases",)),
        ("2002-01-31", "valid", ()),
        ("2021-02-01", "retired", ()),
    ]


def code_system(folder: Path) -> Path:
    file = folder / "local.json"
    children = [{"code": "44054006", "display": "Diabetes"}]
    resource = {
        "resourceType": "CodeSystem",
        "url": "http://snomed.info/sct",
        "version": "local-1",
        "name": "Local",
        "content": "fragment",
        "concept": [{"code": "73211009", "display": "Any diabetes", "concept": children}],
    }
    file.write_text(json.dumps(resource), encoding="utf-8")
    return file


def test_a_fhir_code_system_brings_its_hierarchy(tmp_path: Path) -> None:
    ontologies = imported("fhir", code_system(tmp_path), tmp_path / "home")
    assert codes(ontologies, "snomed:73211009", descendants=True) == {"73211009", "44054006"}


def test_a_fhir_concept_map_translates_the_codes_of_the_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "map.json"
    elements = [
        {"code": "GLU", "target": [{"code": "2345-7", "equivalence": "equivalent"}]},
        {"code": "XXX", "target": [{"equivalence": "unmatched"}]},
    ]
    group = {"source": "http://loinc.org", "target": "http://hl7.org/fhir/sid/icd-10-cm", "element": elements}
    file.write_text(json.dumps({"resourceType": "ConceptMap", "version": "1", "group": [{**group, "source": "urn:x"}]}))
    with pytest.raises(OntologyError, match="code system 'urn:x' is not known: add it to systems"):
        import_release("fhir", file, tmp_path / "home")
    group = {**group, "target": "http://snomed.info/sct"}
    group["element"] = [{"code": "2345-7", "target": [{"code": FEVER, "equivalence": "wider"}]}]
    file.write_text(json.dumps({"resourceType": "ConceptMap", "version": "1", "group": [group]}))
    ontologies = imported("fhir", file, tmp_path / "home")
    assert ("mapped", FEVER) in statuses(ontologies, "loinc", "2345-7")


def test_a_fhir_value_set_is_read_as_a_concept_set(tmp_path: Path, ontologies: Ontologies) -> None:
    file = tmp_path / "valueset.json"
    compose = {
        "include": [
            {
                "system": "http://hl7.org/fhir/sid/icd-10-cm",
                "filter": [{"property": "concept", "op": "is-a", "value": "E11"}],
            },
            {"system": "http://snomed.info/sct", "concept": [{"code": "44054006"}]},
        ],
        "exclude": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "concept": [{"code": "E11.A"}]}],
    }
    file.write_text(json.dumps({"resourceType": "ValueSet", "compose": compose}), encoding="utf-8")
    meant = (concept_set("icd10cm:E11", descendants=True) | concept_set("snomed:44054006")) - concept_set(
        "icd10cm:E11.A"
    )
    assert ontologies.expand(value_set(file)) == ontologies.expand(meant)
    compose["include"] = [{"system": "http://snomed.info/sct"}]
    file.write_text(json.dumps({"resourceType": "ValueSet", "compose": compose}), encoding="utf-8")
    with pytest.raises(DefinitionError, match="a whole system or another ValueSet cannot be taken"):
        value_set(file)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def lose_a_field(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[2] = "x\t1\n" if "\t" in lines[2] else "x|1|\n"
    file.write_text("".join(lines), encoding="utf-8", newline="")


def replacing(old: str, new: str) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8", newline="")

    return harm


def lose_the_second_line(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]), encoding="utf-8", newline="")


@pytest.mark.parametrize(
    ("kind", "make", "file", "harm", "says"),
    [
        ("rf2", rf2, "sct2_Concept_Full_INT_20210131.txt", cut_off, "line 9 is cut off"),
        ("rf2", rf2, "sct2_Description_Full-en_INT_20210131.txt", lose_a_field, "line 3 does not have the 9 fields"),
        (
            "rf2",
            rf2,
            "sct2_Concept_Full_INT_20210131.txt",
            lose_the_second_line,
            "line 2: a description of a concept that is not there",
        ),
        ("rf2", rf2, "sct2_Relationship_Full_INT_20210131.txt", Path.unlink, "has no sct2_Relationship_Full"),
        ("rf2", rf2, "sct2_Concept_Full_INT_20210131.txt", replacing("20200131", "20201331"), "line 2: effectiveTime"),
        (
            "rf2",
            rf2,
            "der2_iisssccRefset_ExtendedMapFull_INT_20210131.txt",
            replacing("\t1\t1\tTRUE", "\t1\tx\tTRUE"),
            "line 2: mapPriority 'x'",
        ),
        (
            "rf2",
            rf2,
            "der2_sRefset_SimpleMapFull_INT_20210131.txt",
            replacing(FEVER, ROOT[:-1] + "9"),
            "line 2: a map of",
        ),
        ("athena", athena, "CONCEPT.csv", replacing("20020131", "2002"), "line 2: valid_start_date '2002'"),
        ("rrf", rrf, "RXNREL.RRF", cut_off, "line 4 is cut off"),
        ("rrf", rrf, "RXNCONSO.RRF", lose_a_field, "line 3 does not have the 19 fields"),
        ("rrf", rrf, "RXNCONSO.RRF", lose_the_second_line, "line 2: a relation of a concept"),
        (
            "athena",
            athena,
            "CONCEPT.csv",
            lose_the_second_line,
            "line 2: a relationship of a concept that is not there",
        ),
    ],
)
def test_a_damaged_release_is_refused_whole(
    tmp_path: Path,
    kind: str,
    make: Callable[[Path], Path],
    file: str,
    harm: Callable[[Path], None],
    says: str,
) -> None:
    release = make(tmp_path / "release")
    (found,) = release.rglob(file)
    harm(found)
    with pytest.raises(OntologyError) as refused:
        import_release(kind, release, tmp_path / "home", "1")
    assert says in str(refused.value)
    assert list((tmp_path / "home").rglob("*")) == []


def test_a_zip_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", rf2(tmp_path / "release")))
    content = bytearray(archive.read_bytes())
    inside = content.index(b"sct2_Concept_Full_INT_20210131.txt") + 50
    content[inside : inside + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(OntologyError, match="not a whole zip file"):
        import_release("rf2", archive, tmp_path / "home")


def test_a_dry_run_checks_all_and_writes_nothing(tmp_path: Path) -> None:
    manifests = import_release("rf2", rf2(tmp_path / "release"), tmp_path / "home", dry_run=True)
    assert manifests[0].id == "snomed@INT-20210131"
    assert list((tmp_path / "home").rglob("*")) == []


def test_a_zip_is_read_as_the_folder_in_it(tmp_path: Path) -> None:
    rf2(tmp_path / "release")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "release")
    ontologies = imported("rf2", Path(archive), tmp_path / "home")
    assert "snomed@INT-20210131" in {manifest.id for manifest in ontologies.manifests}


def test_a_release_never_changes_once_it_is_imported(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = imported("rrf", rrf(tmp_path / "release"), home, "20251006").lock_id
    assert imported("rrf", tmp_path / "release", home, "20251006").lock_id == first, "the same content is no change"
    replacing("testamine 5 MG Oral Tablet", "other")(tmp_path / "release/rrf/RXNCONSO.RRF")
    with pytest.raises(OntologyError, match="a release never changes"):
        import_release("rrf", tmp_path / "release", home, "20251006")


def test_what_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no importer for 'rf'"):
        import_release("rf", tmp_path, tmp_path)
    with pytest.raises(UsageError, match="there is nothing at"):
        import_release("rf2", tmp_path / "missing", tmp_path)
    with pytest.raises(UsageError, match="give it with --version"):
        import_release("rrf", rrf(tmp_path / "release"), tmp_path / "home")
    with pytest.raises(UsageError, match="cannot be a version"):
        import_release("rrf", tmp_path / "release", tmp_path / "home", "../../x")
