"""Which rows of the feature tables has the online store not seen yet? In go a FeatureStore and the names of views; out
comes what was loaded of each into the online store of the Feast repository, as an interval of `answered_at`.

Of each patient with a row in a build that was not loaded yet, the newest row is written through Feast's own online
store, whichever it is: the cost follows the patients that were touched. Writing a row twice changes nothing, and what
was loaded is written down last, so a load that was cut off is repaired by running it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fhir_features.errors import FeatureTableError, FhirFeaturesError, OnlineStoreError
from fhir_features.feast.repository import Loaded, keep_loaded, loaded, open_repository, quiet, registered
from fhir_features.features.table_files import checked_files
from fhir_features.features.table_log import Reached, newest_file, newest_rows, reached, table_folder
from fhir_features.files import alone
from fhir_features.private import owner_only
from fhir_features.sources.progress import Progress, silent
from fhir_features.times import CLOCK_SKEW

if TYPE_CHECKING:
    from fhir_features.features import FeatureView
    from fhir_features.store import FeatureStore

BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_PATIENTS_A_BATCH = 5_000


@dataclass(frozen=True)
class Materialized:
    """What was loaded of one view: the newest rows of `patients` patients, from `since` on, up to `until` (UTC).

    A `since` of None is the beginning of time; both are None when the online store has everything already.
    """

    view: str
    since: dt.datetime | None
    until: dt.datetime | None
    patients: int


@owner_only()
def materialize(
    store: FeatureStore, names: Sequence[str] = (), *, anew: bool = False, progress: Progress = silent
) -> list[Materialized]:
    """Load what the named views, or all, have built since the last time into the online store of the Feast repository.

    The repository is the folder of the definitions; its views must have been registered with `feast apply`. With `anew`
    everything is loaded, as into an online store that was emptied.

    Raises LakeLocked while another process loads, UsageError for an unknown view, FeatureTableError for one that has
    not been built or applied, whose table reaches into the future, or a folder that is no Feast repository, and
    OnlineStoreError when the online store fails.
    """
    views = [store.view(name) for name in names] or list(store.views.values())
    serving = open_repository(store)
    with loading(store), quiet():
        _make_private(serving, store.config.features.path)
        return [_materialize(serving, view, table_folder(store.tables, view), anew, progress) for view in views]


def _make_private(serving: Any, repository: Path) -> None:
    """Make an online store that is a file its owner's alone: `feast apply` has created it as any other file."""
    path = getattr(serving.config.online_store, "path", None)
    if path and (repository / path).is_file():
        (repository / path).chmod(0o600)


def loading(store: FeatureStore) -> AbstractContextManager[None]:
    """Have the online store to oneself: of two loads, the one with older rows must not come last. Raises LakeLocked."""
    return alone(store.config.warehouse.path / "online.lock", "the online store is being loaded")


def _materialize(serving: Any, view: FeatureView, folder: Path, anew: bool, progress: Progress) -> Materialized:
    newest = newest_file(folder)
    if newest is None:
        raise FeatureTableError(
            f"feature view '{view.name}' has no feature table yet: run `fhir-features build {view.name}`"
        )
    checked_files(folder)
    feast_view = registered(serving, view.name, table=folder.name)
    before = None if anew else loaded(serving, feast_view)
    if before is not None and before.build == newest.stem:
        return Materialized(view.name, None, None, 0)
    now = reached(newest)
    since, until = _since(before, now), max([*now.watermarks.values(), *now.refreshed_to.values()])
    _check_is_past(view, until)
    patients = 0
    for batch in newest_rows(folder, view, after=before.build if before else None, rows=_PATIENTS_A_BATCH):
        write_rows(serving, feast_view, batch)
        patients += batch.num_rows
        progress("online", f"patients of {view.name}", patients, None)
    # What Feast takes for loaded ends where all sites have come, so that its own increments lose nothing.
    serving.registry.apply_materialization(
        feast_view, serving.project, since or BEGINNING, max(since or BEGINNING, min(now.watermarks.values()))
    )
    keep_loaded(serving, feast_view, newest.stem, now.watermarks)
    # Vectors that a feature service of the user's keeps ready.
    serving._precompute_affected_services([view.name])
    return Materialized(view.name, since, until, patients)


def write_rows(serving: Any, feast_view: Any, rows: pa.Table | pa.RecordBatch) -> None:
    """Write rows of a feature table into the online store. Raises OnlineStoreError when it does not take them."""
    data = list(_as_feast(rows, [field.name for field in feast_view.features]))
    try:
        serving._get_provider().online_write_batch(serving.config, feast_view, data, None)
    except FhirFeaturesError:
        raise
    except Exception as error:
        # The messages of drivers can quote the rows, which are patient data: only their kind may get out.
        raise OnlineStoreError(
            f"the online store ({serving.config.online_store.type}) did not take the rows of '{feast_view.name}' "
            f"({type(error).__name__}): see that it is up and that `feast apply` has been run, then run this again"
        ) from None


def _since(before: Loaded | None, now: Reached) -> dt.datetime | None:
    """From when on the rows lie that are loaded; None when a site is loaded for the first time, with its whole past."""
    if before is None or before.watermarks.keys() != now.watermarks.keys():
        return None
    return min(before.watermarks.values())


def _check_is_past(view: FeatureView, until: dt.datetime) -> None:
    now = dt.datetime.now(dt.UTC)
    if until > now + CLOCK_SKEW:
        raise FeatureTableError(
            f"the table of '{view.name}' reaches {until.isoformat(timespec='seconds')}, which is in the future: it is "
            f"{now.isoformat(timespec='seconds')} by this machine's clock; set the clock right, or wait until then"
        )


def _as_feast(rows: pa.Table | pa.RecordBatch, features: Sequence[str]) -> Iterator[Any]:
    """Rows as an online store of Feast takes them: entity key, values, answered_at, published_at."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    sites = {site: Value(string_val=site) for site in rows.column("site").unique().to_pylist()}
    columns = [_values(rows.column(name)) for name in features]
    instants = (rows.column(name).to_pylist() for name in ("answered_at", "published_at"))
    keys = (rows.column(name).to_pylist() for name in ("site", "patient_id"))
    names = ["site", "patient_id"]
    for site, patient_id, answered_at, published_at, *values in zip(*keys, *instants, *columns, strict=True):
        key = EntityKey(join_keys=names, entity_values=[sites[site], Value(string_val=patient_id)])
        yield key, dict(zip(features, values, strict=True)), answered_at, published_at


def _values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """A column as Feast's values; equal ones that come often share one."""
    from feast.protos.feast.types.Value_pb2 import Value

    kinds = {pa.float64(): "double_val", pa.int64(): "int64_val", pa.bool_(): "bool_val", pa.string(): "string_val"}
    kind = kinds[column.type]
    made: dict[Any, Any] = {None: Value()}
    values = []
    for value in column.to_pylist():
        found = made.get(value)
        if found is None:
            found = made[value] = Value(**{kind: value})
        values.append(found)
    return values
