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
    headings, first = run(project, "features", "show", "diabetes").stdout.splitlines()[2:4]
    assert headings.split() == ["feature", "kind", "unit", "window", "of", "answer"]
    assert first.split()[:3] == ["hba1c_last_1y", "number", "%"]
    assert "FROM observations_in(" in run(project, "features", "show", "diabetes", "--sql").stdout
    built = json.loads(run(project, "build", "--json").stdout)
    assert Path(built[0]["file"]).exists()
    output = project.folder / "out.parquet"
    asked = ("get", str(project.folder / "spine.csv"), "--features", "diabetes:age", "--output", str(output))
    assert json.loads(run(project, *asked, "--json").stdout)["rows"] == 4
    heads, counts, *_ = run(project, *asked).stdout.splitlines()
    assert heads.split("  ")[:2] == ["rows", "unknown patients"]
    assert counts.split()[0] == "4"
    assert pq.read_table(output)["age"].to_pylist() == [53, 53, 53, None]


def test_codes_that_nobody_has_are_warned_of(project: Any) -> None:
    project.define(
        "from fhir_features import FeatureView, observation, patient\n"
        "hb = observation('loinc:718-7', unit='g/dL')\n"
        "v = FeatureView(name='v', entity=patient, features=[hb.last().named('hb'), patient.age().named('age')])\n"
    )
    project.write(some_rows())
    csv.write_csv(spine(), project.folder / "spine.csv")
    output = str(project.folder / "out.csv")
    got = run(project, "get", str(project.folder / "spine.csv"), "--features", "v", "--output", output, "--json")
    told, warning = got.stderr.splitlines()
    assert told.startswith(f"get: 4 rows written to {output} in ")
    assert warning == (
        "warning: 1 feature is over codes that the data has none of: hb; `fhir-features report` shows which codes it "
        "has (is descendants=True or ingredient=True missing?)"
    )
    assert json.loads(got.stdout)["absent"] == ["hb"]


def test_an_earlier_version_is_shown(project: Any) -> None:
    project.write(some_rows())
    version = json.loads(run(project, "features", "list", "--json").stdout)[0]["version"]
    was = run(project, "features", "show", "diabetes", "--json").stdout
    run(project, "build")
    project.define((project.folder / "feature_repo" / "features.py").read_text().replace("730d", "731d"))
    assert run(project, "features", "show", "diabetes", "--json").stdout != was
    assert run(project, "features", "show", f"diabetes@{version[:8]}", "--json").stdout == was
    assert run(project, "features", "show", f"diabetes@{version[:8]}").stdout.startswith(f"diabetes@{version[:12]}, ")
    assert json.loads(was)["version"] == version


def test_no_mistake_gives_a_traceback(project: Any) -> None:
    project.write(some_rows())
    file = str(project.folder / "spine.csv")
    csv.write_csv(spine(), file)
    nowhere = ("--output", str(project.folder / "nowhere" / "out.csv"))
    early = "0001-01-01T00:00:00+14:00"
    for arguments, says in (
        (("get", file, "--features", "diabetes", *nowhere), "error: there is no folder "),
        (("audit-leakage", file, "diabetes:age", "--value", "label", *nowhere), "error: there is no folder "),
        (
            ("explain", "diabetes:age", "--patient", "p1", "--at", early),
            f"error: --at: '{early}' is not within the years ",
        ),
    ):
        refused = run(project, *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(says)
        assert refused.stderr.count("\n") == 1


def test_a_mistake_is_one_line_and_an_exit_code(project: Any) -> None:
    unknown = run(project, "features", "show", "diabetis")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: there is no feature view 'diabetis': did you mean 'diabetes'?\n"
    assert run(project, "build").stderr.startswith("error: there is no lake at ")
    project.define("from fhir_features import condition, patient\ncondition('icd10cm:E11').time_since()\n")
    assert run(project, "features", "list").stderr.endswith(
        "line 2: <ConditionSeries: conditions of icd10cm:E11> has no 'time_since': did you mean 'time_since_last'?\n"
    )
    project.define("x = 1 / 0\n")
    assert "line 1: ZeroDivisionError" in run(project, "features", "list").stderr
