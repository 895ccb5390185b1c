"""What a server gives only to whoever asks for it by its id is read where something refers to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fhir_server import FhirServer, Reply, Request, resource
from landing import observation, rows

from fhir_features.config import Config
from fhir_features.errors import SourceRefused
from fhir_features.normalize import normalize
from fhir_features.sources import LandedRun, ahead, landed_runs, pull, read_lines


def pulled(config: Config) -> LandedRun:
    pull(config)
    return landed_runs(config.warehouse.path / "landing")[-1]


def followed(run: LandedRun, resource_type: str) -> list[str]:
    files = [file for file in run.files if file.name.startswith(f"{resource_type}-followed")]
    return [
        line.decode().split('"id": "')[1].split('"')[0] for file in files for *_, line in read_lines(run.folder, file)
    ]


def reads(server: FhirServer, resource_type: str) -> list[str]:
    return [r.path.rpartition("/")[2] for r in server.requests if f"/{resource_type}/" in r.path]


def order(number: int, medication: str, **more: Any) -> dict[str, Any]:
    refers = {"subject": {"reference": "Patient/patient-0"}, "medicationReference": {"reference": medication}}
    return resource("MedicationRequest", number, **more) | {"status": "active", "intent": "order", **refers}


def medication(number: int) -> dict[str, Any]:
    coding = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "6809"}
    return resource("Medication", number) | {"code": {"coding": [coding]}}


ORDERS = {"types": '"Patient", "MedicationRequest"'}


@pytest.mark.parametrize("kind", ["searching", "exporting"])
def test_the_medications_of_orders_are_read_by_their_ids(server: FhirServer, request: pytest.FixtureRequest, kind: str):
    references = [
        "Medication/medication-0",
        f"{server.base}/Medication/medication-1/_history/3",
        "Medication/medication-0",
        "Medication/gone",
        "https://elsewhere.example.org/fhir/Medication/medication-2",
        "#medication-2",
    ]
    orders = [order(number, each) for number, each in enumerate(references)]
    server.resources = [resource("Patient", 0), *orders, *(medication(number) for number in range(3))]
    config = request.getfixturevalue(kind)('follow = ["Medication"]', **ORDERS)
    run = pulled(config)
    assert followed(run, "Medication") == ["medication-0", "medication-1"]
    assert sorted(reads(server, "Medication")) == ["gone", "medication-0", "medication-1"]
    assert run.warnings == ("1 of 3 Medication that others refer to could not be had",)
    assert "Medication" not in run.types

    (summary,) = normalize(config)
    assert (summary.versions["Medication"], summary.quarantined) == (2, 0)


def test_results_behind_reports_and_panels_are_read(server: FhirServer, searching: Callable[..., Config]):
    """Of a report whose panel has two results, none of which a search gives."""
    report = resource("DiagnosticReport", 0) | {
        "status": "final",
        "issued": "2026-01-01T12:00:00Z",
        "result": [{"reference": "Observation/panel"}],
    }
    members = [{"reference": f"Observation/o{number}"} for number in range(2)]
    # Its search brings those that were searched for; these have to be asked for.
    hidden = [observation("panel", hasMember=members), *(observation(f"o{number}") for number in range(2))]
    for each in hidden:
        del each["issued"]
    server.resources = [report, *hidden]
    config = searching('follow = ["Observation"]', types='"DiagnosticReport"')
    assert followed(pulled(config), "Observation") == ["panel", "o0", "o1"]
    normalize(config)
    known = rows(config, "SELECT resource_id, known_at_source FROM observations ORDER BY ALL")
    assert known == [(each, "report_issued") for each in ("o0", "o1", "panel")]


def test_what_a_search_has_brought_is_not_read_again(server: FhirServer, searching: Callable[..., Config]):
    server.resources = [order(0, "Medication/medication-0"), medication(0)]
    config = searching('follow = ["Medication"]', types='"MedicationRequest", "Medication"')
    assert followed(pulled(config), "Medication") == []
    assert reads(server, "Medication") == []


def test_a_pull_that_failed_goes_on_where_it_was(server: FhirServer, searching: Callable[..., Config]):
    server.resources = [order(number, f"Medication/medication-{number}") for number in range(5)]
    server.resources += [medication(number) for number in range(5)]
    config = searching('follow = ["Medication"]', "connections = 1", **ORDERS)
    refused = {"medication-3"}
    server.scripted = lambda r: Reply(status=401) if r.path.rpartition("/")[2] in refused else None
    with pytest.raises(SourceRefused, match=r"HTTP 401 at \S+/Medication/…: set 'auth'"):
        pull(config)
    refused.clear()
    server.requests.clear()
    assert followed(pulled(config), "Medication") == [f"medication-{number}" for number in range(5)]
    assert reads(server, "Medication") == ["medication-3", "medication-4"]


def test_an_order_that_changed_has_its_medication_read_again(server: FhirServer, searching: Callable[..., Config]):
    server.resources = [order(0, "Medication/medication-0"), medication(0)]
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    config = searching('follow = ["Medication"]', "history = false", **ORDERS)
    pulled(config)
    assert followed(pulled(config), "Medication") == []
    server.update(order(0, "Medication/medication-0", version=2, updated="2026-03-02T11:00:00Z"))
    assert followed(pulled(config), "Medication") == ["medication-0"]


def test_small_searches_do_not_wait_for_each_other(server: FhirServer, searching: Callable[..., Config]):
    """Three at a time, and no more, in whatever order they are answered."""
    together, at_once, most = threading.Barrier(3), 0, 0
    lock = threading.Lock()

    def count(request: Request) -> None:
        nonlocal at_once, most
        if "patient" in request.parameters:
            with lock:
                at_once += 1
                most = max(most, at_once)
            together.wait(timeout=20)
            with lock:
                at_once -= 1

    server.scripted = count
    meta = {"lastUpdated": "2026-01-01T00:00:00Z"}
    results = [observation(f"o{n}", subject={"reference": f"Patient/patient-{n}"}, meta=meta) for n in range(9)]
    server.resources = [*(resource("Patient", number) for number in range(9)), *results]
    run = pulled(searching('per_patient = ["Observation"]', "connections = 3", types='"Patient", "Observation"'))
    assert most == 3
    (_, file) = run.files
    assert file.lines == 9
    assert [f'"id": "o{n}"'.encode() in line for n, (*_, line) in enumerate(read_lines(run.folder, file))] == [True] * 9


def test_what_is_not_expected_any_more_is_forgotten(server: FhirServer, searching: Callable[..., Config]):
    from fhir_features.sources.client import Client

    config = searching()
    with Client("ward", config.sources["ward"]) as client:
        asking = ahead.Ahead(client, connections=3)
        urls = [f"{server.base}/Patient?_id={number}" for number in range(4)]
        asking.expect(urls)
        asking.expect(urls[2:])
        assert asking.get(urls[0])[1].status == asking.get(urls[3])[1].status == 200
        asking.close()
