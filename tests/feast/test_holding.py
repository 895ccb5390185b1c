"""Which row of a log holds at each question: as one would look it up by hand, however the rows come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_features.feast.holding import Holding
from fhir_features.features.arrays import fits

# So far apart that a million persons and an instant do not fit into one number.
FAR_US = 300 * 365 * 86_400_000_000

questions = st.lists(st.tuples(st.integers(1, 3), st.integers(-3, 6)), min_size=1, max_size=12)
# A row's person, instant and creation.
rows = st.lists(st.tuples(st.integers(1, 4), st.integers(-4, 7), st.integers(-4, 7)), max_size=30)


def by_hand(
    asked: list[tuple[int, int]], given_rows: list[tuple[int, int, int]], ttl: int | None, by_created: bool
) -> list[int]:
    """The place of the row that holds at each question; with `by_created` no row counts before it was created."""
    found = []
    for person, t in asked:
        seen = [
            (instant, created, place)
            for place, (whose, instant, created) in enumerate(given_rows)
            if whose == person and instant <= t and (created <= t or not by_created)
        ]
        instant, _, place = max(seen, default=(0, 0, -1))
        found.append(place if seen and (ttl is None or instant >= t - ttl) else -1)
    return found


@given(questions, rows, st.none() | st.integers(0, 4), st.booleans(), st.booleans(), st.sampled_from([1, 7, 100]))
def test_a_row_holds_as_by_hand(asked, given_rows, ttl, by_created, is_far, at_once) -> None:  # type: ignore[no-untyped-def]
    asked = sorted(asked)
    scale, most = (FAR_US, 1_000_000) if is_far else (1, 1)
    person, t = (np.array(column, np.int64) for column in zip(*asked, strict=True))
    holding = Holding(person * most, t * scale)
    # In another order than that of the places.
    places = np.argsort([place % 7 for place in range(len(given_rows))], kind="stable")
    for first in range(0, len(places), at_once):
        place = places[first : first + at_once]
        whose, instant, created = np.array(given_rows, np.int64)[place].T
        since = np.maximum(instant, created) if by_created else instant
        holding.take(whose * most, since * scale, instant * scale, created * scale, place)
    held = holding.holds(None if ttl is None else ttl * scale)
    assert held.tolist() == by_hand(asked, given_rows, ttl, by_created)


@pytest.mark.parametrize("persons", [1, 2_000_000])
def test_persons_and_instants_that_fit_into_one_number_or_do_not(persons: int) -> None:
    t = np.array([-FAR_US, FAR_US])
    assert fits(np.array([persons]), -FAR_US, FAR_US + 1) == (persons == 1)
    holding = Holding(np.array([persons, persons]), t)
    row = (np.array([persons]), np.array([0]), np.array([0]), np.array([0]), np.array([5]))
    holding.take(*row)
    assert holding.holds(None).tolist() == [-1, 5]
