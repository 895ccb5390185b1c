"""Which rows of the feature tables has the online store not seen yet? In go a FeatureStore and the names of views; out
comes what Feast has loaded of each into its online store, as an interval of `answered_at`.

Feast keeps only instants, and a table's sites come each to their own watermark. So the build that was loaded last is
kept as a tag of the view in Feast's registry, which `feast apply` takes away again: then everything is loaded anew.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_features.errors import FeatureTableError
from fhir_features.features.table_files import checked_files
from fhir_features.features.tables import Reached, newest_file, reached, table_folder
from fhir_features.private import owner_only

if TYPE_CHECKING:
    from fhir_features.features import FeatureView
    from fhir_features.store import FeatureStore

_BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_LOADED = "loaded_build"


@dataclass(frozen=True)
class Materialized:
    """What was loaded of one view: the rows with `since` <= answered_at <= `until` (UTC).

    A `since` of None is the beginning of time; both are None when the online store has everything already.
    """

    view: str
    since: dt.datetime | None
    until: dt.datetime | None


@owner_only()
def materialize(store: FeatureStore, names: Sequence[str] = ()) -> list[Materialized]:
    """Load what the named views, or all, have built since the last time into the online store of the Feast repository.

    The repository is the folder of the definitions; its views must have been registered with `feast apply`. The first
    load begins at the beginning of time, and none goes beyond the watermarks of the table: what a site's later builds
    bring lies after its watermark.

    Raises UsageError for an unknown view, FeatureTableError for one that has not been built or applied, and for a
    folder that is no Feast repository.
    """
    views = [store.view(name) for name in names] or list(store.views.values())
    repository = store.config.features.path
    if not (repository / "feature_store.yaml").exists():
        raise FeatureTableError(
            f"{repository} has no feature_store.yaml: make it a Feast repository, as the README says"
        )
    # Feast narrates on stdout, and turns on the warnings of the libraries beneath it.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        import feast

        warnings.simplefilter("ignore")
        serving = feast.FeatureStore(repo_path=str(repository))
        _make_private(serving, repository)
        return [_materialize(serving, view, table_folder(store.tables, view)) for view in views]


def _make_private(serving: Any, repository: Path) -> None:
    """Make an online store that is a file its owner's alone: `feast apply` has created it as any other file."""
    path = getattr(serving.config.online_store, "path", None)
    if path and (repository / path).is_file():
        (repository / path).chmod(0o600)


def _materialize(serving: Any, view: FeatureView, folder: Path) -> Materialized:
    newest = newest_file(folder)
    if newest is None:
        raise FeatureTableError(
            f"feature view '{view.name}' has no feature table yet: run `fhir-features build {view.name}`"
        )
    checked_files(folder)
    now = reached(newest)
    loaded_build = _registered(serving, view, folder).tags.get(_LOADED)
    if loaded_build == newest.stem:
        return Materialized(view.name, None, None)
    since = _since(now, folder / f"{loaded_build}.parquet")
    until = max(now.watermarks.values())
    serving.materialize(since, until, feature_views=[view.name])
    loaded = serving.get_feature_view(view.name)
    loaded.tags = {**loaded.tags, _LOADED: newest.stem}
    serving.registry.apply_feature_view(loaded, serving.project)
    return Materialized(view.name, None if since == _BEGINNING else since, until)


def _since(now: Reached, loaded_build: Path) -> dt.datetime:
    """From when on the table has rows that have not been loaded."""
    loaded = reached(loaded_build) if loaded_build.exists() else None
    if loaded is None or loaded.watermarks.keys() != now.watermarks.keys():
        return _BEGINNING
    return min(loaded.watermarks.values())


def _registered(serving: Any, view: FeatureView, folder: Path) -> Any:
    from feast.errors import FeatureViewNotFoundException

    try:
        registered = serving.get_feature_view(view.name)
    except FeatureViewNotFoundException:
        registered = None
    if registered is None or registered.tags.get("definition") != folder.name:
        raise FeatureTableError(
            f"feature view '{view.name}' is not registered with Feast as it is now: run `feast apply` in "
            f"{serving.repo_path}"
        )
    return registered
