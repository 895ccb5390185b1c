"""Is a Feast object one of ours, and may it be read as it is registered? In goes a data source of the registry; out
comes the feature table behind it, or the view that the engine is to answer, or a FeatureTableError that says what to
run first.

`feast_objects` leaves on each source where its project is, the name of the view, and its table.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_features.errors import FeatureTableError
from fhir_features.features.table_files import checked_files
from fhir_features.features.table_log import Reached, newest_file, reached, table_files, table_folder

if TYPE_CHECKING:
    from fhir_features.store import FeatureStore

_PROJECT, _VIEW, _TABLE = "fhir_features.project", "fhir_features.view", "fhir_features.table"


def source_tags(project: Path, view: str, table: Path) -> dict[str, str]:
    """The tags of the source of a view: its project's configuration file, its name, and its table's version."""
    return {_PROJECT: str(project), _VIEW: view, _TABLE: table.name}


@dataclass(frozen=True)
class Ours:
    """A feature view of a project, as it is registered. `table` names the version of its table."""

    project: Path
    view: str
    table: str

    @cached_property
    def store(self) -> FeatureStore:
        """The project."""
        from fhir_features.store import FeatureStore

        return FeatureStore(self.project)

    @property
    def folder(self) -> Path:
        """The folder of the registered table."""
        return self.store.tables / self.view / self.table

    @property
    def is_built(self) -> bool:
        """Whether the registered table has been built."""
        return newest_file(self.folder) is not None

    def check(self) -> None:
        """Refuse what is not registered as it is now defined and built: old and new answers must not mix."""
        if self.view not in self.store.views:
            raise FeatureTableError(
                f"feature view '{self.view}' is registered, but no longer defined: define it again, or delete it from "
                "the registry with `feast delete`"
            )
        current = table_folder(self.store.tables, self.store.view(self.view))
        if current.name == self.table:
            return
        said = f"feature view '{self.view}' has changed since it was registered with Feast"
        if current.name.partition("-")[0] == self.table.partition("-")[0]:
            said = f"feature view '{self.view}' has been restated since it was registered with Feast"
        raise FeatureTableError(
            f"{said}: run `fhir-features build {self.view}`, then `feast apply` in {self.store.config.features.path}"
        )

    def reached(self) -> Reached:
        """How far the registered table goes. Raises FeatureTableError when it has not been built, or is damaged."""
        newest = newest_file(self.folder)
        if newest is None:
            raise FeatureTableError(
                f"feature view '{self.view}' has no feature table yet: run `fhir-features build {self.view}`"
            )
        checked_files(self.folder)
        return reached(newest)

    def check_end(self, until: dt.datetime) -> None:
        """Refuse to load up to an instant that has no answers yet: Feast would never come back for them."""
        watermark = max(self.reached().watermarks.values())
        if until > watermark:
            raise FeatureTableError(
                f"feature view '{self.view}' is answered up to its watermark only: end at {watermark.isoformat()}, "
                "as what is answered between that and a later end would never be loaded; or run "
                f"`fhir-features materialize {self.view}`, which sees to it"
            )

    def since(self, loaded_to: dt.datetime | None) -> dt.datetime | None:
        """From when on rows have to be loaded, if all were that the table had when one load went to `loaded_to`.

        None is the beginning, as it is if nothing was. Sites come each to their own watermark: what a slower one has
        got since may lie before that instant.
        """
        if loaded_to is None:
            return None
        then = now = self.reached()
        for file in reversed(table_files(self.folder)):
            earlier = reached(file)
            if max(earlier.watermarks.values()) < loaded_to:
                break
            then = earlier
        if then.watermarks.keys() != now.watermarks.keys():
            return None
        return min(loaded_to, *then.watermarks.values())


def ours(source: Any) -> Ours | None:
    """What a data source of a registry is of ours; None for any other source."""
    tags = getattr(source, "tags", None) or {}
    if not tags.keys() >= {_PROJECT, _VIEW, _TABLE}:
        return None
    return Ours(Path(tags[_PROJECT]), tags[_VIEW], tags[_TABLE])


def loaded_to(config: Any, source: Any) -> dt.datetime | None:
    """Up to when Feast has loaded the views over a source into its online store, by its registry; None for never."""
    import feast

    store = feast.FeatureStore(repo_path=str(config.repo_path), config=config)
    registered: Iterable[Any] = store.list_batch_feature_views()
    ends = [view.most_recent_end_time for view in registered if getattr(view.batch_source, "name", None) == source.name]
    return min(ends) if ends and None not in ends else None
