"""What is gone from a server without a word is found, and nothing that is there is taken for gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_server import FhirServer, Reply, Request, resource
from landing import observation, patient, rows

from fhir_features.cli import cli
from fhir_features.config import Config, load_config
from fhir_features.errors import GateRefused, LakeError, SourceRefused, SourceUnreachable, UsageError
from fhir_features.normalize import normalize
from fhir_features.sources import landed_runs, pull, read_lines, transport
from fhir_features.sources.reconcile import Reconciliation, reconcile

TYPES = '"Patient", "Observation"'


def result(number: int) -> dict[str, Any]:
    meta = resource("Observation", number)["meta"]
    category = [{"coding": [{"code": "laboratory"}]}]
    return observation(f"o{number}", meta=meta, category=category, subject={"reference": f"Patient/p{number % 2}"})


def everything() -> list[dict[str, Any]]:
    meta = resource("Patient", 0)["meta"]
    return [*(patient(f"p{n}", meta=meta) for n in range(2)), *(result(n) for n in range(20))]


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FhirServer, Path]]:
    """A server, and a folder with the warehouse of a source `ward` whose two patients and twenty results were pulled
    and normalized."""
    server, folder = FhirServer(), tmp_path_factory.mktemp("pulled")
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    server.resources = everything()
    where = f'[sources.ward]\nkind = "search"\nsite = "north"\ntimezone = "UTC"\nbase_url = "{server.base}"\n'
    (folder / "fhir_features.toml").write_text(f"{where}history = false\nresource_types = [{TYPES}]\n")
    pull(load_config(folder))
    normalize(load_config(folder))
    yield server, folder
    server.stop()


@pytest.fixture
def server(pulled: tuple[FhirServer, Path], monkeypatch: pytest.MonkeyPatch) -> FhirServer:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.001)
    server, _ = pulled
    server.resources, server.scripted = everything(), lambda _: None
    server.requests.clear()
    return server


@pytest.fixture
def ward(pulled: tuple[FhirServer, Path], tmp_path: Path) -> Callable[..., Config]:
    """The source with a warehouse of its own, and with more lines for it."""

    def write(*lines: str) -> Config:
        _, folder = pulled
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        with (tmp_path / "fhir_features.toml").open("a") as file:
            file.write("\n".join(lines))
        return load_config(tmp_path)

    return write


def drop(server: FhirServer, *ids: str) -> None:
    server.resources = [each for each in server.resources if each["id"] not in ids]


def hidden(server: FhirServer, *ids: str) -> Callable[[Request], Reply | None]:
    """Searches that pass some resources by and do not count them, though they can be read."""

    def answer(request: Request) -> Reply | None:
        if not request.path.endswith("/Observation"):
            return None
        bundle = json.loads(server.bundle(request))
        bundle["entry"] = [each for each in bundle["entry"] if each["resource"]["id"] not in ids]
        del bundle["total"]
        return Reply(body=json.dumps(bundle).encode())

    return answer


def counts(found: Reconciliation) -> dict[str, tuple[int, ...]]:
    return {of.resource_type: (of.held, of.on_server, of.passed_over, of.gone, of.not_held) for of in found.types}


def landed(config: Config) -> list[Path]:
    """Every file and folder in the landing, hidden ones too."""
    return sorted((config.warehouse.path / "landing").rglob("*"))


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_closed_as_of_now_and_what_is_there_is_not(server, ward, tmp_path, status):
    config = ward()
    drop(server, "o3")
    server.resources.append(result(77))
    passing_by = hidden(server, "o5")
    server.scripted = lambda r: Reply(status=status) if r.path.endswith("/Observation/o3") else passing_by(r)
    before = landed(config)
    expected = {"Patient": (2, 2, 0, 0, 0), "Observation": (20, 19, 1, 1, 1)}

    dry = reconcile(config, "ward", dry_run=True)
    assert (counts(dry), dry.run_id, landed(config)) == (expected, None, before)

    found = reconcile(config, "ward")
    assert counts(found) == expected
    assert "1 Observation on the server do not live in the lake" in found.warnings[0]
    searches = [request.parameters for request in server.requests if "_elements" in request.parameters]
    assert all(asked["_elements"] == "id" for asked in searches)
    run = landed_runs(config.warehouse.path / "landing")[-1]
    assert (run.run_id, run.kind, run.types) == (found.run_id, "reconcile", {})

    (summary,) = normalize(config)
    assert (summary.received, summary.normalized, summary.quarantined) == (1, 1, 0)
    closed = "SELECT resource_id, known_to FROM observations WHERE known_to IS NOT NULL"
    assert rows(config, closed) == [("o3", run.files[0].receipts[0].received_at)]
    assert rows(config, "SELECT count(*) FROM lake.watermarks") == [(2,)]
    assert reconcile(config, "ward").run_id is None


def test_pulls_go_on_from_where_they_were(server, ward):
    config = ward("page_size = 10")
    new = {"versionId": "1", "lastUpdated": "2026-03-02T12:00:00Z"}
    server.resources += [result(n) | {"meta": new} for n in range(100, 115)]
    server.scripted = lambda request: Reply(status=503) if "_offset" in request.parameters else None
    with pytest.raises(SourceUnreachable):
        pull(config)
    server.scripted = lambda _: None
    drop(server, "o3")
    assert reconcile(config, "ward").run_id
    server.requests.clear()
    pull(config)
    asked = [request.parameters for request in server.requests]
    assert {each.get("_lastUpdated") for each in asked} == {"ge2026-03-02T09:55:00Z"}
    assert "_offset" in asked[0], "the pull that was interrupted goes on from its last page"
    assert [run.kind for run in landed_runs(config.warehouse.path / "landing")] == ["search", "search", "reconcile"]


def test_a_source_is_searched_as_its_server_demands(server, ward):
    config = ward('per_patient = ["Observation"]', 'categories = { Observation = ["laboratory"] }')
    drop(server, "o4")

    def answer(request: Request) -> Reply | None:
        asked = request.parameters.keys()
        unusual = "_elements" in asked or not {"patient", "category"} <= asked
        return Reply(status=400) if unusual and request.path.endswith("/Observation") else None

    server.scripted = answer
    assert counts(reconcile(config, "ward"))["Observation"] == (20, 19, 0, 1, 0)


def test_a_server_that_shows_too_little_is_not_believed(server, ward, tmp_path, capsys):
    config = ward()
    before = landed(config)
    drop(server, *(f"o{n}" for n in range(3)))
    with pytest.raises(GateRefused, match="more than 10% of the 20 Observation") as raised:
        reconcile(config, "ward")
    assert raised.value.exit_code == 3
    assert landed(config) == before
    cli.main(["--config", str(tmp_path), "reconcile", "ward", "--max-share", "0.15", "--json"], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    assert [of["gone"] for of in printed["types"]] == [0, 3]
    run = landed_runs(config.warehouse.path / "landing")[-1]
    named = [json.loads(line)["entry"][0]["request"]["url"] for _, _, line in read_lines(run.folder, run.files[0])]
    assert named == [f"Observation/o{n}" for n in range(3)]


def test_what_a_read_by_id_does_not_settle_ends_it_without_naming_anybody(server, ward, monkeypatch):
    monkeypatch.setattr(transport, "TRIES", 1)
    config = ward()
    before = landed(config)
    stale = config.warehouse.path / "landing" / ".ward.reconcile" / "of a reconcile that was killed"
    stale.mkdir(parents=True)
    drop(server, "o3")
    faults = {403: SourceRefused, 503: SourceUnreachable, 301: SourceUnreachable}
    for status, error in faults.items():
        reply = Reply(status=status, headers={"Location": "o3"} if status == 301 else {})
        server.scripted = lambda request, reply=reply: reply if request.path.endswith("/o3") else None
        with pytest.raises(error, match=r"^source 'ward': asked for one Observation by its id") as raised:
            reconcile(config, "ward")
        assert "o3" not in str(raised.value)
    assert landed(config) == before


def test_of_a_group_that_is_exported_nobody_is_new_afterwards(exports, exporting):
    config = exporting(level="group/g", types=TYPES)
    exports.server.resources = [patient("p0", meta=resource("Patient", 0)["meta"]), *(result(n) for n in (0, 2, 4))]
    pull(config)
    normalize(config)
    drop(exports.server, "o4")
    exports.server.scripted = lambda _: None
    found = reconcile(config, "ward", max_share=0.5)
    assert counts(found) == {"Patient": (1, 1, 0, 0, None), "Observation": (3, 2, 0, 1, None)}
    exports.server.scripted = exports.answer
    pull(config)
    kinds = [run.kind for run in landed_runs(config.warehouse.path / "landing")]
    assert kinds == ["bulk", "reconcile", "bulk"]
    assert not any(file.backfill for file in landed_runs(config.warehouse.path / "landing")[-1].files)


def test_what_cannot_be_reconciled_is_one_line(server, searching, tmp_path):
    with pytest.raises(LakeError, match="run 'fhir-features pull' and 'fhir-features normalize' first"):
        reconcile(searching(), "ward")
    files = '[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "UTC"\npath = "in"\n'
    (tmp_path / "fhir_features.toml").write_text(files)
    with pytest.raises(UsageError, match=r"^source 'ward' is a folder of files"):
        cli.main(["--config", str(tmp_path), "reconcile", "ward"], standalone_mode=False)
