"""The commands over features: thin, one line for a mistake, JSON where it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv as csv
import pyarrow.parquet as pq
from test_retrieval import some_rows, spine


def run(project: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "fhir-features"), "--config", str(project.folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_from_definitions_to_a_training_set(project: Any) -> None:
    project.write(some_rows())
    csv.write_csv(spine(), project.folder / "spine.csv")
    listed = run(project, "features", "list", "--json")
    assert json.loads(listed.stdout)[0]["view"] == "diabetes"
    assert "FROM observations_in(" in run(project, "features", "show", "diabetes", "--sql").stdout
    built = json.loads(run(project, "build", "--json").stdout)
    assert Path(built[0]["file"]).exists()
    output = project.folder / "out.parquet"
    got = run(project, "get", str(project.folder / "spine.csv"), "--features", "diabetes:age", "--output", str(output))
    assert json.loads(got.stdout)["rows"] == 4
    assert pq.read_table(output)["age"].to_pylist() == [53, 53, 53, None]


def test_a_mistake_is_one_line_and_an_exit_code(project: Any) -> None:
    unknown = run(project, "features", "show", "diabetis")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: there is no feature view 'diabetis': did you mean 'diabetes'?\n"
    assert run(project, "build").stderr.startswith("error: there is no lake at ")
    project.define("x = 1 / 0\n")
    assert "line 1: ZeroDivisionError" in run(project, "features", "list").stderr
