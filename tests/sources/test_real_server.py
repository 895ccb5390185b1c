"""Against a FHIR server that others wrote: what is in the warehouse at the end is what is on the server, though it was
written to while it was read."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from landing import observation, patient, rows

from examples.fhir_server import fhir_server
from fhir_features.config import Config, load_config
from fhir_features.errors import SourceIncomplete
from fhir_features.normalize import normalize
from fhir_features.sources import examine, pull
from fhir_features.sources.reconcile import reconcile

PROGRAM = Path(__file__).parents[2] / ".venv-fhir" / "bin" / "sekmet"
PATIENTS, RESULTS, WRITES = 30, 90, 60

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason="no FHIR server here: 'make test' and 'make demo' install it"
)


def result(number: int, value: float) -> dict[str, Any]:
    subject = {"reference": f"Patient/p{number % PATIENTS}"}
    return observation(f"o{number}", subject=subject, valueQuantity={"value": value, "unit": "%"})


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with fhir_server(PROGRAM, tmp_path_factory.mktemp("real") / "server") as base_url:
        held = [*(patient(f"p{n}") for n in range(PATIENTS)), *(result(n, 7.5) for n in range(RESULTS))]
        entries = [
            {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
            for each in held
        ]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        requests.post(base_url, json=bundle, timeout=60).raise_for_status()
        yield base_url


def configured(folder: Path, base_url: str, *lines: str) -> Config:
    (folder / "fhir_features.toml").write_text(
        f'[sources.ward]\nkind = "search"\nsite = "north"\ntimezone = "UTC"\nbase_url = "{base_url}"\n'
        'resource_types = ["Patient", "Observation"]\npage_size = 10\n' + "\n".join(lines)
    )
    return load_config(folder)


def write_at_random(base_url: str) -> None:
    """New results, corrections and deletions."""
    dice = random.Random(5)
    with requests.Session() as session:
        for write in range(WRITES):
            number = dice.randrange(RESULTS + 20)
            url = f"{base_url}/Observation/o{number}"
            done = session.delete(url) if dice.random() < 0.3 else session.put(url, json=result(number, float(write)))
            done.raise_for_status()


def on_server(base_url: str, kind: str) -> dict[str, str]:
    bundle = requests.get(f"{base_url}/{kind}?_count=1000", timeout=60).json()
    return {each["resource"]["id"]: each["resource"]["meta"]["versionId"] for each in bundle["entry"]}


def test_the_warehouse_ends_as_the_server_does_though_it_was_written_to_meanwhile(base_url: str, tmp_path: Path):
    config = configured(tmp_path, base_url)
    writer = threading.Thread(target=write_at_random, args=(base_url,))
    writer.start()
    while writer.is_alive():
        with contextlib.suppress(SourceIncomplete):
            pull(config)
    writer.join()
    # The first pull may have been kept from its end till now; what was deleted behind its back the next one sees.
    pull(config)
    (last,) = pull(config)
    assert [of.warnings for of in last.types] == [(), ()]

    assert all(summary.quarantined == 0 for summary in normalize(config))
    for kind, table in (("Patient", "patients"), ("Observation", "observations")):
        held = dict(rows(config, f"SELECT DISTINCT resource_id, version FROM {table} WHERE known_to IS NULL"))
        assert held == on_server(base_url, kind)
    # The history, and not only the last state, of what changed between two pulls.
    versions = rows(config, "SELECT count(DISTINCT version) FROM observations GROUP BY resource_id ORDER BY 1 DESC")
    assert versions[0][0] > 1


def test_deletions_that_nobody_reported_are_found(base_url: str, tmp_path: Path):
    config = configured(tmp_path, base_url, "history = false")
    pull(config)
    normalize(config)
    gone = sorted(on_server(base_url, "Observation"))[:3]
    for each in gone:
        requests.delete(f"{base_url}/Observation/{each}", timeout=60).raise_for_status()
    pull(config)
    found = reconcile(config, "ward")
    assert [(of.gone, of.passed_over, of.not_held) for of in found.types] == [(0, 0, 0), (len(gone), 0, 0)]
    normalize(config)
    closed = rows(config, "SELECT resource_id FROM lake.closings WHERE reason = 'deleted' ORDER BY resource_id")
    assert closed == [(each,) for each in gone]


def test_patient_by_patient_brings_the_same(base_url: str, tmp_path: Path):
    (whole, single) = (tmp_path / "whole", tmp_path / "single")
    whole.mkdir()
    single.mkdir()
    (first,) = pull(configured(whole, base_url))
    (second,) = pull(configured(single, base_url, 'per_patient = ["Observation"]'))
    assert [(of.resource_type, of.landed) for of in first.types] == [
        (of.resource_type, of.landed) for of in second.types
    ]


def test_doctor_finds_nothing_to_change(base_url: str, tmp_path: Path):
    assert {check.verdict for check in examine(configured(tmp_path, base_url), "ward")} == {"works"}
