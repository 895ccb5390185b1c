"""The engine gives what the reference engine gives, on whatever is generated."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import strategies
from hypothesis import given, settings
from lake_rows import LakeRows, memory_lake, refill
from reference import Reference, same
from strategies import instants, lake_rows, questions, views

from fhir_features.features import FeatureView, kernel
from fhir_features.features.compile import compile_features, leaves
from fhir_features.features.engine import answers, ask, stand_at
from fhir_features.features.explain import explain
from fhir_features.features.nodes import Conditions, Encounters, Medications, Observations
from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.features.terms import create_members, ontologies

INSTANT = pa.timestamp("us", tz="UTC")
lake = cache(memory_lake)
EVERY = {
    ("observations", "status"): strategies.OBSERVATION_STATUSES,
    ("observations", "value_type"): strategies.VALUE_TYPES,
    ("observations", "effective_precision"): strategies.PRECISIONS,
    ("conditions", "clinical_status"): strategies.CLINICAL,
    ("conditions", "verification_status"): strategies.VERIFICATION,
    ("medication_requests", "status"): strategies.MEDICATION_STATUSES,
    ("medication_requests", "intent"): strategies.INTENTS,
    ("encounters", "status"): strategies.ENCOUNTER_STATUSES,
}
Questions = list[tuple[str, str, dt.datetime, dt.datetime]]


def ask_engine(rows: LakeRows, view: FeatureView, asked: Questions, **how: Any) -> list[dict[str, Any]]:
    """The engine's answers, in the order of the questions."""
    columns = list(zip(*asked, strict=True))
    table = pa.table(
        {
            "question": pa.array(range(len(asked)), pa.int64()),
            "site": pa.array(columns[0], pa.string()),
            "patient_id": pa.array(columns[1], pa.string()),
            "t": pa.array(columns[2], INSTANT),
            "k": pa.array(columns[3], INSTANT),
        }
    )
    con = lake()
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    ask(con, table)
    plan = compile_features(view.features)
    create_members(con, ontologies(), plan)
    tables = list(answers(con, plan, **how))
    return pa.concat_tables(tables).sort_by("question").drop_columns("question").to_pylist()


@given(lake_rows(), views(), questions())
def test_every_answer_is_that_of_the_reference(rows: LakeRows, view: FeatureView, asked: Questions) -> None:
    reference = Reference(rows.tables)
    answered = ask_engine(rows, view, asked)
    assert len(answered) == len(asked)
    for question, answer in zip(asked, answered, strict=True):
        for feature in view.features:
            expected = reference.answer(feature, *question)
            assert same(answer[feature.name], expected), (question, feature, answer[feature.name], expected)


@settings(max_examples=settings().max_examples // 2)
@given(lake_rows(), views(), questions())
def test_looking_up_settled_rows_as_a_range_changes_no_bit(rows: LakeRows, view: FeatureView, asked: Questions) -> None:
    with patch.object(kernel, "_MANY_LOOKS", -1):
        looked_up = ask_engine(rows, view, asked)
    assert repr(ask_engine(rows, view, asked)) == repr(looked_up)


@settings(max_examples=settings().max_examples // 4)
@given(lake_rows(), views(), questions())
def test_row_order_and_passes_change_no_bit(rows: LakeRows, view: FeatureView, asked: Questions) -> None:
    shuffled = LakeRows()
    shuffled.tables = {name: table[::-1] for name, table in rows.tables.items()}
    assert repr(ask_engine(rows, view, asked)) == repr(ask_engine(shuffled, view, asked, questions_a_pass=1))


@settings(max_examples=settings().max_examples // 4)
@given(lake_rows(), views(), questions(), lake_rows(), instants)
def test_what_becomes_known_after_t_changes_nothing(
    rows: LakeRows, view: FeatureView, asked: Questions, news: LakeRows, cutoff: dt.datetime
) -> None:
    asked = [(site, patient, min(t, cutoff), min(k, cutoff)) for site, patient, t, k in asked]
    before = repr(ask_engine(rows, view, asked))
    later = LakeRows()
    later.tables = {name: list(table) for name, table in rows.tables.items()}
    shift = dt.timedelta(microseconds=1)
    for name in ("observations", "conditions", "medication_requests", "encounters", "patients"):
        for number, row in enumerate(news.tables[name]):
            known_at = max(row["known_at"], cutoff + shift)
            later.tables[name].append({**row, "known_at": known_at, "version": f"new-{number}"})
        for row in rows.tables[name]:
            later.close(row, cutoff + shift, "entered-in-error")
    assert repr(ask_engine(later, view, asked)) == before


@settings(max_examples=settings().max_examples // 4)
@given(lake_rows(), views(), questions())
def test_what_explain_says_counts_is_what_the_reference_counts(
    rows: LakeRows, view: FeatureView, asked: Questions
) -> None:
    reference = Reference(rows.tables)
    con = lake()
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    site, patient_id, t, k = asked[0]
    feature = view.features[0]
    explained = explain(con, ontologies(), feature, site=site, patient_id=patient_id, t=t, k=k)
    assert same(explained.answer, reference.answer(feature, *asked[0]))
    counting = [row for row in explained.rows.to_pylist() if row["verdict"] == "counts"]
    read = {value: reference.rows_of(value, *asked[0]) for value in leaves(feature.value) if value.node != "patient"}
    said = sorted(name_of(row) for row in counting if not row["part"].endswith("of the patient"))
    assert said == sorted(name_of(row) for counted in read.values() for row in counted)


def name_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["patient_id"], row["resource_id"], row["version"], row["state"], row.get("component", 0)


def test_every_operator_is_generated() -> None:
    seen: set[str] = set()
    filters: set[tuple[str, str]] = set()

    @settings(max_examples=600, derandomize=True)
    @given(views())
    def collect(view: FeatureView) -> None:
        for feature in view.features:
            for value in leaves(feature.value):
                seen.add(value.operator)
                asked = value.rows.model_dump(exclude_defaults=True) if value.node == "aggregate" else {}
                filters.update((value.rows.table, name) for name in asked)
            if feature.value.node == "expression":
                seen.add(feature.value.operator)

    collect()
    assert seen == {*OPERATORS, *PATIENT_OPERATORS, *EXPRESSIONS}
    rows = (Observations, Conditions, Medications, Encounters)
    assert filters == {
        (kind.model_fields["table"].default, name) for kind in rows for name in kind.model_fields if name != "table"
    }


def test_every_status_precision_and_type_of_value_is_generated() -> None:
    kept: dict[tuple[str, str], set[Any]] = {}

    @settings(max_examples=200, derandomize=True)
    @given(lake_rows())
    def collect(rows: LakeRows) -> None:
        for (table, column), values in EVERY.items():
            seen = {row[column] for row in rows.tables[table]}
            kept.setdefault((table, column), set()).update(seen & set(values))

    collect()
    assert kept == {key: set(values) for key, values in EVERY.items()}
