"""The job to schedule: from the sources to the online store, with a record of the run: pull → normalize → build → load.

In goes a FeatureStore; out comes a `RunRecord`, which also lies in `<warehouse>/runs`, written anew after each step.
One job runs at a time. Every step commits for itself and does only what is new, so a job that was cut off is gone on
with by running it again. What fails for one source or view does not keep the others back, and sets the exit code.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fhir_features.errors import FhirFeaturesError, GateRefused
from fhir_features.feast import materialize
from fhir_features.features.tables import Build
from fhir_features.files import alone
from fhir_features.normalize import normalize
from fhir_features.private import owner_only
from fhir_features.sources import PullSummary, pull
from fhir_features.sources.progress import Progress, silent
from fhir_features.times import CLOCK_SKEW

if TYPE_CHECKING:
    from fhir_features.store import FeatureStore

ResultT = TypeVar("ResultT")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Failure(_Record):
    """What went wrong in a step: of which source or view (null: of all), the message, and its exit code."""

    of: str | None
    message: str
    exit_code: int


class Step(_Record):
    """One step of a run: what it did, one entry a source, run or view, and what failed. Instants are UTC."""

    name: Literal["pull", "normalize", "build", "load"]
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    done: list[dict[str, Any]] = []
    failures: list[Failure] = []


class RunRecord(_Record):
    """One run of the job. `state` is `running` until it has ended, also in the record of a run that was killed."""

    format: Literal[1] = 1
    run_id: str
    package: str
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    state: Literal["running", "done", "failed"] = "running"
    exit_code: int | None = None
    steps: list[Step] = []

    @property
    def failures(self) -> list[Failure]:
        """What failed, in the order of the steps."""
        return [failure for step in self.steps for failure in step.failures]

    def to_json(self) -> str:
        """The record as its file has it."""
        return self.model_dump_json(indent=2) + "\n"


@owner_only()
def run(
    store: FeatureStore,
    names: Sequence[str] = (),
    *,
    pulls: bool = True,
    anew: bool = False,
    progress: Progress = silent,
    ended: Callable[[Step], None] = lambda _: None,
) -> RunRecord:
    """Bring the named views, or all, up to date online; without `pulls`, from what has landed.

    `anew` loads all rows, as into an online store that was emptied. `ended` gets each step when it has ended. What
    fails on the way is in the record, with the exit code. Raises LakeLocked while another run is going on, GateRefused
    when the clock went backwards since the last run, UsageError for an unknown view, ConfigError.
    """
    views = [store.view(name).name for name in names] or list(store.views)
    folder = store.config.warehouse.path / "runs"
    with alone(folder / "run.lock", f"`fhir-features materialize` is being run on {store.config.warehouse.path}"):
        now = dt.datetime.now(dt.UTC)
        _check_clock(folder, now)
        record = RunRecord(
            run_id=now.strftime("%Y%m%dT%H%M%S%fZ"), package=importlib.metadata.version("fhir-features"), started_at=now
        )
        running = _Running(folder, record, ended)
        running.steps(store, views, pulls=pulls, anew=anew, progress=progress)
        return record


class _Running:
    """A run that is going on."""

    def __init__(self, folder: Path, record: RunRecord, ended: Callable[[Step], None]) -> None:
        self._ended = ended
        self._file = folder / f"{record.run_id}.json"
        self._record = record

    def steps(self, store: FeatureStore, views: Sequence[str], *, pulls: bool, anew: bool, progress: Progress) -> None:
        if pulls:
            step = self._begin("pull")
            for source in store.config.sources:
                self._try(step, source, partial(pull, store.config, [source], progress), _pulled)
        step = self._begin("normalize")
        if self._try(step, None, partial(normalize, store.config, progress), _plain):
            step = self._begin("build")
            built = [view for view in views if self._try(step, view, partial(_build, store, view, progress), _built)]
            step = self._begin("load")
            for view in built:
                load = partial(materialize, store, [view], anew=anew, progress=progress)
                self._try(step, view, load, _plain)
        self._end()

    def _begin(self, name: Literal["pull", "normalize", "build", "load"]) -> Step:
        now = dt.datetime.now(dt.UTC)
        if self._record.steps:
            self._end_step(now)
        self._record.steps.append(Step(name=name, started_at=now))
        self._write()
        return self._record.steps[-1]

    def _try(
        self,
        step: Step,
        of: str | None,
        do: Callable[[], Sequence[ResultT]],
        say: Callable[[ResultT], dict[str, Any]],
    ) -> bool:
        """Do a part of a step, and write down what came of it; whether it succeeded."""
        try:
            step.done += [say(each) for each in do()]
        except FhirFeaturesError as error:
            step.failures.append(Failure(of=of, message=str(error), exit_code=error.exit_code))
            return False
        return True

    def _end(self) -> None:
        self._record.finished_at = dt.datetime.now(dt.UTC)
        self._end_step(self._record.finished_at)
        failures = self._record.failures
        self._record.exit_code = failures[0].exit_code if failures else 0
        self._record.state = "failed" if failures else "done"
        self._write()

    def _end_step(self, now: dt.datetime) -> None:
        self._record.steps[-1].finished_at = now
        self._ended(self._record.steps[-1])

    def _write(self) -> None:
        aside = self._file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(self._record.to_json(), encoding="utf-8")
        aside.replace(self._file)


def _check_clock(folder: Path, now: dt.datetime) -> None:
    """Refuse to run before the last run: what would be answered now lies before what has been answered."""
    files = sorted(folder.glob("*.json"))
    if not files:
        return
    try:
        last = RunRecord.model_validate_json(files[-1].read_bytes())
    except (OSError, ValidationError):
        return
    ended = last.finished_at or last.started_at
    if now < ended - CLOCK_SKEW:
        raise GateRefused(
            f"it is {now.isoformat(timespec='seconds')} by this machine's clock, before the last run of "
            f"{ended.isoformat(timespec='seconds')}: set the clock right; if it was wrong then, remove {files[-1]}"
        )


def _build(store: FeatureStore, view: str, progress: Progress) -> list[Build]:
    return [store.build(view, progress=progress)]


def _plain(result: Any) -> dict[str, Any]:
    return dict(asdict(result))


def _pulled(summary: PullSummary) -> dict[str, Any]:
    types = {of.resource_type: {"landed": of.landed, "watermark": of.watermark} for of in summary.types}
    warnings = [*summary.warnings, *(warning for of in summary.types for warning in of.warnings)]
    return {"source": summary.source, "run_id": summary.run_id, "types": types, "warnings": warnings}


def _built(build: Build) -> dict[str, Any]:
    return {**asdict(build), "file": build.file.name if build.file else None}
