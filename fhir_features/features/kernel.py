"""The kernel of the as-of engine: which rows does each question see, and what do they come to?

In go the rows of one selection as NumPy columns and the questions (person, T, K) of a pass; out come, for each window,
the rows that are inside of it and visible at K, in the order of the tie rule (TIME rules 2 and 5). Rows lie sorted by
person and tie, so a window is a range found by bisection; the ranges are expanded into pairs of question and row, a
bounded number at a time, and what is not visible drops out. Operators (`operators`) compute on those pairs.

Instants are UTC microseconds as int64; one that is null is `NEVER`, later than all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.features.exact import limbs
from fhir_features.features.nodes import Window
from fhir_features.features.timeline import Timeline

Array = np.ndarray[Any, Any]

NEVER = np.iinfo(np.int64).max

# Few enough that the columns of the pairs at hand stay in the processor's cache: 64 times as many cost a third more.
_PAIRS_AT_ONCE = 1 << 18


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


class Pairs:
    """The rows that some questions see at K, as pairs of a question and a row, in the order of both.

    `question`: the place of each pair's question among `questions`; `rows`: its row in the row set. `active`: whether
    the row is active at T, where somebody asks.
    """

    active: Array

    def __init__(self, rows: RowSet, questions: Questions, first: Array, last: Array) -> None:
        self.row_set = rows
        self.questions = questions
        lengths = last - first
        self._first = first
        self._begins = np.cumsum(lengths) - lengths
        row, question = expand(first, lengths)
        k = questions.k[question]
        sees = (rows.column("visible_from")[row] <= k) & (k < rows.column("visible_to")[row])
        self._seen_before = running_total(sees)
        self.rows, self.question = row[sees], question[sees]
        self._columns: dict[str, Array] = {}

    def column(self, name: str) -> Array:
        """A column of the rows, for each pair."""
        if name not in self._columns:
            self._columns[name] = self.row_set.column(name)[self.rows]
        return self._columns[name]

    @cached_property
    def limbs_before(self) -> tuple[Array, ...]:
        """The running total of each limb of the column `value`."""
        return tuple(running_total(limb[self.rows]) for limb in self.row_set.limbs)

    @property
    def t(self) -> Array:
        """T of each pair's question."""
        return self.questions.t[self.question]

    def keep(self, kept: Array) -> None:
        """Drop the pairs that a filter leaves out; `seen` afterwards knows only the others."""
        self._seen_before = running_total(kept)[self._seen_before]
        self.rows, self.question = self.rows[kept], self.question[kept]
        self._columns.clear()

    def seen(self, first: Array, last: Array) -> Seen:
        """What is seen of the rows from `first` up to `last`, a range within each question's own."""
        shift = self._begins - self._first
        return Seen(self, self._seen_before[first + shift], self._seen_before[last + shift])


class Seen:
    """The pairs that are inside a window: for each question those from `first` up to `last`."""

    def __init__(self, pairs: Pairs, first: Array, last: Array) -> None:
        self.pairs = pairs
        self.first = first
        self.last = last
        self.count = last - first
        self.none = self.count == 0

    @cached_property
    def inside(self) -> tuple[Array, Array]:
        """The places of the pairs inside, one window after the other, and for each of them its question."""
        return expand(self.first, self.count)

    def at(self, values: Array, place: Array) -> Array:
        """The value of one pair of each question; of a question that sees none, any value."""
        return values[np.clip(place, 0, len(values) - 1)] if len(values) else np.zeros(len(place), values.dtype)

    def reduce(self, ufunc: np.ufunc, values: Array) -> Array:
        """A reduction over the window of each question; of a question that sees none, any value."""
        bounds = np.column_stack([self.first, self.last]).ravel()
        return ufunc.reduceat(np.append(values, values[:1] if len(values) else [0]), bounds)[::2]

    def total(self, values: Array) -> Array:
        """The sum of whole numbers, or the number of flags that are set."""
        before = running_total(values)
        return before[self.last] - before[self.first]


def answer_windows(
    rows: RowSet, questions: Questions, windows: Sequence[Window], reach: Window
) -> Iterator[tuple[slice, Pairs, list[tuple[Array, Array]]]]:
    """The pairs of questions and rows, some questions at a time: their place, the pairs, and the bounds of each window.

    `reach` holds all windows. The bounds are for `Pairs.seen`.
    """
    edges = _Edges(rows, questions)
    lowest, highest = edges.of(reach)
    bounds = [edges.of(window) for window in windows]
    ends = np.cumsum(highest - lowest)
    begin = 0
    while begin < len(questions):
        held = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, held + _PAIRS_AT_ONCE, "right")))
        part = slice(begin, end)
        pairs = Pairs(rows, questions.at(part), lowest[part], highest[part])
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


def expand(first: Array, lengths: Array) -> tuple[Array, Array]:
    """Ranges as places: each range's places one after the other, and the number of the range of each."""
    number = np.repeat(np.arange(len(lengths)), lengths)
    shift = first - (np.cumsum(lengths) - lengths)
    return np.arange(len(number)) + shift[number], number


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


def distinct_pairs(person: Array, instant: Array) -> tuple[Array, Array]:
    """Pairs of a person and an instant in their order, each once."""
    if not len(person):
        return person, instant
    begin, end = int(instant.min()), int(instant.max())
    if _fits(person, begin, end):
        # np.unique took a hundred times as long for three million.
        keys = np.sort(_key(person, instant, begin, end))
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        return keys // (end - begin + 1), keys % (end - begin + 1) + begin
    order = np.lexsort((instant, person))
    person, instant = person[order], instant[order]
    is_first = np.append(True, _runs(person, instant) != 0)
    return person[is_first], instant[is_first]


def running_total(values: Array) -> Array:
    """The totals before each value, and of all; whole numbers are exact as long as the total fits into 63 bits."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


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
    if (_runs(person, effective_at) < 0).any():
        order = _sorted_by(person, effective_at)
        places, person, effective_at = places[order], person[order], effective_at[order]
    is_tied = _runs(person, effective_at) == 0
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


def _runs(person: Array, instant: Array) -> Array:
    """For each row but the first how it stands to the one before: 1 after, 0 tied, -1 out of order."""
    same = person[1:] == person[:-1]
    return np.where(same, np.sign(instant[1:] - instant[:-1]), np.where(person[1:] > person[:-1], 1, -1))


def _sorted_by(person: Array, instant: Array) -> Array:
    """The order by person and instant; one key where both fit into it, as that takes a third of the time."""
    begin, end = int(instant.min()), int(instant.max())
    if not _fits(person, begin, end):
        return np.lexsort((instant, person))
    return np.argsort(_key(person, instant, begin, end), kind="stable")


def _fits(person: Array, begin: int, end: int) -> bool:
    """Whether a person and an instant from `begin` to `end` fit into one number."""
    return (end - begin + 1) * (int(person.max()) + 1) <= NEVER


def _key(person: Array, instant: Array, begin: int, end: int) -> Array:
    key: Array = person.astype(np.int64) * (end - begin + 1) + (instant - begin)
    return key
