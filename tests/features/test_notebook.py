"""In a notebook and in a log, definitions and training sets say what they are: by names and counts, and escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pyarrow as pa
import pytest
from lake_rows import LakeRows, at, memory_lake, refill

from fhir_features import (
    FeatureView,
    between,
    concept_set,
    condition,
    encounter,
    medication,
    observation,
    patient,
)
from fhir_features.features.operators import EXPRESSIONS
from fhir_features.features.retrieval import TrainingSet, requests, retrieve
from fhir_features.features.spine import read_spine
from fhir_features.features.unnamed import expression
from fhir_features.ontology import ConceptSet

HBA1C = observation("loinc:4548-4", unit="%")
DIABETES = concept_set("icd10cm:E11", descendants=True)
HOSTILE = "<script>alert('x')</script>"


def test_every_expression_has_a_sign() -> None:
    for operator in EXPRESSIONS:
        assert "(1)" in repr(expression(operator, HBA1C.last(), 1.0))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (HBA1C, "<ObservationSeries: results of loinc:4548-4 in %>"),
        (
            HBA1C.where(status=["final", "amended"], low=0, comparators=False, method="snomed:702873001"),
            "<ObservationSeries: results of loinc:4548-4 in % "
            "(statuses amended, final; method snomed:702873001; low 0; without comparator)>",
        ),
        (condition(DIABETES), "<ConditionSeries: conditions of icd10cm:E11 and below>"),
        (medication("rxnorm:6809", ingredient=True), "<MedicationSeries: orders of rxnorm:6809 as ingredient>"),
        (encounter("emergency"), "<EncounterSeries: encounters of class EMER>"),
        (HBA1C.last(within="365d"), "<Unnamed: last, within 365d, of results of loinc:4548-4 in %>"),
        (condition(DIABETES).ever(), "<Unnamed: ever, of conditions of icd10cm:E11 and below>"),
        (
            HBA1C.max(within=between("7d", "1d")).named("a"),
            "<Feature a: max, from 1w to 1d before, of results of loinc:4548-4 in %>",
        ),
        (HBA1C.count() != 0, "<Unnamed: (count, of results of loinc:4548-4 in %) != (0)>"),
        (DIABETES, "<ConceptSet: icd10cm:E11 and below>"),
    ],
)
def test_what_is_written_says_what_it_is(written: object, says: str) -> None:
    assert repr(written) == says


def test_a_long_definition_is_a_line_all_the_same() -> None:
    long = concept_set(*(f"icd10cm:E11.{code}" for code in (0, 1, 2, 3, 4, 5, 6, 8, 9) * 20))
    view = FeatureView(name="v", entity=patient, features=[HBA1C.last().named(f"feature_{n}") for n in range(200)])
    assert max(len(repr(long)), len(repr(view))) < 150
    assert repr(view) == str(view)


def table_of(html: str) -> list[list[str]]:
    """The rows of the one table, the names of its columns first. The HTML is well formed, or this raises."""
    return [["".join(cell.itertext()) for cell in row] for row in ET.fromstring(html).iter("tr")]


def text_of(html: str) -> list[str]:
    return list(ET.fromstring(html).itertext())


def test_a_view_shows_its_features_with_what_they_answer() -> None:
    features = [
        HBA1C.last(within="365d").named("newest"),
        (HBA1C.last(within="30d") / HBA1C.first()).named("ratio"),
        condition(DIABETES).ever().named("t2dm"),
        patient.age().named("age"),
    ]
    view = FeatureView(name="v", entity=patient, features=features, cadence="daily@06:00 UTC")
    assert repr(view) == "<FeatureView v, daily@06:00 UTC: newest, ratio, t2dm, age>"
    html = view._repr_html_()
    assert text_of(html)[0] == "FeatureView v"
    assert f"daily@06:00 UTC, version {view.version[:12]}" in text_of(html)
    rows = table_of(html)
    assert rows[0] == ["feature", "kind", "unit", "window", "of", "answer"]
    results, newest = "results of loinc:4548-4 in %", "the newest value, which is the nearest before T"
    assert rows[1] == ["newest", "number", "%", "within 365d", results, newest]
    assert rows[2][3] == "within 30d; all of history"
    assert rows[3][1:5] == ["boolean", "", "all of history", "conditions of icd10cm:E11 and below"]
    assert rows[4] == ["age", "count", "years", "", "the patient", "completed years at T, by UTC dates"]


def test_a_concept_set_shows_its_codes_by_name() -> None:
    html = DIABETES._repr_html_()
    rows = table_of(html)
    assert rows[0] == ["code", "name"]
    assert ["icd10cm:E11", "Type 2 diabetes mellitus"] in rows
    assert len(rows) == 11
    assert any("codes, of which the first 10" in text for text in text_of(html))


def test_a_concept_set_that_the_lock_does_not_know_says_so() -> None:
    unknown = ConceptSet(operation="concept", concept="icd10cm:E11.99")
    assert table_of(unknown._repr_html_())[1] == ["icd10cm:E11.99", ""]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    rows = LakeRows()
    rows.patient()
    rows.observation("loinc:4548-4", 7.25, "%", effective_at=at("2024-01-01"), known_at=at("2024-01-02"))
    rows.observation("loinc:4548-4", 42.0, "kg", effective_at=at("2024-01-02"))
    rows.watermark(at("2024-01-10"))
    rows.resolve()
    frame = pa.table(
        {
            "patient_id": ["p1"] * 7 + ["nobody"],
            "event_timestamp": pa.array([at(f"2024-01-0{day}") for day in range(2, 10)], pa.timestamp("us", tz="UTC")),
            "note & label": [HOSTILE] * 8,
        }
    )
    features = [HBA1C.last().named("hba1c"), condition(DIABETES).ever().named("t2dm")]
    wanted = requests([FeatureView(name="diabetes", entity=patient, features=features)], pytest.fail)
    con = memory_lake()
    refill(con, rows)
    answered = retrieve(
        con,
        read_spine(frame, sites=("north",)),
        wanted,
        store_seq=1,
        known_as_of=None,
        serving=None,
        spines=tmp_path_factory.mktemp("spines"),
    )
    con.close()
    return answered


def test_a_training_set_says_counts_and_no_patients(training: TrainingSet) -> None:
    said = repr(training)
    assert said == "<TrainingSet of 8 rows: 2 features of diabetes; store_seq 1; warnings: 2>"
    assert str(training) == said


def test_a_training_set_shows_its_first_rows_and_what_it_rests_on(training: TrainingSet) -> None:
    html = training._repr_html_()
    assert HOSTILE not in html
    rows = table_of(html)
    assert rows[0] == training.table.column_names
    assert len(rows) == 6
    first = dict(zip(rows[0], rows[1], strict=True))
    assert first["patient_id"] == "p1"
    assert first["note & label"] == HOSTILE
    assert first["hba1c"] == "7.25"
    assert first["event_timestamp"] == "2024-01-02T00:00:00+00:00"
    said = "\n".join(text_of(html))
    assert "8 rows, 6 columns" in said
    assert "1 rows of patients who were not known" in said
    assert "known_at from: " in said
    for warning in training.summary.warnings:
        assert f"Warning: {warning}" in said
    ((locked, _),) = training.provenance.views
    assert f"Receipt: diabetes@{locked.version[:12]}, store_seq 1" in said


def test_a_training_set_shows_its_hash_once_its_receipt_is_made(training: TrainingSet) -> None:
    fresh = replace(training)
    assert "output" not in fresh._repr_html_()
    assert "receipt" not in vars(fresh)
    assert f"output {fresh.receipt.output.sha256[:12]}" in fresh._repr_html_()


def test_nothing_that_is_shown_has_colours_of_its_own(training: TrainingSet) -> None:
    assert "color" not in training._repr_html_()
    assert "background" not in training._repr_html_()
