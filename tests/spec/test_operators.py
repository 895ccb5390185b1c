"""Runs the tables of `operators.py` against the engine and against the reference."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from evidence import instant, table
from lake_rows import LakeRows, memory_lake, refill
from operators_page import DEFINITIONS, PAGE, SPECS, Spec, markdown
from reference import Reference

import fhir_features
from fhir_features import FeatureView, patient
from fhir_features.features.compile import compile_features, leaves
from fhir_features.features.engine import answers, ask, stand_at
from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.features.terms import create_members, ontologies

TRUE_AT = {"observation": "drawn", "condition": "onset", "medication": "ordered", "encounter": "start"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.title)
def test_what_is_answered(spec: Spec) -> None:
    rows, view = lake_of(spec), view_of(spec)
    asked = table(spec.answers)
    times = [instant(line["asked at"]) for line in asked]
    cutoffs = [
        instant(line["known as of"]) if line.get("known as of") else t for line, t in zip(asked, times, strict=True)
    ]
    reference = Reference(rows.tables)
    for line, t, k, answer in zip(asked, times, cutoffs, ask_engine(rows, view, times, cutoffs), strict=True):
        for number, heading in enumerate(spec.features):
            expected = value_of(line[heading])
            for given in (answer[f"f{number}"], reference.answer(view.features[number], "north", "p1", t, k)):
                assert as_written(given) == expected, f"{heading}, asked at {line['asked at']}"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run 'make docs'"


def test_every_operator_has_a_table() -> None:
    seen: set[str] = set()
    for spec in SPECS:
        for feature in view_of(spec).features:
            seen |= {getattr(feature.value, "operator", ""), *(value.operator for value in leaves(feature.value))}
    assert seen == {*OPERATORS, *PATIENT_OPERATORS, *EXPRESSIONS}


def view_of(spec: Spec) -> FeatureView:
    names: dict[str, Any] = {name: getattr(fhir_features, name) for name in fhir_features.__all__}
    exec(DEFINITIONS, names)
    features = [eval(text, names).named(f"f{number}") for number, text in enumerate(spec.features.values())]
    return FeatureView(name="spec", entity=patient, features=features)


def lake_of(spec: Spec) -> LakeRows:
    rows = LakeRows()
    rows.code("loinc:4548-4")
    if spec.kind != "patient":
        rows.patient()
    stay = {"effective_at": instant("5 08:00"), "end_at": instant("7 12:00"), "resource_id": "stay"}
    if spec.kind == "condition" or "encounter" in table(spec.rows)[0]:
        rows.encounter(**stay)
    for number, line in enumerate(table(spec.rows)):
        line = {name: text for name, text in line.items() if text}
        row = MAKERS[spec.kind](rows, line, times_of(spec, line, number))
        if "until" in line:
            rows.close(row, instant(line["until"]))
    rows.resolve()
    return rows


def times_of(spec: Spec, line: dict[str, str], number: int) -> dict[str, Any]:
    true_at = instant(line[TRUE_AT[spec.kind]]) if spec.kind in TRUE_AT else instant("1 00:00")
    known_at = instant(line["known"]) if "known" in line else true_at
    named = {"resource_id": line["id"]} if "id" in line else {}
    return {"effective_at": true_at, "known_at": known_at, "version": str(number), **named}


def _observation(rows: LakeRows, line: dict[str, str], times: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {
        "status": line.get("status", "final"),
        "absent_reason": line.get("absent"),
        "categories": [line["category"]] if "category" in line else None,
        "interpretations": [line["interpretation"]] if "interpretation" in line else None,
        "value_comparator": line.get("comparator"),
        "reference_low": float(line["low"]) if "low" in line else None,
        "reference_high": float(line["high"]) if "high" in line else None,
        "value_code_id": rows.code(line["coded"]) if "coded" in line else None,
        "method_code_id": rows.code(line["method"]) if "method" in line else None,
        "encounter_id": line.get("encounter"),
    }
    value = float(line["value"]) if "value" in line else None
    return rows.observation("loinc:4548-4", value, line.get("unit"), **times, **more)


def _condition(rows: LakeRows, line: dict[str, str], times: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {
        "clinical_status": line.get("clinical"),
        "verification_status": line.get("verification"),
        "abatement_at": instant(line["abated"]) if "abated" in line else None,
        "recorded_at": instant(line["recorded"]) if "recorded" in line else None,
        "categories": [line.get("category", "problem-list-item")],
        "encounter_id": line.get("encounter"),
    }
    return rows.condition(line["code"], **times, **more)


def _medication(rows: LakeRows, line: dict[str, str], times: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {
        "status": line["status"],
        "intent": line["intent"],
        "supply_days": float(line["supply"]) if "supply" in line else None,
        "repeats": int(line["repeats"]) if "repeats" in line else None,
        "do_not_perform": "not to give" in line,
        "reported": "reported" in line,
        "categories": [line["category"]] if "category" in line else None,
        "encounter_id": line.get("encounter"),
    }
    return rows.medication(line["code"], **times, **more)


def _encounter(rows: LakeRows, line: dict[str, str], times: dict[str, Any]) -> dict[str, Any]:
    end_at = instant(line["end"]) if "end" in line else None
    return rows.encounter(line["class"], status=line["status"], end_at=end_at, **times)


def _patient(rows: LakeRows, line: dict[str, str], times: dict[str, Any]) -> dict[str, Any]:
    born = dt.date.fromisoformat(line["born"])
    return rows.patient(birth_date=born, sex=line["sex"], deceased="deceased" in line, **times)


MAKERS = {
    "observation": _observation,
    "condition": _condition,
    "medication": _medication,
    "encounter": _encounter,
    "patient": _patient,
}


def ask_engine(
    rows: LakeRows, view: FeatureView, times: list[dt.datetime], cutoffs: list[dt.datetime]
) -> list[dict[str, Any]]:
    con = memory_lake()
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    kind = pa.timestamp("us", tz="UTC")
    columns = {
        "question": pa.array(range(len(times)), pa.int64()),
        "site": ["north"] * len(times),
        "patient_id": ["p1"] * len(times),
        "t": pa.array(times, kind),
        "k": pa.array(cutoffs, kind),
    }
    ask(con, pa.table(columns))
    plan = compile_features(view.features)
    create_members(con, ontologies(), plan)
    answered = pa.concat_tables(list(answers(con, plan)))
    con.close()
    return answered.sort_by("question").to_pylist()


def value_of(text: str) -> Any:
    """A cell of an answer: nothing, a flag, a number or a text."""
    words = {"": None, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        return round(float(text), 10)
    except ValueError:
        return text


def as_written(given: Any) -> Any:
    return round(float(given), 10) if isinstance(given, int | float) and not isinstance(given, bool) else given
