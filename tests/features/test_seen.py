"""From which row on what a person's rows come to is not settled at K."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fhir_features.features.arrays import NEVER
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
