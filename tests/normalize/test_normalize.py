"""What normalize keeps of each resource, and that its counts balance and repeat."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from landing import at, few_rows_at_once, land, observation, patient, rows, warehouse

from fhir_features.config import load_config
from fhir_features.errors import ConfigError, LakeError, LakeLocked
from fhir_features.lake import writing
from fhir_features.normalize import decoding, normalize
from fhir_features.sources import pull

RECEIVED = at("2024-03-20 00:00")
SYNTHEA = Path(__file__).parents[3] / "shared" / "data" / "synthea_r4"
_LOINC = "http://loinc.org"


def _normalized(folder: Path, *lines: dict[str, Any], **source: Any) -> Any:
    config = warehouse(folder, **source)
    land(config, lines, RECEIVED)
    (summary,) = normalize(config)
    assert summary.quarantined == 0, rows(config, "FROM lake.quarantine")
    return config


def test_components_are_rows_of_their_own(tmp_path: Path) -> None:
    pressure = observation(
        "bp",
        code={"coding": [{"system": _LOINC, "code": "85354-9"}]},
        valueQuantity={},
        component=[
            {
                "code": {"coding": [{"system": _LOINC, "code": "8480-6"}]},
                "valueQuantity": {"value": 120, "code": "mm[Hg]"},
            },
            {
                "code": {"coding": [{"system": _LOINC, "code": "8462-4"}]},
                "dataAbsentReason": {"coding": [{"code": "error"}]},
            },
        ],
    )
    config = _normalized(tmp_path, pressure)
    sql = """
SELECT component, c.code, value_number, u.code, absent_reason
FROM observations o JOIN codings c USING (code_id) LEFT JOIN units u USING (unit_id)
ORDER BY component"""
    assert rows(config, sql) == [
        (0, "85354-9", None, None, None),
        (1, "8480-6", 120.0, "mm[Hg]", None),
        (2, "8462-4", None, None, "error"),
    ]


@pytest.mark.parametrize("rows_at_once", [1, 10])
def test_a_run_of_more_rows_than_are_sorted_at_once_is_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    lines = [patient(f"p{n}") for n in range(8)]
    lines += [
        observation(f"o{n}", subject={"reference": f"Patient/p{n % 8}"}, interpretation=[{"coding": [{"code": "H"}]}])
        for n in range(40)
    ]
    whole = _normalized(tmp_path / "whole", *lines)
    few_rows_at_once(monkeypatch, rows_at_once)
    monkeypatch.setattr(decoding, "_BATCH_LINES", 7)
    divided = _normalized(tmp_path / "divided", *lines)
    for table in ("patients", "observations"):
        sql = f"SELECT * FROM lake.{table} ORDER BY ALL"
        assert rows(divided, sql) == rows(whole, sql)
    lake = divided.warehouse.path / "lake"
    assert len(list((lake / "data" / "main" / "observations").iterdir())) > 1
    assert list(lake.glob("spill-*")) == []
    land(divided, lines, at("2024-03-21 00:00"))
    (again,) = normalize(divided)
    assert (again.received, again.duplicates) == (48, 48)


_VALUES: dict[str, tuple[Any, str, str, Any]] = {
    "valueQuantity": ({"value": 0.01, "comparator": "<"}, "Quantity", "(value_number, value_comparator)", (0.01, "<")),
    "valueCodeableConcept": ({"text": "trace"}, "CodeableConcept", "value_string", "trace"),
    "valueString": ("yellow", "string", "value_string", "yellow"),
    "valueBoolean": (False, "boolean", "value_boolean", False),
    "valueInteger": (3, "integer", "value_number", 3.0),
    "valueRange": ({"low": {"value": 1}, "high": {"value": 4}}, "Range", "(value_low, value_high)", (1.0, 4.0)),
    "valueRatio": ({"numerator": {"value": 1.50}}, "Ratio", "value_json", '{"numerator": {"value": 1.5}}'),
    "valueSampledData": ({"data": "1 2"}, "SampledData", "value_json", '{"data": "1 2"}'),
    "valueTime": ("08:30:00", "time", "value_string", "08:30:00"),
    "valueDateTime": ("2024-03", "dateTime", "value_start", at("2024-03-01 00:00")),
    "valuePeriod": ({"start": "2024-03-01", "end": "2024-03-02T00:00:00Z"}, "Period", "value_end", at("2024-03-02 00:00")),
}  # fmt: skip


@pytest.mark.parametrize("element", _VALUES)
def test_every_type_of_value_is_kept(element: str, tmp_path: Path) -> None:
    value, value_type, column, expected = _VALUES[element]
    resource = observation(**{element: value})
    if element != "valueQuantity":
        del resource["valueQuantity"]
    config = _normalized(tmp_path, resource)
    assert rows(config, f"SELECT value_type, {column} FROM observations") == [(value_type, expected)]


def test_the_context_of_a_value_is_kept(tmp_path: Path) -> None:
    config = _normalized(
        tmp_path,
        observation(
            encounter={"reference": "https://example.org/fhir/Encounter/e1/_history/2"},
            category=[{"coding": [{"code": "laboratory"}]}],
            interpretation=[{"coding": [{"code": "H"}]}],
            referenceRange=[
                {"low": {"value": 9}, "type": {"coding": [{"code": "critical"}]}},
                {"low": {"value": 4.0}, "high": {"value": 5.6}, "text": "4.0-5.6"},
            ],
            method={"coding": [{"system": "urn:m", "code": "hplc"}]},
            bodySite={"coding": [{"system": "urn:b", "code": "arm"}]},
            device={"reference": "Device/d1"},
            derivedFrom=[{"reference": "Observation/o0"}],
        ),
    )
    sql = """
SELECT encounter_id, categories, interpretations, reference_low, reference_high, reference_text, m.code, b.code,
  device_id, derived_from
FROM observations o JOIN codings m ON m.code_id = method_code_id JOIN codings b ON b.code_id = body_site_code_id"""
    assert rows(config, sql) == [
        ("e1", ["laboratory"], ["H"], 4.0, 5.6, "4.0-5.6", "hplc", "arm", "d1", ["Observation/o0"])
    ]


def test_all_codings_are_kept_under_one_code_id(tmp_path: Path) -> None:
    codings = [
        {"system": _LOINC, "code": "8310-5", "display": "Body temperature"},
        {"system": _LOINC, "code": "8331-1", "userSelected": True},
    ]
    config = _normalized(
        tmp_path,
        observation("a", code={"coding": codings, "text": "temperature"}),
        observation("b", code={"coding": codings, "text": "fever?"}),
    )
    assert rows(config, "SELECT count(DISTINCT code_id) FROM observations") == [(1,)]
    sql = "SELECT ordinal, code, display, user_selected FROM codings ORDER BY ordinal"
    assert rows(config, sql) == [(0, "8310-5", "Body temperature", None), (1, "8331-1", None, True)]


def _order(id: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "authoredOn": "2024-03-05T08:00:00Z",
        **more,
    }


def test_a_medication_is_found_by_code_contained_and_by_reference_even_when_it_comes_later(tmp_path: Path) -> None:
    def metformin(code: str) -> dict[str, Any]:
        return {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": code}]}

    contained = {"resourceType": "Medication", "id": "m", "code": metformin("860975")}
    config = _normalized(
        tmp_path,
        _order("by-code", medicationCodeableConcept=metformin("6809")),
        _order("contained", contained=[contained], medicationReference={"reference": "#m"}),
        _order("by-reference", medicationReference={"reference": "Medication/m1"}),
        _order("later", medicationReference={"reference": "Medication/m2"}),
        {"resourceType": "Medication", "id": "m1", "code": metformin("861007")},
    )
    sql = "SELECT resource_id, code FROM medication_requests LEFT JOIN codings USING (code_id) ORDER BY ALL"
    found = [("by-code", "6809"), ("by-reference", "861007"), ("contained", "860975")]
    assert rows(config, sql) == [*found, ("later", None)]
    land(config, [{"resourceType": "Medication", "id": "m2", "code": metformin("861004")}], at("2024-03-21 00:00"))
    normalize(config)
    assert rows(config, sql) == [*found, ("later", "861004")]


@pytest.mark.parametrize("format", ["bundle", "ndjson"])
def test_references_within_a_bundle_lead_to_what_has_that_address(format: str, tmp_path: Path) -> None:
    """By urn:uuid, also to what comes later; an id that is another than the uuid is the one that counts."""
    drug = {"resourceType": "Medication", "id": "m1", "code": {"coding": [{"system": "urn:s", "code": "1"}]}}
    by_uuid = {"reference": "urn:uuid:0-0-p"}
    entries: list[dict[str, Any]] = [
        {"resource": observation("early", subject=by_uuid)},
        {"fullUrl": "urn:uuid:0-0-p", "resource": patient("p7")},
        {"fullUrl": "urn:uuid:0-0-d", "resource": drug},
        {"resource": _order("o", subject=by_uuid, medicationReference={"reference": "urn:uuid:0-0-d"})},
        {"resource": observation("elsewhere", subject={"reference": "urn:uuid:p8"})},
        {"fullUrl": "urn:uuid:0-0-g", "resource": {"resourceType": "Group", "id": "g"}},
        {"resource": observation("of-a-group", subject={"reference": "urn:uuid:0-0-g"})},
        {"fullUrl": "urn:uuid:0-0-x"},
    ]
    config = warehouse(tmp_path)
    lines = entries if format == "bundle" else [{"resourceType": "Bundle", "type": "collection", "entry": entries}]
    land(config, lines, RECEIVED, format=format)
    (summary,) = normalize(config)
    assert (summary.received, summary.normalized, summary.quarantined, summary.ignored) == (8, 5, 2, 1)
    found = rows(config, "SELECT resource_id, patient_id FROM observations ORDER BY resource_id")
    assert found == [("early", "p7"), ("elsewhere", "p8")]
    assert rows(config, "SELECT patient_id, medication_id FROM medication_requests") == [("p7", "m1")]


def test_durations_of_an_order_are_in_days(tmp_path: Path) -> None:
    repeat = {"boundsDuration": {"value": 2, "code": "wk", "system": "http://unitsofmeasure.org"}}
    dispense = {"numberOfRepeatsAllowed": 3, "expectedSupplyDuration": {"value": 30, "unit": "days"}}
    config = _normalized(
        tmp_path, _order("m", dosageInstruction=[{"timing": {"repeat": repeat}}], dispenseRequest=dispense)
    )
    assert rows(config, "SELECT dosage_days, supply_days, repeats FROM medication_requests") == [(14.0, 30.0, 3)]


@pytest.mark.parametrize(("taken", "end"), [(False, None), (True, at("2024-06-01 00:00"))])
def test_the_validity_of_an_order_is_when_it_is_taken_only_where_the_source_says_so(
    tmp_path: Path, taken: bool, end: Any
) -> None:
    validity = {"start": "2024-03-06T00:00:00Z", "end": "2024-06-01T00:00:00Z"}
    dosed = {"timing": {"repeat": {"boundsPeriod": {"end": "2024-04-01T00:00:00Z"}}}}
    config = _normalized(
        tmp_path,
        _order("undosed", dispenseRequest={"validityPeriod": validity}),
        _order("dosed", dispenseRequest={"validityPeriod": validity}, dosageInstruction=[dosed]),
        validity_is_taken=taken,
    )
    # The bounds are of how it stands now; the state before is the order as ordered.
    sql = "SELECT resource_id, bounds_end FROM medication_requests WHERE state = 1 ORDER BY resource_id"
    assert rows(config, sql) == [("dosed", at("2024-04-01 00:00")), ("undosed", end)]


def test_an_age_at_onset_counts_from_the_birth_date(tmp_path: Path) -> None:
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "code": {"text": "diabetes"},
        "subject": {"reference": "Patient/p1"},
        "onsetAge": {"value": 45, "code": "a", "system": "http://unitsofmeasure.org"},
        "recordedDate": "2010-01-01",
    }
    config = _normalized(tmp_path, condition, patient())
    assert rows(config, "SELECT effective_at, code_text FROM conditions") == [(at("2005-05-04 00:00"), "diabetes")]


def test_a_result_that_moves_to_another_patient_leaves_the_first(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    first = observation(meta={"versionId": "1", "lastUpdated": "2024-03-05T14:00:00Z"})
    moved = observation(
        meta={"versionId": "2", "lastUpdated": "2024-03-07T10:00:00Z"}, subject={"reference": "Patient/p2"}
    )
    for received, line in (("2024-03-06 00:00", first), ("2024-03-08 00:00", moved)):
        land(config, [line], at(received))
        normalize(config)
    sql = "SELECT patient_id, known_at, known_to FROM observations ORDER BY patient_id"
    assert rows(config, sql) == [
        ("p1", at("2024-03-05 14:00"), at("2024-03-07 10:00")),
        ("p2", at("2024-03-07 10:00"), None),
    ]
    closed = "SELECT c.patient_id, reason, closed_by, c.bucket = o.bucket FROM lake.closings c JOIN lake.observations o USING (version)"
    assert rows(config, closed) == [("p1", "subject-changed", "2", True)]


@pytest.mark.parametrize("history", [False, True])
def test_a_new_resource_of_an_incremental_pull_is_witnessed(tmp_path: Path, history: bool) -> None:
    config = warehouse(tmp_path)
    line = observation(meta={"versionId": "1", "lastUpdated": "2024-03-19T14:00:00Z"})
    land(config, [line], RECEIVED, since=at("2024-03-18 00:00"), history=history)
    normalize(config)
    assert rows(config, "SELECT known_at, known_at_source FROM observations") == [
        (at("2024-03-19 14:00"), "history" if history else "last_updated")
    ]


def test_the_canonical_view_shows_the_concept_and_unit_beside_the_sources(tmp_path: Path) -> None:
    config = _normalized(tmp_path, observation(valueQuantity={"value": 7.5, "unit": "%"}))
    sql = "SELECT source_system, source_code, source_unit, concept_system, concept_code, concept_status, unit FROM lake.canonical_observations"
    assert rows(config, sql) == [(_LOINC, "4548-4", "%", "loinc", "4548-4", "valid", "%")]


def test_a_run_is_normalized_once(tmp_path: Path) -> None:
    config = _normalized(tmp_path, patient(), observation())
    assert normalize(config) == []
    assert rows(config, "SELECT count(*) FROM lake.commits") == [(1,)]


def test_the_same_landing_gives_the_same_rows(tmp_path: Path) -> None:
    lines = [patient(f"p{n}") for n in range(50)] + [
        observation(f"o{n}", subject={"reference": f"Patient/p{n % 50}"}) for n in range(500)
    ]
    answers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        config = _normalized(tmp_path / name, *lines)
        files = sorted((config.warehouse.path / "lake" / "data" / "main" / "observations").glob("**/*.parquet"))
        answers.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert answers[0] == answers[1] != []


def test_an_error_leaves_the_lake_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _normalized(tmp_path, observation())
    land(config, [observation("o2")], at("2024-03-21 00:00"))
    monkeypatch.setattr("fhir_features.normalize.run._insert_watermarks", _fail)
    with pytest.raises(LakeError):
        normalize(config)
    assert rows(config, "SELECT count(*) FROM lake.versions") == [(1,)]
    monkeypatch.undo()
    normalize(config)
    assert rows(config, "SELECT count(*) FROM lake.versions") == [(2,)]


def _fail(*_: object) -> None:
    raise LakeError("the disk is full")


def test_only_one_process_writes(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    with writing(config.warehouse.path / "lake", buckets=32), pytest.raises(LakeLocked):
        normalize(config)


def test_the_number_of_buckets_is_fixed(tmp_path: Path) -> None:
    config = _normalized(tmp_path, observation())
    file = config.file
    file.write_text(file.read_text() + "[warehouse]\nbuckets = 8\n")
    with pytest.raises(LakeError, match=r"set warehouse\.buckets = 32"):
        normalize(load_config(file))


def test_a_run_of_a_source_that_is_gone_is_refused(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    land(config, [observation()], RECEIVED)
    config.file.write_text("")
    with pytest.raises(ConfigError, match="source 'ward'"):
        normalize(load_config(config.file))


@pytest.mark.skipif(not SYNTHEA.exists(), reason="the Synthea sample is not here")
def test_the_synthea_sample_whole_and_once(tmp_path: Path) -> None:
    (tmp_path / "fhir_features.toml").write_text(
        f'[sources.s]\nkind = "files"\npath = "{SYNTHEA}"\nsite = "boston"\ntimezone = "America/New_York"\n'
    )
    config = load_config(tmp_path)
    pull(config, ["s"])
    (summary,) = normalize(config)
    assert summary.versions == {
        "Condition": 330,
        "DiagnosticReport": 436,
        "Encounter": 2143,
        "MedicationRequest": 1423,
        "Observation": 7852,
        "Patient": 50,
    }
    assert (summary.quarantined, summary.duplicates) == (0, 0)
    assert rows(config, "SELECT count(*) FROM observations") == [(8774,)]
    pull(config, ["s"])
    assert normalize(config) == []


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        ({"value": 12, "unit": "g/dL", "code": "g/dL"}, None),
        ({"value": 120, "unit": "gram per litre", "code": "g/L"}, 120.0),
        ({"value": 120}, 120.0),
    ],
)
def test_a_limit_in_another_unit_than_the_value_is_no_limit(
    tmp_path: Path, limit: dict[str, Any], kept: float | None
) -> None:
    haemoglobin = observation(
        "hb", valueQuantity={"value": 140, "unit": "g/L", "code": "g/L"}, referenceRange=[{"low": limit}]
    )
    config = _normalized(tmp_path, haemoglobin)
    assert rows(config, "SELECT reference_low FROM observations") == [(kept,)]
