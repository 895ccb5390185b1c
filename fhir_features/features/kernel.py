"""The kernel of the as-of engine: which rows does each question see, and what do they come to?

In go the rows of one selection as NumPy columns and the questions (person, T, K) of a pass; out come, for each window,
the rows that are inside of it and visible at K, in the order of the tie rule (TIME rules 2 and 5). Rows lie sorted by
person and tie, so a window is a range found by bisection; the ranges are expanded into pairs of question and row, a
bounded number at a time, and what is not visible drops out (`seen`). Operators (`operators`) compute on those pairs.

Instants are UTC microseconds as int64; one that is null is `NEVER`, later than all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.features.arrays import NEVER, Array, is_in_order, repeats, sorted_by
from fhir_features.features.exact import limbs
from fhir_features.features.nodes import Window
from fhir_features.features.seen import Pairs, Settled
from fhir_features.features.timeline import Timeline

# Few enough that the columns of the pairs at hand stay in the processor's cache: 64 times as many cost a third more.
_PAIRS_AT_ONCE = 1 << 18
# From how many looks at each row on it pays to tell settled rows from others: that takes a few looks at all of them.
_MANY_LOOKS = 4


@dataclass(frozen=True)
class Questions:
    """Questions of one pass, in the order of persons. `person` is a dense number, `t` and `k` are instants."""

    question: Array
    person: Array
    t: Array
    k: Array

    def __len__(self) -> int:
        return len(self.question)

    @cached_property
    def starts(self) -> Array:
        """Where the questions of each person begin, and the end."""
        return np.searchsorted(self.person, np.arange(self.person[-1] + 2))

    @cached_property
    def timeline(self) -> Timeline:
        """Where instants fall among the T of each person's questions."""
        return Timeline(self.t, self.starts)

    def at(self, places: Array | slice) -> Questions:
        """The questions at some places."""
        return Questions(*(column[places] for column in (self.question, self.person, self.t, self.k)))


class Columns:
    """The rows of a statement, their columns as NumPy when they are asked for; a text as the number of its word.

    `names` gives, for some of the column version_no, the resource_id and version that the tie rule compares in the end,
    which few rows need and which are long to read.
    """

    def __init__(self, table: pa.Table, names: Callable[[Array], pa.Table]) -> None:
        self.table = table
        self.names = names
        self._columns: dict[str, Array] = {}
        self._words: dict[str, pa.Array] = {}

    def column(self, name: str) -> Array:
        """A column; of a text the numbers of its words, -1 for null."""
        if name not in self._columns:
            column = self.table.column(name)
            self._columns[name] = as_numpy(self._numbered(name) if pa.types.is_string(column.type) else column)
        return self._columns[name]

    def words(self, name: str) -> pa.Array:
        """The distinct words of a text column, in alphabetical order."""
        self.column(name)
        return self._words[name]

    def lists(self, name: str) -> tuple[Array, Array, Array]:
        """A list column: the first place and the length of each row's list, and the flattened values."""
        column = self.table.column(name).combine_chunks()
        offsets = column.offsets.to_numpy()
        return offsets[:-1], np.diff(offsets), column.values.to_numpy()

    def _numbered(self, name: str) -> pa.ChunkedArray:
        column = self.table.column(name)
        words = pc.unique(column).drop_null()
        self._words[name] = words.take(pc.sort_indices(words))
        return pc.fill_null(pc.index_in(column, self._words[name]), -1)


class RowSet:
    """The rows of one selection in the order of person and tie rule.

    `columns` has version_no, state, component, person, effective_at, known_at, visible_from, visible_to, and what
    operators read; `order` says which of its rows they are, as `in_order` gives them.
    """

    def __init__(self, columns: Columns, order: Array, persons: int) -> None:
        self.columns = columns
        self._order = order
        self._ordered: dict[str, Array] = {}
        self._starts = np.searchsorted(self.column("person"), np.arange(persons + 1))

    def __len__(self) -> int:
        return len(self._order)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self.columns.table.column_names

    def column(self, name: str) -> Array:
        """A column in the rows' order."""
        if name not in self._ordered:
            self._ordered[name] = self.columns.column(name)[self._order]
        return self._ordered[name]

    @cached_property
    def timeline(self) -> Timeline:
        """Where instants fall among each person's effective_at."""
        return Timeline(self.column("effective_at"), self._starts)

    @cached_property
    def limbs(self) -> tuple[Array, ...]:
        """The column `value` as limbs (`exact`)."""
        return limbs(self.column("value"))

    def words(self, name: str) -> pa.Array:
        """The distinct words of a text column, in alphabetical order."""
        return self.columns.words(name)

    def lists(self, name: str) -> tuple[Array, Array, Array]:
        """A list column: the first place and the length of each row's list, and the flattened values."""
        first, length, values = self.columns.lists(name)
        return first[self._order], length[self._order], values

    def of_person(self, person: Array) -> tuple[Array, Array]:
        """Where the rows of each person begin and end."""
        return self._starts[person], self._starts[person + 1]


def answer_windows(
    rows: RowSet, questions: Questions, windows: Sequence[Window], reach: Window, *, summary: bool = False
) -> Iterator[tuple[slice, Pairs, list[tuple[Array, Array]]]]:
    """The pairs of questions and rows, some questions at a time: their place, the pairs, and the bounds of each window.

    `reach` holds all windows. The bounds are for `Pairs.seen`. With `summary`, long ranges are cut where rows are
    settled, for operators that have one.
    """
    edges = _Edges(rows, questions)
    lowest, highest = edges.of(reach)
    bounds = [edges.of(window) for window in windows]
    settled = None
    if summary and (highest - lowest).sum() > _MANY_LOOKS * len(rows):
        settled = Settled(rows)
        lowest = np.clip(settled.first_unsettled(questions), lowest, highest)
    ends = np.cumsum(highest - lowest)
    begin = 0
    while begin < len(questions):
        held = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, held + _PAIRS_AT_ONCE, "right")))
        part = slice(begin, end)
        pairs = Pairs(rows, questions.at(part), lowest[part], highest[part], settled)
        yield part, pairs, [(first[part], last[part]) for first, last in bounds]
        begin = end


class _Edges:
    """Where the edges of windows fall among the rows of each question's person."""

    def __init__(self, rows: RowSet, questions: Questions) -> None:
        self._rows = rows
        self._person, self._t = questions.person, questions.t
        self._begin, _ = rows.of_person(questions.person)
        self._found: dict[int, Array] = {}

    def of(self, window: Window) -> tuple[Array, Array]:
        first = self._begin if window.start_us is None else self._after(window.start_us)
        return first, np.maximum(first, self._after(window.end_us))

    def _after(self, us: int) -> Array:
        """The first row with effective_at > T - us."""
        if us not in self._found:
            self._found[us] = self._rows.timeline.first_after(self._person, self._t - us)
        return self._found[us]


def in_order(columns: Columns, selected: Iterable[Array]) -> list[Array]:
    """The places of the rows of each selection, in the order of person, effective_at and the rest of the tie rule."""
    found = [_in_order_but_for_names(columns, places) for places in selected]
    groups = [_groups(is_tied) for _, is_tied in found]
    tied = np.concatenate([places[among] for (places, _), (among, _) in zip(found, groups, strict=True)])
    if len(tied):
        # Of all selections at once, since it takes about as long as to read the rows.
        names = columns.names(columns.column("version_no")[tied])
        sizes = [len(among) for among, _ in groups]
        for name, values in {
            "selection": np.repeat(np.arange(len(groups)), sizes),
            "group": np.concatenate([group for _, group in groups]),
            "component": columns.column("component")[tied],
            "state": columns.column("state")[tied],
        }.items():
            names = names.append_column(name, pa.array(values))
        keys = [(name, "ascending") for name in ("selection", "group", "resource_id", "component", "version", "state")]
        order = pc.sort_indices(names, sort_keys=keys).to_numpy()
        for (places, _), (among, _), part in zip(found, groups, np.split(order, np.cumsum(sizes)[:-1]), strict=True):
            places[among] = tied[part]
    return [places for places, _ in found]


def as_numpy(column: pa.ChunkedArray) -> Array:
    """An Arrow column as NumPy: instants as microseconds with `NEVER` for null, numbers with NaN for null."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
        column = pc.fill_null(column, NEVER) if column.null_count else column
    values: Array = column.to_numpy()
    return values


def _in_order_but_for_names(columns: Columns, places: Array) -> tuple[Array, Array]:
    """The places of rows in the order of person, effective_at and known_at, and which are tied with the one before."""
    person, effective_at = columns.column("person")[places], columns.column("effective_at")[places]
    if not is_in_order(person, effective_at):
        order = sorted_by(person, effective_at)
        places, person, effective_at = places[order], person[order], effective_at[order]
    is_tied = repeats(person, effective_at)
    among, group = _groups(is_tied)
    if not len(among):
        return places, is_tied
    known_at = columns.column("known_at")[places[among]]
    order = np.lexsort((known_at, group))
    places = places.copy()
    places[among] = places[among][order]
    known_at = known_at[order]
    still = np.zeros(len(is_tied), bool)
    still[among[1:] - 1] = (group[1:] == group[:-1]) & (known_at[1:] == known_at[:-1])
    return places, still


def _groups(is_tied: Array) -> tuple[Array, Array]:
    """Which rows are tied with another, and the number of the group of each; `is_tied`: each with the one before."""
    edges = np.concatenate([[False], is_tied, [False]])
    among = np.flatnonzero(edges[1:] | edges[:-1])
    return among, np.cumsum(~edges[:-1])[among]
