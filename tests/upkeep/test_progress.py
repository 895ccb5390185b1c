"""How far is the care of a warehouse? Bars on a terminal, and in a log one line at the end."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import run_on_a_terminal

from fhir_features.cli import cli
from fhir_features.config import Config, load_config
from fhir_features.sources import Progress
from fhir_features.upkeep import compact, gc, verify

COMMANDS = {
    "verify": (b"landing files", r"verify: \d+ files of .+, 0 damaged, in "),
    "gc": (b"warehouse what belongs to nothing", r"gc: 2 removed, .+, in "),
    "compact": (b"observations rows", r"compact: [\d,]+ rows written in "),
    "rebuild": (b"ward file 1", r"rebuild: \d+ resource versions received in "),
    "ontology verify": (b"ontologies artifacts", r"ontology verify: \d+ artifacts in "),
}


def leave_orphans(project: Path) -> None:
    run, *_ = sorted((project / "warehouse" / "landing" / "ward").glob("*/run.json"))
    for name in ("half", "another half"):
        (run.parent / name).write_text("half")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_shows_how_far_it_is(command: str, project: Path):
    leave_orphans(project)
    program = [sys.executable, "-m", "fhir_features", "--config", str(project), *command.split()]
    code, _, shown = run_on_a_terminal(program)
    assert code == 0, shown
    bar, last = COMMANDS[command]
    assert bar in shown
    assert re.search(last, shown.decode())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_log_gets_one_line_at_the_end(command: str, project: Path, capsys: pytest.CaptureFixture[str]):
    leave_orphans(project)
    cli.main(["--config", str(project), *command.split()], standalone_mode=False)
    assert re.fullmatch(COMMANDS[command][1] + r"[\d.]+ s( \([\d.,]+/s\))?\n", capsys.readouterr().err)


@pytest.mark.parametrize("work", [verify, compact, gc])
def test_what_is_told_of_each_part_ends_with_the_whole_of_it(work: Callable[[Config, Progress], object], project: Path):
    leave_orphans(project)
    told: dict[tuple[str, str], tuple[int, int | None]] = {}
    work(load_config(project), lambda source, what, done, total: told.update({(source, what): (done, total)}))
    assert told
    assert all(done == total or (work is gc and total is None) for done, total in told.values())


def test_a_file_that_is_missing_is_counted_as_passed(project: Path):
    next((project / "warehouse" / "landing").glob("ward/*/mixed-*")).unlink()
    told: list[tuple[str, str, int, int | None]] = []
    verify(load_config(project), lambda *each: told.append(each))
    *_, (_, _, done, total) = [each for each in told if each[0] == "landing"]
    assert done == total
