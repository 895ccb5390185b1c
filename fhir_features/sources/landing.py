"""What was received, exactly as received, and by which run? A run is one pull of one source: a folder
`<landing>/<source>/<run_id>/` of numbered files that are never changed, and `run.json`, written last, which names them.
A folder without `run.json` is a run that has not finished, and nobody but the pull that continues it may read it.
In: the landing folder. Out: finished runs as frozen records, and the check that their files are what was recorded."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fhir_features.errors import LandingError
from fhir_features.files import sealed, sha256_of, sync, unsealed, written_aside
from fhir_features.times import UTC

RECORD = "run.json"
RUN_FOLDERS = f"{'[0-9]' * 8}T{'[0-9]' * 12}Z"
_RUN_ID = "%Y%m%dT%H%M%S%fZ"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Receipt(_Record):
    """From which line on (counted from 1) the lines of a file were received by which instant (UTC): those of a search
    within the second before it."""

    first_line: int
    received_at: AwareDatetime


class LandedFile(_Record):
    """One landed file.

    `original` is its path inside the source's folder; it stands here only, because names of FHIR files often hold a
    patient's name. `format` says how `read_lines` reads it. `resource_type` is the only type in it, or null;
    `resources` counts what is in it by type. `lines` are the lines that are not blank, or the entries of a bundle;
    from line `unreadable_from` on (blank ones counted) it cannot be read. `bytes` and `sha256` are of the landed
    file, `original_sha256` of the file as it was found (a plain file is compressed). `backfill`: it holds the whole
    history of patients who were not asked about before, or what no search gives, so that its type's `since` says
    nothing of when the resources in it began.
    """

    name: str
    original: str | None = None
    format: Literal["ndjson", "bundle"]
    resource_type: str | None
    resources: dict[str, int]
    lines: int
    unreadable_from: int | None = None
    bytes: int
    sha256: str
    original_sha256: str | None = None
    backfill: bool = False
    receipts: tuple[Receipt, ...]


class LandedType(_Record):
    """What a run knows of one resource type.

    `since` is the lower bound on meta.lastUpdated that held, null for a full read; `watermark` the instant up to which
    the source has now been seen. `entries` were received in `pages`, repeats included. `history`: they were read by
    the history of the type, which gives every version since `since`, deletions too
    (https://hl7.org/fhir/R4/http.html#history).
    """

    request: dict[str, str]
    since: AwareDatetime | None
    watermark: AwareDatetime
    complete: bool
    history: bool = False
    entries: int
    pages: int
    warnings: tuple[str, ...] = ()


class LandedRun(_Record):
    """A finished run: what `run.json` says. Instants are UTC; `origin` is the base URL, the address
    of an export, or the folder that was read. One of kind `reconcile` holds deletions that were found by comparing what
    the server has with what is here; it has read no type, and moves no watermark."""

    version: Literal[1] = 1
    run_id: str
    source: str
    site: str
    kind: Literal["search", "bulk", "files", "reconcile"]
    origin: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    package_version: str
    types: dict[str, LandedType]
    warnings: tuple[str, ...] = ()
    files: tuple[LandedFile, ...]
    folder: Path = Field(exclude=True)


def landed_runs(landing: Path) -> list[LandedRun]:
    """The finished runs of all sources, ordered by run_id, then source.

    A run that was interrupted keeps its run_id when it is continued, so a run may appear that sorts before runs of
    other sources that were there earlier; those of one source appear in their order.

    Raises LandingError when a record cannot be read.
    """
    runs = [run for folder in landing.glob("*/") for run in runs_of_source(folder)]
    return sorted(runs, key=lambda run: (run.run_id, run.source))


def runs_of_source(folder: Path) -> list[LandedRun]:
    """The finished runs in one source's folder, in their order. Raises LandingError when a record cannot be read."""
    return [read_record(record) for record in sorted(folder.glob(f"{RUN_FOLDERS}/{RECORD}"))]


def verify_run(run: LandedRun) -> None:
    """Check that every file of a run is there with the bytes that were recorded.

    Raises LandingError, which names the run and the first file that is not.
    """
    for file in run.files:
        path = run.folder / file.name
        try:
            same = path.stat().st_size == file.bytes and sha256_of(path) == file.sha256
        except OSError:
            raise LandingError(
                f"{run.source}/{run.run_id}/{file.name} is missing or cannot be read: restore it from a backup"
            ) from None
        if not same:
            raise LandingError(
                f"{run.source}/{run.run_id}/{file.name} differs from what its run recorded: restore it from a backup"
            )


def write_record(run: LandedRun) -> None:
    """Make a run a finished one: its record appears whole or not at all."""
    # The names of its files come before the record that says that they are there.
    sync(run.folder)
    with written_aside(run.folder / RECORD) as aside:
        aside.write_bytes(sealed(run.model_dump_json(indent=1)))


def run_id_of(started_at: dt.datetime) -> str:
    """The id of a run that started at this instant (UTC): it sorts as time does."""
    return started_at.strftime(_RUN_ID)


def started_at_of(run_id: str) -> dt.datetime:
    """The instant (UTC) at which a run started."""
    return dt.datetime.strptime(run_id, _RUN_ID).replace(tzinfo=UTC)


def read_record(path: Path) -> LandedRun:
    """The finished run that a record is of. Raises LandingError when it cannot be read."""
    where = f"{path.parent.parent.name}/{path.parent.name}/{RECORD}"
    try:
        return LandedRun.model_validate(json.loads(unsealed(path.read_bytes())) | {"folder": path.parent})
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise LandingError(f"{where} cannot be read ('{key}': {problem['msg']}): restore it from a backup") from None
    except (OSError, ValueError, TypeError):
        raise LandingError(f"{where} cannot be read: restore it from a backup") from None
