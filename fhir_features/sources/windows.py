"""At which instants is a search cut, so that each part of it can be read to its end? Some servers end every search
after so many resources, or forget a search before it was read. In: how many resources were last updated in an interval,
as a function that asks the server, and how many can be read at once. Out: the cuts, in their order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from fhir_features.times import UTC

# No FHIR server is older, so nothing on one was last updated before.
_FIRST = dt.datetime(2000, 1, 1, tzinfo=UTC)
_SECOND = dt.timedelta(seconds=1)

# How many resources were last updated in [from, to); None is without a bound, or that the server does not count.
Count = Callable[[dt.datetime | None, dt.datetime | None], int | None]


def cuts(count: Count, since: dt.datetime | None, until: dt.datetime, most: int) -> list[dt.datetime]:
    """Instants (UTC) between which at most so many resources were last updated, as far as whole seconds can do that.

    Empty when the server does not count, or does not heed the bounds.
    """
    if count(None, _FIRST) != 0:
        return []
    begin = since or _FIRST
    return _cuts(count, begin, until, count(begin, None) or 0, most)


def _cuts(count: Count, begin: dt.datetime, end: dt.datetime, resources: int, most: int) -> list[dt.datetime]:
    # In a loop where one half is empty, so that empty intervals get no window of their own.
    while resources > most and end - begin > _SECOND:
        middle = (begin + (end - begin) / 2).replace(microsecond=0)
        if middle <= begin:
            middle = begin.replace(microsecond=0) + _SECOND
        earlier = count(begin, middle) or 0
        if earlier == 0:
            begin = middle
        elif earlier >= resources:
            end = middle
        else:
            later = _cuts(count, middle, end, resources - earlier, most)
            return [*_cuts(count, begin, middle, earlier, most), middle, *later]
    return []
