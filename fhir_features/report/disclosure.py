"""Which counts may leave the warehouse on a page? In goes a count, and of how many patients it is; out comes what may
be told of it. Small and boring, and on by default: a count of few patients can tell who they are.

The rules are those of OpenSAFELY: few are not told, and the rest is rounded, so that no difference tells them either
(https://github.com/opensafely-core/ehrql, measures/disclosure_control.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fhir_features.errors import UsageError

SUPPRESS_BELOW = 10
_ROUND_TO = 5

# A count as it may be told. None: there are some, but too few to say how many.
Count = int | None

Part = TypeVar("Part", bound=Hashable)


@dataclass(frozen=True)
class Disclosure:
    """What may be told of counts: nothing of fewer than `suppress_below`, and of others the nearest multiple of 5.

    With `suppress_below` at most 1, every count is told as it is.
    """

    suppress_below: int = SUPPRESS_BELOW

    def __post_init__(self) -> None:
        if self.suppress_below < 0 or 1 < self.suppress_below < _ROUND_TO:
            raise UsageError(
                f"the smallest count that is told is {_ROUND_TO} or more, as smaller ones can be guessed, "
                "or 0, which tells every count as it is"
            )

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
        return max((number + _ROUND_TO // 2) // _ROUND_TO, 1) * _ROUND_TO

    def parts(self, counts: Mapping[Part, tuple[int, int]]) -> dict[Part, Count]:
        """What may be told of the parts of a whole that is told, too: of each a number, and of how many patients it is.

        Rounding hides a few things of few patients from who subtracts, not many things of few patients. So where what
        is not told comes to `suppress_below` or more, the smallest part that could be told is not told either.
        """
        told = {part: self.count(*count) for part, count in counts.items()}
        untold = sum(counts[part][0] for part, count in told.items() if count is None)
        if untold and untold >= self.suppress_below:
            _hide_smallest(told, counts)
        return told

    def division(self, patients: Mapping[Part, int], beside: Sequence[int] = ()) -> dict[Part, Count]:
        """What may be told of how patients are divided, whose whole number is told, and `beside` that of other parts.

        Where few are told exactly by subtraction (13 and 13 are told as 15 and 15; if all are told as 25, then 1 is
        left), the smallest part that could be told is not told either; where nothing is told, so are no parts.
        """
        everybody = sum(patients.values()) + sum(beside)
        if self.tells_all:
            return dict(patients)
        # 18 of whom neither half may be told are 9 and 9.
        if sum(patients.values()) < 2 * self.suppress_below:
            return {}
        told = {part: self.count(number) for part, number in patients.items()}
        others = [self.count(number) for number in beside]
        hidden_more = False
        while self._is_given_away(self.count(everybody), [*told.values(), *others], hidden_more):
            hidden_more = _hide_smallest(told, patients)
            if not hidden_more:
                break
        return told if any(told.values()) else {}

    def _is_given_away(self, whole: Count, parts: Sequence[Count], hidden_more: bool) -> bool:
        """Whether a part that is not told can but be one number; `hidden_more`: it may be any that is not few."""
        untold = sum(part is None for part in parts)
        if not untold or whole is None:
            return False
        least, most = self._range(whole)
        told = [self._range(part) for part in parts if part]
        rest = least - sum(high for _, high in told), most - sum(low for low, _ in told)
        fewest = 1 if hidden_more else max(1, rest[0] - (untold - 1) * (self.suppress_below - 1))
        return fewest >= min(self.suppress_below - 1, rest[1] - (untold - 1))

    def _range(self, told: int) -> tuple[int, int]:
        """The least and the most that is told as this number."""
        return max(told - _ROUND_TO // 2, self.suppress_below), told + _ROUND_TO // 2

    def may_tell(self, patients: int) -> bool:
        """Whether something that so many patients have in common, such as a code, may be told."""
        return patients >= self.suppress_below

    def quantile(self, value: float | None, share: float, number: int) -> float | None:
        """A quantile, if enough values lie on either side of it; to three digits, as no patient's value is meant."""
        if value is None or (not self.tells_all and number * min(share, 1 - share) < self.suppress_below):
            return None
        return float(f"{value:.3g}")


def _hide_smallest(told: dict[Part, Count], counts: Mapping[Part, Any]) -> bool:
    """Let the smallest part that is told be told no more; whether there was one."""
    could_be = [part for part, count in told.items() if count]
    if could_be:
        told[min(could_be, key=lambda part: counts[part])] = None
    return bool(could_be)


def share(part: Count, whole: Count) -> float | None:
    """The share of two counts as they are told, between 0 and 1; None where one of them is not, or there is nothing."""
    return None if part is None or not whole else min(part / whole, 1.0)


def total(counts: Iterable[Count]) -> int:
    """The sum of what is told of counts: at least so many."""
    return sum(count or 0 for count in counts)


def sum_told(counts: Iterable[Count]) -> Count:
    """The sum of what is told of counts, if anything is: at least so many."""
    known = list(counts)
    return None if None in known and not any(known) else total(known)
