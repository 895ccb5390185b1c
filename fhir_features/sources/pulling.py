"""What has a source got that is not here yet? In: the configuration and the names of sources. Out: for each a
finished run in the landing, begun anew or continued where an earlier pull was interrupted, and a summary of it. One
process at a time pulls a source."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from fhir_features.config import Config, Source
from fhir_features.errors import LandingError, SourceIncomplete
from fhir_features.files import alone, make_folder
from fhir_features.private import owner_only
from fhir_features.sources.bulk import abandon_exports, land_bulk
from fhir_features.sources.bulk_export import export_url
from fhir_features.sources.checkpoint import OpenRun, open_run
from fhir_features.sources.files import land_files
from fhir_features.sources.following import land_followed
from fhir_features.sources.landing import LandedRun, LandedType, runs_of_source
from fhir_features.sources.progress import Progress, silent
from fhir_features.sources.search import land_search
from fhir_features.times import UTC


@dataclass(frozen=True)
class TypeSummary:
    """What a pull got of one resource type: resources received in how many pages (files), repeats included; how many of
    them were landed; and up to which instant (UTC) the source has now been seen, null if it never was."""

    resource_type: str
    received: int
    pages: int
    landed: int
    watermark: dt.datetime | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PullSummary:
    """What a pull of one source got. `run_id` is null when there was nothing to land."""

    source: str
    run_id: str | None
    types: tuple[TypeSummary, ...]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        landed = ", ".join(f"{each.resource_type} {each.landed:,}" for each in self.types if each.landed)
        return f"<PullSummary {self.source}: landed {landed or 'nothing, as nothing is new'}>"


def pull(config: Config, names: Sequence[str] = (), progress: Progress = silent) -> list[PullSummary]:
    """Pull the named sources, or all that are configured, one after the other, into `<warehouse>/landing`.

    A source that was pulled before is asked for what changed since; a pull that was interrupted is continued.

    Raises UsageError for an unknown source, LakeLocked when another process is pulling it, ConfigError for a secret
    that is not there, LandingError when the landing cannot be written or an earlier run's record not be read, and the
    Source errors of `fhir_features.errors`. What was landed before an error is kept, though not as a finished run: the
    next pull goes on from there. (An export of which something is missing is a finished run all the same.)
    """
    sources = {name: config.source(name) for name in (names or config.sources)}
    return [
        _pull_source(config.warehouse.path / "landing" / name, name, source, progress)
        for name, source in sources.items()
    ]


@contextmanager
def landing_of(folder: Path, name: str) -> Iterator[None]:
    """Have a source's folder in the landing to write to, alone.

    Raises LakeLocked when another process has it, LandingError when it cannot be written.
    """
    try:
        with owner_only():
            make_folder(folder)
        with owner_only(), alone(folder / "pull.lock", f"source '{name}' is being read", refused=LandingError):
            yield
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise LandingError(
            f"source '{name}': its landing {folder} cannot be written ({why}): correct that, then run this again"
        ) from None


def _pull_source(folder: Path, name: str, source: Source, progress: Progress) -> PullSummary:
    with landing_of(folder, name):
        earlier = [run for run in runs_of_source(folder) if run.kind != "reconcile"]
        asked = [source.resource_types, source.per_patient, source.categories, source.type_filters, source.follow]
        plan = msgspec.json.encode([source.kind, origin(source), *asked]).decode()
        run = open_run(folder, plan, partial(abandon_exports, name, source))
        try:
            if source.kind == "files":
                landed = _landed_from_files(name, source, run, earlier, progress)
            elif source.kind == "bulk":
                landed = _landed_from_bulk(name, source, run, earlier, progress)
            else:
                landed = _landed_from_search(name, source, run, earlier, progress)
            if landed is None:
                run.discard()
                return _nothing_new(name, source, earlier)
            run.finish(landed)
        finally:
            run.close()
    _check_whole(landed)
    return _summary(landed)


def _landed_from_files(
    name: str, source: Source, run: OpenRun, earlier: Sequence[LandedRun], progress: Progress
) -> LandedRun | None:
    landed = {file.original_sha256 for past in earlier for file in past.files if file.original_sha256}
    types, warnings = land_files(name, source, run, landed, progress)
    return _record(name, source, run, types, warnings) if run.files() else None


def _landed_from_search(
    name: str, source: Source, run: OpenRun, earlier: Sequence[LandedRun], progress: Progress
) -> LandedRun:
    # What was seen at another address says nothing about this one.
    same = [past for past in earlier if past.origin == origin(source)]
    types = land_search(name, source, run, same, progress)
    followed = land_followed(name, source, run, progress)
    patients = types.get("Patient")
    empty = not same and patients is not None and not patients.entries
    warnings = ["the server has no Patient, or shows none: see that 'base_url' and the rights are as meant"]
    return _record(name, source, run, types, [*(warnings if empty else []), *followed])


def _landed_from_bulk(
    name: str, source: Source, run: OpenRun, earlier: Sequence[LandedRun], progress: Progress
) -> LandedRun:
    # What was seen of another group says nothing about this one.
    landed = land_bulk(name, source, run, [past for past in earlier if past.origin == origin(source)], progress)
    return _record(name, source, run, landed.types, [*landed.warnings, *land_followed(name, source, run, progress)])


def _check_whole(run: LandedRun) -> None:
    if lacking := {resource_type: of.warnings for resource_type, of in run.types.items() if not of.complete}:
        why = "; ".join(dict.fromkeys(warning for warnings in lacking.values() for warning in warnings))
        raise SourceIncomplete(
            f"source '{run.source}': not all of {', '.join(lacking)} came ({why}): what came is landed and no "
            "watermark of theirs moved; pull again, or ask those who run the server"
        )


def _record(
    name: str, source: Source, run: OpenRun, types: dict[str, LandedType], warnings: Sequence[str]
) -> LandedRun:
    return LandedRun(
        run_id=run.run_id,
        source=name,
        site=source.site,
        kind=source.kind,
        origin=origin(source),
        started_at=run.started_at,
        finished_at=dt.datetime.now(UTC),
        package_version=importlib.metadata.version("fhir-features"),
        types=types,
        warnings=tuple(warnings),
        files=tuple(run.files()),
        folder=run.folder,
    )


def origin(source: Source) -> str:
    """Where a source is: the base URL, the address of an export, or the folder."""
    return export_url(source) if source.kind == "bulk" else source.base_url or str(source.path)


def _summary(run: LandedRun) -> PullSummary:
    landed = Counter[str]()
    for file in run.files:
        landed.update(file.resources)
    types = tuple(
        TypeSummary(name, of.entries, of.pages, landed[name], of.watermark, of.warnings)
        for name, of in run.types.items()
    )
    return PullSummary(run.source, run.run_id, types, run.warnings)


def _nothing_new(name: str, source: Source, earlier: Sequence[LandedRun]) -> PullSummary:
    types = []
    for resource_type in source.resource_types:
        seen = [run.types[resource_type].watermark for run in earlier if resource_type in run.types]
        types.append(TypeSummary(resource_type, 0, 0, 0, seen[-1] if seen else None))
    warnings = () if earlier else ("its folder holds no NDJSON file and no Bundle: check 'path'",)
    return PullSummary(name, None, tuple(types), warnings)
