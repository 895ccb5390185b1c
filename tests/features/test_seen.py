"""Settled rows: from which row on what a person's rows come to is not settled at K, and that it makes no difference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fhir_features.features import kernel
from fhir_features.features.arrays import NEVER, Array
from fhir_features.features.kernel import Columns, Questions, RowSet, answer_windows, in_order
from fhir_features.features.nodes import Window
from fhir_features.features.seen import Settled

YEAR_1, YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999


def first_unsettled(rows: list[tuple[int, int, int]], questions: list[tuple[int, int]]) -> list[int]:
    """Of rows (person, visible_from, visible_to) for questions (person, k)."""
    columns = dict(
        zip(("person", "visible_from", "visible_to"), np.array(rows, np.int64).reshape(-1, 3).T, strict=True)
    )
    person, k = np.array(questions, np.int64).T
    asked: Any = Asked(person=person, k=k)
    row_set: Any = SimpleNamespace(column=columns.__getitem__)
    found: list[int] = Settled(row_set).first_unsettled(asked).tolist()
    return found


class Asked(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.k)


def test_a_row_is_settled_when_it_is_visible_for_ever_or_closed() -> None:
    rows = [(0, 10, NEVER), (0, 20, 40), (0, 30, NEVER), (2, 50, NEVER)]
    assert first_unsettled(rows, [(0, 9), (0, 10), (0, 39), (0, 40), (1, 60), (2, 49), (2, 50)]) == [
        0,
        1,
        1,
        3,
        3,
        3,
        4,
    ]


def test_a_row_that_is_never_visible_holds_nothing_back() -> None:
    assert first_unsettled([(0, 10, NEVER), (0, 90, 90), (0, 20, NEVER)], [(0, 20)]) == [3]


def test_a_person_without_rows_has_none() -> None:
    assert first_unsettled([], [(3, 5)]) == [0]


def test_of_instants_too_far_apart_nothing_is_said() -> None:
    assert first_unsettled([(0, YEAR_1, NEVER), (1_000_000, YEAR_9999, NEVER)], [(1_000_000, YEAR_9999)]) == [0]


WINDOWS = [Window(), Window(start_us=40), Window(start_us=60, end_us=20)]


def test_what_is_seen_is_the_same_with_settled_rows_as_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(200):
        monkeypatch.setattr(kernel, "_MANY_LOOKS", 1 << 40)
        one_by_one = asked_for(seed)
        monkeypatch.setattr(kernel, "_MANY_LOOKS", -1)
        assert asked_for(seed) == one_by_one


def asked_for(seed: int) -> list[list[object]]:
    """All that a summary can ask for, of some drawn rows and questions: a list a window, null where nothing is seen."""
    draw = np.random.default_rng(seed)
    size, persons, asked = int(draw.integers(1, 40)), 3, int(draw.integers(1, 12))
    effective_at = np.sort(draw.integers(0, 100, size))
    known_at = effective_at + draw.integers(0, 30, size)
    closed = np.where(draw.random(size) < 0.3, known_at + draw.integers(0, 40, size), NEVER)
    rows = {
        "version_no": np.arange(size),
        "state": np.ones(size, np.int64),
        "component": np.zeros(size, np.int64),
        "person": draw.integers(0, persons, size),
        "effective_at": effective_at,
        "known_at": known_at,
        "visible_from": known_at,
        "visible_to": closed,
        "value": draw.integers(-50, 50, size) * draw.choice([0.125, 1e9], size),
    }
    columns = Columns(pa.table(rows), lambda number: pa.table({"resource_id": number, "version": number}))
    (order,) = in_order(columns, [np.arange(size)])
    t = np.sort(draw.integers(0, 150, asked))
    person = draw.integers(0, persons, asked)
    by_person = np.lexsort((t, person))
    questions = Questions(np.arange(asked), person[by_person], t[by_person], t[by_person] - draw.integers(0, 9, asked))
    parts = answer_windows(RowSet(columns, order, persons), questions, WINDOWS, WINDOWS[0], summary=True)
    found: list[list[object]] = []
    for _, pairs, bounds in parts:
        for first, last in bounds:
            seen = pairs.seen(first, last)
            answers: list[Array] = [seen.newest("value"), seen.oldest("value"), *seen.totals()]
            answers += [
                seen.extreme(ufunc, name) for ufunc in (np.minimum, np.maximum) for name in ("value", "known_at")
            ]
            found += [np.where(seen.none, -1, answer).tolist() for answer in answers]
            found += [seen.count.tolist(), np.where(seen.count < 2, -1, seen.newest("value", before=1)).tolist()]
    return found
