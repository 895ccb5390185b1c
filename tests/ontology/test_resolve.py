"""What a CodeableConcept stands for, and when; nothing is ever dropped."""

import gzip
import json
import os
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from dictionaries import CODING, URI, codings
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_features.ontology import Concept, Ontologies, resolve
from fhir_features.ontology.artifacts import LOCK_FILE, make_lock
from fhir_features.ontology.facts import MAX_HOPS, Fact, MapRow
from fhir_features.ontology.systems import shipped_folder
from fhir_features.ontology.validity import Span

SYNTHEA = Path(__file__).parents[3] / "shared/data/synthea_r4"


def rows(ontologies: Ontologies, table: pa.Table) -> list[dict[str, object]]:
    found: list[dict[str, object]] = ontologies.resolve_dictionary(table).to_pylist()
    return found


def brief(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(row["rank"], row["status"], row["system"], row["code"]) for row in found]


def test_the_columns_are_those_of_the_contract(ontologies: Ontologies) -> None:
    schema = ontologies.resolve_dictionary(codings((1, "icd10cm", "I10"))).schema
    assert {field.name: str(field.type) for field in schema} == {
        "code_id": "int64",
        "valid_from": "date32[day]",
        "valid_to": "date32[day]",
        "rank": "int16",
        "system": "string",
        "code": "string",
        "display": "string",
        "status": "string",
        "via": "string",
        "flags": "list<item: string>",
    }


def test_a_code_is_judged_by_the_release_of_its_date(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd10cm", "G35", "Multiple sclerosis")))
    periods = [(str(row["valid_from"]), str(row["valid_to"]), row["status"], row["flags"]) for row in found]
    assert periods == [
        ("None", "2018-10-01", "valid", ["outside_releases"]),
        ("2018-10-01", "2025-10-01", "valid", []),
        ("2025-10-01", "2026-10-01", "retired", []),
        ("2026-10-01", "None", "retired", ["outside_releases"]),
    ]
    assert {row["code"] for row in found} == {"G35"}, "a code that was divided is not followed"


@pytest.mark.parametrize(
    ("version", "status", "flags"),
    [
        ("2025", "valid", []),
        ("FY2025", "valid", []),
        ("2026", "retired", []),
        ("2018-05-01", "valid", ["outside_releases"]),
        ("1999", "valid", ["version_not_in_lock"]),
    ],
)
def test_a_coding_is_judged_by_the_release_that_it_names(
    ontologies: Ontologies, version: str, status: str, flags: list[str]
) -> None:
    named = codings((1, "icd10cm", "G35")).to_pylist()
    found = rows(ontologies, pa.Table.from_pylist([{**named[0], "version": version}], schema=CODING))
    in_2024 = [
        row for row in found if (row["valid_from"] or date.min) <= date(2024, 1, 1) < (row["valid_to"] or date.max)
    ]  # type: ignore[operator]
    assert [(row["status"], row["flags"]) for row in in_2024] == [(status, flags)]


def test_what_is_to_be_said_of_a_coding_is_all_said(ontologies: Ontologies) -> None:
    named = codings((1, "icd10cm", "G35", "Essential hypertension")).to_pylist()
    found = rows(ontologies, pa.Table.from_pylist([{**named[0], "version": "1999"}], schema=CODING))
    always = ["display_mismatch", "version_not_in_lock"]
    assert [row["flags"] for row in found if row["valid_from"] is None] == [sorted([*always, "outside_releases"])]
    assert [row["flags"] for row in found if str(row["valid_from"]) == "2018-10-01"] == [always]


def test_a_code_stands_for_its_concept(ontologies: Ontologies) -> None:
    assert {row.concept for row in ontologies.resolve_code("icd10cm", "G35")} == {Concept("icd10cm", "G35")}
    assert {row.concept for row in ontologies.resolve_code("icd10cm", "diabetes")} == {None}


def test_a_site_can_pin_a_release(tmp_path: Path) -> None:
    (tmp_path / "systems.toml").write_text('[icd10cm]\nrelease = "FY2025"\n', encoding="utf-8")
    (tmp_path / LOCK_FILE).write_text(make_lock(tmp_path).text(), encoding="utf-8")
    script = (
        "from fhir_features.ontology import load_ontologies\n"
        "known = load_ontologies()\n"
        "for code in ('G35', 'E11.A', 'S30.1XXA'):\n"
        "    print([(row.status, row.valid_from) for row in known.resolve_code('icd10cm', code)])\n"
    )
    environment = {**os.environ, "FHIR_FEATURES_ONTOLOGIES": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[('valid', None)]", "[('not_yet_valid', None)]", "[('valid', None)]"]


def test_a_new_code_is_not_yet_valid_before_its_release(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd10cm", "E11.A")))
    assert [row["status"] for row in found if str(row["valid_from"]) in ("2018-10-01", "2025-10-01")] == [
        "not_yet_valid",
        "valid",
    ]


def test_a_code_whose_release_removed_it_altogether_is_retired(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd10cm", "S30.1XXA")))
    assert {str(row["valid_from"]): row["status"] for row in found}["2025-10-01"] == "retired"
    assert ontologies.candidates(Concept("icd10cm", "S30.1XXA")) == [
        ("split", Concept("icd10cm", f"S30.1{site}XA")) for site in "123"
    ]


def test_a_category_is_a_header(ontologies: Ontologies) -> None:
    assert {row["status"] for row in rows(ontologies, codings((1, "icd10cm", "E11")))} == {"header"}


def test_a_map_gives_a_row_of_its_own_with_its_trail(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "snomed", "44054006", "Diabetes")))
    assert brief(found) == [(0, "valid", "snomed", "44054006"), (1, "mapped", "icd10cm", "E11.9")]
    assert found[1]["via"] == "snomed__icd10cm@starter-1 snomed:44054006"


def test_a_map_says_when_its_target_says_more(ontologies: Ontologies) -> None:
    _, stroke = rows(ontologies, codings((1, "snomed", "230690007", "Stroke")))
    assert (stroke["code"], stroke["flags"]) == ("I63.9", ["narrower"])


def test_a_code_that_a_map_knows_to_have_no_target_says_so(ontologies: Ontologies) -> None:
    (row,) = rows(ontologies, codings((1, "icd9cm", "365.70")))
    assert (row["code"], row["status"], row["flags"]) == ("365.70", "valid", ["no_map"])


def test_a_map_with_a_choice_gives_candidates(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd9cm", "649.51")))
    assert len(found) > 2
    assert {row["status"] for row in found if row["system"] == "icd10cm"} == {"candidate"}


def test_a_combination_gives_every_code_that_it_needs(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd9cm", "115.01")))
    assert {(row["status"], row["code"]) for row in found if row["system"] == "icd10cm"} == {
        ("mapped", "B39.4"),
        ("mapped", "G02"),
    }


def a_map_row(target: str, priority: int, rule: str | None = None) -> MapRow:
    return MapRow("a_map", Concept("icd10cm", target), None, group=1, priority=priority, rule=rule)


def test_the_first_rule_of_a_map_group_that_holds_wins() -> None:
    group = [a_map_row("E11.9", 1, "IFA 445518008"), a_map_row("E10.9", 2, "TRUE"), a_map_row("E13.9", 3, "TRUE")]
    assert list(resolve._group_targets(group)) == [
        (Concept("icd10cm", "E11.9"), "candidate", {"rule_unevaluated"}),
        (Concept("icd10cm", "E10.9"), "mapped", {"rule_unevaluated"}),
    ]


def a_chain(length: int, last_state: str) -> dict[Concept, Fact]:
    """Concepts 0 to `length`, each replaced by the next; all but the last are retired."""
    concepts = [Concept("snomed", str(number)) for number in range(length + 1)]
    states = ["retired"] * length + [last_state]
    known = {
        concept: Fact(spans=(Span(None, None, state, outside=False),))  # type: ignore[arg-type]
        for concept, state in zip(concepts, states, strict=True)
    }
    for concept, successor in pairwise(concepts):
        known[concept].history.append(("replaced_by", successor, "a_release"))
    return known


@pytest.mark.parametrize(
    ("length", "last_state", "ends"),
    [(0, "retired", 0), (1, "valid", 1), (3, "valid", 3), (3, "retired", 3), (MAX_HOPS + 3, "valid", MAX_HOPS)],
)
def test_a_retired_code_is_followed_over_retired_ones(length: int, last_state: str, ends: int) -> None:
    found, trail = resolve._followed(a_chain(length, last_state), Concept("snomed", "0"))  # type: ignore[arg-type]
    assert found == Concept("snomed", str(ends))
    assert trail.count(">") == ends


def test_a_retired_code_that_comes_back_to_itself_is_not_followed_for_ever() -> None:
    known = a_chain(2, "retired")
    known[Concept("snomed", "2")].history.append(("replaced_by", Concept("snomed", "0"), "a_release"))
    found, _ = resolve._followed(known, Concept("snomed", "0"))  # type: ignore[arg-type]
    assert found == Concept("snomed", "2")


def test_times_in_which_the_same_holds_are_one() -> None:
    coding = resolve.Coding(1, 0, "snomed", "0", None, None, None)
    halves = (
        Span(None, date(2020, 1, 1), "valid", outside=False),
        Span(date(2020, 1, 1), None, "valid", outside=False),
    )
    rows = [resolve._Row(coding, Concept("snomed", "0"), span, "valid", "", None, frozenset()) for span in halves]
    (row,) = resolve._ranked(rows)
    assert (row.valid_from, row.valid_to, row.status) == (None, None, "valid")


@pytest.mark.parametrize(
    ("system", "code", "status", "flags"),
    [
        ("http://hospital.example", "GLU", "unmapped", ["unknown_system"]),
        (None, "E11.9", "unmapped", ["unknown_system"]),
        ("icd10cm", "K56.9", "unmapped", ["unknown_code"]),
        ("icd10cm", "diabetes", "unmapped", ["bad_syntax"]),
        ("loinc", "4548-5", "unmapped", ["bad_syntax"]),
        ("snomed", None, "unmapped", ["no_code"]),
        (None, None, "text_only", []),
    ],
)
def test_what_cannot_be_resolved_is_one_row_that_says_why(
    ontologies: Ontologies, system: str | None, code: str | None, status: str, flags: list[str]
) -> None:
    (row,) = rows(ontologies, codings((7, system, code)))
    assert (row["code_id"], row["rank"], row["system"], row["code"]) == (7, 0, None, None)
    assert (row["status"], row["flags"]) == (status, flags)


def test_a_code_outside_a_fragment_is_kept_unverified(ontologies: Ontologies) -> None:
    assert brief(rows(ontologies, codings((1, "snomed", "73211009")))) == [(0, "unverified", "snomed", "73211009")]


def test_what_the_user_picked_comes_first_and_contradiction_is_flagged(ontologies: Ontologies) -> None:
    found = rows(ontologies, codings((1, "icd10cm", "E11.9"), (1, "snomed", "59621000", "Hypertension", True)))
    now = [row for row in found if str(row["valid_from"]) == "2018-10-01"]
    assert brief(now)[0] == (0, "valid", "snomed", "59621000")
    assert all("discordant" in row["flags"] for row in now)


def test_codings_that_mean_the_same_are_not_discordant(ontologies: Ontologies) -> None:
    for code in ("E11.9", "E11"):
        found = rows(ontologies, codings((1, "snomed", "44054006"), (1, "icd10cm", code)))
        assert not any("discordant" in row["flags"] for row in found), "the same, or above it"
    drugs = rows(ontologies, codings((1, "rxnorm", "6809"), (1, "rxnorm", "860975")))
    assert not any("discordant" in row["flags"] for row in drugs), "an ingredient and its drug"


def test_an_unreadable_coding_beside_a_readable_one_is_flagged(ontologies: Ontologies) -> None:
    (row,) = rows(ontologies, codings((1, "http://hospital.example", "GLU"), (1, "loinc", "2345-7")))
    assert (row["code"], row["flags"]) == ("2345-7", ["partly_unmapped"])


@pytest.mark.parametrize(
    ("code", "display", "mismatch"),
    [
        ("860975", "Clopidogrel 75 MG Oral Tablet", True),
        ("860975", "metFORMIN ER 500 mg", False),
        ("860975", None, False),
        ("309362", "Codeine", True),
    ],
)
def test_a_right_name_beside_a_wrong_code_is_flagged(
    ontologies: Ontologies, code: str, display: str | None, mismatch: bool
) -> None:
    (row,) = rows(ontologies, codings((1, "rxnorm", code, display)))
    assert ("display_mismatch" in row["flags"]) == mismatch


def test_a_dictionary_that_is_empty_gives_an_empty_resolution(ontologies: Ontologies) -> None:
    assert ontologies.resolve_dictionary(codings()).num_rows == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.one_of(st.none(), st.sampled_from([*URI, "", "urn:oid:2.16.840.1.113883.6.96"]), st.text(max_size=8)),
            st.one_of(
                st.none(), st.sampled_from(["E11.9", "44054006", "G35", "0071-0155-23", "250.00"]), st.text(max_size=8)
            ),
            st.one_of(st.none(), st.text(max_size=8)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_nothing_is_dropped_and_nothing_raises(
    ontologies: Ontologies, written: list[tuple[int, str | None, str | None, str | None]]
) -> None:
    found = rows(ontologies, codings(*written))
    assert {row["code_id"] for row in found} == {code_id for code_id, *_ in written}
    for code_id in {row["code_id"] for row in found}:
        mine = [row for row in found if row["code_id"] == code_id]
        firsts = [row for row in mine if row["rank"] == 0]
        assert (firsts[0]["valid_from"], firsts[-1]["valid_to"]) == (None, None), "all of time is covered"
        starts, ends = [row["valid_from"] for row in firsts[1:]], [row["valid_to"] for row in firsts[:-1]]
        assert starts == ends, "without gap or overlap"


@pytest.mark.skipif(not SYNTHEA.exists(), reason="the Synthea sample is not here")
def test_every_condition_and_drug_of_the_sample_is_resolved(ontologies: Ontologies) -> None:
    written: set[tuple[str, str, str]] = set()
    for name, element in (("Condition", "code"), ("MedicationRequest", "medicationCodeableConcept")):
        with gzip.open(SYNTHEA / f"{name}.ndjson.gz", "rt", encoding="utf-8") as lines:
            written |= {
                (coding["system"], coding["code"], coding["display"])
                for line in lines
                for coding in json.loads(line)[element]["coding"]
            }
    found = rows(ontologies, codings(*((number, *coding) for number, coding in enumerate(sorted(written)))))
    assert {row["status"] for row in found if row["rank"] == 0} == {"valid"}
    mapped = {row["code_id"] for row in found if row["system"] == "icd10cm"}
    conditions = {number for number, coding in enumerate(sorted(written)) if coding[0] == URI["snomed"]}
    assert mapped == conditions
    assert not any("display_mismatch" in row["flags"] for row in found)


def test_the_maps_of_the_starter_lead_to_codes_that_exist(ontologies: Ontologies) -> None:
    lines = (shipped_folder() / "map/snomed__icd10cm/starter-1/map.tsv").read_text(encoding="utf-8").splitlines()[1:]
    targets = [line.split("\t")[1] for line in lines]
    found = rows(ontologies, codings(*((number, "icd10cm", code) for number, code in enumerate(targets))))
    assert {row["status"] for row in found if str(row["valid_to"]) == "2026-10-01"} == {"valid"}
