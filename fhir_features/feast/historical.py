"""What did the registered views say at each row of an entity frame? In go Feast's views, the references to features and
a frame; out comes the frame with the features beside it, in the order in which they were asked for.

Views over one source are answered in one pass. A view of ours that has no table yet is answered by the engine, by the
view's own cadence, as its table would have answered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import DUMMY_ENTITY_ID

from fhir_features.errors import SpineError
from fhir_features.feast.as_of import Rule, as_of, keys_within
from fhir_features.feast.built import Ours, ours
from fhir_features.feast.entity_frame import EntityFrame, connect
from fhir_features.feast.logs import open_log, repository_of, source_column
from fhir_features.features.spine import INSTANT, KEYS, TIME

if TYPE_CHECKING:
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.repo_config import RepoConfig


@dataclass(frozen=True)
class AskedView:
    """What is asked of one view. `columns`: features by the names that they come out under; `keys`: by a key of the
    view the column of the entity frame that has it.
    """

    view: FeatureView
    source: DataSource
    columns: dict[str, str]
    keys: dict[str, str]

    @property
    def pass_of(self) -> tuple[object, ...]:
        """What views that are answered in one pass have in common."""
        source = self.source
        keys = tuple(self.keys.items())
        return source.name, source.timestamp_field, source.created_timestamp_column, keys, self.view.ttl


@dataclass(frozen=True)
class Asked:
    """What is asked of all views, and the names of the features in the order in which they come out."""

    views: list[AskedView]
    names: list[str]

    def check(self) -> None:
        """Refuse views of ours that are not as they were registered. Raises FeatureTableError."""
        for each in self.views:
            if mine := ours(each.source):
                mine.check()

    def check_frame(self, frame: EntityFrame) -> None:
        """Refuse a frame that lacks a key, or has a column that a feature is to be. Raises SpineError."""
        for each in self.views:
            frame.require(list(each.keys.values()))
        for name in self.names:
            if name in frame.table.column_names:
                raise SpineError(
                    f"the entity frame has a column '{name}', as a feature has: rename it, or set full_feature_names"
                )


def asked_of(views: Sequence[FeatureView], refs: Sequence[str], *, full_names: bool) -> Asked:
    """What references such as "view:feature" ask of views; those to on-demand views are left out."""
    found = []
    shown: dict[str, str] = {}
    for view in views:
        if view.batch_source is None:
            raise ValueError(f"Feature view '{view.name}' has no batch_source and cannot be queried.")
        prefix = f"{view.projection.name_to_use()}:"  # type: ignore[no-untyped-call]
        # Columns are named without the version of a reference.
        base = view.projection.name_alias or view.name
        mine = {ref: ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)}
        columns = {f"{base}__{name}" if full_names else name: name for name in mine.values()}
        shown.update(zip(mine, columns, strict=True))
        renamed = view.projection.join_key_map
        keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
        found.append(AskedView(view, view.batch_source, columns, {key: renamed.get(key, key) for key in keys}))
    return Asked(found, [shown[ref] for ref in refs if ref in shown])


def answered(config: RepoConfig, frame: EntityFrame, asked: Asked, *, by_created: bool) -> pa.Table:
    """The frame with the features beside it. With `by_created` no row counts that was created after an instant."""
    answers: dict[str, pa.ChunkedArray] = {}
    passes: dict[tuple[object, ...], list[AskedView]] = {}
    for each in asked.views:
        mine = ours(each.source)
        if mine and not mine.is_built:
            answers.update(_by_engine(frame, each, mine))
        else:
            passes.setdefault(each.pass_of, []).append(each)
    for together in passes.values():
        answers.update(_by_log(config, frame, together, by_created=by_created))
    table = frame.table
    for name in asked.names:
        table = table.append_column(name, answers.pop(name))
    return table


def everyone(config: RepoConfig, asked: Asked, since: dt.datetime, until: dt.datetime) -> EntityFrame:
    """Whoever has a row in one of the views with since <= instant <= until, asked about at `until` (UTC)."""
    found = []
    for each in asked.views:
        if mine := ours(each.source):
            mine.reached()
        source = each.source
        with connect(spill(config)) as con:
            keys = [source_column(source, key) for key in each.keys]
            log = open_log(con, config, source, keys, source_column(source, source.timestamp_field), None)
            found.append(keys_within(con, log, since, until).rename_columns(list(each.keys.values())))
    together = pa.concat_tables(found, promote_options="permissive")
    names = together.column_names
    rows = together.group_by(names).aggregate([]).sort_by([(name, "ascending") for name in names])
    return EntityFrame(rows.append_column(TIME, pa.repeat(pa.scalar(until, INSTANT), rows.num_rows)), TIME)


def spill(config: RepoConfig) -> Path:
    """Where a retrieval puts what does not fit into memory."""
    return repository_of(config) / "data" / "spill"


def _by_log(
    config: RepoConfig, frame: EntityFrame, views: Sequence[AskedView], *, by_created: bool
) -> dict[str, pa.ChunkedArray]:
    """The answers of views over one source, from its rows."""
    first = views[0]
    source = first.source
    created = source.created_timestamp_column
    shown = [name for each in views for name in each.columns]
    columns = [source_column(source, feature) for each in views for feature in each.columns.values()]
    with connect(spill(config)) as con:
        log = open_log(
            con,
            config,
            source,
            [source_column(source, key) for key in first.keys],
            source_column(source, source.timestamp_field),
            source_column(source, created) if created else None,
        )
        rule = Rule(first.view.ttl or None, by_created)
        return dict(zip(shown, as_of(con, log, rule, frame.asked(list(first.keys.values())), columns), strict=True))


def _by_engine(frame: EntityFrame, asked: AskedView, mine: Ours) -> dict[str, pa.ChunkedArray]:
    """The answers of a view of ours that has no table yet."""
    questions = frame.asked([asked.keys[key] for key in KEYS])
    is_whole = pc.and_(pc.and_(questions["k0"].is_valid(), questions["k1"].is_valid()), questions["t"].is_valid())
    spine = questions.filter(is_whole).select(["k0", "k1", "t"]).rename_columns([*KEYS, TIME])
    refs = [f"{mine.view}:{feature}" for feature in asked.columns.values()]
    rows = mine.store.get_historical_features(spine, refs).to_arrow()
    whole = is_whole.to_numpy()
    taken = pa.array(np.cumsum(whole) - 1, mask=~whole)
    return {shown: rows.column(feature).take(taken) for shown, feature in asked.columns.items()}
