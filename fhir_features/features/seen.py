"""What do the questions of a pass see of the rows of one selection? In go the rows, in the order of the tie rule, and a
range of them a question; out come pairs of a question and a row that it sees at K, and of each window what operators
ask of it.

Most rows of a long range have long come to what they stay: visible for ever, or withdrawn or corrected. They are
looked up as a range (`Settled`), and only the others are told apart question by question.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fhir_features.features.arrays import NEVER, Array, expand, fits, key, reduced, running_total

if TYPE_CHECKING:
    from fhir_features.features.kernel import Questions, RowSet


class _Chosen:
    """Some rows of a row set, `rows` by their places, each as often as it is there: their columns, read once."""

    def __init__(self, row_set: RowSet, rows: Array) -> None:
        self.row_set = row_set
        self.rows = rows
        self._columns: dict[str, Array] = {}

    def column(self, name: str) -> Array:
        """A column of these rows."""
        if name not in self._columns:
            self._columns[name] = self.row_set.column(name)[self.rows]
        return self._columns[name]

    @cached_property
    def limbs_before(self) -> tuple[Array, ...]:
        """The running total of each limb of the column `value`."""
        return tuple(running_total(limb[self.rows]) for limb in self.row_set.limbs)


class Settled(_Chosen):
    """The rows of a row set that stay visible for ever, without those that are withdrawn or corrected one day.

    From K on where the last of a person's rows up to some place has come to what it stays, all questions see the same
    of them: ranges of these rows, instead of pairs.
    """

    def __init__(self, rows: RowSet) -> None:
        begins, ends = rows.column("visible_from"), rows.column("visible_to")
        stays = ends == NEVER
        super().__init__(rows, np.flatnonzero(stays))
        self.rank = running_total(stays)
        # What is never visible has been so from the start.
        self._since = np.where(stays, begins, np.where(ends > begins, ends, begins.min(initial=NEVER)))

    def first_unsettled(self, questions: Questions) -> Array:
        """For each question the first row of its person that may come to something else after K; 0 where that is not
        known, as the instants are too far apart to be put in order with the persons."""
        person, since = self.row_set.column("person"), self._since
        if not len(since):
            return np.zeros(len(questions), np.int64)
        begin, end = int(since.min()) - 1, int(since.max())
        if not fits(np.append(person[-1:], questions.person[-1:]), begin, end):
            return np.zeros(len(questions), np.int64)
        latest = np.maximum.accumulate(key(person, since, begin, end))
        return np.searchsorted(latest, key(questions.person, np.clip(questions.k, begin, end), begin, end), "right")


class Pairs(_Chosen):
    """The rows that some questions see at K, as pairs of a question and a row, in the order of both.

    `question`: the place of each pair's question among `questions`; `rows`: its row in the row set. `active`: whether
    the row is active at T, where somebody asks. With `settled`, the rows before `first` are not among them.
    """

    active: Array

    def __init__(
        self, rows: RowSet, questions: Questions, first: Array, last: Array, settled: Settled | None = None
    ) -> None:
        self.questions = questions
        self.settled = settled
        lengths = last - first
        self._first = first
        self._begins = np.cumsum(lengths) - lengths
        row, question = expand(first, lengths)
        k = questions.k[question]
        sees = (rows.column("visible_from")[row] <= k) & (k < rows.column("visible_to")[row])
        self._seen_before = running_total(sees)
        self.question = question[sees]
        super().__init__(rows, row[sees])

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
        pairs_first, pairs_last = (np.maximum(edge, self._first) + shift for edge in (first, last))
        seen = Seen(self, self._seen_before[pairs_first], self._seen_before[pairs_last])
        if self.settled:
            seen.settle(self.settled, *(self.settled.rank[np.minimum(edge, self._first)] for edge in (first, last)))
        return seen


class Seen:
    """The pairs that are inside a window: for each question those from `first` up to `last`.

    Where rows are settled, a range of those comes before them: then only what `Operator.summary` names can be asked.
    """

    def __init__(self, pairs: Pairs, first: Array, last: Array) -> None:
        self.pairs = pairs
        self.first = first
        self.last = last
        self.count = last - first
        self.none = self.count == 0
        self._settled: tuple[Settled, Array, Array] | None = None

    def settle(self, settled: Settled, first: Array, last: Array) -> None:
        """Have a range of settled rows come before the pairs."""
        self._settled = settled, first, last
        self.count = self.count + last - first
        self.none = self.count == 0

    @cached_property
    def inside(self) -> tuple[Array, Array]:
        """The places of the pairs inside, one window after the other, and for each of them its question."""
        return expand(self.first, self.count)

    def at(self, values: Array, place: Array) -> Array:
        """The value of one pair of each question; of a question that sees none, any value."""
        return values[np.clip(place, 0, len(values) - 1)] if len(values) else np.zeros(len(place), values.dtype)

    def oldest(self, name: str) -> Array:
        """A column of the oldest row; of a question that sees none, any value."""
        found = self.at(self.pairs.column(name), self.first)
        if self._settled is None:
            return found
        settled, first, last = self._settled
        return np.where(last > first, self.at(settled.column(name), first), found)

    def newest(self, name: str, before: int = 0) -> Array:
        """A column of the newest row, or of the one so many before it; where there is none, any value."""
        found = self.at(self.pairs.column(name), self.last - 1 - before)
        if self._settled is None:
            return found
        settled, _, last = self._settled
        left = before - (self.last - self.first)
        return np.where(left < 0, found, self.at(settled.column(name), last - 1 - left))

    def extreme(self, ufunc: np.ufunc, name: str) -> Array:
        """The minimum or maximum of a column; of a question that sees none, any value."""
        found = self.reduce(ufunc, self.pairs.column(name))
        if self._settled is None:
            return found
        settled, first, last = self._settled
        before = reduced(ufunc, settled.column(name), first, last)
        found = np.where(self.first < self.last, found, before)
        return np.where(first < last, ufunc(before, found), found)

    def totals(self) -> tuple[Array, Array, Array]:
        """The sum of each limb of the column `value`."""
        high, middle, low = (before[self.last] - before[self.first] for before in self.pairs.limbs_before)
        if self._settled is None:
            return high, middle, low
        settled, first, last = self._settled
        more_high, more_middle, more_low = (before[last] - before[first] for before in settled.limbs_before)
        return high + more_high, middle + more_middle, low + more_low

    def reduce(self, ufunc: np.ufunc, values: Array) -> Array:
        """A reduction over the pairs of each question; of a question that sees none, any value."""
        return reduced(ufunc, values, self.first, self.last)

    def total(self, values: Array) -> Array:
        """The sum of whole numbers, or the number of flags that are set."""
        before = running_total(values)
        return before[self.last] - before[self.first]
