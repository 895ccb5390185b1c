"""Do the features of a project say what their authors mean: invented patients, asked through the engine itself.

In go the patients of `invented` and the feature views; out come the answers that are not as expected, each with the
verdict of `explain` on every row that bears on it. The patients stand in a lake in memory, so that no warehouse is
needed, and what is tested is what answers in training and in serving.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.compile import compile_features, kind_of
from fhir_features.features.engine import answers, ask, stand_at
from fhir_features.features.explain import explain
from fhir_features.features.invented import SITE, Asked, Invented
from fhir_features.features.nodes import Feature, Kind
from fhir_features.features.spine import INSTANT
from fhir_features.features.terms import create_members
from fhir_features.features.view import FeatureView
from fhir_features.lake import EVENT_TABLES, add_measured_units, in_memory
from fhir_features.ontology import Ontologies, parse_concept

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}
_UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True)
class Failure:
    """One answer that is not as expected: where it stands on the page, what was asked, and the verdicts of explain."""

    patient: str
    line: int
    feature: str
    asked_at: dt.datetime
    expected: str
    got: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Assurance:
    """What came of the tests of a project: how many patients, how many answers, and those that are not as expected."""

    patients: int
    answers: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Expected:
    """One answer that is expected of one patient."""

    patient_no: int
    patient: Invented
    asked: Asked
    feature: str
    written: str


def assure(known: Ontologies, views: dict[str, FeatureView], patients: list[Invented]) -> Assurance:
    """Ask the features of invented patients, and compare. Raises DefinitionError for a feature that is not defined."""
    features = {f"{view.name}:{feature.name}": feature for view in views.values() for feature in view.features}
    expected = [
        _Expected(number, patient, asked, feature, written)
        for number, patient in enumerate(patients)
        for asked in patient.asked
        for feature, written in asked.expected.items()
    ]
    if not expected:
        raise DefinitionError("the feature tests expect nothing: add an 'asked at' table with columns 'view:feature'")
    with in_memory() as con:
        _fill(con, patients)
        stand_at(con, known, 1)
        got: dict[int, Any] = {}
        for name in dict.fromkeys(each.feature for each in expected):
            if name not in features:
                raise DefinitionError(f"the feature tests ask for '{name}': {did_you_mean(name, features)}")
            asked = [(number, each) for number, each in enumerate(expected) if each.feature == name]
            for _, each in asked:
                _check_kind(each, kind_of(features[name].value))
            got |= _answers(con, known, features[name], asked)
        failures = [
            _failure(con, known, features[each.feature], each, got[number])
            for number, each in enumerate(expected)
            if not _is(each, got[number])
        ]
    return Assurance(len(patients), len(expected), tuple(failures))


def _fill(con: duckdb.DuckDBPyConnection, patients: list[Invented]) -> None:
    """Write the patients into the lake, as one commit."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in (*_TYPE_OF, "codings", "units", "closings")}
    codes: dict[str, int] = {}
    units: dict[str, int] = {}
    written = 0
    for number, patient in enumerate(patients):
        for table, rows in patient.rows.items():
            for version, stated in enumerate(rows):
                row = {**stated, "patient_id": str(number), "version": str(version), "state": 1, "bucket": 0}
                written += 1
                row["version_no"] = written
                _encode(row, codes, units)
                if row["until"] is not None:
                    closing = {"resource_type": _TYPE_OF[table], "closed_at": row["until"], "reason": "superseded"}
                    tables["closings"].append({**row, **closing})
                tables[table].append(row)
    for code, code_id in codes.items():
        concept = parse_concept(code)
        tables["codings"].append({"code_id": code_id, "ordinal": 0, "system": concept.system, "code": concept.code})
    tables["units"] = [{"unit_id": unit_id, "system": _UCUM, "code": unit} for unit, unit_id in units.items()]
    for name, rows in tables.items():
        schema = con.execute(f"SELECT * FROM lake.{name} LIMIT 0").to_arrow_table().schema
        con.register("written", pa.Table.from_pylist([{**row, "store_seq": 1} for row in rows], schema=schema))
        con.execute(f"INSERT INTO lake.{name} SELECT * FROM written")
        con.unregister("written")
    add_measured_units(con, "lake.observations", 1)


def _encode(row: dict[str, Any], codes: dict[str, int], units: dict[str, int]) -> None:
    """Replace codes and units as they are written by their numbers."""
    for written, column in (("code", "code_id"), ("value_code", "value_code_id"), ("method_code", "method_code_id")):
        if written in row:
            row[column] = codes.setdefault(row[written], len(codes))
    if "unit" in row:
        row["unit_id"] = units.setdefault(row["unit"], len(units))


def _answers(
    con: duckdb.DuckDBPyConnection, known: Ontologies, feature: Feature, asked: list[tuple[int, _Expected]]
) -> dict[int, Any]:
    """The answers to one feature, by the number of what is expected."""
    columns = {
        "question": pa.array([number for number, _ in asked], pa.int64()),
        "site": pa.array([_site(each.patient) for _, each in asked], pa.string()),
        "patient_id": pa.array([str(each.patient_no) for _, each in asked], pa.string()),
        "t": pa.array([each.asked.t for _, each in asked], INSTANT),
        "k": pa.array([each.asked.k for _, each in asked], INSTANT),
    }
    ask(con, pa.table(columns))
    plan = compile_features((feature,))
    create_members(con, known, plan)
    got: dict[int, Any] = {}
    for table in answers(con, plan):
        got |= dict(zip(table["question"].to_pylist(), table[feature.name].to_pylist(), strict=True))
    return got


def _site(patient: Invented) -> str:
    return next((str(row["site"]) for rows in patient.rows.values() for row in rows), SITE)


def _check_kind(expected: _Expected, kind: Kind) -> None:
    """Refuse what can be no answer of the kind. Raises DefinitionError."""
    written, where = expected.written, f"the feature tests, line {expected.asked.line}: {expected.feature}"
    if not written:
        return
    if kind == "boolean" and written not in ("true", "false"):
        raise DefinitionError(f"{where} is true or false, not '{written}'")
    if kind in ("number", "count"):
        try:
            float(written)
        except ValueError:
            raise DefinitionError(f"{where} is a number, not '{written}'") from None


def _is(expected: _Expected, got: Any) -> bool:
    """Whether an answer is what is written: nothing for null, true or false, a number to six digits, or a text."""
    if got is None or isinstance(got, bool):
        return _written(got) == expected.written
    if isinstance(got, int | float):
        return bool(expected.written) and math.isclose(float(expected.written), got, rel_tol=1e-6, abs_tol=1e-9)
    return _written(got) == expected.written


def _written(got: Any) -> str:
    if got is None:
        return ""
    return str(got).lower() if isinstance(got, bool) else str(got)


def _failure(
    con: duckdb.DuckDBPyConnection, known: Ontologies, feature: Feature, expected: _Expected, got: Any
) -> Failure:
    asked = expected.asked
    patient_id, site = str(expected.patient_no), _site(expected.patient)
    verdicts = explain(con, known, feature, site=site, patient_id=patient_id, t=asked.t, k=asked.k).rows.to_pylist()
    return Failure(
        patient=expected.patient.title,
        line=asked.line,
        feature=expected.feature,
        asked_at=asked.t,
        expected=expected.written or "nothing",
        got=_written(got) or "nothing",
        why=tuple(f"{row['resource_type']}, {row['resource_id']}: {row['verdict']}" for row in verdicts),
    )
