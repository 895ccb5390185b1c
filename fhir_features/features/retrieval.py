"""A training set: the rows of an entity frame, in their order, with the answers to its features beside them.

In go a spine, views and what is asked of each, and a connection to the lake; out comes a `TrainingSet`. The same
question asked twice is answered once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from fhir_features.errors import SpineError, UsageError, did_you_mean
from fhir_features.features.cadence import Lag, Serving, read_cadence, read_serving
from fhir_features.features.compile import compile_features
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Feature
from fhir_features.features.spine import INSTANT, KEYS, TIME
from fhir_features.features.summary import Summary, count_rows, incomplete_questions, resource_types, unknown_questions
from fhir_features.features.terms import create_members
from fhir_features.features.view import FeatureView
from fhir_features.ontology import Ontologies

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


@dataclass(frozen=True)
class TrainingSet:
    """The answers, a row for each row of the entity frame, and their summary. Instants are UTC microseconds."""

    table: pa.Table
    summary: Summary

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.table

    def to_polars(self) -> pl.DataFrame:
        """The rows as a polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_df(self) -> pd.DataFrame:
        """The rows as a pandas frame."""
        return self.table.to_pandas()


@dataclass(frozen=True)
class Request:
    """What is asked of one view: some of its features."""

    view: FeatureView
    features: tuple[Feature, ...]


def requests(features: object, views: dict[str, FeatureView]) -> list[Request]:
    """What a list of "view:feature", "view" or FeatureView asks for, one request a view, in the order of the list."""
    if isinstance(features, str | FeatureView):
        features = [features]
    if not isinstance(features, Sequence) or not features:
        raise UsageError("features is a list of 'view:feature', 'view' or FeatureView: name at least one")
    wanted: dict[str, list[Feature]] = {}
    used: dict[str, FeatureView] = {}
    for item in features:
        view, chosen = _chosen(item, views)
        used[view.name] = view
        asked = wanted.setdefault(view.name, [])
        asked += [feature for feature in chosen if feature not in asked]
    names = [feature.name for chosen in wanted.values() for feature in chosen]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two views give a feature '{name}': ask for one of them, as 'view:{name}'")
    return [Request(used[name], tuple(chosen)) for name, chosen in wanted.items()]


def retrieve(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    spine: pa.Table,
    wanted: Sequence[Request],
    *,
    known_as_of: dt.datetime | None,
    serving: str | Lag | None,
) -> TrainingSet:
    """The training set of a spine (`spine.read_spine`). `known_as_of` is the audit's cut-off (TIME rule 3).

    Each view answers by its cadence, or all by `serving` where that is not None.
    """
    names = [feature.name for request in wanted for feature in request.features]
    for name in names:
        if name in spine.column_names:
            raise SpineError(f"the entity frame has a column '{name}', as a feature has: rename it")
    summary = Summary(rows=spine.num_rows)
    unknown, incomplete = np.zeros(spine.num_rows, bool), np.zeros(spine.num_rows, bool)
    columns: dict[str, pa.ChunkedArray] = {}
    for one_serving, served_alike in _by_serving(wanted, serving).items():
        places, distinct = _questions(con, spine, one_serving, known_as_of)
        ask(con, distinct)
        unknown |= np.isin(places, unknown_questions(con))
        for request in served_alike:
            plan = compile_features(request.features)
            create_members(con, known, plan)
            answered = pa.concat_tables(list(answers(con, known, plan)) or [plan.schema.empty_table()])
            rows = answered.sort_by("question").drop_columns("question").take(places)
            columns.update(zip(plan.names, rows.columns, strict=True))
            count_rows(con, plan, summary)
            incomplete |= np.isin(places, incomplete_questions(con, resource_types(plan)))
    summary.unknown_patients = int(unknown.sum())
    summary.incomplete = int(incomplete.sum())
    table = spine
    for name in names:
        table = table.append_column(name, columns[name])
    return TrainingSet(table, summary)


def _chosen(item: object, views: dict[str, FeatureView]) -> tuple[FeatureView, tuple[Feature, ...]]:
    if isinstance(item, FeatureView):
        return item, item.features
    if not isinstance(item, str):
        raise UsageError(f"features holds 'view:feature', 'view' or FeatureView, not {type(item).__name__}")
    view_name, _, name = item.partition(":")
    if view_name not in views:
        raise UsageError(f"there is no feature view '{view_name}': {did_you_mean(view_name, views)}")
    view = views[view_name]
    if not name:
        return view, view.features
    if name not in {feature.name for feature in view.features}:
        known = [feature.name for feature in view.features]
        raise UsageError(f"feature view '{view_name}' has no feature '{name}': {did_you_mean(name, known)}")
    return view, (view.feature(name),)


def _by_serving(wanted: Sequence[Request], serving: str | Lag | None) -> dict[Serving, list[Request]]:
    """The requests that are answered as of the same instants, together."""
    one = None if serving is None else read_serving(serving)
    found: dict[Serving, list[Request]] = {}
    for request in wanted:
        found.setdefault(one or read_cadence(request.view.cadence), []).append(request)
    return found


def _questions(
    con: duckdb.DuckDBPyConnection, spine: pa.Table, serving: Serving, known_as_of: dt.datetime | None
) -> tuple[pa.Array, pa.Table]:
    """Which distinct question each row of the spine asks, and the distinct questions.

    The serving moves T back to when the deployed pipeline had answered, and K with it.
    """
    row_numbers = pa.array(np.arange(spine.num_rows))
    answered_at = pa.array(serving.answered_at(spine.column(TIME).cast(pa.int64()).to_numpy())).cast(INSTANT)
    asking = spine.select(KEYS).append_column(TIME, answered_at).append_column("row_number", row_numbers)
    con.register("spine", asking)
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE spine_questions AS
SELECT
  row_number,
  dense_rank() OVER (ORDER BY site, patient_id, {TIME}) - 1 AS question,
  site, patient_id, {TIME} AS t
FROM spine""")
    con.unregister("spine")
    places = con.execute("SELECT question FROM spine_questions ORDER BY row_number").to_arrow_table()
    distinct = con.execute(
        "SELECT DISTINCT question, site, patient_id, t, coalesce(least(t, $k), t) AS k FROM spine_questions",
        {"k": known_as_of},
    ).to_arrow_table()
    return places.column(0).combine_chunks(), distinct
