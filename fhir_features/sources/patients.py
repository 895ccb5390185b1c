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
    landed itself and those of runs that had finished when it began; of others one cannot be sure. Whoever another
    patient was merged into since then counts as not asked about: what was the other's is theirs now.
    """
    known: list[tuple[Path, Sequence[LandedFile]]] = []
    new: list[tuple[Path, Sequence[LandedFile]]] = []
    for past in landed_runs(run.folder.parent.parent):
        if past.site == site:
            is_known = before is not None and (past.folder == before.folder or past.finished_at <= before.started_at)
            (known if is_known else new).append((past.folder, past.files))
    new.append((run.folder, run.files()))
    merged = {link for each in new for link in merges(*each)} - {link for each in known for link in merges(*each)}
    survivors = {survivor for survivor, _ in merged}
    for runs, are_known in ((known, True), (new, False)):
        for folder, files in runs:
            yield from ((id, are_known and id not in survivors) for id in patient_ids(folder, files))


def landed_patients(landing: Path, site: str) -> Iterator[str]:
    """The id of every Patient of the site in the finished runs of any source, some of them repeatedly."""
    for past in landed_runs(landing):
        if past.site == site:
            yield from patient_ids(past.folder, past.files)


def patient_ids(folder: Path, files: Sequence[LandedFile]) -> Iterator[str]:
    """The ids of the Patients in the files of a run, some of them repeatedly."""
    return resource_ids("Patient", folder, files)


def merges(folder: Path, files: Sequence[LandedFile]) -> Iterator[tuple[str, str]]:
    """Who was merged into whom, by the Patients in the files of a run: (survivor, merged), some of them repeatedly.

    https://hl7.org/fhir/R4/valueset-link-type.html
    """
    for file in files:
        for line in _lines(folder, file) if file.resources.get("Patient") else ():
            if b'"replace' in line:
                patient = _resource(line, file)
                for kind, other in _linked(patient):
                    if kind == "replaces" and other:
                        yield str(patient.id), other
                    elif kind == "replaced-by" and other:
                        yield other, str(patient.id)


def _linked(patient: _Resource) -> Iterator[tuple[Any, str]]:
    """The kinds and ids of a Patient's links, as far as they can be read."""
    for link in patient.link if isinstance(patient.link, list) else []:
        other = link.get("other") if isinstance(link, dict) else None
        reference = other.get("reference") if isinstance(other, dict) else None
        yield link.get("type") if isinstance(link, dict) else None, str(reference or "").rpartition("/")[2]


def resource_ids(resource_type: str, folder: Path, files: Sequence[LandedFile]) -> Iterator[str]:
    """The ids of the resources of a type in the files of a run, some of them repeatedly."""
    for file in files:
        if file.resources.get(resource_type):
            yield from _ids_in(resource_type, folder, file)


class _Resource(msgspec.Struct, frozen=True):
    resourceType: Any = None
    id: Any = None
    link: Any = None


class _Entry(msgspec.Struct):
    resource: _Resource = _Resource()


def _ids_in(resource_type: str, folder: Path, file: LandedFile) -> Iterator[str]:
    for line in _lines(folder, file):
        resource = _resource(line, file)
        if resource.resourceType == resource_type and isinstance(resource.id, str):
            yield resource.id


def _lines(folder: Path, file: LandedFile) -> Iterator[bytes]:
    try:
        for _, _, line in read_lines(folder, file):
            yield line
    except UnreadableRest:
        return  # Normalize puts the rest of the file into the quarantine.


def _resource(line: bytes, file: LandedFile) -> _Resource:
    try:
        if file.format == "bundle":
            return msgspec.json.decode(line, type=_Entry).resource
        return msgspec.json.decode(line, type=_Resource)
    except NOT_JSON:
        return _Resource()
