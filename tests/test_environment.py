"""`fhir-features doctor`, asked for everything, says what of this machine and project is not as it must be."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_features.cli import cli
from fhir_features.config import load_config
from fhir_features.environment import examine_environment
from fhir_features.project import create_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    create_project(tmp_path, site="north", timezone="Europe/Berlin")
    return tmp_path


def found(project: Path) -> dict[str, tuple[str, str]]:
    return {each.check: (each.verdict, each.finding) for each in examine_environment(load_config(project))}


def test_a_new_project_is_as_it_must_be_and_the_next_step_is_said(project: Path):
    checks = found(project)
    assert {verdict for verdict, _ in checks.values()} == {"works"}
    assert "duckdb 1.5.5" in checks["versions"][1]
    assert "north Europe/Berlin (now +0" in checks["time zones"][1]
    assert (
        checks["definitions"][1]
        == "feature views: vitals, labs, diabetes, chronic_conditions, medications, utilization"
    )
    done = CliRunner().invoke(cli, ["--config", str(project), "doctor"])
    assert done.exit_code == 0
    assert done.stderr == "next: `fhir-features pull files`\n"
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"of", "environment", "files", "feast"}


def test_a_site_in_utc_is_asked_about(project: Path):
    file = project / "fhir_features.toml"
    file.write_text(file.read_text().replace("Europe/Berlin", "UTC"))
    verdict, finding = found(project)["time zones"]
    assert verdict == "limited"
    assert "if north is not in UTC, set 'timezone'" in finding


def test_a_warehouse_that_others_may_read_is_told(project: Path):
    (project / "warehouse").mkdir(mode=0o755)
    (project / "warehouse").chmod(0o755)
    assert found(project)["warehouse"][0] == "limited"
    (project / "warehouse").chmod(0o700)
    assert found(project)["warehouse"][0] == "works"
    assert list((project / "warehouse").iterdir()) == []


def refused(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_disk_without_locks_or_hard_links_fails(project: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        assert found(project)["warehouse"] == (
            "fails",
            f"{project} has no file locks: put it on a disk of this machine",
        )
    monkeypatch.setattr(os, "link", refused)
    assert found(project)["warehouse"] == ("fails", f"{project} has no hard links: put it on a disk of this machine")


def test_a_warehouse_that_git_would_take_fails(project: Path):
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert found(project)["git"] == ("works", "git leaves the warehouse alone")
    (project / ".gitignore").unlink()
    assert found(project)["git"] == (
        "fails",
        f"git would take the warehouse: add /warehouse/ to {project}/.gitignore",
    )


def test_secrets_that_are_not_there_or_that_others_may_read_are_told(project: Path, monkeypatch: pytest.MonkeyPatch):
    server = 'kind = "search"\nsite = "north"\ntimezone = "Europe/Berlin"\nbase_url = "https://fhir.example.org/r4"\n'
    with (project / "fhir_features.toml").open("a") as file:
        file.write(f'\n[sources.a]\n{server}auth = {{ kind = "bearer", secret_env = "TOKEN_OF_A" }}\n')
        file.write(f'\n[sources.b]\n{server}auth = {{ kind = "bearer", secret_file = "token" }}\n')
    (project / "token").write_text("secret")
    (project / "token").chmod(0o644)
    monkeypatch.delenv("TOKEN_OF_A", raising=False)
    checks = [each for each in examine_environment(load_config(project)) if each.check == "secrets"]
    assert [(each.verdict, each.finding) for each in checks] == [
        ("fails", "'a' needs $TOKEN_OF_A, which is not set here"),
        ("limited", f"others may read the secret of 'b': chmod 600 {project / 'token'}"),
    ]


def test_a_mistake_in_the_definitions_fails_and_is_what_to_change_next(project: Path):
    (project / "feature_repo" / "features.py").write_text("import nothing_of_this_name\n")
    done = CliRunner().invoke(cli, ["--config", str(project), "doctor"])
    assert done.exit_code == 1
    assert re.search("definitions  +fails  ", done.stdout)
    assert "line 1: ModuleNotFoundError" in done.stdout
    assert done.stderr == "next: change what fails\n"


def test_a_folder_without_a_configuration_is_told_how_to_begin(tmp_path: Path):
    done = CliRunner().invoke(cli, ["--config", str(tmp_path), "doctor"])
    assert "make one with `fhir-features init`" in str(done.exception)
