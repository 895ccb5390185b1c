"""The ontologies and the warehouse together: what of the data is understood, and what of it a release concerns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from landing import at, land, warehouse

from fhir_features.cli import cli
from fhir_features.config import Config
from fhir_features.normalize import normalize

ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
_VIEW = """
from fhir_features import FeatureView, condition, patient
diabetes = FeatureView(
    name="diabetes",
    entity=patient,
    features=[
        condition("icd10cm:E11", descendants=True).ever().named("t2dm"),
        (condition("icd10cm:G35").count() - condition("icd10cm:I10").count()).named("sclerosis"),
    ],
)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    found = warehouse(tmp_path)
    codes = ["E11.A", "E11.A", "E11.9", "home-made"]
    conditions = [
        {
            "resourceType": "Condition",
            "id": f"c{number}",
            "code": {"coding": [{"system": ICD10CM if "." in code else "urn:ward", "code": code}]},
            "subject": {"reference": f"Patient/p{number}"},
            "recordedDate": "2026-01-05",
        }
        for number, code in enumerate(codes)
    ]
    text_only = {**conditions[0], "id": "text", "code": {"text": "sugar"}}
    land(found, [*conditions, text_only], at("2026-03-20 00:00"))
    normalize(found)
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "features.py").write_text(_VIEW)
    return found


def _run(config: Config, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["--config", str(config.file), "ontology", *words])
    return result.exit_code, result.stdout


def test_unmapped_counts_every_row_and_ranks_what_is_not_understood(config: Config) -> None:
    exit_code, text = _run(config, "unmapped", "--json")
    report = json.loads(text)
    assert exit_code == 0
    assert sum(covered["rows"] for covered in report["covered"]) == 5
    assert {(u["system"], u["code"]) for u in report["unmapped"]} == {("urn:ward", "home-made"), ("(none)", "")}


def test_unmapped_as_tables(config: Config) -> None:
    lines = [line.split() for line in _run(config, "unmapped")[1].splitlines()]
    assert lines[0] == ["system", "site", "type", "rows", "resolved", "percent", "patients"]
    assert ["rows", "system", "code", "display", "site", "type", "why", "patients"] in lines


def test_unmapped_as_a_page_of_its_own(config: Config) -> None:
    _, page = _run(config, "unmapped", "--html")
    assert page.startswith("<!doctype html>")
    assert "home-made" in page
    assert "http" not in page.replace(ICD10CM, "")


def test_impact_counts_the_rows_and_patients_that_a_release_concerns(config: Config) -> None:
    exit_code, text = _run(config, "impact", "icd10cm@FY2025", "icd10cm@FY2026", "--json")
    diabetes, sclerosis, tension = json.loads(text)
    assert exit_code == 1
    assert (diabetes["gained"], diabetes["rows"], diabetes["patients"]) == (["icd10cm:E11.A"], 2, 2)
    assert [(found["feature"], found["concepts"]) for found in (sclerosis, tension)] == [
        ("sclerosis", "icd10cm:G35"),
        ("sclerosis", "icd10cm:I10"),
    ]
    assert "icd10cm:G35.A" in sclerosis["retired"][0]["missed"], "a feature made of others rests on their sets"
