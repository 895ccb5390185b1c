"""Which codes of the data are not understood, and how much of it is that?"""

import json

import pyarrow as pa
from dictionaries import URI, codings

from fhir_features.ontology import Ontologies
from fhir_features.ontology.coverage import Coverage, Covered, Frequent, code_coverage


def report(ontologies: Ontologies) -> Coverage:
    dictionary = codings(
        (1, "snomed", "44054006", "Diabetes"),
        (2, "http://hospital.example", "<b>GLU</b>", "Glucose"),
        (3, None, None),
        (4, "loinc", "4548-5"),
        (5, "loinc", "4548-4"),
    )
    counts = pa.table(
        {
            "code_id": [1, 2, 3, 4, 5, 5],
            "site": ["a", "a", "a", "a", "a", "b"],
            "resource_type": ["Condition", "Observation", "Condition", "Observation", "Observation", "Observation"],
            "rows": [100, 7, 2, 25, 75, 3],
            "patients": [60, 5, 2, 20, 40, 3],
        }
    )
    return code_coverage(dictionary, ontologies.resolve_dictionary(dictionary), counts)


def test_the_share_of_rows_is_by_system_site_and_type(ontologies: Ontologies) -> None:
    assert report(ontologies).covered == (
        Covered("(none)", "a", "Condition", 2, 0, 0.0, 2, 0, 2),
        Covered("http://hospital.example", "a", "Observation", 7, 0, 0.0, 5, 0, 5),
        Covered("loinc", "a", "Observation", 100, 75, 75.0, 40, 40, 20),
        Covered("loinc", "b", "Observation", 3, 3, 100.0, 3, 3, 0),
        Covered("snomed", "a", "Condition", 100, 100, 100.0, 60, 60, 0),
    )
    assert URI["loinc"] not in report(ontologies).json()


def test_the_unmapped_come_by_frequency_with_their_reason(ontologies: Ontologies) -> None:
    assert [(row.rows, row.code, row.why) for row in report(ontologies).unmapped] == [
        (25, "4548-5", "bad_syntax"),
        (7, "<b>GLU</b>", "unknown_system"),
        (2, "", "text_only"),
    ]


def test_the_understood_come_by_patients_each_as_most_of_them_have_it(ontologies: Ontologies) -> None:
    assert report(ontologies).frequent == (
        Frequent(100, "snomed", "44054006", "Diabetes", "a", "Condition", 60),
        Frequent(75, "loinc", "4548-4", "", "a", "Observation", 40),
        Frequent(3, "loinc", "4548-4", "", "b", "Observation", 3),
    )
    dictionary = codings(*((number, "loinc", "4548-4", name) for number, name in enumerate(["HbA1c", "A name"])))
    counts = pa.table(
        {
            "code_id": [0, 1],
            "site": ["a", "a"],
            "resource_type": ["Observation", "Observation"],
            "rows": [9, 1],
            "patients": [8, 1],
        }
    )
    (found,) = code_coverage(dictionary, ontologies.resolve_dictionary(dictionary), counts).frequent
    assert (found.display, found.rows, found.patients) == ("HbA1c", 10, 8)


def test_the_report_comes_as_json_and_html(ontologies: Ontologies) -> None:
    found = report(ontologies)
    assert json.loads(found.json())["unmapped"][0]["rows"] == 25
    assert "&lt;b&gt;GLU" in found.html()
    assert "<b>GLU" not in found.html()


def test_data_without_codes_gives_an_empty_report(ontologies: Ontologies) -> None:
    empty = codings()
    counts = pa.table(
        {
            "code_id": pa.array([], pa.int64()),
            "site": pa.array([], pa.string()),
            "resource_type": pa.array([], pa.string()),
            "rows": pa.array([], pa.int64()),
            "patients": pa.array([], pa.int64()),
        }
    )
    assert code_coverage(empty, ontologies.resolve_dictionary(empty), counts) == Coverage((), (), ())
