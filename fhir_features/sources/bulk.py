"""What does a server export that changed since the last pull? In: a source of kind `bulk` and its earlier runs. Out:
the files of one export or more, landed, and what each resource type has been seen of. Types that were seen up to the
same instant are exported together. Of a group all Patients are exported each time, and patients who were not in it
before get an export of their whole history, since `_since` would hide what they had before they joined."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fhir_features.config import Source
from fhir_features.errors import SourceIncomplete, SourceNotFhir
from fhir_features.sources.bulk_checkpoint import ExportCheckpoint, ExportState, begun_exports
from fhir_features.sources.bulk_export import Expired, Exporter, Plan, filters_in, forget
from fhir_features.sources.bulk_files import FileReader, Lines
from fhir_features.sources.bulk_manifest import ExportedFile, remarks
from fhir_features.sources.bulk_results import Download, export_warnings, is_asked_for, type_results
from fhir_features.sources.checkpoint import OpenRun
from fhir_features.sources.client import Client
from fhir_features.sources.landing import LandedFile, LandedRun, LandedType
from fhir_features.sources.patients import merges, patient_ids
from fhir_features.sources.progress import Progress
from fhir_features.sources.wanted import concerns, fulfils
from fhir_features.times import UTC, duration_us

KICK_OFFS = 3


@dataclass(frozen=True)
class Landed:
    """What a run knows of each type, and what a user should know of the run as a whole."""

    types: dict[str, LandedType]
    warnings: tuple[str, ...]


def land_bulk(name: str, source: Source, run: OpenRun, earlier: Sequence[LandedRun], progress: Progress) -> Landed:
    """Land what each of the source's types has had since the `earlier` runs of the same export, less the overlap.

    A type of which something is missing is landed as incomplete. Raises SourceUnreachable, SourceRefused,
    SourceNotFhir, SourceIncomplete, and ConfigError for a secret that is not there.
    """
    checkpoint = ExportCheckpoint(run)
    try:
        with Client(name, source) as client:
            return _Bulk(name, source, run, checkpoint, client, progress).land(earlier)
    finally:
        checkpoint.close()


def abandon_exports(name: str, source: Source, folder: Path) -> None:
    """Let the server remove what it exports for an unfinished run that is given up: some do one export at a time.

    Raises ConfigError for a secret that is not there.
    """
    if source.base_url is not None and (begun := begun_exports(folder)):
        with Client(name, source) as client:
            for status_url in begun:
                forget(client, status_url)


class _Bulk:
    def __init__(
        self,
        name: str,
        source: Source,
        run: OpenRun,
        checkpoint: ExportCheckpoint,
        client: Client,
        progress: Progress,
    ) -> None:
        self._name = name
        self._source = source
        self._run = run
        self._checkpoint = checkpoint
        self._client = client
        self._exporter = Exporter(name, source, client, progress)
        self._files = FileReader(name, client)
        self._progress = progress

    def land(self, earlier: Sequence[LandedRun]) -> Landed:
        plans = self._plans(earlier)
        states = [self._exported(0, plans[0])]
        others = tuple(each for each in self._source.resource_types if each != "Patient")
        # Before what changed: a version that both bring was not witnessed, since nobody had asked about the patient.
        if others and (new := self._new_patients(earlier)):
            states.append(self._exported(len(plans), Plan(others, patients=new)))
        states += [self._exported(number, plan) for number, plan in enumerate(plans[1:], start=1)]
        types: dict[str, LandedType] = {}
        for resource_type in self._source.resource_types:
            (plan,) = (each for each in plans if resource_type in each.types)
            own = [state for state in states if resource_type in state.types]
            types[resource_type] = self._landed_type(resource_type, plan, own)
        return Landed(types, tuple(dict.fromkeys(warning for state in states for warning in state.warnings)))

    def _plans(self, earlier: Sequence[LandedRun]) -> list[Plan]:
        """One plan for all types that were seen up to the same instant, first for those that were never seen."""
        by_since: dict[dt.datetime | None, list[str]] = {}
        for resource_type in self._source.resource_types:
            by_since.setdefault(self._since(resource_type, earlier), []).append(resource_type)
        in_order = sorted(by_since.items(), key=lambda item: item[0] or dt.datetime.min.replace(tzinfo=UTC))
        return [Plan(tuple(types), since) for since, types in in_order]

    def _since(self, resource_type: str, earlier: Sequence[LandedRun]) -> dt.datetime | None:
        """The instant from which on a type is asked for; null for all of it."""
        if self._is_group and resource_type == "Patient":
            return None
        # What other filters let through says nothing about these.
        filters = self._source.filters(resource_type)
        types = [run.types[resource_type] for run in earlier if resource_type in run.types]
        seen = [each for each in types if filters_in(each.request, resource_type) == filters]
        # A type of which nothing ever came may have been hidden: with the scope for it, its history would come too.
        whole = [each.watermark for each in seen if each.complete] if any(each.entries for each in seen) else []
        if not whole:
            return None
        return (max(whole) - dt.timedelta(microseconds=duration_us(self._source.overlap))).replace(microsecond=0)

    @property
    def _is_group(self) -> bool:
        return self._source.level not in ("system", "patient")

    def _new_patients(self, earlier: Sequence[LandedRun]) -> frozenset[str]:
        """The ids of the patients of a group who were not in it when it was last seen whole, if it ever was, or whom
        another one was merged into since: what was the other's is theirs now."""
        whole = [run for run in earlier if all(of.complete for of in run.types.values())]
        if not self._is_group or not whole:
            return frozenset()
        before, now = (whole[-1].folder, whole[-1].files), (self._run.folder, self._run.files())
        members = frozenset(patient_ids(*now))
        merged = frozenset(merges(*now)) - frozenset(merges(*before))
        return (members - frozenset(patient_ids(*before))) | (members & {survivor for survivor, _ in merged})

    def _exported(self, number: int, plan: Plan) -> ExportState:
        """Bring an export of the run to its end, from wherever it has come to."""
        state = self._checkpoint.export(number)
        while state.watermark is None:
            try:
                self._go_on(number, plan, state)
            except Expired:
                self._forget(number, state)
                if state.kick_offs >= KICK_OFFS:
                    state.kick_offs = 0
                    self._checkpoint.save(number, state)
                    raise SourceIncomplete(
                        f"source '{self._name}': {KICK_OFFS} exports expired before they were read: pull again, "
                        "or tell those who run the server"
                    ) from None
            except (SourceIncomplete, SourceNotFhir):
                state.kick_offs = 0
                self._forget(number, state)
                raise
        self._forget(number, state)
        return state

    def _go_on(self, number: int, plan: Plan, state: ExportState) -> None:
        if state.kick_off is None:
            state.kick_off = self._exporter.kick_off(plan)
            state.kick_offs += 1
            self._checkpoint.save(number, state)
        manifests = list(self._exporter.manifests(state.kick_off))
        files = [file for manifest in manifests for file in manifest.files]
        downloads = []
        # Deletions first: one that bears no date is older than what the same export says of the resource.
        for what in ("deleted", "output"):
            wanted = [file for file in files if file.what == what and is_asked_for(file, plan)]
            downloads += self._downloads(wanted, plan, state.kick_offs >= KICK_OFFS)
        noted = [
            remark
            for file in files
            if file.what == "error"
            for line in self._files.lines(file)
            for remark in remarks(line, plan.types)
        ]
        state.types = type_results(plan, downloads, noted)
        state.warnings = export_warnings(plan, self._source, files, noted)
        told = [each.transaction_time for each in manifests if each.transaction_time]
        state.watermark = min([state.kick_off.at, *told])
        self._checkpoint.save(number, state)

    def _downloads(self, files: Sequence[ExportedFile], plan: Plan, is_last_try: bool) -> list[Download]:
        """Download the files that have not been, several at a time; what came of all of them.

        Raises Expired, after what still could be downloaded, unless this is the last try.
        """
        numbers = [self._checkpoint.number(file.url) for file in files]
        came = {number: lines for number in numbers if (lines := self._checkpoint.download(number))}
        expired = False
        pool = ThreadPoolExecutor(self._source.connections)
        try:
            landing = {
                pool.submit(self._land, file, number, plan): number
                for file, number in zip(files, numbers, strict=True)
                if number not in came
            }
            for future in as_completed(landing):
                number = landing[future]
                try:
                    came[number], file = future.result()
                    self._checkpoint.keep_download(number, came[number], file)
                except Expired:
                    expired = True
                    came[number] = Lines(0, 0, {}, "the server does not have it any more")
                self._progress(self._name, "files", len(came), len(files))
        finally:
            # When this is an error, the connections are closed next, which ends what is still running.
            pool.shutdown(wait=False, cancel_futures=True)
        if expired and not is_last_try:
            raise Expired
        return [Download(file, came[number]) for file, number in zip(files, numbers, strict=True)]

    def _land(self, file: ExportedFile, number: int, plan: Plan) -> tuple[Lines, LandedFile | None]:
        stem = "deleted" if file.what == "deleted" else file.resource_type or "mixed"
        filters, patients = self._source.filters(stem), plan.patients

        def keep(line: bytes) -> bool:
            return (not filters or fulfils(line, filters)) and (patients is None or concerns(line, patients))

        path = self._run.folder / f"{stem}-{number:04d}.ndjson.zst"
        return self._files.land(file, path, keep=keep, backfill=patients is not None)

    def _forget(self, number: int, state: ExportState) -> None:
        if state.kick_off is not None:
            forget(self._client, state.kick_off.status_url)
            state.kick_off = None
        self._checkpoint.save(number, state)

    def _landed_type(self, resource_type: str, plan: Plan, states: Sequence[ExportState]) -> LandedType:
        """What the run knows of a type, by its export and that for new patients, if there was one."""
        results = [state.types[resource_type] for state in states]
        return LandedType(
            request=plan.parameters(self._source),
            since=plan.since,
            watermark=min(state.watermark for state in states if state.watermark),
            complete=all(each.is_whole for each in results),
            entries=sum(each.entries for each in results),
            pages=sum(each.files for each in results),
            warnings=tuple(dict.fromkeys(warning for each in results for warning in each.warnings)),
        )
