"""A training set: the rows of an entity frame, in their order, with the answers to its features beside them.

In go a spine, views and what is asked of each, and a connection to the lake; out comes a `TrainingSet`. The same
question asked twice is answered once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fhir_features.errors import SpineError, UsageError, did_you_mean
from fhir_features.features.cadence import Lag, Serving, read_cadence, read_serving
from fhir_features.features.compile import Plan, compile_features
from fhir_features.features.engine import answers, ask, stand_at, watched
from fhir_features.features.nodes import Feature
from fhir_features.features.receipts import (
    Provenance,
    Receipt,
    commits_hash,
    keep_spine,
    make_receipt,
    read_watermarks,
)
from fhir_features.features.service import FeatureService
from fhir_features.features.spine import INSTANT, KEYS, TIME
from fhir_features.features.summary import (
    Summary,
    absent_features,
    incomplete_questions,
    resource_types,
    unknown_questions,
)
from fhir_features.features.terms import create_members, ontologies
from fhir_features.features.view import FeatureView, LockedView
from fhir_features.files import check_folder, disk_errors, written_aside
from fhir_features.private import owner_only
from fhir_features.sources.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class TrainingSet:
    """The answers, a row for each row of the entity frame, and their summary. Instants are UTC microseconds.

    `spines` is the folder of the warehouse in which `save` keeps the spine.
    """

    table: pa.Table
    summary: Summary
    provenance: Provenance
    spines: Path

    def __repr__(self) -> str:
        # Counts and names alone: this is what a log has.
        views = ", ".join(f"{len(names)} features of {locked.view.name}" for locked, names in self.provenance.views)
        warned = f"; warnings: {len(self.summary.warnings)}" if self.summary.warnings else ""
        return f"<TrainingSet of {self.table.num_rows:,} rows: {views}; store_seq {self.provenance.store_seq}{warned}>"

    def _repr_html_(self) -> str:
        from fhir_features.notebook import training_set_html

        return training_set_html(self)

    @cached_property
    def receipt(self) -> Receipt:
        """What the answers rest on, and their hash. Raises UsageError for a column that cannot be hashed."""
        # asdict makes of a Counter the count of its items: https://github.com/python/cpython/issues/79721
        found_through = dict(sorted(self.summary.known_at_source.items()))
        summary = {**asdict(self.summary), "known_at_source": found_through, "shares": self.summary.shares}
        return make_receipt(self.provenance, self._spine, self.table, summary)

    @owner_only()
    def save(self, path: str | Path) -> Path:
        """Write the rows to a .parquet or .csv file, their receipt beside it, and the spine into the warehouse.

        Returns the path of the receipt: that of the file, with `.receipt.json` after it. Raises UsageError for another
        kind of file.
        """
        output = Path(path)
        write_rows(self.table, output)
        self.keep_spine()
        receipt = output.with_name(f"{output.name}.receipt.json")
        receipt.write_text(self.receipt.to_json(), encoding="utf-8")
        return receipt

    def keep_spine(self) -> None:
        """Keep the entity frame in the warehouse, from which its receipt is reproduced; `save` does that, too."""
        keep_spine(self.spines, self._spine, self.receipt.spine.sha256)

    @property
    def _spine(self) -> pa.Table:
        asked = {name for _, names in self.provenance.views for name in names}
        return self.table.select([name for name in self.table.column_names if name not in asked])

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


def check_output(path: Path) -> None:
    """Refuse a file that a training set cannot be written to. Raises UsageError."""
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"{path} is neither .parquet nor .csv: name the output otherwise")
    check_folder(path)


@owner_only()
def write_rows(rows: pa.Table, path: Path) -> None:
    """Write a table to a .parquet or .csv file, whole or not at all. Raises UsageError for another kind, or one that
    cannot be written."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    check_output(path)
    try:
        with disk_errors(UsageError, str(path)), written_aside(path) as aside:
            if path.suffix == ".parquet":
                pq.write_table(rows, aside, compression="zstd")
            else:
                csv.write_csv(rows, aside)
    except pa.ArrowException:
        raise UsageError(f"{path} cannot hold a column of the entity frame: write .parquet, or drop it") from None


@dataclass(frozen=True)
class Request:
    """What is asked of one view: some of its features."""

    locked: LockedView
    features: tuple[Feature, ...]

    @property
    def view(self) -> FeatureView:
        """The view."""
        return self.locked.view


def requests(features: object, find: Callable[[str], LockedView]) -> list[Request]:
    """What a FeatureService, or a list of "view:feature", "view" or FeatureView asks for: one request a view, in order.

    `find` gives the view of a name, or of a name and a version (`view@1a2b3c`).
    """
    if isinstance(features, FeatureService):
        features = features.features
    if isinstance(features, str | FeatureView):
        features = [features]
    if not isinstance(features, Sequence) or not features:
        raise UsageError("features is a list of 'view:feature', 'view' or FeatureView: name at least one")
    wanted: dict[LockedView, list[Feature]] = {}
    find = cache(find)
    for item in features:
        locked, chosen = _chosen(item, find)
        asked = wanted.setdefault(locked, [])
        asked += [feature for feature in chosen if feature not in asked]
    names = [feature.name for chosen in wanted.values() for feature in chosen]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two views give a feature '{name}': ask for one of them, as 'view:{name}'")
    return [Request(locked, tuple(chosen)) for locked, chosen in wanted.items()]


def served_by(request: Request, serving: str | Lag | None) -> Serving:
    """Which answers are asked for: by what is said, else by the cadence of the view. Raises UsageError."""
    return read_cadence(request.view.cadence) if serving is None else read_serving(serving)


def retrieve(
    con: duckdb.DuckDBPyConnection,
    spine: pa.Table,
    wanted: Sequence[Request],
    *,
    store_seq: int,
    known_as_of: dt.datetime | None,
    serving: str | Lag | None,
    spines: Path,
    progress: Progress = silent,
) -> TrainingSet:
    """The training set of a spine (`spine.read_spine`), from the lake as it stood at `store_seq`.

    `known_as_of` is the audit's cut-off (TIME rule 3). Each view answers under its own lock and by its cadence, or all
    by `serving` where that is not None. `spines` is where `TrainingSet.save` keeps spines.
    """
    names = [feature.name for request in wanted for feature in request.features]
    for name in names:
        if name in spine.column_names:
            raise SpineError(f"the entity frame has a column '{name}', as a feature has: rename it")
    summary = Summary(rows=spine.num_rows)
    unknown, incomplete = np.zeros(spine.num_rows, bool), np.zeros(spine.num_rows, bool)
    columns: dict[str, pa.Array] = {}
    known = wanted[0].locked.known
    stand_at(con, known, store_seq)
    for one_serving, served_alike in _by_serving(wanted, serving).items():
        places, distinct = _questions(spine, one_serving, known_as_of)
        ask(con, distinct)
        unknown |= np.isin(places, unknown_questions(con))
        for request in served_alike:
            if request.locked.known != known:
                known = request.locked.known
                stand_at(con, known, store_seq)
            plan = compile_features(request.features)
            create_members(con, known, plan)
            passes = watched(answers(con, plan, summary=summary), progress, request.view.name, distinct.num_rows)
            columns.update(_in_rows(passes, plan, places))
            summary.absent += absent_features(con, plan)
            incomplete |= np.isin(places, incomplete_questions(con, resource_types(plan)))
    summary.unknown_patients = int(unknown.sum())
    summary.incomplete = int(incomplete.sum())
    table = spine
    for name in names:
        table = table.append_column(name, columns[name])
    provenance = Provenance(
        store_seq=store_seq,
        commits=commits_hash(con, store_seq),
        watermarks=read_watermarks(con),
        known_as_of=known_as_of,
        serving=None if serving is None else str(read_serving(serving)),
        views=tuple((request.locked, tuple(feature.name for feature in request.features)) for request in wanted),
    )
    return TrainingSet(table, summary, provenance, spines)


def _in_rows(passes: Iterator[pa.Table], plan: Plan, places: NDArray[np.int64]) -> dict[str, pa.Array]:
    """The answers of each feature in the order of the spine's rows; each pass lets go of a column once it is taken."""
    answered = list(passes) or [plan.schema.empty_table()]
    question = pa.chunked_array([part.column("question").chunk(0) for part in answered]).to_numpy()
    place_of = np.empty(len(question), np.int64)
    place_of[question] = np.arange(len(question))
    taken = pa.array(place_of[places])
    columns: dict[str, pa.Array] = {}
    # Arrow's own pool returns and takes back the memory of each column, which takes longer than to fill it.
    pool = pa.system_memory_pool()
    for name in answered[0].column_names[1:]:
        parts = [part.column(name).combine_chunks() for part in answered]
        columns[name] = pc.take(pa.concat_arrays(parts, memory_pool=pool), taken, memory_pool=pool)
        answered = [part.drop_columns(name) for part in answered]
    return columns


def _chosen(item: object, find: Callable[[str], LockedView]) -> tuple[LockedView, tuple[Feature, ...]]:
    if isinstance(item, FeatureView):
        return LockedView(item, ontologies()), item.features
    if not isinstance(item, str):
        raise UsageError(f"features holds 'view:feature', 'view' or FeatureView, not {type(item).__name__}")
    view_name, _, name = item.partition(":")
    locked = find(view_name)
    view = locked.view
    if not name:
        return locked, view.features
    if name not in {feature.name for feature in view.features}:
        known = [feature.name for feature in view.features]
        raise UsageError(f"feature view '{view_name}' has no feature '{name}': {did_you_mean(name, known)}")
    return locked, (view.feature(name),)


def _by_serving(wanted: Sequence[Request], serving: str | Lag | None) -> dict[Serving, list[Request]]:
    """The requests that are answered as of the same instants, together."""
    found: dict[Serving, list[Request]] = {}
    for request in wanted:
        found.setdefault(served_by(request, serving), []).append(request)
    return found


def _questions(
    spine: pa.Table, serving: Serving, known_as_of: dt.datetime | None
) -> tuple[NDArray[np.int64], pa.Table]:
    """Which distinct question each row of the spine asks, and the distinct questions.

    The serving moves T back to when the deployed pipeline had answered, and K with it.
    """
    t = serving.answered_at(spine.column(TIME).cast(pa.int64()).to_numpy())
    k = t if known_as_of is None else np.minimum(t, (known_as_of - _EPOCH) // dt.timedelta(microseconds=1))
    people = _numbered(spine)
    order = np.lexsort((t, people))
    is_first = np.ones(len(t), bool)
    is_first[1:] = (np.diff(people[order]) != 0) | (np.diff(t[order]) != 0)
    places = np.empty(len(t), np.int64)
    places[order] = np.cumsum(is_first) - 1
    first_rows = order[is_first]
    distinct = {name: spine.column(name).take(pa.array(first_rows)) for name in KEYS}
    instants = {name: pa.array(us[first_rows]).cast(INSTANT) for name, us in (("t", t), ("k", k))}
    return places, pa.table({"question": np.arange(len(first_rows)), **distinct, **instants})


def _numbered(spine: pa.Table) -> NDArray[np.int64]:
    """A number for each row of the spine that says whose it is."""
    site, patient = (spine.column(key).dictionary_encode().combine_chunks() for key in KEYS)
    sites = site.indices.to_numpy().astype(np.int64)
    numbers: NDArray[np.int64] = sites * len(patient.dictionary) + patient.indices.to_numpy()
    return numbers
