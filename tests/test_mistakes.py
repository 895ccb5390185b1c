"""What those do wrong who meet the command line for the first time: one line, what to do instead, an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_features.cli import cli, main


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    assert CliRunner().invoke(cli, ["init", str(folder), "--example"]).exit_code == 0
    (folder / "rows.csv").write_text("patient_id,event_timestamp\npatient-001,2026-03-01T12:00:00Z\n")
    return folder


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("pul", 2, "there is no command 'fhir-features pul': did you mean 'pull'?"),
        ("features lst", 2, "there is no command 'fhir-features features lst': did you mean 'list'?"),
        ("get rows.csv --features x", 2, "Missing option '--output': see `fhir-features get --help`"),
        ("explain", 2, "Missing argument 'VIEW:FEATURE': see `fhir-features explain --help`"),
        ("pull --jsn", 2, "No such option '--jsn'. Did you mean '--json'?"),
        (
            "parity --patients 0",
            2,
            "Invalid value for '--patients': 0 is not in the range x>=1: see `fhir-features parity --help`",
        ),
        ("pull filez", 2, "there is no source 'filez' in fhir_features.toml: did you mean 'files'?"),
        ("build diabets", 2, "there is no feature view 'diabets': did you mean 'diabetes'?"),
        (
            "explain labs --patient p --at 2026-03-01T12:00:00Z",
            2,
            "'labs' has 12 features: name one, as 'labs:hba1c_last_1y'",
        ),
        (
            "explain labs:x --patient p --at 01.03.2026",
            2,
            "--at: '01.03.2026' is not an instant: write it like '2024-03-05T14:00:00Z'",
        ),
        (
            "get rows.csv --features labs --output no/o.csv",
            2,
            "there is no folder no to write o.csv to: create it, or name another one",
        ),
        ("report --output no/r.html", 2, "there is no folder no to write r.html to: create it, or name another one"),
    ],
)
def test_a_mistake_is_one_line(
    typed: str, code: int, said: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["fhir-features", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, *capsys.readouterr()) == (code, "", f"error: {said}\n")


def test_without_a_command_the_help_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["fhir-features"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Commands:" in capsys.readouterr().err
