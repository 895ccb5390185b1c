"""Which counts may leave the warehouse: few are not told, and the rest is rounded."""

from __future__ import annotations

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


def test_a_negative_threshold_is_refused():
    with pytest.raises(UsageError, match="0 tells every count"):
        Disclosure(-1)
