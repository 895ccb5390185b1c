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
def test_a_real_shell_completes(shell: str, project: Path):
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
        os.write(terminal, f"\x15fhir-features --config {project} explain diabetes:l\t".encode())
        shown(terminal, "explain diabetes:last")
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


def test_fish_completes(project: Path):
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("there is no fish here")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    asked = "_FHIR_FEATURES_COMPLETE=fish_source fhir-features | source; complete -C 'fhir-features quarantine '"
    done = subprocess.run([fish, "--no-config", "-c", asked], env={**os.environ, "PATH": path}, capture_output=True)
    assert {line.split(b"\t")[0] for line in done.stdout.splitlines()} == {b"list", b"show", b"retry"}
    asked = asked.replace("quarantine ", f"--config {project} explain diabetes:l")
    done = subprocess.run([fish, "--no-config", "-c", asked], env={**os.environ, "PATH": path}, capture_output=True)
    assert done.stdout == b"diabetes:last\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("qua", {"quarantine"}), ("quarantine ", {"list", "show", "retry"}), ("normalize --val", {"--validate"})],
)
def test_commands_and_options_are_completed(typed: str, completed: set[str]):
    assert offered(typed) == completed


DEFINITIONS = """
from fhir_features import FeatureView, observation, patient, spine

hba1c = observation("loinc:4548-4", unit="%")
diabetes = FeatureView(
    name="diabetes", entity=patient, features=[hba1c.last(within="365d").named("last"), patient.age().named("age")]
)
dialysis = FeatureView(name="dialysis", entity=patient, features=[patient.age().named("age")])
admissions = spine.encounters(at="start+24h")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    assert CliRunner().invoke(cli, ["init", str(folder), "--example"]).exit_code == 0
    (folder / "feature_repo" / "features.py").write_text(DEFINITIONS)
    return folder


BOTH = {"diabetes", "dialysis"}
OF_DIABETES = {"diabetes:last", "diabetes:age"}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        *((f"{command} ", {"files"}) for command in ("pull", "doctor", "reconcile", "quarantine show --source")),
        ("pull x", set()),
        *((f"{command} di", BOTH) for command in ("build", "materialize", "parity", "features show", "features diff")),
        ("build dialysis dia", BOTH),
        ("features diff dialysis dial", {"dialysis"}),
        *((f"{command} d", BOTH) for command in ("explain", "audit-leakage t.csv", "get --features")),
        ("get --features diab", {"diabetes", *OF_DIABETES}),
        ("get --features=diabetes:l", {"diabetes:last"}),
        ("explain diabetes:", OF_DIABETES),
        ("explain --site dialysis diabetes:", OF_DIABETES),
        ("get adm", {"admissions"}),
        ("get rows.c", {"rows.c"}),
        ("ontology show icd10cm@FY2026", {"icd10cm@FY2026"}),
        ("ontology diff icd10cm@FY2025 icd10cm@FY2026", {"icd10cm@FY2026"}),
        ("ontology impact icd9cm@", {"icd9cm@v32"}),
    ],
)
def test_names_of_the_project_are_completed(typed: str, completed: set[str], project: Path):
    assert offered(f"--config {project} {typed}", shell="zsh") == completed


def test_names_are_those_of_the_current_folder_where_none_is_named(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    assert offered("build dial") == {"dialysis"}


# Bash takes what stands between colons and at signs for words, and replaces the last of them.
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("explain diab", {"diabetes", *OF_DIABETES}),
        ("explain diabetes :", {"last", "age"}),
        ("explain diabetes : l", {"last"}),
        ("explain diabetes:l", {"diabetes:last"}),
        ("get --features = diabetes : l", {"last"}),
        ("ontology show icd10cm @ FY2026", {"FY2026"}),
        ("explain --at 2026-01-01T12 : 00 : 00Z diabetes : l", {"last"}),
    ],
)
def test_bash_is_answered_by_its_words(words: str, completed: set[str], project: Path):
    assert offered(f"--config {project} {words}") == completed


@pytest.mark.parametrize("spoilt", ["fhir_features.toml", "feature_repo/features.py"])
@pytest.mark.parametrize("content", [None, b"this is neither [", b"\xff\x00", b'warehouse = "\\d"'])
@pytest.mark.parametrize("typed", ["build ", "get --features ", "get ", "explain x:"])
def test_what_cannot_be_read_offers_nothing_without_a_word(
    spoilt: str, content: bytes | None, typed: str, project: Path, tmp_path: Path
):
    shutil.copytree(project, tmp_path / "p")
    file = tmp_path / "p" / spoilt
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert offered(f"--config {tmp_path / 'p'} {typed}") <= {""}


@pytest.mark.parametrize("typed", ["pull ", "build ", "get --features diabetes:", "get ", "ontology show "])
def test_to_complete_loads_nothing_heavy_and_runs_nothing(typed: str, project: Path, tmp_path: Path):
    shutil.copytree(project, tmp_path / "p")
    with (tmp_path / "p" / "feature_repo" / "features.py").open("a") as definitions:
        definitions.write("raise SystemExit('they were run')")
    heavy = {"duckdb", "polars", "pyarrow", "pandas", "numpy", "feast", "rich"}
    program = (
        "import atexit, sys; from fhir_features.__main__ import main; "
        f"atexit.register(lambda: print(sorted({heavy} & set(sys.modules)), file=sys.stderr)); main()"
    )
    env = {**os.environ, **asked(f"--config {tmp_path / 'p'} {typed}", "bash"), "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout


def asked(typed: str, shell: str) -> dict[str, str]:
    """What the script of a shell puts into the environment."""
    words = f"fhir-features {typed}"
    return {
        "_FHIR_FEATURES_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }


def offered(typed: str, shell: str = "bash") -> set[str]:
    """What a shell is given to offer; nothing else may be said."""
    done = CliRunner().invoke(cli, prog_name="fhir-features", env=asked(typed, shell))
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    return set(lines[1::3]) if shell == "zsh" else {line.split(",")[1] for line in lines if line}
