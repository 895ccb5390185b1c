"""`doctor` says of a source what a pull would meet, without landing or showing anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fhir_server import FhirServer, Reply, Request, resource

from fhir_features.cli import cli
from fhir_features.config import Config, load_config
from fhir_features.sources import examine, pull, transport

CAPABILITIES = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "software": {"name": "Ward\x1b[31m 7"},
    "rest": [{"resource": [{"type": "Patient"}]}],
}


def serving(server: FhirServer, **answers: object) -> None:
    """Let the server answer what doctor asks for beside searches; an answer is a body or a status."""
    documents = {"metadata": CAPABILITIES, "smart-configuration": 404, **answers}

    def answer(request: Request) -> Reply | None:
        document = documents.get(request.path.rpartition("/")[2])
        if document is None:
            return None
        return Reply(status=document) if isinstance(document, int) else Reply(body=json.dumps(document).encode())

    server.scripted = answer


def found(config: Config) -> dict[str, tuple[str, str]]:
    checks = list(examine(config, "ward"))
    assert not (config.warehouse.path / "landing" / "ward").exists()
    return {check.check: (check.verdict, check.finding) for check in checks}


def test_a_server_that_does_all_that_is_wanted(server, searching):
    server.resources = [resource("Patient", 1)]
    server.history = []
    serving(server, **{"smart-configuration": {"token_endpoint": "https://auth.example/token?x=1"}})
    assert found(searching()) == {
        "metadata": ("works", "FHIR 4.0.1, Ward?[31m 7"),
        "SMART": ("works", "tokens are given at auth.example"),
        "Patient": ("works", "can be read, and asked for what has changed"),
    }
    assert all("patient-1" not in request.target for request in server.requests)
    assert [request.parameters["_count"] for request in server.requests if "_count" in request.parameters] == ["1", "1"]


def test_what_a_pull_can_live_with_is_told_with_what_to_change(server, searching):
    server.resources = [resource("Patient", 1), resource("Patient", 2), resource("Condition", 1)]
    server.total = False
    serving(server, metadata=404)
    checks = found(searching("history = true", types='"Patient", "Condition"'))
    assert checks["metadata"] == ("limited", "HTTP 404, and no CapabilityStatement")
    verdict, finding = checks["Patient"]
    assert verdict == "limited"
    assert "accurate_total = true" in finding
    assert "history = false" in finding
    assert checks["Condition"][1].startswith("it has no history")


def test_links_that_no_pull_would_follow_fail(server, searching):
    server.resources = [resource("Patient", 1), resource("Patient", 2)]
    server.history = []
    serving(server)
    server.link = lambda target: f"http://fhir.internal{target}"
    verdict, finding = found(searching())["Patient"]
    assert verdict == "fails"
    assert 'add "fhir.internal" to next_hosts' in finding
    assert found(searching('next_hosts = ["fhir.internal"]'))["Patient"][0] == "works"


@pytest.mark.parametrize("way", ["ignores", "refuses"])
def test_a_server_that_cannot_be_asked_for_what_has_changed(server, searching, way):
    server.resources = [resource("Patient", 1)]
    serving(server)
    if way == "ignores":
        server.kept_parameters = lambda parameters: {"_count": "1"}
    else:
        documents = server.scripted
        server.scripted = lambda request: (
            Reply(status=400) if "_lastUpdated" in request.parameters else documents(request)
        )
    assert f"it {way} _lastUpdated" in found(searching("history = false"))["Patient"][1]


def test_what_a_pull_cannot_live_with_fails_and_so_does_the_command(server, searching):
    serving(server, metadata=CAPABILITIES | {"fhirVersion": "3.0.2"}, Condition=403, Observation=400)
    config = searching('per_patient = ["Encounter"]', types='"Patient", "Condition", "Observation", "Encounter"')
    checks = found(config)
    assert {check for check, (verdict, _) in checks.items() if verdict == "fails"} == {
        "metadata", "Condition", "Observation", "Encounter",
    }  # fmt: skip
    assert "FHIR 3.0.2" in checks["metadata"][1]
    assert checks["Condition"][1].startswith("HTTP 403 at ")
    assert "no patient of site 'north' has landed" in checks["Encounter"][1]

    done = CliRunner().invoke(cli, ["--config", str(config.file), "doctor", "ward"])
    assert done.exit_code == 1
    assert [line.split()[:3] for line in done.stdout.splitlines()[:2]] == [
        ["of", "check", "verdict"],
        ["ward", "metadata", "fails"],
    ]
    done = CliRunner().invoke(cli, ["--config", str(config.file), "doctor", "ward", "--json"])
    assert {each["check"]: (each["verdict"], each["finding"]) for each in json.loads(done.stdout)} == checks


@pytest.mark.parametrize(("level", "verdict"), [("system", "limited"), ("patient", "limited"), ("group/g-1", "works")])
def test_of_an_export_it_is_told_whether_it_is_offered_and_none_is_begun(server, tmp_path, level, verdict):
    group = {"type": "Group", "operation": [{"name": "group-export"}]}
    serving(server, metadata=CAPABILITIES | {"rest": [{"resource": [{"type": "Patient"}, group]}]})
    (tmp_path / "fhir_features.toml").write_text(
        f'[sources.ward]\nkind = "bulk"\nsite = "n"\ntimezone = "UTC"\nbase_url = "{server.base}"\n'
        f'level = "{level}"\nresource_types = ["Patient"]\n'
    )
    assert found(load_config(tmp_path))["export"][0] == verdict
    assert [request.path.rpartition("/")[2] for request in server.requests] == ["metadata", "smart-configuration"]


def test_each_way_of_searching_is_tried_with_a_patient_who_has_landed(server, searching, tmp_path: Path):
    server.resources = [resource("Patient", 7)]
    config = searching('per_patient = ["Observation"]', 'categories = { Observation = ["laboratory", "exam"] }')
    pull(config)
    server.requests.clear()
    serving(server)
    config = searching(
        'per_patient = ["Observation"]', 'categories = { Observation = ["laboratory", "exam"] }', types='"Observation"'
    )
    assert {check.check: check.verdict for check in examine(config, "ward")}["Observation"] == "works"
    asked = [request.parameters for request in server.requests if "patient" in request.parameters]
    assert [(each["patient"], each["category"]) for each in asked] == [
        ("patient-7", "laboratory"), ("patient-7", "exam"), ("patient-7", "exam"),
    ]  # fmt: skip


def test_a_server_that_is_not_there_is_one_finding(server, searching, monkeypatch):
    monkeypatch.setattr(transport, "TRIES", 1)
    config = searching()
    server.stop()
    ((check, (verdict, finding)),) = found(config).items()
    assert (check, verdict) == ("server", "fails")
    assert "see that the server is up" in finding


def test_a_missing_secret_or_token_endpoint_is_a_finding(searching, server, monkeypatch):
    assert "holds no secret" in found(searching('auth = { kind = "bearer", secret_env = "NOT_SET" }'))["source"][1]
    serving(server)
    monkeypatch.setenv("WARD_SECRET", "s3cret")
    auth = 'auth = { kind = "client-secret", client_id = "c", secret_env = "WARD_SECRET" }'
    checks = found(searching(auth))
    assert "set 'token_url'" in str(checks)
    assert "s3cret" not in str(checks)


@pytest.mark.parametrize(
    ("names", "verdict", "finding"),
    [
        (
            ["Jane.Doe.ndjson", "b.ndjson", "c.NDJSON.gz", "d.json", "x.txt"],
            "works",
            "1 .json, 2 .ndjson, 1 .ndjson.gz",
        ),
        ([], "limited", "check 'path'"),
        (None, "fails", "cannot be read"),
    ],
)
def test_a_folder_is_told_by_its_files(tmp_path, names, verdict, finding):
    text = '[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "UTC"\npath = "in"\n'
    (tmp_path / "fhir_features.toml").write_text(text)
    for name in names or ():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    if names == []:
        (tmp_path / "in").mkdir()
    (check,) = examine(load_config(tmp_path), "ward")
    assert check.verdict == verdict
    assert finding in check.finding
    assert "Jane" not in check.finding
