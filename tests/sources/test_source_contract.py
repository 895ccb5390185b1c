"""What holds for a source of every kind: the same resources, served or lying in a folder, are landed alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fhir_server import FhirServer, Reply, resource
from terminal import run_on_a_terminal

from fhir_features.config import Config, load_config
from fhir_features.errors import SourceUnreachable
from fhir_features.sources import LandedRun, landed_runs, pull, read_lines, verify_run

RESOURCES = [resource("Patient", number) for number in range(12)] + [
    {**resource("Observation", number), "valueString": "Grüße\n", "valueQuantity": {"value": 1.50}}
    for number in range(25)
]


class Source:
    """A configured source: `hold` gives it its resources, `fail` makes it fail."""

    def __init__(self, config: Config, hold: Callable[[list[dict]], None], fail: Callable[[], None]) -> None:
        self.config = config
        self.hold = hold
        self.fail = fail
        self.landing = config.warehouse.path / "landing"

    def runs(self) -> list[LandedRun]:
        return landed_runs(self.landing)


def of_files(folder: Path, lines: Callable[[list[dict]], dict[str, str]]) -> Source:
    (folder / "in").mkdir()
    (folder / "fhir_features.toml").write_text(
        '[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "UTC"\npath = "in"\n'
        'resource_types = ["Patient", "Observation"]\n'
    )

    def hold(resources: list[dict]) -> None:
        for name, text in lines(resources).items():
            (folder / "in" / name).write_text(text)

    return Source(load_config(folder), hold, lambda: (folder / "in").rename(folder / "gone"))


def as_ndjson(resources: list[dict]) -> dict[str, str]:
    return {
        f"{kind}.ndjson": "".join(json.dumps(each) + "\n" for each in resources if each["resourceType"] == kind)
        for kind in ("Patient", "Observation")
    }


def as_bundles(resources: list[dict]) -> dict[str, str]:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in resources]}
    return {"everything.json": json.dumps(bundle, indent=2)}


@pytest.fixture(params=["search", "bulk", "ndjson", "bundle"])
def source(request: pytest.FixtureRequest, tmp_path: Path, server: FhirServer) -> Source:
    if request.param == "ndjson":
        return of_files(tmp_path, as_ndjson)
    if request.param == "bundle":
        return of_files(tmp_path, as_bundles)

    def fail() -> None:
        server.scripted = lambda _: Reply(status=503)

    configured = request.getfixturevalue("searching" if request.param == "search" else "exporting")
    return Source(configured(types='"Patient", "Observation"'), lambda held: server.resources.extend(held), fail)


def resources_of(run: LandedRun) -> list[dict]:
    lines = [(file, json.loads(line)) for file in run.files for _, _, line in read_lines(run.folder, file)]
    return [line["resource"] if file.format == "bundle" else line for file, line in lines]


def by_id(resources: list[dict]) -> list[dict]:
    return sorted(resources, key=lambda each: each["id"])


def test_every_resource_is_landed_once_with_its_content(source):
    source.hold(RESOURCES)
    (summary,) = pull(source.config)
    (run,) = source.runs()
    verify_run(run)
    assert by_id(resources_of(run)) == by_id(RESOURCES)
    assert {of.resource_type: (of.received, of.landed) for of in summary.types} == {
        "Patient": (12, 12),
        "Observation": (25, 25),
    }
    assert summary.run_id == run.run_id
    assert repr(summary) == "<PullSummary ward: landed Patient 12, Observation 25>"
    assert [of.watermark for of in summary.types] == [of.watermark for of in run.types.values()]


def test_the_record_says_what_the_files_hold(source):
    source.hold(RESOURCES)
    pull(source.config)
    (run,) = source.runs()
    assert (run.source, run.site) == ("ward", "north")
    assert sum(file.lines for file in run.files) == len(RESOURCES)
    for file in run.files:
        numbers = [number for number, _, _ in read_lines(run.folder, file)]
        times = [at for _, at, _ in read_lines(run.folder, file)]
        assert numbers == list(range(1, file.lines + 1))
        assert times == sorted(times)
        assert run.started_at <= times[0] and times[-1] <= run.finished_at
    assert all(of.complete and of.watermark <= run.finished_at for of in run.types.values())
    assert {path.name for path in run.folder.iterdir()} == {"run.json", *(file.name for file in run.files)}


def test_a_second_pull_changes_nothing_of_the_first_run(source):
    source.hold(RESOURCES)
    pull(source.config)
    (first,) = source.runs()
    files = {path: path.read_bytes() for path in first.folder.iterdir()}
    pull(source.config)
    assert source.runs()[0] == first
    assert {path: path.read_bytes() for path in first.folder.iterdir()} == files


def test_a_source_that_fails_leaves_no_finished_run(source):
    source.hold(RESOURCES)
    source.fail()
    with pytest.raises(SourceUnreachable, match=r"^source 'ward': "):
        pull(source.config)
    assert source.runs() == []


def command(config: Config, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from fhir_features.cli import main; main()"]
    return subprocess.run([*program, "--config", str(config.file), *arguments], capture_output=True, text=True)


def test_the_command_prints_a_line_for_each_type(source):
    source.hold(RESOURCES)
    done = command(source.config, "pull")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"pull: 37 resources landed in \d+\.\d s( \([\d.,]+/s\))?\n", done.stderr)
    heads, *lines = [line.split() for line in done.stdout.splitlines()]
    assert heads == ["source", "type", "received", "pages", "landed", "seen", "up", "to"]
    assert [(line[0], line[1], line[2], line[4]) for line in lines] == [
        ("ward", "Patient", "12", "12"),
        ("ward", "Observation", "25", "25"),
    ]


def test_progress_is_shown_on_a_terminal_only_and_beside_the_data(source):
    source.hold(RESOURCES)
    program = [sys.executable, "-c", "from fhir_features.cli import main; main()", "--config", str(source.config.file)]
    code, printed, shown = run_on_a_terminal([*program, "pull"])
    assert code == 0
    assert b"ward" in shown
    assert b"/s" in shown
    assert b"pull: 37 resources landed in " in shown
    assert len(printed.splitlines()) == 3


def test_the_command_prints_json(source):
    source.hold(RESOURCES)
    (summary,) = json.loads(command(source.config, "pull", "ward", "--json").stdout)
    (run,) = source.runs()
    assert (summary["source"], summary["run_id"]) == ("ward", run.run_id)
    assert summary["types"][0] == {
        "resource_type": "Patient",
        "received": 12,
        "pages": run.types["Patient"].pages,
        "landed": 12,
        "watermark": run.types["Patient"].watermark.isoformat(),
        "warnings": [],
    }


def test_the_command_ends_with_one_line_and_the_exit_code_of_the_error(source):
    unknown = command(source.config, "pull", "wrad")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: there is no source 'wrad' in fhir_features.toml: did you mean 'ward'?\n"


def test_a_source_that_fails_does_not_keep_the_others_from_being_pulled(tmp_path):
    source = of_files(tmp_path, as_ndjson)
    source.hold(RESOURCES)
    other = '[sources.a]\nkind = "files"\nsite = "south"\ntimezone = "UTC"\npath = "nowhere"\n'
    source.config.file.write_text(other + source.config.file.read_text() + other.replace("sources.a", "sources.z"))
    done = command(load_config(tmp_path), "pull")
    assert done.returncode == SourceUnreachable.exit_code
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["source", "ward", "ward"]
    told, *errors = done.stderr.splitlines()
    assert told.startswith("pull: 37 resources landed in ")
    assert [line[:18] for line in errors] == ["error: source 'a':", "error: source 'z':"]
