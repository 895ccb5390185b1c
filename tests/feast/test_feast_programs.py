"""`feast serve` and `feast ui` run on the repository as it is, and what is served is what the engine answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from project import Project
from servers import free_port, wait_until_open
from test_online_equals_offline import offline, patients, watermarks


@contextmanager
def running(project: Project, program: str) -> Iterator[str]:
    """A program of Feast in the repository; out comes its address."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "feast"), program, "-h", "127.0.0.1", "-p", str(port)]
    folder = project.folder / "feature_repo"
    with (project.folder / f"{program}.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until_open(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def test_feast_serve_serves_what_the_engine_answers(loaded: Project):
    view = loaded.store.view("diabetes")
    names = [feature.name for feature in view.features]
    asked = patients(loaded)
    question = {
        "features": [f"diabetes:{name}" for name in names],
        "entities": {key: [each[key] for each in asked] for key in ("site", "patient_id")},
    }
    with running(loaded, "serve") as address:
        served = requests.post(f"{address}/get-online-features", json=question, timeout=30).json()
    columns = dict(zip(served["metadata"]["feature_names"], served["results"], strict=True))
    found = {
        (key["site"], key["patient_id"]): {name: columns[name]["values"][row] for name in names}
        for row, key in enumerate(asked)
    }
    assert found == offline(loaded, watermarks(loaded))


def test_feast_ui_shows_the_repository(loaded: Project):
    pytest.importorskip("grpc_health", reason="the ui extra is not installed")
    with running(loaded, "ui") as address:
        assert "<title>Feast" in requests.get(address, timeout=30).text
        projects = requests.get(f"{address}/projects-list.json", timeout=30).json()
    assert [each["id"] for each in projects["projects"]] == ["fhir_features"]
