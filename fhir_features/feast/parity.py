"""Is what is online what the engine answers? In go a FeatureStore and how many patients to sample; out come, for each
feature, how many answers are equal and how many are not.

A patient is asked about at the instant that was loaded for the site, from the lake as it stood when that was built; one
who was refreshed since, at the instant of the refresh. Patients that were deleted or merged away are sampled, too: they
are those who could have stale values.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pyarrow as pa

from fhir_features.errors import FeatureTableError
from fhir_features.feast.materializing import loading
from fhir_features.feast.online import field_of, read_rows
from fhir_features.feast.repository import Loaded, loaded, open_repository, quiet, registered
from fhir_features.features.compile import compile_features
from fhir_features.features.engine import answers, ask, stand_at, watched
from fhir_features.features.spine import INSTANT
from fhir_features.features.table_log import Reached, files_up_to, reached, table_folder
from fhir_features.features.terms import create_members, ontologies
from fhir_features.features.view import FeatureView
from fhir_features.lake import reading
from fhir_features.sources.progress import Progress, silent

if TYPE_CHECKING:
    from fhir_features.store import FeatureStore

_PATIENTS_A_READ = 1_000

Kind = Literal["equal", "mismatch", "missing", "extra"]


@dataclass(frozen=True)
class FeatureParity:
    """Of one feature the number of patients whose answers are equal, or else how they differ.

    `mismatch`: two values; `missing`: a value offline and none online; `extra`: one online and none offline.
    """

    feature: str
    equal: int
    mismatch: int
    missing: int
    extra: int


@dataclass(frozen=True)
class Difference:
    """One answer that is not the same. It is patient data: shown to whom may read the warehouse, and never logged."""

    site: str
    patient_id: str
    feature: str
    kind: Kind
    asked_at: dt.datetime
    online: Any
    offline: Any


@dataclass(frozen=True)
class Parity:
    """What was found of one view: `build` names what was loaded, `answered_at` the instant by site (UTC)."""

    view: str
    build: str
    answered_at: dict[str, dt.datetime]
    patients: int
    features: tuple[FeatureParity, ...]
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether all answers are equal."""
        return not self.differences


def parity(
    store: FeatureStore, names: Sequence[str] = (), *, patients: int = 1_000, seed: int = 0, progress: Progress = silent
) -> list[Parity]:
    """Compare online with offline for the named views, or all. The same seed samples the same patients.

    Raises UsageError for an unknown view, FeatureTableError for one that was not loaded, LakeLocked while something is
    loaded, OnlineStoreError, LakeError.
    """
    views = [store.view(name) for name in names] or list(store.views.values())
    serving = open_repository(store)
    with reading(store.lake) as con:
        return [_parity(store, serving, con, view, patients, seed, progress) for view in views]


def _parity(
    store: FeatureStore,
    serving: Any,
    con: duckdb.DuckDBPyConnection,
    view: FeatureView,
    patients: int,
    seed: int,
    progress: Progress,
) -> Parity:
    folder = table_folder(store.tables, view)
    with loading(store), quiet():
        feast_view = registered(serving, view.name, table=folder.name)
        has = loaded(serving, feast_view)
        if has is None:
            raise FeatureTableError(
                f"feature view '{view.name}' has not been loaded into this online store: run "
                f"`fhir-features materialize {view.name}`"
            )
        state = reached(folder / f"{has.build}.parquet")
        sampled = _sample(con, folder, has, state, patients, seed)
        online = list(_online(serving, feast_view, view, sampled))
    offline = _offline(con, view, sampled, progress)
    differences = tuple(_differences(view, sampled, online, offline))
    counts = _counts(view, len(sampled), differences)
    return Parity(view.name, has.build, has.watermarks, len(sampled), counts, differences)


@dataclass(frozen=True)
class _Sampled:
    """A patient, and when and from which state of the lake he was answered last."""

    site: str
    patient_id: str
    asked_at: dt.datetime
    store_seq: int


def _sample(
    con: duckdb.DuckDBPyConnection, folder: Path, has: Loaded, state: Reached, patients: int, seed: int
) -> list[_Sampled]:
    """Patients of the lake and of the table, in the order of a hash that the seed changes."""
    sites = pa.table(
        {
            "site": list(has.watermarks),
            "answered_at": pa.array(list(has.watermarks.values()), INSTANT),
            "store_seq": pa.array([state.store_seqs[site] for site in has.watermarks], pa.int64()),
        }
    )
    con.register("sites_in", sites)
    rows = con.execute(
        """
WITH newest AS (
  SELECT site, patient_id, max(answered_at) AS answered_at, arg_max(store_seq, answered_at) AS store_seq
  FROM read_parquet($files)
  GROUP BY site, patient_id
),
patients AS (
  SELECT site, patient_id FROM newest
  UNION
  SELECT p.site, p.patient_id FROM lake.patients p JOIN sites_in s ON s.site = p.site AND p.store_seq <= s.store_seq
)
SELECT
  p.site,
  p.patient_id,
  CASE WHEN n.answered_at > s.answered_at THEN n.answered_at ELSE s.answered_at END,
  CASE WHEN n.answered_at > s.answered_at THEN n.store_seq ELSE s.store_seq END
FROM patients p
JOIN sites_in s USING (site)
LEFT JOIN newest n USING (site, patient_id)
ORDER BY md5(concat($seed, ' ', length(p.site), ' ', p.site, p.patient_id)), p.site, p.patient_id
LIMIT $patients""",
        {"files": [str(file) for file in files_up_to(folder, has.build)], "seed": seed, "patients": patients},
    ).fetchall()
    con.unregister("sites_in")
    return [_Sampled(*row) for row in rows]


def _online(serving: Any, feast_view: Any, view: FeatureView, sampled: Sequence[_Sampled]) -> Iterator[list[Any]]:
    fields = [field_of(feast_view, feature.name) for feature in view.features]
    people = [(each.site, each.patient_id) for each in sampled]
    for first in range(0, len(people), _PATIENTS_A_READ):
        for _, values in read_rows(serving, feast_view, fields, people[first : first + _PATIENTS_A_READ]):
            yield values


def _offline(
    con: duckdb.DuckDBPyConnection, view: FeatureView, sampled: Sequence[_Sampled], progress: Progress
) -> list[list[Any]]:
    """What the engine answers, each patient from the lake as it stood."""
    plan = compile_features(view.features)
    found: list[list[Any]] = [[] for _ in sampled]
    for store_seq in sorted({each.store_seq for each in sampled}):
        places = [place for place, each in enumerate(sampled) if each.store_seq == store_seq]
        asked_at = pa.array([sampled[place].asked_at for place in places], INSTANT)
        questions = {
            "question": pa.array(places, pa.int64()),
            "site": [sampled[place].site for place in places],
            "patient_id": [sampled[place].patient_id for place in places],
            "t": asked_at,
            "k": asked_at,
        }
        stand_at(con, ontologies(), store_seq)
        ask(con, pa.table(questions))
        create_members(con, ontologies(), plan)
        for answered in watched(answers(con, plan), progress, view.name, len(places)):
            places_answered, *columns = (column.to_pylist() for column in answered.columns)
            for place, *values in zip(places_answered, *columns, strict=True):
                found[place] = values
    return found


def _differences(
    view: FeatureView, sampled: Sequence[_Sampled], online: Sequence[list[Any]], offline: Sequence[list[Any]]
) -> Iterator[Difference]:
    names = [feature.name for feature in view.features]
    for each, served, answered in zip(sampled, online, offline, strict=True):
        for name, one, other in zip(names, served, answered, strict=True):
            if one != other:
                kind: Kind = "missing" if one is None else "extra" if other is None else "mismatch"
                yield Difference(each.site, each.patient_id, name, kind, each.asked_at, one, other)


def _counts(view: FeatureView, patients: int, differences: Sequence[Difference]) -> tuple[FeatureParity, ...]:
    found = []
    for feature in view.features:
        kinds = [each.kind for each in differences if each.feature == feature.name]
        counts = (kinds.count("mismatch"), kinds.count("missing"), kinds.count("extra"))
        found.append(FeatureParity(feature.name, patients - len(kinds), *counts))
    return tuple(found)
