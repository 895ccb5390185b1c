"""Persons and instants are put in order alike whether or not both fit into one number."""

from __future__ import annotations

import numpy as np
import pytest

from fhir_features.features import arrays

CENTURIES_US = 300 * 365 * 86_400_000_000


@pytest.mark.parametrize("last_person", [3, 2_000_000])
def test_pairs_are_distinct_and_in_order(last_person: int) -> None:
    person = np.array([last_person, 0, 1, 1, 0, last_person, 1], np.int32)
    instant = np.array([5, CENTURIES_US, 7, -CENTURIES_US, -3, 5, 7])
    assert arrays.fits(person, -CENTURIES_US, CENTURIES_US) == (last_person == 3)
    persons, instants = arrays.distinct_pairs(person, instant)
    pairs = sorted(set(zip(person.tolist(), instant.tolist(), strict=True)))
    assert list(zip(persons.tolist(), instants.tolist(), strict=True)) == pairs


def test_rows_that_repeat_or_are_out_of_order_are_told() -> None:
    person, instant = np.array([0, 0, 0, 1, 1, 2]), np.array([4, 4, 5, 3, 3, 3])
    assert arrays.is_in_order(person, instant)
    assert arrays.repeats(person, instant).tolist() == [True, False, False, True, False]
    assert not arrays.is_in_order(person[::-1], instant)
    assert not arrays.is_in_order(person, np.array([4, 5, 4, 3, 3, 3]))


@pytest.mark.parametrize("last_person", [3, 2_000_000])
def test_tied_rows_keep_their_order(last_person: int) -> None:
    person = np.array([last_person, 0, last_person, 0, 1, last_person], np.int32)
    instant = np.array([5, CENTURIES_US, 5, -CENTURIES_US, 7, 4])
    assert arrays.sorted_by(person, instant).tolist() == [3, 1, 4, 5, 0, 2]
