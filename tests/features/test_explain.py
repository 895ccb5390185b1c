"""`explain` says of each version whether it counts, and if not by which rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lake_rows import LakeRows, at
from test_feature_commands import run

from fhir_features.errors import UsageError


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


def test_what_was_known_before_is_explained_as_it_was(project: Any) -> None:
    project.write(rows_of_all_fates())
    explained = project.store.explain("diabetes:hba1c_last_1y", "p1", at("2024-03-10"), known_as_of=at("2024-03-02"))
    counting = {row["resource_id"] for row in explained.rows.to_pylist() if row["verdict"] == "counts"}
    assert (explained.answer, counting) == (5.0, {"corrected", "withdrawn"})


def test_the_patients_own_record_needs_no_rows(project: Any) -> None:
    project.write(rows_of_all_fates())
    explained = project.store.explain("diabetes:age", "p1", at("2024-03-10"))
    assert (explained.answer, explained.rows.num_rows) == (53, 0)


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
    assert "Observation/withdrawn version 1" in text
    assert json.loads(run(project, *question, "--json").stdout)["answer"] == 6.0
