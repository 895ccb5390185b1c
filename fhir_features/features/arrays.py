"""What NumPy lacks for the engine: ranges as places, totals before each value, reductions over ranges, and a person and
an instant as one number, by which both are put in order at once.

Persons are dense numbers, instants UTC microseconds as int64; one that is null is `NEVER`, later than all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NEVER = np.iinfo(np.int64).max


def expand(first: Array, lengths: Array) -> tuple[Array, Array]:
    """Ranges as places: each range's places one after the other, and the number of the range of each."""
    number = np.repeat(np.arange(len(lengths)), lengths)
    shift = first - (np.cumsum(lengths) - lengths)
    return np.arange(len(number)) + shift[number], number


def running_total(values: Array) -> Array:
    """The totals before each value, and of all; whole numbers are exact as long as the total fits into 63 bits."""
    totals = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=totals[1:])
    return totals


def reduced(ufunc: np.ufunc, values: Array, first: Array, last: Array) -> Array:
    """A reduction over ranges of values; of one that is empty, any value."""
    bounds = np.column_stack([first, last]).ravel()
    return ufunc.reduceat(np.append(values, values[:1] if len(values) else [0]), bounds)[::2]


def distinct_pairs(person: Array, instant: Array) -> tuple[Array, Array]:
    """Pairs of a person and an instant in their order, each once."""
    if not len(person):
        return person, instant
    begin, end = int(instant.min()), int(instant.max())
    if fits(person, begin, end):
        # np.unique took a hundred times as long for three million.
        keys = np.sort(key(person, instant, begin, end))
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        return keys // (end - begin + 1), keys % (end - begin + 1) + begin
    order = np.lexsort((instant, person))
    person, instant = person[order], instant[order]
    is_first = np.append(True, ~repeats(person, instant))
    return person[is_first], instant[is_first]


def is_in_order(person: Array, instant: Array) -> bool:
    """Whether rows lie in the order of person and instant."""
    before = person[1:] < person[:-1]
    before |= (person[1:] == person[:-1]) & (instant[1:] < instant[:-1])
    return not before.any()


def repeats(person: Array, instant: Array) -> Array:
    """For each row but the first whether it has the person and the instant of the one before."""
    same: Array = instant[1:] == instant[:-1]
    same &= person[1:] == person[:-1]
    return same


def sorted_by(person: Array, instant: Array) -> Array:
    """The order by person and instant; one key where both fit into it, as that takes a third of the time."""
    begin, end = int(instant.min()), int(instant.max())
    if not fits(person, begin, end):
        return np.lexsort((instant, person))
    return np.argsort(key(person, instant, begin, end), kind="stable")


def fits(person: Array, begin: int, end: int) -> bool:
    """Whether a person and an instant from `begin` to `end` fit into one number."""
    return (end - begin + 1) * (int(person.max()) + 1) <= NEVER


def key(person: Array, instant: Array, begin: int, end: int) -> Array:
    """Persons and instants from `begin` to `end`, each pair as one number, in their order: what `fits` has said."""
    numbers: Array = person.astype(np.int64) * (end - begin + 1) + (instant - begin)
    return numbers
