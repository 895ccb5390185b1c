"""A pull that is killed, wherever it may be, and run again ends in the same tables as one that nobody disturbed.

KILLS=100 .venv/bin/python -m pytest tests/sources/test_killed_pulls.py
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from bulk_server import BulkServer
from fhir_server import FhirServer, resource
from landing import observation

from fhir_features.config import Config, load_config
from fhir_features.lake import EVENT_TABLES, create_views, newest_store_seq, reading
from fhir_features.normalize import normalize
from fhir_features.sources import landed_runs, pull, verify_run

KILLS = int(os.environ.get("KILLS", "2"))
KILLS_A_WAREHOUSE = 4


def pull_in(folder: Path) -> None:
    pull(load_config(folder))


class Puller:
    """Pulls in processes of their own, which can be killed; they start fast, since the imports are done before."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["fhir_features.sources", "requests", "test_killed_pulls"])
        # The first process starts the server that the others are forked from.
        self._run(int).join()

    def whole(self, folder: Path) -> float:
        """Pull to the end; the seconds that it took."""
        started = time.monotonic()
        process = self._run(pull_in, folder)
        process.join()
        assert process.exitcode == 0
        return time.monotonic() - started

    def killed_after(self, seconds: float, folder: Path) -> None:
        process = self._run(pull_in, folder)
        time.sleep(seconds)
        process.kill()
        process.join()

    def _run(self, target: Callable[..., object], *arguments: Path) -> BaseProcess:
        process = self._context.Process(target=target, args=arguments)
        process.start()
        return process


SOURCES = {
    "search": 'kind = "search"\npage_size = 5\nper_patient = ["Observation"]\n',
    "bulk": 'kind = "bulk"\nlevel = "group/g"\n',
}


def config_in(folder: Path, server: FhirServer, kind: str) -> Config:
    folder.mkdir()
    (folder / "fhir_features.toml").write_text(
        f'[sources.ward]\nsite = "north"\ntimezone = "UTC"\nbase_url = "{server.base}"\n'
        f'resource_types = ["Patient", "Observation", "Condition"]\n{SOURCES[kind]}'
    )
    return load_config(folder)


def results(patients: range, version: int, updated: str) -> list[dict[str, Any]]:
    meta = {"meta": {"versionId": str(version), "lastUpdated": updated}}
    return [
        observation(f"o{patient}-{n}", subject={"reference": f"Patient/patient-{patient}"}, **meta)
        for patient in patients
        for n in range(7)
    ]


def first_state(server: FhirServer) -> None:
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    server.history = []
    for each in [*(resource("Patient", n) for n in range(12)), *results(range(12), 1, "2026-01-01T00:00:00Z")]:
        server.update(each)


def second_state(server: FhirServer) -> None:
    """A new patient with old results, corrected results, deleted patients and new versions of the others."""
    server.update(resource("Patient", 12, updated="2026-03-02T11:00:00Z"))
    for each in [*results(range(12, 13), 1, "2026-01-01T00:00:00Z"), *results(range(3), 2, "2026-03-02T11:00:00Z")]:
        server.update(each)
    for number in range(8):
        server.update(resource("Patient", number, 2, "2026-03-02T11:00:00Z"))
    server.delete(resource("Patient", 9), "2026-03-02T12:00:00Z")


def deletions(server: FhirServer) -> list[dict[str, Any]]:
    """The deletions in the server's history, as exports tell of them."""
    entries = [each for each in server.history if each["request"]["method"] == "DELETE"]
    return [{"resourceType": "Bundle", "type": "transaction", "entry": [each]} for each in entries]


def tables(config: Config) -> dict[str, list[tuple[Any, ...]]]:
    """What the warehouse holds, but for which run brought it when."""
    for run in landed_runs(config.warehouse.path / "landing"):
        verify_run(run)
    normalize(config)
    events = [table.name for table in EVENT_TABLES.values()]
    asked = {
        **{name: f"SELECT * EXCLUDE (run_id, store_seq, version_no) FROM {name}" for name in events},
        "versions": "SELECT * EXCLUDE (run_id, store_seq, version_no, received_at, row_no) FROM lake.versions",
        "closings": "SELECT * EXCLUDE (store_seq, version_no) FROM lake.closings",
    }
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        return {name: con.execute(f"{sql} ORDER BY ALL").fetchall() for name, sql in asked.items()}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_pull_that_is_killed_at_random_and_run_again_ends_in_the_same_tables(
    server: FhirServer, tmp_path: Path, kind: str
):
    puller, dice = Puller(), random.Random(os.urandom(8))
    undisturbed = config_in(tmp_path / "undisturbed", server, kind)
    killed = [config_in(tmp_path / f"killed-{n}", server, kind) for n in range(-(-KILLS // KILLS_A_WAREHOUSE))]
    exports = BulkServer(server) if kind == "bulk" else None
    for state in (first_state, second_state):
        state(server)
        if exports:
            exports.polls, exports.deleted = 0, deletions(server)
        seconds = max(puller.whole(undisturbed.file.parent), 0.05)
        for config in killed:
            for _ in range(KILLS_A_WAREHOUSE // 2):
                puller.killed_after(dice.uniform(0, seconds), config.file.parent)
            puller.whole(config.file.parent)
    expected = tables(undisturbed)
    assert all(expected[name] for name in ("patients", "observations", "versions", "closings"))
    for config in killed:
        assert tables(config) == expected
