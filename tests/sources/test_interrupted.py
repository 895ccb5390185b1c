"""Ctrl-C, and what nobody has foreseen: one line, an exit code, and a command that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from fhir_server import FhirServer, Request, resource

from fhir_features.errors import FAULT, INTERRUPTED
from fhir_features.sources import landed_runs

PROGRAM = "from fhir_features.cli import main; main()"


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
    assert said == "interrupted: run the same command again to go on\n"
    again = started(config.file, "pull")
    again.communicate()
    assert again.returncode == 0
    (run,) = landed_runs(config.warehouse.path / "landing")
    assert sum(file.lines for file in run.files) == 3


def test_what_nobody_has_foreseen_is_one_line_without_its_words(searching: Any) -> None:
    fails = "import fhir_features.status as s; s.status = lambda _: int('a name'); "
    child = started(searching().file, "status", program=fails + PROGRAM)
    printed, said = child.communicate()
    assert (child.returncode, printed, said.count("\n")) == (FAULT, "", 1)
    assert said.startswith("error: ValueError, a fault of fhir-features ")
    assert "a name" not in said
