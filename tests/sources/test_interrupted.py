"""Ctrl-C, and what nobody has foreseen: one line, an exit code, and a command that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fhir_server import FhirServer, Request, resource

from fhir_features.errors import FAULT, INTERRUPTED
from fhir_features.sources import landed_runs

PROGRAM = "from fhir_features.__main__ import main; main()"
SAID = "interrupted: run the same command again to go on\n"
# Ctrl-C when the import of a module begins.
AT_IMPORT = """
import os, runpy, signal, sys
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


def started(file: Any, *words: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, "--config", str(file), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(server: FhirServer, searching: Any) -> None:
    server.resources = [resource("Patient", number) for number in range(3)]
    config = searching()
    children: list[subprocess.Popen[str]] = []

    def interrupt(_: Request) -> None:
        if children[0].poll() is None:
            os.kill(children[0].pid, signal.SIGINT)

    server.scripted = interrupt
    children.append(started(config.file, "pull"))
    printed, said = children[0].communicate()
    assert (children[0].returncode, printed) == (INTERRUPTED, "")
    assert said == SAID
    again = started(config.file, "pull")
    again.communicate()
    assert again.returncode == 0
    (run,) = landed_runs(config.warehouse.path / "landing")
    assert sum(file.lines for file in run.files) == 3


@pytest.mark.parametrize(
    "run",
    [
        pytest.param("runpy.run_module('fhir_features', run_name='__main__')", id="module"),
        pytest.param(
            f"runpy.run_path({str(Path(sys.executable).with_name('fhir-features'))!r}, run_name='__main__')",
            id="script",
        ),
    ],
)
@pytest.mark.parametrize("module", ["click", "fhir_features.errors", "fhir_features.cli.status", "fhir_features.store"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, run: str, searching: Any) -> None:
    child = started(searching().file, "status", program=AT_IMPORT.format(module=module) + run)
    assert (*child.communicate(), child.returncode) == ("", SAID, INTERRUPTED)


def test_what_nobody_has_foreseen_is_one_line_without_its_words(searching: Any) -> None:
    fails = "import fhir_features.status as s; s.status = lambda _: int('a name'); "
    child = started(searching().file, "status", program=fails + PROGRAM)
    printed, said = child.communicate()
    assert (child.returncode, printed, said.count("\n")) == (FAULT, "", 1)
    assert said.startswith("error: ValueError, a fault of fhir-features ")
    assert "a name" not in said
