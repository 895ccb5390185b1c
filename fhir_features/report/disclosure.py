"""Which counts may leave the warehouse on a page? In goes a count, and of how many patients it is; out comes what may
be told of it. Small and boring, and on by default: a count of few patients can tell who they are.

The rules are those of OpenSAFELY: few are not told, and the rest is rounded, so that no difference tells them either
(https://github.com/opensafely-core/ehrql, measures/disclosure_control.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_features.errors import UsageError

SUPPRESS_BELOW = 10
_ROUND_TO = 5

# A count as it may be told. None: there are some, but too few to say how many.
Count = int | None


@dataclass(frozen=True)
class Disclosure:
    """What may be told of counts: nothing of fewer than `suppress_below`, and of others the nearest multiple of 5.

    With `suppress_below` at most 1, every count is told as it is.
    """

    suppress_below: int = SUPPRESS_BELOW

    def __post_init__(self) -> None:
        if self.suppress_below < 0:
            raise UsageError("the smallest count that is told is 0 or more: 0 tells every count as it is")

    @property
    def tells_all(self) -> bool:
        """Whether every count is told as it is."""
        return self.suppress_below <= 1

    def count(self, number: int, patients: int | None = None) -> Count:
        """What may be told of a number of things that belong to `patients` patients (not said: to a patient each)."""
        if self.tells_all or number == 0:
            return number
        if min(number, number if patients is None else patients) < self.suppress_below:
            return None
        return (number + _ROUND_TO // 2) // _ROUND_TO * _ROUND_TO

    def may_tell(self, patients: int) -> bool:
        """Whether something that so many patients have in common, such as a code, may be told."""
        return patients >= self.suppress_below

    def quantile(self, value: float | None, share: float, number: int) -> float | None:
        """A quantile, if enough values lie on either side of it; to three digits, as no patient's value is meant."""
        if value is None or (not self.tells_all and number * min(share, 1 - share) < self.suppress_below):
            return None
        return float(f"{value:.3g}")


def share(part: Count, whole: Count) -> float | None:
    """The share of two counts as they are told, between 0 and 1; None where one of them is not, or there is nothing."""
    return None if part is None or not whole else min(part / whole, 1.0)


def total(counts: Iterable[Count]) -> int:
    """The sum of what is told of counts: at least so many."""
    return sum(count or 0 for count in counts)
