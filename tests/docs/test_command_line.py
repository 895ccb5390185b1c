"""The command line teaches: each command has examples that it understands, and completes in three shells."""

from __future__ import annotations

import shlex

import click
import pytest
from cli_page import examples, leaves
from click.testing import CliRunner
from snippets import parsed

from fhir_features.cli import cli


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=each[0]) for each in leaves()])
def test_a_command_has_examples_that_it_understands(name: str, command: click.Command):
    lines = examples(command)
    assert lines, f"give '{name}' an epilog=examples(...), as the other commands have"
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert " ".join([program, *words]).startswith(f"fhir-features {name}")
        parsed(words)


@pytest.mark.parametrize("name", ["features", "quarantine", "ontology"])
def test_a_group_has_examples_of_its_commands(name: str):
    group = cli.get_command(click.Context(cli), name)
    assert isinstance(group, click.Group)
    lines = examples(group)
    assert lines
    for line in lines:
        program, typed, *words = shlex.split(line, comments=True)
        assert (program, typed) == ("fhir-features", name)
        parsed([typed, *words])


def test_help_shows_the_examples_as_they_are_typed():
    shown = CliRunner().invoke(cli, ["get", "--help"]).stdout
    assert "  fhir-features get admissions --features diabetes --output training.parquet\n" in shown
    assert "  fhir-features init my-store --example" in CliRunner().invoke(cli, ["--help"]).stdout


@pytest.mark.parametrize("group", [[], ["features"], ["ontology"], ["quarantine"]])
def test_help_says_whole_what_each_command_does(group: list[str]):
    shown = CliRunner().invoke(cli, [*group, "--help"], terminal_width=80).stdout
    assert "..." not in shown.split("Commands:")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_completes(shell: str, monkeypatch: pytest.MonkeyPatch):
    # The script of click for bash asks the bash that is there for its version.
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda _: None)
    done = CliRunner().invoke(
        cli, prog_name="fhir-features", env={"_FHIR_FEATURES_COMPLETE": f"{shell}_source"}, catch_exceptions=False
    )
    assert done.exit_code == 0
    assert f"_FHIR_FEATURES_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("qua", {"quarantine"}), ("quarantine ", {"list", "show", "retry"}), ("normalize --val", {"--validate"})],
)
def test_commands_and_options_are_completed(typed: str, completed: set[str]):
    words = f"fhir-features {typed}"
    env = {
        "_FHIR_FEATURES_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = CliRunner().invoke(cli, prog_name="fhir-features", env=env)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == completed
