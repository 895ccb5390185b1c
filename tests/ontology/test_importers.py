"""How official releases become artifacts: whole and right, or refused with file and line."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from imports import codes, imported, periods, statuses
from releases import DISEASE, FEVER, OLD_FEVER, ROOT, SPLIT, VAGUE, athena, rf2, rrf

from fhir_features.errors import DefinitionError, OntologyError, UsageError
from fhir_features.ontology import Concept, concept_set
from fhir_features.ontology.importers import import_release


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
