"""The SDK: one object over a project folder that answers, shows and builds its features.

In goes the folder with `fhir_features.toml`; its lake is read at the newest commit, and what needs no lake is in
`definitions`. Everything that computes is in the stages; this module only puts them together.
"""

from __future__ import annotations

import datetime as dt
import warnings
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_features.definitions import Definitions
from fhir_features.errors import UsageError
from fhir_features.features.anchors import Spine, anchored_rows
from fhir_features.features.audit import Audit, audit_leakage
from fhir_features.features.cadence import ON_CHANGE, Lag, asked_at, read_serving
from fhir_features.features.engine import stand_at
from fhir_features.features.explain import Explanation, explain
from fhir_features.features.history import record
from fhir_features.features.receipts import read_receipt
from fhir_features.features.reproduce import Reproduction, kept_spine, reproduce
from fhir_features.features.retrieval import Request, TrainingSet, requests, retrieve, served_by
from fhir_features.features.service import FeatureService
from fhir_features.features.spine import as_arrow, read_spine
from fhir_features.features.tables import Build, build, refresh, restate
from fhir_features.features.terms import ontologies
from fhir_features.features.view import FeatureView, LockedView
from fhir_features.lake import Evidence, evidence, newest_store_seq, reading
from fhir_features.report import SUPPRESS_BELOW, Disclosure, ExplanationPage, Report, make_report
from fhir_features.sources.progress import Progress, silent

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from fhir_features.feast import Materialized, OnlineFeatures, OnlineReader, Parity
    from fhir_features.interop import MedsDataset
    from fhir_features.job import RunRecord, Step
    from fhir_features.normalize import RunSummary
    from fhir_features.sources import PullSummary
    from fhir_features.status import Status


class FeatureStore(Definitions):
    """A project folder: its configuration, its feature views and its lake. Raises ConfigError for a wrong one.

    `progress`, where long work takes it, is called with whose work it is, of what, how much is done, and of how much.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.lake = self.config.warehouse.path / "lake"
        self.tables = self.config.warehouse.path / "features"
        self.spines_kept = self.config.warehouse.path / "spines"

    def __repr__(self) -> str:
        return f"<FeatureStore {self.config.file.parent}, sites: {', '.join(self.sites) or 'none'}>"

    def status(self) -> Status:
        """How the store stands: sources, watermarks, tables, views, the last runs. Raises LandingError, LakeError."""
        from fhir_features.status import status

        return status(self)

    def pull(self, *sources: str) -> list[PullSummary]:
        """Receive what is new from the named sources, or from all, into the landing: see `sources.pull`."""
        from fhir_features.sources import pull

        return pull(self.config, sources)

    def normalize(self) -> list[RunSummary]:
        """Turn what has landed into event tables: see `normalize.normalize`."""
        from fhir_features.normalize import normalize

        return normalize(self.config)

    def build(self, view: str | FeatureView, *, progress: Progress = silent) -> Build:
        """Append to a view's feature table what is new up to the watermarks. Raises FeatureTableError, LakeError."""
        chosen = self.view(view) if isinstance(view, str) else view
        with reading(self.lake) as con:
            record(self.history, LockedView(chosen, ontologies()))
            store_seq = newest_store_seq(con)
            stand_at(con, ontologies(), store_seq)
            return build(con, ontologies(), chosen, self.tables, store_seq=store_seq, progress=progress)

    def restate(self, view: str | FeatureView, *, progress: Progress = silent) -> Build:
        """Write a view's feature table anew, with the history that the store knows now. Raises FeatureTableError.

        What the newest row of each patient says stays as it is; the table before stays where it is.
        """
        chosen = self.view(view) if isinstance(view, str) else view
        with reading(self.lake) as con:
            store_seq = newest_store_seq(con)
            stand_at(con, ontologies(), store_seq)
            return restate(con, ontologies(), chosen, self.tables, store_seq=store_seq, progress=progress)

    def refresh(self, patients: Sequence[str | tuple[str, str]], views: Sequence[str] = ()) -> list[Materialized]:
        """Answer some patients now: first into the feature tables, then into the online store.

        `patients`: (site, patient_id), or patient_id alone when the configuration has one site. `views`: those named,
        which must be of cadence on_change, or all that are. "Now" is what has been normalized, up to the watermarks.
        What a build of the views has not loaded yet is loaded, too, so that tables and online store agree.

        Raises UsageError, FeatureTableError for a view that was not built, and what `fhir_features.feast.materialize`
        raises.
        """
        from fhir_features.feast import materialize

        named = [self._person(patient) for patient in patients]
        if not named:
            raise UsageError("refresh() of no patients: name at least one")
        chosen = [self.view(name) for name in views] or [
            view for view in self.views.values() if view.cadence == ON_CHANGE
        ]
        for view in chosen:
            with reading(self.lake) as con:
                store_seq = newest_store_seq(con)
                stand_at(con, ontologies(), store_seq)
                refresh(con, ontologies(), view, self.tables, named, store_seq=store_seq)
        loaded = materialize(self, [view.name for view in chosen]) if chosen else []
        self._forget_online()
        return loaded

    def materialize(
        self,
        views: Sequence[str] = (),
        *,
        pulls: bool = True,
        anew: bool = False,
        progress: Progress = silent,
        ended: Callable[[Step], None] = lambda _: None,
    ) -> RunRecord:
        """Bring the named views, or all, up to date online: pull, normalize, build and load what is new.

        Without `pulls` no source is asked; with `anew` all rows are loaded; `ended` gets each step when it has ended.
        What fails is in the record, which has an exit code, too. Raises LakeLocked, GateRefused, UsageError,
        ConfigError (`fhir_features.job.run`).
        """
        from fhir_features.job import run

        record = run(self, views, pulls=pulls, anew=anew, progress=progress, ended=ended)
        self._forget_online()
        return record

    @cached_property
    def online(self) -> OnlineReader:
        """What answers `get_online_features`: it keeps the Feast repository open, and what it has looked up there."""
        from fhir_features.feast import OnlineReader, open_repository

        return OnlineReader(open_repository(self), self.sites)

    def get_online_features(
        self, features: str | Sequence[str] | FeatureService, entity_rows: Sequence[Mapping[str, str]]
    ) -> OnlineFeatures:
        """What the online store answers about some patients, how old that is, and whether it is too old.

        `features`: "view:feature", "view" or a FeatureService, as registered with Feast. `entity_rows`: mappings with
        `site` (may be absent when the configuration has one) and `patient_id`. Rows and columns come in the order of
        the request. An answer is stale when it is older than its view's `max_age`.

        Raises UsageError, FeatureTableError for a view that is not registered or not loaded, OnlineStoreError.
        """
        return self.online.read(features, entity_rows)

    def parity(
        self, views: Sequence[str] = (), *, patients: int = 1_000, seed: int = 0, progress: Progress = silent
    ) -> list[Parity]:
        """Is what the online store answers what the engine answers at the instant that was loaded? Samples patients.

        Raises UsageError, FeatureTableError, OnlineStoreError, LakeError.
        """
        from fhir_features.feast import parity

        return parity(self, views, patients=patients, seed=seed, progress=progress)

    def explain(
        self,
        feature: str,
        patient_id: str,
        t: dt.datetime,
        *,
        site: str | None = None,
        known_as_of: dt.datetime | None = None,
        serving: str | Lag | None = None,
    ) -> Explanation:
        """Why a feature ("view:feature") of one patient is what it is at T: each row that bears on it, and the verdict.

        It is what `get_historical_features` answers, with the same meaning of `known_as_of` and `serving`. T and
        `known_as_of` are instants with a time zone; `site` may be absent when the configuration has one.
        Raises UsageError, LakeError.
        """
        _check_instants(t=t, known_as_of=known_as_of)
        request = self._one_feature(feature)
        t = asked_at(served_by(request, serving), t)
        if site is None and len(self.sites) != 1:
            raise UsageError(f"there are {len(self.sites)} sites: name the patient's, one of {', '.join(self.sites)}")
        k = min(t, known_as_of or t)
        with reading(self.lake) as con:
            known = request.locked.known
            stand_at(con, known, newest_store_seq(con))
            one_site = site or self.sites[0]
            return explain(con, known, request.features[0], site=one_site, patient_id=patient_id, t=t, k=k)

    def explanation_page(
        self,
        feature: str,
        patient_id: str,
        t: dt.datetime,
        *,
        site: str | None = None,
        known_as_of: dt.datetime | None = None,
        serving: str | Lag | None = None,
    ) -> ExplanationPage:
        """What `explain` says as a page with a timeline: `store.explanation_page(...).save("why.html")`.

        Its instants are told in the time zone of the site's sources; in UTC where they have several. It has the
        patient's data in it. Raises what `explain` raises.
        """
        explained = self.explain(feature, patient_id, t, site=site, known_as_of=known_as_of, serving=serving)
        request, one_site = self._one_feature(feature), site or self.sites[0]
        zones = {source.timezone for source in self.config.sources.values() if source.site == one_site}
        zone = zoneinfo.ZoneInfo(zones.pop() if len(zones) == 1 else "UTC")
        of_it = feature, request.features[0], one_site, patient_id, explained
        return ExplanationPage(*of_it, known=request.locked.known, zone=zone)

    def evidence(self) -> list[Evidence]:
        """What the known_at of the warehouse's rows rests on: counts by source, resource type and known_at_source.

        Raises LakeError when there is no lake.
        """
        with reading(self.lake) as con:
            return evidence(con)

    def report(self, *, suppress_below: int = SUPPRESS_BELOW, progress: Progress = silent) -> Report:
        """What the store holds and answers, as a page: `store.report().save("report.html")`.

        No count of fewer than `suppress_below` patients is in it, and the others are rounded to multiples of 5; 0 tells
        every count as it is. Nothing in it is of one patient. Raises LakeError, DefinitionError, UsageError.
        """
        told = Disclosure(suppress_below)
        views = [self.locked(name) for name in self.views]
        with reading(self.lake) as con:
            return make_report(con, ontologies(), views, self.tables, told=told, progress=progress)

    def export_meds(self, folder: str | Path, *, progress: Progress = silent) -> MedsDataset:
        """Write the events of the store as a MEDS dataset into a new folder (`fhir_features.interop.meds`).

        Raises UsageError for a folder that is not empty or a missing package, LakeError.
        """
        from fhir_features.interop import export_meds

        with reading(self.lake) as con:
            return export_meds(con, Path(folder), progress)

    def get_historical_features(
        self,
        entity_df: Any,
        features: Sequence[str | FeatureView],
        *,
        known_as_of: dt.datetime | None = None,
        serving: str | Lag | None = None,
        progress: Progress = silent,
    ) -> TrainingSet:
        """What was known about each patient at each row's instant: a training set.

        `entity_df`: polars, pandas, Arrow, or a path to Parquet or CSV, with `site` (may be absent when the
        configuration has one), `patient_id` and `event_timestamp` (with a time zone; digits beyond microseconds are
        cut off); or an anchored spine, such as `spine.encounters(at="start+24h")`. As many rows come out, in the
        same order, with all columns kept. MEDS labels (`subject_id`, `prediction_time`) are taken as they are.
        `features`: "view:feature", "view" or FeatureView. `known_as_of`: an instant
        with a time zone after which nothing counts as known (TIME rule 3).
        An earlier version of a view, "view@1a2b3c", is answered under the lock that it was recorded with.

        `serving`: which answers the model has at a row's instant. None: those of each view's cadence; `"exact"`: those
        of the instant itself; another schedule, or `lag("6h")` (also `"lag 6h"`): what if. T and K move back together.
        Warns of features over codes that the data has none of; `TrainingSet.summary.warnings` has all that is to know.
        Raises SpineError, UsageError, LakeError.
        """
        _check_instants(known_as_of=known_as_of)
        wanted = requests(features, self.locked)
        with reading(self.lake) as con:
            for request in wanted:
                record(self.history, request.locked)
            store_seq = newest_store_seq(con)
            training = retrieve(
                con,
                self._spine(con, entity_df, store_seq),
                wanted,
                store_seq=store_seq,
                known_as_of=known_as_of,
                serving=serving,
                spines=self.spines_kept,
                progress=progress,
            )
        if training.summary.absent:
            warnings.warn(training.summary.warnings[0], stacklevel=2)
        return training

    def audit_leakage(
        self,
        table: Any,
        feature: str,
        *,
        value: str,
        known_as_of: dt.datetime | None = None,
        serving: str | Lag = "exact",
        progress: Progress = silent,
    ) -> Audit:
        """Could the values of a table that was made elsewhere have been known? Each row is judged.

        `table` is an entity frame as for `get_historical_features`, with the values of the feature ("view:feature") in
        the column `value`. They are held to the answer at each T itself, whatever the view's cadence, unless `serving`
        says what the model would have been fed; nothing after `known_as_of` counts as known.
        Raises SpineError, UsageError, LakeError.
        """
        _check_instants(known_as_of=known_as_of)
        request = self._one_feature(feature)
        known = request.locked.known
        spine = read_spine(table, sites=self.sites)
        with reading(self.lake) as con:
            stand_at(con, known, newest_store_seq(con))
            cut_offs = read_serving(serving), known_as_of
            return audit_leakage(con, known, request.features[0], spine, value, *cut_offs, progress)

    def reproduce(self, receipt: str | Path, *, spine: Any = None, progress: Progress = silent) -> Reproduction:
        """Make the training set of a receipt (a file that `TrainingSet.save` wrote) again, and compare it.

        It reads the lake as it stood, and takes definitions and ontologies from the receipt; the spine from the
        warehouse, unless an entity frame is given. Raises ReproductionError that names what is gone, UsageError,
        LakeError.
        """
        read = read_receipt(Path(receipt))
        with reading(self.lake) as con:
            frame = kept_spine(self.spines_kept, read) if spine is None else self._spine(con, spine, read.store_seq)
            return reproduce(con, read, frame, spines=self.spines_kept, progress=progress)

    def _forget_online(self) -> None:
        if "online" in self.__dict__:
            self.online.forget()

    def _person(self, patient: str | tuple[str, str]) -> tuple[str, str]:
        if not isinstance(patient, str):
            site, patient_id = patient
            return site, patient_id
        if len(self.sites) != 1:
            raise UsageError(f"there are {len(self.sites)} sites: name each patient as (site, patient_id)")
        return self.sites[0], patient

    def _one_feature(self, name: str) -> Request:
        """What asks for one feature, "view:feature"."""
        (request,) = requests([name], self.locked)
        if len(request.features) != 1:
            raise UsageError(
                f"'{name}' has {len(request.features)} features: name one, as '{name}:{request.features[0].name}'"
            )
        return request

    def _spine(self, con: duckdb.DuckDBPyConnection, entity_df: Any, store_seq: int) -> pa.Table:
        if not isinstance(entity_df, Spine):
            frame = as_arrow(entity_df)
            if "subject_id" in frame.column_names and "patient_id" not in frame.column_names:
                from fhir_features.interop import with_patients

                frame = with_patients(con, frame)
            return read_spine(frame, sites=self.sites)
        stand_at(con, ontologies(), store_seq)
        return anchored_rows(con, ontologies(), entity_df)


def _check_instants(**instants: object) -> None:
    """Refuse what is no instant with a time zone. Raises UsageError."""
    for name, instant in instants.items():
        if instant is not None and (not isinstance(instant, dt.datetime) or instant.tzinfo is None):
            raise UsageError(f"{name} is no instant with a time zone: give a datetime that has one")
