"""The projects that faults are injected into, and the process that does it (`stages.py` under `faults.c`)."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project import NOW, Project

from fhir_features.synthetic import later, write_ndjson

HERE = Path(__file__).parent


def compiled(folder: Path) -> Path | None:
    """The shim of `faults.c`, compiled; None where there is no compiler, or no Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    shim = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "faults.c", "-ldl"], check=True)
    return shim


class Stages:
    """Does stages, each in a process that may be killed."""

    def __init__(self, shim: Path) -> None:
        env = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(HERE.parent)}
        command = [sys.executable, str(HERE / "stages.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def do(self, stage: str, folder: Path, **how: Any) -> dict[str, Any]:
        """How a stage ended: {exit, calls, says}."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"stage": stage, "folder": str(folder), **how}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def well(self, stage: str, folder: Path) -> Any:
        """Do a stage that must end well; what it says."""
        ended = self.do(stage, folder)
        assert ended["exit"] == 0, ended["says"]
        return ended["says"]

    def close(self) -> float:
        """End; the CPU seconds that all stages took."""
        said, _ = self._process.communicate()
        return float(json.loads(said)["cpu"])


FEATURES = """
from fhir_features.features import FeatureService, FeatureView, observation, patient

features = [observation("loinc:2160-0", unit="mg/dL").last().named("creatinine_last")]
kidney = FeatureView(name="kidney", entity=patient, features=features)
model = FeatureService(name="model", features=["kidney"])
"""


def small_project(folder: Path) -> Project:
    """Two patients, a view of one feature, and an ontology to import."""
    folder.mkdir(parents=True)
    project = Project(folder)
    (folder / "feature_repo" / "features.py").write_text(FEATURES)
    whom = {"patient-001", "patient-002"}
    project.resources = [each for each in project.resources if _patient(each) in whom]
    concepts = [{"code": "4548-4", "display": "first"}, {"code": "2339-0", "display": "second"}]
    system = {"resourceType": "CodeSystem", "url": "http://loinc.org", "version": "local-1", "content": "fragment"}
    (folder / "release.json").write_text(json.dumps({**system, "name": "Local", "concept": concepts}))
    return project


def _patient(resource: dict[str, Any]) -> str:
    if resource["resourceType"] == "Patient":
        return str(resource["id"])
    return str(resource.get("subject", {}).get("reference", "Patient/")).removeprefix("Patient/")


@dataclass(frozen=True, eq=False)
class Before:
    """A project as it stood before a stage: which tables its lake had, by commit, and what the project must hold after
    the stage, whatever happened in between."""

    stage: str
    folder: Path
    calls: int
    committed: dict[str, dict[str, str]]
    content: dict[str, Any]

    @property
    def trace(self) -> list[str]:
        """The calls that the stage was disturbed at, a line each."""
        lines = self.folder.with_suffix(".trace").read_text().splitlines()
        return [line for line in lines if not line.startswith("from\t")]


def before_each(stages: Stages, root: Path, *, every_stage: bool) -> list[Before]:
    """The stages that write, each with the project before it, when a second batch has come; or `every_stage`, at first
    too, and those that are seldom done."""
    project = small_project(root / "project")
    write_ndjson(project.resources, project.folder / "north" / "0.ndjson")
    found = []
    for stage in ("pull", "normalize", "build"):
        if every_stage and stage != "build":
            found.append(_before(stages, root, project.folder, stage))
        else:
            stages.well(stage, project.folder)
    stages.well("apply", project.folder)
    write_ndjson(later(project.resources, now=NOW + dt.timedelta(days=1)), project.folder / "north" / "1.ndjson")
    again = ["pull", "import", "normalize", "build", "materialize"]
    again += ["apply", "compact", "rebuild"] if every_stage else []
    return found + [_before(stages, root, project.folder, stage) for stage in again]


def _before(stages: Stages, root: Path, project: Path, stage: str) -> Before:
    folder = root / f"before-{len(list(root.iterdir()))}"
    shutil.copytree(project, folder)
    has_lake = (project / "warehouse" / "lake").exists()
    committed = stages.well("lake", project) if has_lake else {}
    trace = folder.with_suffix(".trace")
    done = stages.do(stage, project, trace=str(trace))
    assert done["exit"] == 0, done["says"]
    assert not_synced(trace) == [], stage
    recovered = stages.do("", project, recovers=stage, committed=False)
    assert recovered["exit"] == 0, recovered["says"]
    return Before(stage, folder, done["calls"], committed, recovered["says"]["content"])


def not_synced(trace: Path) -> list[str]:
    """The files that a power cut could take though the stage has ended: bytes or names that were not synced."""
    bytes_of: set[str] = set()
    names: set[str] = set()
    source = ""
    for line in trace.read_text().splitlines():
        call, path = line.split("\t")
        if call == "from":
            source = path
        elif call in ("fsync", "fdatasync"):
            bytes_of.discard(path)
            names = {name for name in names if str(Path(name).parent) != path}
        elif call.startswith(("rename", "link")):
            names.add(path)
            bytes_of |= {path} if source in bytes_of else set()
        elif call.startswith(("open", "mkdir")):
            names.add(path)
        elif call.startswith(("write", "pwrite", "truncate", "ftruncate")):
            bytes_of.add(path)
    lost = [Path(path) for path in bytes_of | names]
    return sorted(str(path) for path in lost if path.exists() and not path.name.endswith((".lock", "-wal")))


def disturbed(stages: Stages, root: Path, before: Before, at: int, error: int) -> str:
    """Do a stage that is disturbed at a call: killed, or told of an error of the disk; then see that all recovers.

    How the stage ended: `killed`, `said so` or `done`.
    """
    folder = root / "disturbed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before.folder, folder)
    ended = stages.do(before.stage, folder, at=at, errno=error)
    what = f"{before.stage}, {errno.errorcode.get(error, 'killed')} at call {at} of {before.calls}"
    assert ended["exit"] != 255, f"{what}: {ended['says']}"
    assert ended["exit"] == 0 or error == 0 or "\n" not in ended["says"], what
    recovered = stages.do("", folder, recovers=before.stage, committed=bool(before.committed))
    assert recovered["exit"] == 0, f"{what}, then: {recovered['says']}"
    found = recovered["says"]["committed"]
    for table, by_commit in before.committed.items():
        assert {seq: found[table].get(seq) for seq in by_commit} == by_commit, f"{what}: {table} is not as committed"
    assert recovered["says"]["content"] == before.content, f"{what}: not the same content"
    if ended["exit"] == 0:
        return "done"
    return "killed" if ended["exit"] < 0 else "said so"
