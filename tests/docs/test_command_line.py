"""The command line teaches: each command has examples that it understands, and completes in three shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

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


# Those that print no rows: files that were written, or a document that is JSON by itself.
WITHOUT_JSON = {"init", "ontology show"}


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=each[0]) for each in leaves()])
def test_whatever_prints_rows_prints_them_as_json_too_and_says_their_shape(name: str, command: click.Command):
    options = {option: each for each in command.params if isinstance(each, click.Option) for option in each.opts}
    assert ("--json" in options) == (name not in WITHOUT_JSON)
    if "--json" in options:
        said = f"{options['--json'].help} {command.help}"
        assert re.search(r"\{\w+|as JSON instead", said), f"say in the help of '{name}' what --json prints"


# What a shell completes after a tab. A zsh or bash of a terminal of its own is typed into.
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_real_shell_completes(shell: str):
    typed_into = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], ""),
        "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; "),
    }
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    command, before = typed_into[shell]
    program = Path(sys.executable).parent
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PATH=f"{program}:{os.environ['PATH']}", TERM="dumb", PS1="$ ")
        os.execvp(command[0], command)
    try:
        source = f'{before}eval "$(_FHIR_FEATURES_COMPLETE={shell}_source fhir-features)"; echo re""ady\n'
        os.write(terminal, source.encode())
        shown(terminal, "ready")
        os.write(terminal, b"fhir-features normalize --val\t")
        shown(terminal, "--validate")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def shown(terminal: int, text: str) -> None:
    """Read what a terminal shows until a text is there."""
    seen = ""
    while text not in seen:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")


def test_fish_completes():
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("there is no fish here")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    asked = "_FHIR_FEATURES_COMPLETE=fish_source fhir-features | source; complete -C 'fhir-features quarantine '"
    done = subprocess.run([fish, "--no-config", "-c", asked], env={**os.environ, "PATH": path}, capture_output=True)
    assert {line.split(b"\t")[0] for line in done.stdout.splitlines()} == {b"list", b"show", b"retry"}


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
