"""Which row of a log holds at each question? In go the questions, sorted, and the rows of the log, a batch at a time;
out comes the place of a row a question.

A row belongs to the first question of its person that it counts for; there the newest stays, of equal instants the one
created last, of those the last one. What holds at a question is the newest of what belongs to it or to an earlier one.
Instants are UTC microseconds.
"""

from __future__ import annotations

import numpy as np

from fhir_features.features.arrays import Array, fits, is_in_order, key

_NONE = np.iinfo(np.int64).min


class Holding:
    """Questions by person and t, in the order of both, and what of the rows taken so far belongs to each."""

    def __init__(self, person: Array, t: Array) -> None:
        self._person, self._t = person, t
        self._instant = np.full(len(t), _NONE)
        self._created = np.full(len(t), _NONE)
        self._place = np.full(len(t), -1)
        # Where person and instant do not fit into one number, the rank of the instant stands for it.
        self._instants = None if fits(person, int(t.min()), int(t.max()) + 1) else np.unique(t)
        ranks = self._ranked(t)
        self._begin, self._end = int(ranks.min()), int(ranks.max()) + 1
        self._keys = key(person, ranks, self._begin, self._end)

    def take(self, person: Array, since: Array, instant: Array, created: Array, place: Array) -> None:
        """Take rows. Each counts from `since` on, its instant or the later of that and its creation; `place` tells them
        apart, and which is the later one."""
        wanted = key(person, np.clip(self._ranked(since), self._begin, self._end), self._begin, self._end)
        question = np.searchsorted(self._keys, wanted)
        counts = self._person[np.minimum(question, len(self._person) - 1)] == person
        counts &= question < len(self._person)
        question, instant, created, place = (column[counts] for column in (question, instant, created, place))
        wins = instant > self._instant[question]
        np.maximum.at(self._instant, question, instant)
        is_newest = instant == self._instant[question]
        question, created, place, wins = (column[is_newest] for column in (question, created, place, wins))
        if _has_repeats(question, len(self._keys)):
            order = np.lexsort((place, created, question))
            last = order[np.append(np.diff(question[order]) != 0, True)]
            question, created, place, wins = question[last], created[last], place[last], wins[last]
        held = self._created[question]
        wins |= (created > held) | ((created == held) & (place > self._place[question]))
        self._created[question[wins]], self._place[question[wins]] = created[wins], place[wins]

    def holds(self, ttl_us: int | None) -> Array:
        """The place of the row that holds at each question, -1 where there is none, or it is older than `ttl_us`."""
        found = np.flatnonzero(self._place >= 0)
        if not is_in_order(self._person[found], self._instant[found]):
            # One that was created late can be older than what held before.
            found = found[np.lexsort((self._place[found], self._created[found], self._instant[found]))]
        rank = np.zeros(len(self._place), np.int64)
        rank[found] = np.arange(1, len(found) + 1)
        before = self._person.astype(np.int64) * (len(found) + 1)
        newest = np.maximum.accumulate(before + rank) - before
        holds = np.append(-1, found)[newest]
        is_held = holds >= 0
        if ttl_us is not None:
            is_held &= self._instant[holds] >= self._t - ttl_us
        return np.where(is_held, self._place[holds], -1)

    def _ranked(self, instants: Array) -> Array:
        return instants if self._instants is None else np.searchsorted(self._instants, instants)


def _has_repeats(numbers: Array, count: int) -> bool:
    """Whether a number below `count` is there twice."""
    slots = np.empty(count, np.int64)
    slots[numbers] = np.arange(len(numbers))
    return bool((slots[numbers] != np.arange(len(numbers))).any())
