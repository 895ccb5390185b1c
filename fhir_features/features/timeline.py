"""Instants that ascend within each person, and where among a person's own another instant falls.

In go the instants of all persons of a pass, one person after the other, and where each person's begin; out come places.
"""

from __future__ import annotations

import numpy as np

from fhir_features.features.arrays import Array

_LARGEST = np.iinfo(np.int64).max
# Later than the year 9999, and early enough to be told apart from the year 1 within one number.
_FOREVER = 1 << 60


class Timeline:
    """The instants of persons 0, 1, …: those of person p lie from `starts[p]` up to `starts[p + 1]`."""

    def __init__(self, instants: Array, starts: Array) -> None:
        self._starts = starts
        instants = np.minimum(instants, _FOREVER)
        self._low, self._high = (int(instants.min()), int(instants.max())) if len(instants) else (0, 0)
        # Person and instant are one number, so that one bisection finds both; persons go together as far as it fits.
        self._span = self._high - self._low + 2
        self._together = min(len(starts), max(1, _LARGEST // self._span - 1))
        owner = np.repeat(np.arange(len(starts) - 1) % self._together, np.diff(starts))
        self._keys = owner * self._span + (instants - self._low + 1)

    def first_after(self, person: Array, instants: Array) -> Array:
        """For each person (ascending) and instant the first of the person's places that is later, else the end."""
        clipped = np.clip(instants, self._low - 1, self._high) - self._low + 1
        wanted = (person % self._together).astype(np.int64) * self._span + clipped
        places = np.empty(len(person), np.int64)
        for first in range(0, len(self._starts) - 1, self._together):
            after = min(first + self._together, len(self._starts) - 1)
            begin, end = np.searchsorted(person, (first, after))
            low, high = self._starts[first], self._starts[after]
            places[begin:end] = low + np.searchsorted(self._keys[low:high], wanted[begin:end], "right")
        return places
