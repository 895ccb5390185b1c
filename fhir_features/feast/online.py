"""What does the online store answer about a patient now, and how old is that? In go names of features and patients; out
come the values in the order of the request, with the instant that they hold at, their age, and whether they are stale.

The values are read through Feast's own online store, whichever it is. Feast's reply has neither an order of columns
that can be relied upon (it changes with the hash seed) nor a maximum age: a time to live is ignored online.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fhir_features.errors import FeatureTableError, OnlineStoreError, UsageError, did_you_mean
from fhir_features.feast.objects import MAX_AGE
from fhir_features.feast.repository import loaded, registered
from fhir_features.features import FeatureService
from fhir_features.times import CLOCK_SKEW, duration_us

# How long what the registry says is believed; for as long as it would make an answer stale, only a second.
_BELIEVED_S, _DOUBTED_S = 10.0, 1.0

Patient = tuple[str, str]


class Freshness(NamedTuple):
    """How old a patient's answers from a view are. Instants are UTC.

    `answered_at`: the instant that they hold at, the last one of the view's cadence that has been loaded for the site;
    None when none has. `since`: from when on they have been so; None for a patient of whom nothing was answered. `age`
    is from `answered_at` to the call. `stale`: older than the view's `max_age`, or never loaded.
    """

    answered_at: dt.datetime | None
    since: dt.datetime | None
    age: dt.timedelta | None
    stale: bool


@dataclass(frozen=True)
class OnlineFeatures:
    """What was answered: by feature the values, by view the freshness, both in the order of `patients`."""

    asked_at: dt.datetime
    patients: tuple[Patient, ...]
    columns: dict[str, list[Any]]
    freshness: dict[str, list[Freshness]]

    @property
    def stale(self) -> list[bool]:
        """For each patient, whether any answer is stale."""
        return [any(each.stale for each in of_patient) for of_patient in zip(*self.freshness.values(), strict=True)]

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns: site, patient_id, the features in the order of the request, `answered_at`, `answer_age`, `is_stale`.

        Of several views the oldest answer counts; an `answered_at` and an `answer_age` (seconds) of None say that one
        has never been loaded.
        """
        answered_at: list[dt.datetime | None] = []
        for of_patient in zip(*self.freshness.values(), strict=True):
            instants = [each.answered_at for each in of_patient]
            answered_at.append(None if None in instants else min(at for at in instants if at is not None))
        return {
            "site": [site for site, _ in self.patients],
            "patient_id": [patient_id for _, patient_id in self.patients],
            **self.columns,
            "answered_at": answered_at,
            "answer_age": [
                None if at is None else max((self.asked_at - at).total_seconds(), 0.0) for at in answered_at
            ],
            "is_stale": self.stale,
        }


@dataclass(frozen=True)
class _AskedView:
    """What is asked of one view: its features with the fields that their values are in, and what was loaded of it."""

    view: Any
    fields: tuple[tuple[str, str], ...]
    watermarks: dict[str, dt.datetime]
    max_age: dt.timedelta | None

    def freshness(self, site: str, since: dt.datetime | None, now: dt.datetime) -> Freshness:
        answered_at = self.watermarks.get(site)
        if answered_at is None:
            return Freshness(None, since, None, True)
        if since is not None and since > answered_at:  # the patient was refreshed since
            answered_at = since
        age = max(now - answered_at, dt.timedelta(0))
        return Freshness(answered_at, since, age, self._is_stale(answered_at, now))

    def may_be_stale(self, now: dt.datetime) -> bool:
        return any(self._is_stale(answered_at, now) for answered_at in self.watermarks.values())

    def _is_stale(self, answered_at: dt.datetime, now: dt.datetime) -> bool:
        # An answer from the future says that a clock is wrong, and nothing of how old it is.
        return self.max_age is not None and (now - answered_at > self.max_age or answered_at - now > CLOCK_SKEW)


class OnlineReader:
    """An open Feast repository that answers; what it has looked up in the registry is kept for some seconds."""

    def __init__(self, serving: Any, sites: Sequence[str]) -> None:
        self._sites = sites
        self._serving = serving
        self._looked_up: dict[tuple[str, ...], list[_AskedView]] = {}
        self._looked_up_at = time.monotonic()

    def read(
        self, features: str | Sequence[str] | FeatureService, entity_rows: Sequence[Mapping[str, str]]
    ) -> OnlineFeatures:
        """See `FeatureStore.get_online_features`."""
        patients = tuple(self._patient(row) for row in entity_rows)
        now = dt.datetime.now(dt.UTC)
        columns: dict[str, list[Any]] = {}
        freshness: dict[str, list[Freshness]] = {}
        for asked in self._asked(_names(features), now):
            rows = read_rows(self._serving, asked.view, asked.fields, patients)
            for place, (name, _) in enumerate(asked.fields):
                columns[name] = [values[place] for _, values in rows]
            freshness[asked.view.name] = [
                asked.freshness(site, since, now) for (site, _), (since, _) in zip(patients, rows, strict=True)
            ]
        return OnlineFeatures(now, patients, columns, freshness)

    def forget(self) -> None:
        """Ask the registry again: something was loaded."""
        self._serving.refresh_registry()
        self._looked_up = {}
        self._looked_up_at = time.monotonic()

    def _patient(self, row: Mapping[str, str]) -> Patient:
        if unknown := sorted(set(row) - {"site", "patient_id"}):
            raise UsageError(f"an entity row has 'site' and 'patient_id', not '{unknown[0]}'")
        if "patient_id" not in row:
            raise UsageError("an entity row has no 'patient_id'")
        if "site" in row:
            return row["site"], row["patient_id"]
        if len(self._sites) != 1:
            raise UsageError(f"there are {len(self._sites)} sites: give each entity row a 'site'")
        return self._sites[0], row["patient_id"]

    def _asked(self, names: tuple[str, ...], now: dt.datetime) -> list[_AskedView]:
        age = time.monotonic() - self._looked_up_at
        found = self._looked_up.get(names)
        # What was loaded only moves forward, so what is fresh by an old registry is so by the new one.
        doubted = found is not None and any(each.may_be_stale(now) for each in found)
        if age > _BELIEVED_S or (doubted and age > _DOUBTED_S):
            self.forget()
            found = None
        if found is None:
            found = self._looked_up[names] = self._look_up(names)
        return found

    def _look_up(self, names: tuple[str, ...]) -> list[_AskedView]:
        wanted: dict[str, list[str]] = {}
        for item in names:
            view_name, _, name = item.partition(":")
            wanted.setdefault(view_name, []).append(name)
        asked = [self._look_up_view(view_name, chosen) for view_name, chosen in wanted.items()]
        features = [name for each in asked for name, _ in each.fields]
        for name in features:
            if features.count(name) > 1:
                raise UsageError(f"two views give a feature '{name}': ask for one of them, as 'view:{name}'")
        return asked

    def _look_up_view(self, view_name: str, chosen: Sequence[str]) -> _AskedView:
        view = registered(self._serving, view_name)
        fields = {field.name: _FIELDS[str(field.dtype)] for field in view.features}
        names = dict.fromkeys(name for one in chosen for name in ([one] if one else fields))
        for name in names:
            if name not in fields:
                raise UsageError(f"feature view '{view_name}' has no feature '{name}': {did_you_mean(name, fields)}")
        has = loaded(self._serving, view)
        if has is None:
            raise FeatureTableError(
                f"feature view '{view_name}' has not been loaded into this online store as it is now: run "
                f"`fhir-features materialize {view_name}`"
            )
        max_age = view.tags.get(MAX_AGE)
        return _AskedView(
            view,
            tuple((name, fields[name]) for name in names),
            has.watermarks,
            None if max_age is None else dt.timedelta(microseconds=duration_us(max_age)),
        )


def read_rows(
    serving: Any, view: Any, fields: Sequence[tuple[str, str]], patients: Sequence[Patient]
) -> list[tuple[dt.datetime | None, list[Any]]]:
    """For each patient the answered_at of the row that is online (None: there is none), and the values of its fields.

    `view` is a registered feature view; a field is a feature and where Feast has its value (`field_of`). SQLite keeps
    whole seconds of answered_at. Raises OnlineStoreError.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    names = ["site", "patient_id"]
    keys = [
        EntityKey(join_keys=names, entity_values=[Value(string_val=site), Value(string_val=patient_id)])
        for site, patient_id in patients
    ]
    try:
        found = serving._get_provider().online_read(serving.config, view, keys, [name for name, _ in fields])
    except Exception as error:
        # The messages of drivers can quote keys, which are patient data: only their kind may get out.
        raise OnlineStoreError(
            f"the online store ({serving.config.online_store.type}) did not answer for '{view.name}' "
            f"({type(error).__name__}): see that it is up and that `feast apply` has been run"
        ) from None
    return [(answered_at, _values(values or {}, fields)) for answered_at, values in found]


def field_of(view: Any, name: str) -> tuple[str, str]:
    """A feature of a registered view, and the field of Feast's value that it is in."""
    return name, next(_FIELDS[str(field.dtype)] for field in view.features if field.name == name)


_FIELDS = {"Float64": "double_val", "Int64": "int64_val", "Bool": "bool_val", "String": "string_val"}


def _values(values: Mapping[str, Any], fields: Sequence[tuple[str, str]]) -> list[Any]:
    row = []
    for name, field in fields:
        value = values.get(name)
        row.append(None if value is None or value.WhichOneof("val") is None else getattr(value, field))
    return row


def _names(features: str | Sequence[str] | FeatureService) -> tuple[str, ...]:
    if isinstance(features, FeatureService):
        return features.features
    names = (features,) if isinstance(features, str) else tuple(features)
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError("features is a list of 'view:feature' or 'view', or a FeatureService: name at least one")
    return names
