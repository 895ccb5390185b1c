"""The README is true: its tour runs and prints what it says, and every command, key and exit code is in it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest

from fhir_features import errors
from fhir_features.cli import COMMANDS
from fhir_features.config import Auth, Features, ResourceType, Source, Warehouse

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:toml|py|yaml))\n")


def section(title: str) -> str:
    """The text of a section of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def run_python(code: str, variables: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, variables)
    return out.getvalue()


def run_shell(code: str) -> str:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-e", "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tour_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    printed, compared = "", 0
    variables: dict[str, object] = {}
    for language, text in FENCED.findall(section("Five minutes")):
        if named := FILE_NAME.match(text):
            file = tmp_path / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        elif language == "text":
            assert printed == text
            compared += 1
        else:
            printed = run_python(text, variables) if language == "python" else run_shell(text)
    assert compared == 2


def commands() -> list[str]:
    """Every command as it is typed, those of groups with the name of the group."""
    found = []
    for name in COMMANDS:
        command = importlib.import_module(f"fhir_features.cli.{name.replace('-', '_')}").command
        found += [f"{name} {each}" for each in command.commands] if isinstance(command, click.Group) else [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_table(command: str):
    rows = [line.split(" | ")[0] for line in section("Commands").splitlines() if line.startswith("| `fhir-features")]
    words = command.split()
    assert any(
        f"fhir-features {words[0]}" in row and all(re.search(rf"\b{word}\b", row) for word in words) for row in rows
    )


@pytest.mark.parametrize("model", [Warehouse, Features, Source, Auth])
def test_every_key_of_the_configuration_is_in_the_table(model: type):
    keys = [line.split("|")[2] for line in section("Configuration").splitlines() if line.startswith("|")]
    documented = {name for key in keys for name in re.findall(r"`(\w+)`", key)}
    assert set(model.model_fields) <= documented


def test_the_table_of_the_configuration_has_no_key_that_is_not_there():
    keys = [line.split("|")[2] for line in section("Configuration").splitlines() if line.startswith("|")]
    documented = {name for key in keys for name in re.findall(r"`(\w+)`", key)}
    assert documented == {name for model in (Warehouse, Features, Source, Auth) for name in model.model_fields}


def test_every_resource_type_is_in_the_table():
    (row,) = [line for line in section("Configuration").splitlines() if "`resource_types`" in line]
    assert set(get_args(ResourceType)) == set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)?\b", row))


def test_every_exit_code_is_in_the_table():
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Commands"), re.MULTILINE)}
    classes = [
        each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.FhirFeaturesError)
    ]
    assert documented == {0, 1, 3, 4} | {each.exit_code for each in classes}


def test_every_folder_of_the_house_is_in_the_layout():
    root = Path(__file__).parents[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True).stdout.splitlines()
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    if not folders:
        pytest.skip("not a git checkout")
    assert folders == set(re.findall(r"^    (\w+)/", section("How it is laid out"), re.MULTILINE))


def test_every_page_is_linked_and_every_link_leads_to_one():
    root = Path(__file__).parents[1]
    linked = set(re.findall(r"\]\((docs/[^)]+)\)", README))
    assert linked == {str(page.relative_to(root)) for page in (root / "docs").glob("*.md")}


def test_every_behaviour_of_servers_has_a_test_that_is_there_or_is_said_to_have_none():
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "sources.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", page.split("## What servers do")[1], re.MULTILINE)
    assert {int(number) for number, _ in rows} == set(range(1, 24))
    for number, covered_by in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", covered_by)
        assert named or covered_by.startswith(("not covered: ", "does not arise: ")), number
        for file, name in named:
            assert f"\ndef {name}(" in (tests / file).read_text(encoding="utf-8"), name
