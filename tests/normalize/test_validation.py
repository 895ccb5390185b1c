"""What is valid FHIR only in the elements that are read is normalized, and told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from landing import at, land, observation, patient, rows, warehouse

from fhir_features.cli import cli
from fhir_features.config import Config
from fhir_features.normalize import Finding, Validation, normalize
from fhir_features.normalize.validation import findings

SECRET = "Erika-Mustermann"
FAULTY: list[dict[str, Any]] = [
    patient(),
    observation("named", **{SECRET: SECRET}),
    observation("noted", note={"text": SECRET}, device={"reference": "Device/1", SECRET: 1}),
    observation("grouped", component=[{"code": {"text": "sat"}}, {"code": {"text": "rate"}, "foo": 1}], specimen=[]),
    patient("p2", birthDate="1960-05-04", multipleBirthBoolean=True, multipleBirthInteger=2),
    observation("unknown", status="finished"),
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = warehouse(tmp_path)
    land(config, FAULTY, at("2024-03-20 00:00"))
    return config


def test_what_is_not_valid_is_normalized_and_told_of(config: Config) -> None:
    (summary,) = normalize(config, validation=Validation.ALL)
    assert (summary.received, summary.normalized, summary.quarantined) == (6, 5, 1)
    assert summary.validated == 5
    assert summary.findings == (
        Finding("Observation", "$", "extra_forbidden", 1),
        Finding("Observation", "$.component", "extra_forbidden", 1),
        Finding("Observation", "$.device", "extra_forbidden", 1),
        Finding("Observation", "$.note", "list_type", 1),
        Finding("Observation", "$.specimen", "model_validation_format", 1),
        Finding("Patient", "$", "value_error", 1),
    )
    told = rows(config, "SELECT line, resource_id, json_path, rule FROM lake.findings ORDER BY ALL")
    assert told[:2] == [(2, "named", "$", "extra_forbidden"), (3, "noted", "$.device", "extra_forbidden")]
    assert SECRET not in str(rows(config, "FROM lake.findings"))
    assert len(rows(config, "FROM observations WHERE component = 0")) == 3


def test_what_came_before_is_not_told_of_again(config: Config) -> None:
    normalize(config, validation=Validation.ALL)
    land(config, FAULTY, at("2024-03-21 00:00"))
    (again,) = normalize(config, validation=Validation.ALL)
    assert (again.validated, again.findings) == (5, ())


def test_a_sample_holds_the_same_resources_in_every_run() -> None:
    ids = [f"o{number}" for number in range(20_000)]
    sample = [id for id in ids if Validation.SAMPLE.takes("Observation", id)]
    assert sample == [id for id in reversed(ids) if Validation.SAMPLE.takes("Observation", id)][::-1]
    assert 50 < len(sample) < 110
    assert sample != [id for id in ids if Validation.SAMPLE.takes("Condition", id)]
    assert not any(Validation.OFF.takes("Observation", id) for id in ids)


def test_what_tests_call_valid_is_valid() -> None:
    assert findings("Observation", json.dumps(observation()).encode()) == []


def test_the_command_tells_what_it_found(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--config", str(config.file), "normalize", "--validate", "all"], standalone_mode=False)
    told = capsys.readouterr()
    assert ["1", "Observation", "1", "$.note", "list_type"] in [line.split() for line in told.out.splitlines()]
    assert "not all of 5 resources that were validated are valid\n" in told.err
    assert SECRET not in told.out + told.err


def test_nothing_is_validated_when_nobody_wants_it(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--config", str(config.file), "normalize", "--validate", "off", "--json"], standalone_mode=False)
    (summary,) = json.loads(capsys.readouterr().out)
    assert (summary["validated"], summary["findings"]) == (0, [])
