"""What cannot be normalized goes to the quarantine, is named exactly, and loses nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from landing import at, land, observation, patient, rows, warehouse

from fhir_features.files import sha256_of
from fhir_features.normalize import RunSummary, normalize
from fhir_features.sources.landing import write_record

RECEIVED = at("2024-03-20 00:00")


def _run(folder: Path, *lines: dict[str, Any] | bytes) -> tuple[RunSummary, list[tuple[Any, ...]]]:
    config = warehouse(folder)
    land(config, lines, RECEIVED)
    (summary,) = normalize(config)
    sql = "SELECT file, line, resource_type, resource_id, json_path, rule, reason FROM lake.quarantine ORDER BY line"
    return summary, rows(config, sql)


_CANARY = "Mustermann"
_BAD: dict[str, tuple[dict[str, Any] | bytes, tuple[str | None, str | None, str | None, str]]] = {
    "malformed line": (b'{"resourceType":"Observation","id":"bad",}', (None, None, None, "json")),
    "line cut off": (b'{"resourceType":"Observation","id":"ba', (None, None, None, "json")),
    "two objects on a line": (b'{"resourceType":"Patient","id":"a"}{"resourceType":"Patient"}', (None, None, None, "json")),
    "not an object": (b"[1]", (None, None, "$", "json")),
    "bytes that are no UTF-8": (b'{"resourceType":"Patient","id":"a","x":"\xff"}', ("Patient", "a", None, "encoding")),
    "no resourceType": ({"id": "bad"}, (None, "bad", "$.resourceType", "resource-type")),
    "unknown resource type": ({"resourceType": "Bloodtest", "id": "bad"}, (None, "bad", "$.resourceType", "resource-type")),
    "no id": (observation(id=None), ("Observation", None, "$.id", "id")),
    "text for a number": (
        observation("bad", valueQuantity={"value": _CANARY}),
        ("Observation", "bad", "$.valueQuantity.value", "type"),
    ),
    "number out of range": (
        json.dumps(observation("bad")).replace("7.5", "1e400").encode(),
        ("Observation", "bad", "$.valueQuantity.value", "type"),
    ),
    "object for a list": (observation("bad", component={}), ("Observation", "bad", "$.component", "type")),
    "no subject": (observation("bad", subject=None), ("Observation", "bad", "$.subject", "subject")),
    "a device as subject": (
        observation("bad", subject={"reference": "Device/d"}),
        ("Observation", "bad", "$.subject.reference", "subject"),
    ),
    "no status": (observation("bad", status=None), ("Observation", "bad", "$.status", "required")),
    "unknown status": (observation("bad", status=_CANARY), ("Observation", "bad", "$.status", "code")),
    "two values": (observation("bad", valueString=_CANARY), ("Observation", "bad", "$.value[x]", "value")),
    "unknown comparator": (
        observation("bad", valueQuantity={"value": 1, "comparator": "~"}),
        ("Observation", "bad", "$.valueQuantity.comparator", "code"),
    ),
    "modifier extension": (
        observation("bad", modifierExtension=[{"url": "urn:x"}]),
        ("Observation", "bad", "$.modifierExtension", "modifier-extension"),
    ),
    "modifier extension of a component": (
        observation("bad", component=[{"code": {}, "modifierExtension": [{"url": "urn:x"}]}]),
        ("Observation", "bad", "$.component[0].modifierExtension", "modifier-extension"),
    ),
    "a day that does not exist": (
        observation("bad", effectiveDateTime="2023-02-29"),
        ("Observation", "bad", "$.effectiveDateTime", "instant"),
    ),
    "24:00": (
        observation("bad", effectiveDateTime=None, effectivePeriod={"end": "2024-03-05T24:00:00Z"}),
        ("Observation", "bad", "$.effectivePeriod.end", "instant"),
    ),
    "an issued that is no instant": (observation("bad", issued=_CANARY), ("Observation", "bad", "$.issued", "instant")),
    "a lastUpdated that is no instant": (
        observation("bad", meta={"lastUpdated": "soon"}),
        ("Observation", "bad", "$.meta.lastUpdated", "instant"),
    ),
    "deletion without a target": (
        {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Observation?code=1"}}]},
        (None, None, "$.request.url", "deletion"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _BAD)
def test_quarantine_names_the_place_and_the_rest_goes_on(name: str, tmp_path: Path) -> None:
    line, (resource_type, resource_id, json_path, rule) = _BAD[name]
    line = line if isinstance(line, bytes) else {key: value for key, value in line.items() if value is not None}
    summary, quarantine = _run(tmp_path, patient(), line, observation("good"))
    assert (summary.received, summary.normalized, summary.quarantined) == (3, 2, 1)
    ((*place, reason),) = quarantine
    assert place == ["files-0001.ndjson.zst", 2, resource_type, resource_id, json_path, rule]
    assert reason
    assert _CANARY not in str(quarantine)


def test_types_that_are_not_normalized_are_ignored_and_counted(tmp_path: Path) -> None:
    summary, quarantine = _run(tmp_path, {"resourceType": "Procedure", "id": "x", "status": 7}, patient())
    assert (summary.received, summary.normalized, summary.ignored, quarantine) == (2, 1, 1, [])


def test_a_blank_line_and_an_empty_file_are_nothing(tmp_path: Path) -> None:
    summary, quarantine = _run(tmp_path, b"", b"  ")
    assert (summary.received, quarantine) == (0, [])


def test_a_file_whose_stream_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    run = land(config, [observation(f"o{n}") for n in range(5000)], RECEIVED)
    path = run.folder / run.files[0].name
    path.write_bytes(path.read_bytes()[:-40])
    file = run.files[0].model_copy(update={"bytes": path.stat().st_size, "sha256": sha256_of(path)})
    write_record(run.model_copy(update={"files": (file,)}))
    (summary,) = normalize(config)
    assert summary.quarantined == 1
    ((line, rule),) = rows(config, "SELECT line, rule FROM lake.quarantine")
    assert rule == "unreadable"
    assert summary.normalized == line - 1


def test_a_quarantined_first_version_without_a_version_closes_nothing_later(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    land(config, [observation()], at("2024-03-06 00:00"))
    land(config, [observation(valueQuantity={"value": "x"})], at("2024-03-07 00:00"))
    normalize(config)
    assert rows(config, "SELECT value_number, known_to FROM observations") == [(7.5, None)]


_URL = "https://north.example/modifiers#reviewed"


@pytest.mark.parametrize(
    ("resource", "normalized"),
    [
        (observation(modifierExtension=[{"url": _URL, "valueBoolean": True}]), 1),
        (observation(component=[{"code": {}, "modifierExtension": [{"url": _URL}]}]), 1),
        (observation(modifierExtension=[{"url": _URL}, {"url": "urn:negated"}]), 0),
    ],
    ids=["of the resource", "of a component", "beside one that is not known"],
)
def test_a_modifier_extension_that_the_source_explains_is_read_over(
    resource: dict[str, Any], normalized: int, tmp_path: Path
) -> None:
    config = warehouse(tmp_path, known_modifiers=[_URL])
    land(config, [resource], RECEIVED)
    (summary,) = normalize(config)
    assert (summary.normalized, summary.quarantined) == (normalized, 1 - normalized)


def test_a_patient_of_another_server_is_not_ours(tmp_path: Path) -> None:
    def at_server(id: str, base: str, encounter_base: str = "") -> dict[str, Any]:
        encounter = {"reference": f"{encounter_base or base}Encounter/e1"}
        return observation(id, subject={"reference": f"{base}Patient/p1"}, encounter=encounter)

    config = warehouse(
        tmp_path,
        kind="search",
        path=None,
        base_url="https://north.example/fhir",
        other_base_urls=["http://inside:8080/r4/"],
    )
    lines = [
        at_server("relative", ""),
        at_server("own", "https://north.example/fhir/"),
        at_server("inside", "http://inside:8080/r4/"),
        at_server("south", "https://south.example/fhir/"),
        at_server("beside", "https://north.example/fhir2/"),
        at_server("visited", "", "https://south.example/fhir/"),
    ]
    land(config, lines, RECEIVED)
    normalize(config)
    found = rows(config, "SELECT resource_id, encounter_id FROM observations ORDER BY resource_id")
    assert found == [("inside", "e1"), ("own", "e1"), ("relative", "e1"), ("visited", None)]
    told = rows(
        config, "SELECT resource_id, rule, contains(reason, 'other_base_urls') FROM lake.quarantine ORDER BY ALL"
    )
    assert told == [("beside", "subject", True), ("south", "subject", True)]
