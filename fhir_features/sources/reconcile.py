"""Which resources are gone from a server, though nobody said that they were deleted? In: a source on a server, and the
lake. Out: the ids that the server has now, read as a pull would read them, are compared with those that live in the
lake; what is missing is asked for by its id, and what the server then says is not there is landed as a run of
deletions, for normalize to close. The watermarks of the source stay where they are."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import zstandard

from fhir_features.config import Config, ResourceType, Source
from fhir_features.errors import (
    FhirFeaturesError,
    GateRefused,
    SourceNotFhir,
    SourceRefused,
    SourceUnreachable,
    UsageError,
)
from fhir_features.files import make_folder, sha256_of, sync
from fhir_features.sources.checkpoint import OpenRun, open_run
from fhir_features.sources.client import Client
from fhir_features.sources.landing import LandedFile, LandedRun, Receipt, run_id_of, write_record
from fhir_features.sources.patients import resource_ids
from fhir_features.sources.progress import Progress, silent
from fhir_features.sources.pulling import landing_of, origin
from fhir_features.sources.search import land_search
from fhir_features.sources.transport import PASSING
from fhir_features.times import UTC

if TYPE_CHECKING:
    import duckdb

MAX_SHARE = 0.1
_BATCH_IDS = 20_000


@dataclass(frozen=True)
class TypeReconciliation:
    """How a type stands on the server and in the lake, in resources: `held` live in the lake and came from this source;
    `on_server` are those that the search gave; `passed_over` live and are on the server, though the search did not
    give them; `gone` live and are not on the server; `not_held` are on the server and do not live in the lake, null
    where more is searched than the source would pull."""

    resource_type: str
    held: int
    on_server: int
    passed_over: int
    gone: int
    not_held: int | None


@dataclass(frozen=True)
class Reconciliation:
    """What the comparison of one source found. `run_id` is that of the deletions, null when none were landed."""

    source: str
    run_id: str | None
    types: tuple[TypeReconciliation, ...]
    warnings: tuple[str, ...]


def reconcile(
    config: Config, name: str, *, max_share: float = MAX_SHARE, dry_run: bool = False, progress: Progress = silent
) -> Reconciliation:
    """Compare a source's server with the lake, and land a deletion for each resource that is gone, unless `dry_run`.

    A deletion is known from now, when it was found. Killed in the middle it has landed nothing, and is run again.

    Raises GateRefused when more than `max_share` of a type would be deleted, UsageError for a source that is no server,
    LakeError without a lake, LakeLocked while the source is pulled, LandingError when the landing cannot be written,
    and the Source errors of `fhir_features.errors`.
    """
    from fhir_features.lake import EVENT_TABLES, create_views, newest_store_seq, reading

    source = config.source(name)
    if source.kind == "files":
        raise UsageError(
            f"source '{name}' is a folder of files, which cannot be asked what is still there: reconcile a source of "
            "kind 'search' or 'bulk', or put deletions into a Bundle"
        )
    # Of other types nothing lives in the lake that a deletion would close.
    types = tuple(resource_type for resource_type in source.resource_types if resource_type in EVENT_TABLES)
    landing = config.warehouse.path / "landing"
    with reading(config.warehouse.path / "lake") as con, landing_of(landing / name, name), _aside(landing, name) as run:
        searched = source.model_copy(update={"resource_types": types})
        scans = land_search(name, searched, run, [], progress, elements="id")
        # After the scan, which may have taken hours: what was normalized meanwhile lives too.
        create_views(con, newest_store_seq(con))
        con.execute("SET memory_limit = '1GB'")
        with Client(name, source) as client:
            comparison = _Comparison(name, source, con, client, max_share, progress)
            deletions = run.folder / "deletions-0001.ndjson.zst"
            with zstandard.open(deletions, "wb") as out:
                found = tuple(comparison.of_type(each, EVENT_TABLES[each].name, run, out) for each in types)
        gone = sum(each.gone for each in found)
        run_id = _land(landing / name, name, source, deletions, gone) if gone and not dry_run else None
        warnings = dict.fromkeys(warning for scan in scans.values() for warning in scan.warnings)
    return Reconciliation(name, run_id, found, (*warnings, *_advice(found)))


class _Comparison:
    def __init__(
        self,
        name: str,
        source: Source,
        con: duckdb.DuckDBPyConnection,
        client: Client,
        max_share: float,
        progress: Progress,
    ) -> None:
        assert source.base_url is not None
        self._name = name
        self._source = source
        self._base = source.base_url.rstrip("/")
        self._con = con
        self._client = client
        self._max_share = max_share
        self._progress = progress

    def of_type(
        self, resource_type: ResourceType, view: str, run: OpenRun, out: zstandard.ZstdCompressionWriter
    ) -> TypeReconciliation:
        """Compare a type with what was scanned of it, and write a line for each deletion."""
        self._stage(resource_type, view, run)
        held = self._count("FROM held WHERE is_own")
        missing = self._count("FROM missing")
        gone = 0
        for number, resource_id in enumerate(self._missing(), start=1):
            if self._is_gone(resource_type, resource_id):
                gone += 1
                out.write(_deletion(resource_type, resource_id))
            if gone > self._max_share * held:
                raise GateRefused(
                    f"source '{self._name}': more than {self._max_share:.0%} of the {held} {resource_type} that live "
                    "in the lake are not on the server, which is likelier to show too little: see that 'base_url' and "
                    "the rights are as meant; if so many were deleted indeed, allow it with --max-share"
                )
            self._progress(self._name, f"{resource_type} by id", number, missing)
        return TypeReconciliation(
            resource_type,
            held=held,
            on_server=self._count("FROM found"),
            passed_over=missing - gone,
            gone=gone,
            not_held=self._count("FROM found ANTI JOIN held USING (resource_id)") if self._is_all() else None,
        )

    def _stage(self, resource_type: ResourceType, view: str, run: OpenRun) -> None:
        """`held` are the ids of a type that live in the lake, and whether they came from this source; `found` those
        that the scan gave; `missing` those of this source that it did not."""
        import pyarrow as pa

        self._con.execute("CREATE OR REPLACE TEMP TABLE scanned (resource_id VARCHAR)")
        ids = resource_ids(resource_type, run.folder, run.files())
        while batch := list(islice(ids, _BATCH_IDS)):
            self._con.register("batch", pa.table({"resource_id": batch}))
            self._con.execute("INSERT INTO scanned FROM batch")
            self._con.unregister("batch")
        self._con.execute("CREATE OR REPLACE TEMP TABLE found AS\nSELECT DISTINCT resource_id\nFROM scanned")
        self._con.execute(
            f"""
CREATE OR REPLACE TEMP TABLE held AS
SELECT resource_id, bool_or(source = $source) AS is_own
FROM {view}
WHERE site = $site AND known_to IS NULL
GROUP BY resource_id""",
            {"site": self._source.site, "source": self._name},
        )
        self._con.execute("""
CREATE OR REPLACE TEMP TABLE missing AS
SELECT resource_id
FROM held
ANTI JOIN found USING (resource_id)
WHERE is_own
ORDER BY resource_id""")

    def _missing(self) -> Iterator[str]:
        rows = self._con.execute("FROM missing ORDER BY resource_id")
        while batch := rows.fetchmany(_BATCH_IDS):
            yield from (resource_id for (resource_id,) in batch)

    def _count(self, what: str) -> int:
        row = self._con.execute(f"SELECT count(*) {what}").fetchone()
        assert row is not None
        return int(row[0])

    def _is_all(self) -> bool:
        """Whether the source would pull whatever its server has."""
        return self._source.kind == "search" or (self._source.level == "system" and not self._source.type_filters)

    def _is_gone(self, resource_type: ResourceType, resource_id: str) -> bool:
        # https://hl7.org/fhir/R4/http.html#read: 410 for what was deleted, where a server keeps track, else 404. Pages
        # shift while they are read, so that a search passed it by is no proof.
        what = f"source '{self._name}': asked for one {resource_type} by its id, the server"
        try:
            answer = self._client.ask("GET", f"{self._base}/{resource_type}/{quote(resource_id)}?_elements=id")
        except (SourceUnreachable, SourceNotFhir):
            # Such an error names the address, which here holds the id.
            raise SourceUnreachable(f"{what} did not answer: see that it is up, then reconcile again") from None
        if answer.status == 200:
            return False
        if answer.own and answer.status in (404, 410):
            return True
        raise _fault(answer.status)(f"{what} answered {answer.fault}: have reads of {resource_type} allowed, or wait")


def _fault(status: int) -> type[FhirFeaturesError]:
    if status in (401, 403):
        return SourceRefused
    return SourceUnreachable if status in PASSING else SourceNotFhir


def _deletion(resource_type: str, resource_id: str) -> bytes:
    # As an export tells of one: https://hl7.org/fhir/uv/bulkdata/export.html#response---output-manifest, `deleted`.
    request = {"method": "DELETE", "url": f"{resource_type}/{resource_id}"}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]}
    return json.dumps(bundle).encode() + b"\n"


@contextmanager
def _aside(landing: Path, name: str) -> Iterator[OpenRun]:
    """A run to scan into, beside the folder of the source: a pull of it that was interrupted is not touched."""
    folder = landing / f".{name}.reconcile"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = open_run(folder, plan="reconcile")
    try:
        yield run
    finally:
        run.close()
        shutil.rmtree(folder)


def _land(folder: Path, name: str, source: Source, deletions: Path, lines: int) -> str:
    """Land the deletions as a finished run; its id."""
    sync(deletions)
    now = dt.datetime.now(UTC)
    run_folder = folder / run_id_of(now)
    make_folder(run_folder)
    path = deletions.replace(run_folder / deletions.name)
    file = LandedFile(
        name=path.name,
        format="ndjson",
        resource_type=None,
        resources={},
        lines=lines,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        receipts=(Receipt(first_line=1, received_at=now),),
    )
    run = LandedRun(
        run_id=run_folder.name,
        source=name,
        site=source.site,
        kind="reconcile",
        origin=origin(source),
        started_at=now,
        finished_at=now,
        package_version=importlib.metadata.version("fhir-features"),
        types={},
        files=(file,),
        folder=run_folder,
    )
    write_record(run)
    return run.run_id


def _advice(found: Sequence[TypeReconciliation]) -> list[str]:
    return [
        f"{each.not_held} {each.resource_type} on the server do not live in the lake: pull and normalize; what is not "
        "there then is in quarantine, or was passed over by an earlier pull: give the source another name, and it is "
        "read whole"
        for each in found
        if each.not_held
    ]
