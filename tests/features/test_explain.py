"""`explain` says of each version whether it counts, and if not by which rule."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from click.testing import CliRunner
from lake_rows import LakeRows, at, memory_lake, refill
from test_feature_commands import run

from fhir_features import condition, encounter, medication, observation
from fhir_features.cli import cli
from fhir_features.errors import UsageError
from fhir_features.features.engine import stand_at
from fhir_features.features.explain import explain
from fhir_features.features.terms import ontologies


def rows_of_all_fates() -> LakeRows:
    rows = LakeRows()
    rows.patient()
    old = rows.observation("loinc:4548-4", 5.0, "%", resource_id="corrected", effective_at=at("2024-03-01"))
    rows.close(old, at("2024-03-03"), "superseded")
    rows.observation(
        "loinc:4548-4",
        6.0,
        "%",
        resource_id="corrected",
        version="2",
        effective_at=at("2024-03-01"),
        known_at=at("2024-03-03"),
    )
    gone = rows.observation("loinc:4548-4", 5.0, "%", resource_id="withdrawn", effective_at=at("2024-03-01"))
    rows.close(gone, at("2024-03-04"), "entered-in-error")
    for name, more in {
        "cancelled": {"status": "cancelled"},
        "empty": {"absent_reason": "unknown"},
        "late": {"known_at": at("2024-03-20")},
        "future": {"effective_at": at("2024-03-20"), "known_at": at("2024-03-01")},
        "ancient": {"effective_at": at("2020-03-01")},
    }.items():
        rows.observation("loinc:4548-4", 7.0, "%", **{"resource_id": name, "effective_at": at("2024-03-02"), **more})
    rows.observation("loinc:4548-4", 7.0, "kg", resource_id="other unit", effective_at=at("2024-03-02"))
    rows.observation("urn:local:GLYHB", 7.0, "%", resource_id="unmapped", effective_at=at("2024-03-02"))
    rows.observation("loinc:2345-7", 7.0, "mg/dL", resource_id="another code", effective_at=at("2024-03-02"))
    return rows


def test_each_row_has_its_verdict(project: Any) -> None:
    project.write(rows_of_all_fates())
    explained = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10"))
    assert explained.answer == 6.0
    verdicts = {(row["resource_id"], row["version"]): row["verdict"] for row in explained.rows.to_pylist()}
    assert verdicts == {
        ("corrected", "1"): "it was closed: superseded",
        ("corrected", "2"): "counts",
        ("withdrawn", "1"): "it was closed: entered-in-error",
        ("cancelled", "1"): "its status does not count",
        ("empty", "1"): "it has no value",
        ("late", "1"): "it was not yet known",
        ("future", "1"): "it lies after the window",
        ("ancient", "1"): "it lies before the window",
        ("other unit", "1"): "its value cannot be brought to the unit",
        ("unmapped", "1"): "its code is not mapped",
    }


def test_an_explanation_shows_its_rows_in_a_notebook_and_none_in_a_log(project: Any) -> None:
    project.write(rows_of_all_fates())
    explained = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10"))
    assert repr(explained).startswith("<Explanation as of 2024-03-10 00:00:00Z: 1 counts, ")
    assert "corrected" not in repr(explained)
    shown = explained._repr_html_()
    assert "Answer as of 2024-03-10T00:00:00+00:00: 6" in shown
    row = "<td>*</td><td>Observation/corrected</td><td>6</td><td>2024-03-01T00:00:00+00:00</td>"
    assert f"{row}<td>2024-03-03T00:00:00+00:00</td><td>issued</td><td>counts</td>" in shown
    assert (
        "The store knew no such patient then"
        in project.store.explain("diabetes:age", "nobody", at("2024-03-10"))._repr_html_()
    )


def test_each_row_says_what_its_source_wrote(project: Any) -> None:
    rows = rows_of_all_fates()
    more = {"effective_at": at("2024-03-02"), "effective_text": "2024-03-02"}
    rows.observation("loinc:4548-4", 0.5, "%", resource_id="limit", value_comparator="<", **more)
    rows.observation("loinc:4548-4", None, resource_id="words", value_string="not done", **more)
    project.write(rows)
    explained = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10")).rows.to_pylist()
    written = {row["resource_id"]: (row["written"], row["status"], row["effective_text"]) for row in explained}
    assert written["other unit"] == ("7 kg", "final", None)
    assert written["cancelled"] == ("7 %", "cancelled", None)
    assert written["limit"] == ("<0.5 %", "final", "2024-03-02")
    assert written["words"] == ("not done", "final", "2024-03-02")


def test_what_was_known_before_is_explained_as_it_was(project: Any) -> None:
    project.write(rows_of_all_fates())
    explained = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10"), known_as_of=at("2024-03-02"))
    counting = {row["resource_id"] for row in explained.rows.to_pylist() if row["verdict"] == "counts"}
    assert (explained.answer, counting) == (5.0, {"corrected", "withdrawn"})


def test_what_the_patients_own_record_says_is_judged_too(project: Any) -> None:
    rows = LakeRows()
    first = rows.patient(birth_date=dt.date(1970, 5, 17), known_at=at("2024-01-01"))
    rows.close(first, at("2024-03-01"))
    rows.patient(birth_date=dt.date(1960, 5, 17), version="2", known_at=at("2024-03-01"))
    rows.patient(birth_date=dt.date(1950, 5, 17), version="3", known_at=at("2024-03-20"))
    project.write(rows)
    explained = project.store.explain("diabetes:age", "p1", at("2024-03-10"))
    assert explained.answer == 63
    assert [(row["version"], row["text"], row["verdict"], row["decides"]) for row in explained.rows.to_pylist()] == [
        ("1", "1970-05-17", "it was closed: superseded", False),
        ("2", "1960-05-17", "counts", True),
        ("3", "1950-05-17", "it was not yet known", False),
    ]


HBA1C, ANY_UNIT = observation("loinc:4548-4", unit="%"), observation("loinc:4548-4")
DECIDING = {
    "newest": (HBA1C.last(), "4"),
    "oldest": (HBA1C.first(), "1"),
    "smallest": (HBA1C.min(), "2"),
    "largest": (HBA1C.max(within="30d"), "3"),
    "all": (HBA1C.mean(), "1234"),
    "ends": (HBA1C.delta(), "14"),
    "newest two": (HBA1C.change(), "34"),
    "abnormal": (ANY_UNIT.count_abnormal(), "13"),
    "with a range": (ANY_UNIT.share_outside_range(), "2"),
    "newest coded": (ANY_UNIT.last_code(), "3"),
    "most frequent": (ANY_UNIT.mode_code(), "12"),
    "first recorded": (condition("icd10cm:E11.9").time_since_recorded(), "2"),
}


def test_the_rows_that_an_answer_rests_on_are_told() -> None:
    rows = LakeRows()
    rows.patient()
    for day, value, more in (
        (1, 7.0, {"interpretations": ["H"], "value_code_id": rows.code("snomed:8517006")}),
        (2, 6.0, {"reference_low": 4.0, "value_code_id": rows.code("snomed:8517006")}),
        (3, 9.0, {"interpretations": ["HH"], "value_code_id": rows.code("snomed:266919005")}),
        (4, 8.0, {}),
    ):
        rows.observation("loinc:4548-4", value, "%", resource_id=str(day), effective_at=at(f"2024-03-0{day}"), **more)
    for day, recorded in ((1, "2024-03-08"), (2, "2024-03-07")):
        when = {"effective_at": at(f"2024-03-0{day}"), "recorded_at": at(recorded)}
        rows.condition("icd10cm:E11.9", resource_id=str(day), **when)
    con = memory_lake()
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    question = {"site": "north", "patient_id": "p1", "t": at("2024-03-10"), "k": at("2024-03-10")}
    for name, (value, deciding) in DECIDING.items():
        explained = explain(con, ontologies(), value.named("f"), **question).rows.to_pylist()
        assert {row["verdict"] for row in explained} == {"counts"}
        assert "".join(row["resource_id"] for row in explained if row["decides"]) == deciding, name


def test_of_ingredients_and_of_stays_it_is_told_what_decides() -> None:
    rows = LakeRows()
    rows.patient()
    for day, code in ((1, "rxnorm:860975"), (2, "rxnorm:6809"), (3, "rxnorm:29046")):
        rows.medication(code, resource_id=str(day), effective_at=at(f"2024-03-0{day}"))
    for day, end in ((1, "2024-03-08"), (2, "2024-03-06"), (3, "2024-03-20")):
        rows.encounter("IMP", resource_id=str(day), effective_at=at(f"2024-03-0{day}"), end_at=at(end))
    con = memory_lake()
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    question = {"site": "north", "patient_id": "p1", "t": at("2024-03-10"), "k": at("2024-03-10")}
    orders = explain(
        con, ontologies(), medication("rxnorm:6809", ingredient=True).count_ingredients().named("f"), **question
    )
    assert orders.answer == 1
    assert "".join(row["resource_id"] for row in orders.rows.to_pylist() if row["decides"]) == "12"
    stays = explain(con, ontologies(), encounter("IMP").time_since_discharge().named("f"), **question)
    assert "".join(row["resource_id"] for row in stays.rows.to_pylist() if row["decides"]) == "1"


def in_process(project: Any, *words: str) -> str:
    return CliRunner().invoke(cli, ["--config", str(project.folder), *words], catch_exceptions=False).stdout


NIGHTLY = """
from fhir_features import FeatureView, observation, patient

hba1c = observation("loinc:4548-4", unit="%")
diabetes = FeatureView(name="diabetes", entity=patient, cadence="daily@02:00 UTC", features=[
    (hba1c.last() / hba1c.first(within="365d")).named("ratio"),
])
"""


def test_what_was_served_is_explained_unless_something_else_is_asked_for(project: Any) -> None:
    rows = LakeRows()
    rows.patient()
    rows.observation("loinc:4548-4", 8.0, "%", resource_id="first", effective_at=at("2024-03-01"))
    rows.observation("loinc:4548-4", 6.0, "%", resource_id="of today", effective_at=at("2024-03-02 08:00"))
    project.define(NIGHTLY)
    project.write(rows)

    def answer(**how: Any) -> tuple[Any, dt.datetime, dt.datetime]:
        explained = project.store.explain("diabetes:ratio", "p1", at("2024-03-02 12:00"), **how)
        return explained.answer, explained.t, explained.k

    night, noon = at("2024-03-02 02:00"), at("2024-03-02 12:00")
    assert answer() == (1.0, night, night)
    assert answer(serving="exact") == (0.75, noon, noon)
    assert answer(serving="lag 3h") == (0.75, at("2024-03-02 09:00"), at("2024-03-02 09:00"))
    assert answer(serving="exact", known_as_of=at("2024-03-01 12:00")) == (1.0, noon, at("2024-03-01 12:00"))
    with pytest.raises(UsageError, match="goes back to before the year 1"):
        answer(serving="lag 999999d")
    asked = ("explain", "diabetes:ratio", "--patient", "p1", "--at", "2024-03-02T12:00:00Z")
    said = in_process(project, *asked)
    assert said.startswith("diabetes:ratio = 1.0\n  as it was served then: the answer of 2024-03-02 02:00:00+00:00\n")
    assert "\nlast, of results of loinc:4548-4 in %\n" in said
    assert "\nfirst, within 365d, of results of loinc:4548-4 in %\n" in said
    decides = [
        "*",
        "Observation/first",
        "1",
        "8",
        "2024-03-01",
        "00:00:00Z",
        "2024-03-01",
        "00:00:00Z",
        "issued",
        "counts",
    ]
    assert [line.split() for line in said.splitlines()].count(decides) == 2
    assert said.endswith(("\n2 counts, 2 it lies after the window\n", "\n2 counts, 2 it was not yet known\n"))
    told = json.loads(in_process(project, *asked, "--serving", "exact", "--json"))
    assert (told["answer"], told["t"], told["verdicts"]) == (0.75, "2024-03-02T12:00:00+00:00", {"counts": 4})
    assert told["rows"][0]["effective_at"] == "2024-03-01T00:00:00+00:00"


IN_HOSPITAL = """
from fhir_features import FeatureView, observation, patient

hba1c = observation("loinc:4548-4", unit="%").where(encounter_class="inpatient")
diabetes = FeatureView(name="diabetes", entity=patient, features=[hba1c.last().named("in_hospital")])
"""


def test_a_row_of_no_encounter_of_the_class_does_not_count(project: Any) -> None:
    rows = LakeRows()
    rows.patient()
    drawn = {"effective_at": at("2024-03-02")}
    rows.encounter("IMP", resource_id="ward", **drawn)
    rows.encounter("AMB", resource_id="clinic", **drawn)
    rows.encounter("IMP", resource_id="unheard of", known_at=at("2024-03-20"), **drawn)
    for name in ("ward", "clinic", "unheard of", None):
        rows.observation("loinc:4548-4", 7.0, "%", resource_id=f"in {name}", encounter_id=name, **drawn)
    project.define(IN_HOSPITAL)
    project.write(rows)
    explained = project.store.explain("diabetes:in_hospital", "p1", at("2024-03-10"))
    assert {row["resource_id"]: row["verdict"] for row in explained.rows.to_pylist()} == {
        "in ward": "counts",
        "in clinic": "its encounter is of another class, or was not known",
        "in unheard of": "its encounter is of another class, or was not known",
        "in None": "it names no encounter",
    }


def test_a_result_whose_source_changed_since_is_flagged_and_counts(project: Any) -> None:
    rows = LakeRows()
    rows.patient()
    drawn = {"effective_at": at("2024-03-01")}
    for name, closed_at in {"before": "2024-03-02", "since": "2024-03-04", "after K": "2024-03-12"}.items():
        source = rows.observation("loinc:2345-7", 7.0, "mg/dL", resource_id=name, **drawn)
        rows.close(source, at(closed_at))
        made = {"resource_id": f"from {name}", "derived_from": [f"Observation/{name}/_history/1"]}
        rows.observation("loinc:4548-4", 7.0, "%", **made, **drawn, known_at=at("2024-03-03"))
    project.write(rows)
    rows_of = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10")).rows.to_pylist()
    assert {row["resource_id"]: (row["verdict"], row["source_changed"]) for row in rows_of} == {
        "from before": ("counts", False),
        "from since": ("counts", True),
        "from after K": ("counts", False),
    }


def test_ties_among_what_counts_are_counted(project: Any) -> None:
    rows = LakeRows()
    rows.patient()
    drawn = {"effective_at": at("2024-03-01")}
    for more in ({}, {}, {"known_at": at("2024-03-02")}, {"status": "cancelled"}):
        rows.observation("loinc:4548-4", 7.0, "%", **drawn, **more)
    project.write(rows)
    assert project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10")).ties == 2
    question = ("explain", "diabetes:hba1c_last_1y", "--patient", "p1", "--at", "2024-03-10T00:00:00Z")
    assert "2 rows that count are tied" in run(project, *question).stdout
    assert "are tied" not in run(project, *question[:-1], "2024-02-01T00:00:00Z").stdout


LASTING = """
from fhir_features import FeatureView, between, condition, encounter, medication, patient

metformin = medication("rxnorm:6809", ingredient=True)
lasting = FeatureView(name="lasting", entity=patient, features=[
    condition("icd10cm:E11.9").active().named("condition_active"),
    metformin.active(assume="30d").named("order_active"),
    metformin.proportion_covered(within="30d", assume="30d").named("covered"),
    encounter("inpatient").active().named("in_hospital"),
    encounter("inpatient").days(within="30d").named("days"),
])
"""


def test_what_lasts_is_judged_by_when_it_was_over(project: Any) -> None:
    rows = LakeRows()
    rows.patient()
    old, recent = {"effective_at": at("2024-01-02")}, {"effective_at": at("2024-03-01")}
    stays = {"going on": None, "over": at("2024-03-05"), "long over": at("2024-01-20")}
    for name, end_at in stays.items():
        rows.encounter("IMP", resource_id=name, end_at=end_at, **(old if name == "long over" else recent))
        diagnosed = {"categories": ["encounter-diagnosis"], "clinical_status": None}
        rows.condition("icd10cm:E11.9", resource_id=f"during {name}", encounter_id=name, **diagnosed, **recent)
    rows.condition("icd10cm:E11.9", resource_id="resolved", clinical_status="resolved", **recent)
    rows.condition("icd10cm:E11.9", resource_id="abated", abatement_at=at("2024-03-04"), **recent)
    rows.medication("rxnorm:6809", resource_id="on it", **recent)
    rows.medication("rxnorm:6809", resource_id="into the window", bounds_end=at("2024-02-20"), **old)
    rows.medication("rxnorm:6809", resource_id="long ago", **old)
    rows.medication("rxnorm:6809", resource_id="stopped", status="stopped", known_at=at("2024-03-06"), **recent)
    project.define(LASTING)
    project.write(rows)

    def why(feature: str) -> tuple[Any, dict[str, str]]:
        explained = project.store.explain(f"lasting:{feature}", "p1", at("2024-03-10"))
        return explained.answer, {row["resource_id"]: row["verdict"] for row in explained.rows.to_pylist()}

    assert why("condition_active") == (
        True,
        {
            "during going on": "counts",
            "during over": "its encounter is not going on",
            "during long over": "its encounter is not going on",
            "resolved": "its clinical status is not that of an active one",
            "abated": "it had abated",
        },
    )
    over = {"into the window": "it was over", "long ago": "it was over"}
    assert why("order_active") == (
        True,
        {"on it": "counts", "stopped": "its status is not that of one in force", **over},
    )
    _, covering = why("covered")
    assert covering == {
        "on it": "counts",
        "stopped": "counts",
        "into the window": "counts",
        "long ago": "it was over before the window",
    }
    assert why("in_hospital") == (True, {"going on": "counts", "over": "it was over", "long over": "it was over"})
    assert why("days") == (9.0, {"going on": "counts", "over": "counts", "long over": "it was over before the window"})


def test_of_a_patient_who_is_not_known_it_is_said(project: Any) -> None:
    project.write(rows_of_all_fates())
    assert project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10")).is_known
    assert not project.store.explain("diabetes:hba1c_last_1y", "p2", at("2024-03-10")).is_known
    question = ("explain", "diabetes:hba1c_last_1y", "--patient", "p2", "--at", "2024-03-10T00:00:00Z")
    assert "the store knew no such patient then" in run(project, *question).stdout


def test_one_feature_is_explained_at_a_time(project: Any) -> None:
    with pytest.raises(UsageError, match="'diabetes' has 5 features: name one"):
        project.store.explain("diabetes", "p1", at("2024-03-10"))


def test_the_command_prints_a_table_or_json(project: Any) -> None:
    project.write(rows_of_all_fates())
    question = ("explain", "diabetes:hba1c_last_1y", "--patient", "p1", "--at", "2024-03-10T00:00:00Z")
    text = run(project, *question).stdout
    assert text.startswith("diabetes:hba1c_last_1y = 6.0\n")
    assert ["Observation/withdrawn", "1"] in [line.split()[:2] for line in text.splitlines()]
    assert json.loads(run(project, *question, "--json").stdout)["answer"] == 6.0
