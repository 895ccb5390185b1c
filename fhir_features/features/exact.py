"""Sums that do not depend on the order of rows: decimals of 15 places, added as whole numbers.

In go doubles of at most `MAGNITUDE`; out come their totals over ranges. 15 decimals keep doubles of clinical size as
they were written, so that 0.1 + 0.2 is 0.3 and the mean of equal values is that value.
"""

from __future__ import annotations

import numpy as np

from fhir_features.features.arrays import Array

MAGNITUDE = 1e17

_SCALE = 1e15
_WORD = 2.0**32
_MASK = (1 << 32) - 1


def limbs(values: Array) -> tuple[Array, Array, Array]:
    """Each value times 10^15, rounded, as high * 2^64 + middle * 2^32 + low.

    The limbs are small enough that a million rows of the largest value add up within 63 bits.
    """
    scaled = np.rint(values * _SCALE)
    high = np.floor(scaled / _WORD**2)
    rest = scaled - high * _WORD**2
    middle = np.floor(rest / _WORD)
    return high.astype(np.int64), middle.astype(np.int64), (rest - middle * _WORD).astype(np.int64)


def as_doubles(high: Array, middle: Array, low: Array, counts: Array | int = 1) -> Array:
    """Totals of limbs as doubles, divided by `counts`; division by 0 gives any value."""
    negative = high < 0
    high, middle, low = (np.where(negative, -limb, limb) for limb in (high, middle, low))
    middle = middle + (low >> 32)
    high = high + (middle >> 32)
    scaled = high * _WORD**2 + (((middle & _MASK).astype(np.uint64) << np.uint64(32)) + (low & _MASK).astype(np.uint64))
    with np.errstate(all="ignore"):
        return np.where(negative, -scaled, scaled) / counts / _SCALE
