"""Which counts may leave the warehouse: few are not told, and the rest is rounded."""

from __future__ import annotations

import itertools

import pytest

from fhir_features.errors import UsageError
from fhir_features.report import Disclosure
from fhir_features.report.disclosure import share


@pytest.mark.parametrize(
    ("number", "patients", "told"),
    [
        (0, None, 0),
        (1, None, None),
        (9, None, None),
        (10, None, 10),
        (12, None, 10),
        (13, None, 15),
        (1_002, None, 1_000),
        (500, 9, None),  # many rows of few patients
        (500, 10, 500),
        (3, 3, None),
    ],
)
def test_a_count_of_few_is_not_told_and_others_are_rounded(number: int, patients: int | None, told: int | None):
    assert Disclosure().count(number, patients) == told


@pytest.mark.parametrize("suppress_below", [0, 1])
def test_without_suppression_every_count_is_as_it_is(suppress_below: int):
    told = Disclosure(suppress_below)
    assert [told.count(number) for number in (0, 1, 7, 1_002)] == [0, 1, 7, 1_002]
    assert told.quantile(7.123, 0.05, 3) == 7.12


def test_a_quantile_needs_enough_values_on_either_side():
    told = Disclosure()
    assert [told.quantile(7.1, 0.25, number) for number in (39, 40)] == [None, 7.1]
    assert [told.quantile(7.1, 0.95, number) for number in (199, 220)] == [None, 7.1]
    assert told.quantile(None, 0.5, 1_000) is None


def test_what_few_have_in_common_is_not_told():
    assert [Disclosure().may_tell(patients) for patients in (9, 10)] == [False, True]


def test_a_share_is_of_what_is_told():
    assert [share(5, 10), share(None, 10), share(0, 0), share(10, 5)] == [0.5, None, None, 1.0]


@pytest.mark.parametrize("suppress_below", [-1, 2, 4])
def test_a_threshold_that_hides_nothing_is_refused(suppress_below: int):
    with pytest.raises(UsageError, match="0, which tells every count"):
        Disclosure(suppress_below)


def test_a_few_things_are_never_told_as_none():
    assert Disclosure(5).count(6) == Disclosure(5).count(5) == 5


def test_many_things_of_few_patients_cannot_be_told_by_subtraction():
    told = Disclosure()
    months = {"may": (500, 1), "june": (200, 60), "july": (300, 70)}
    assert told.parts(months) == {"may": None, "june": None, "july": 300}
    assert told.parts({"may": (4, 1), "june": (200, 60)}) == {"may": None, "june": 200}  # hidden by the rounding
    assert told.parts({"may": (500, 1), "june": (0, 0)}) == {"may": None, "june": 0}
    assert Disclosure(0).parts(months) == {"may": 500, "june": 200, "july": 300}


@pytest.mark.parametrize("suppress_below", [5, 10, 20])
@pytest.mark.parametrize("parts", [2, 3])
def test_how_patients_are_divided_cannot_be_told_by_subtraction(suppress_below: int, parts: int):
    """For every division of every number of patients: what is told of it leaves open what is not."""
    told = Disclosure(suppress_below)
    shown = set()
    possible: dict[tuple[int | None, ...], list[tuple[int, ...]]] = {}
    for division in itertools.product(range(suppress_below + 13), repeat=parts):
        whole = told.count(sum(division))
        shown.add((whole, *told.division(dict(enumerate(division))).values()))
        possible.setdefault((whole, *map(told.count, division)), []).append(division)
    assert len(shown) > 30
    for view in shown & possible.keys():
        for place, count in enumerate(view[1:]):
            assert count is not None or len({division[place] for division in possible[view]}) > 1


def test_how_patients_are_divided_is_told_where_it_may_be():
    told = Disclosure()
    assert told.division({"yes": 4, "no": 100}, [0]) == {"yes": None, "no": 100}
    assert told.division({"yes": 9, "no": 9}, [0]) == {}  # of 20, if told: each 9
    assert told.division({"f": 13, "m": 13, "x": 2}) == {"f": 15, "m": 15, "x": None}
    assert told.division({"f": 13, "m": 13, "x": 1}) == {"f": None, "m": 15, "x": None}  # 1 = 25 - 15 - 15, rounded
    assert told.division({"f": 13, "m": 13}, [1]) == {"f": None, "m": 15}
    assert told.division(dict.fromkeys(range(7), 9)) == {}
    assert Disclosure(0).division({"yes": 4, "no": 1}, [3]) == {"yes": 4, "no": 1}
