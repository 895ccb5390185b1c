"""Whom is a server asked about that only answers patient by patient? In: the landing, and the run that is being
written. Out: the id of each patient of the site that has landed, from whichever source, one after the other, and
whether an earlier run of this source asked about that patient already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fhir_features.sources.checkpoint import OpenRun
from fhir_features.sources.landing import LandedFile, LandedRun, landed_runs
from fhir_features.sources.reading import NOT_JSON, UnreadableRest, read_lines


def site_patients(site: str, run: OpenRun, before: LandedRun | None) -> Iterator[tuple[str, bool]]:
    """(id, asked about before) of every Patient that landed from a source of the site, some of them repeatedly.

    `before` is the earliest of this source's runs whose watermarks still count. It asked about the patients that it
    landed itself and those of runs that had finished when it began; of others one cannot be sure.
    """
    for past, id in landed_patients(run.folder.parent.parent, site):
        known = before is not None and (past.folder == before.folder or past.finished_at <= before.started_at)
        yield id, known
    yield from ((id, False) for id in patient_ids(run.folder, run.files()))


def landed_patients(landing: Path, site: str) -> Iterator[tuple[LandedRun, str]]:
    """Every Patient of the site in the finished runs of any source: the run, and the id."""
    for past in landed_runs(landing):
        if past.site == site:
            yield from ((past, id) for id in patient_ids(past.folder, past.files))


def patient_ids(folder: Path, files: Sequence[LandedFile]) -> Iterator[str]:
    """The ids of the Patients in the files of a run, some of them repeatedly."""
    return resource_ids("Patient", folder, files)


def resource_ids(resource_type: str, folder: Path, files: Sequence[LandedFile]) -> Iterator[str]:
    """The ids of the resources of a type in the files of a run, some of them repeatedly."""
    for file in files:
        if file.resources.get(resource_type):
            yield from _ids_in(resource_type, folder, file)


class _Resource(msgspec.Struct, frozen=True):
    resourceType: Any = None
    id: Any = None


class _Entry(msgspec.Struct):
    resource: _Resource = _Resource()


def _ids_in(resource_type: str, folder: Path, file: LandedFile) -> Iterator[str]:
    try:
        for _, _, line in read_lines(folder, file):
            resource = _resource(line, file)
            if resource.resourceType == resource_type and isinstance(resource.id, str):
                yield resource.id
    except UnreadableRest:
        return  # Normalize puts the rest of the file into the quarantine.


def _resource(line: bytes, file: LandedFile) -> _Resource:
    try:
        if file.format == "bundle":
            return msgspec.json.decode(line, type=_Entry).resource
        return msgspec.json.decode(line, type=_Resource)
    except NOT_JSON:
        return _Resource()
