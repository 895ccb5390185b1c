"""Rule 21, the instants of a schedule, as tables that a clinician can check by eye: part of the page docs/time.md.

Each `Spec` says when is asked, in UTC and by the clocks of the zone, and as of when is answered. `test_schedules.py`
runs the tables; `evidence.py` writes the page.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """A serving, and the instants that it moves back. `zone` is whose clocks are shown."""

    title: str
    text: str
    serving: str
    zone: str
    asked: str


SPECS = (
    Spec(
        "A schedule answers with what it answered last",
        "A model that is fed at two in the morning does not know the noon result. Asked at the very instant, the new "
        "answer is there.",
        "daily@02:00 Europe/Berlin",
        "Europe/Berlin",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2024-03-05 00:59:59 | 2024-03-05 01:59:59 | 2024-03-04 01:00:00  | 2024-03-04 02:00:00
        2024-03-05 01:00:00 | 2024-03-05 02:00:00 | 2024-03-05 01:00:00  | 2024-03-05 02:00:00
        2024-03-05 12:00:00 | 2024-03-05 13:00:00 | 2024-03-05 01:00:00  | 2024-03-05 02:00:00
        2024-07-05 12:00:00 | 2024-07-05 14:00:00 | 2024-07-05 00:00:00  | 2024-07-05 02:00:00
        """,
    ),
    Spec(
        "A local time that is skipped is answered at the first valid instant after it",
        "On 31 March 2024 clocks in Berlin go from 01:59:59 to 03:00:00.",
        "daily@02:30 Europe/Berlin",
        "Europe/Berlin",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2024-03-31 00:59:59 | 2024-03-31 01:59:59 | 2024-03-30 01:30:00  | 2024-03-30 02:30:00
        2024-03-31 01:00:00 | 2024-03-31 03:00:00 | 2024-03-31 01:00:00  | 2024-03-31 03:00:00
        2024-04-01 00:30:00 | 2024-04-01 02:30:00 | 2024-04-01 00:30:00  | 2024-04-01 02:30:00
        """,
    ),
    Spec(
        "A local time that occurs twice is answered once, the first time",
        "On 27 October 2024 clocks in Berlin go from 02:59:59 back to 02:00:00.",
        "daily@02:30 Europe/Berlin",
        "Europe/Berlin",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2024-10-27 00:29:59 | 2024-10-27 02:29:59 | 2024-10-26 00:30:00  | 2024-10-26 02:30:00
        2024-10-27 00:30:00 | 2024-10-27 02:30:00 | 2024-10-27 00:30:00  | 2024-10-27 02:30:00
        2024-10-27 01:30:00 | 2024-10-27 02:30:00 | 2024-10-27 00:30:00  | 2024-10-27 02:30:00
        2024-10-28 01:29:59 | 2024-10-28 02:29:59 | 2024-10-27 00:30:00  | 2024-10-27 02:30:00
        """,
    ),
    Spec(
        "So an hourly schedule waits two hours when clocks go back",
        "Its local times are those of the day, each once: 02:15 is not answered again. `hourly@:15 UTC` never waits.",
        "hourly@:15 Europe/Berlin",
        "Europe/Berlin",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2024-10-27 00:20:00 | 2024-10-27 02:20:00 | 2024-10-27 00:15:00  | 2024-10-27 02:15:00
        2024-10-27 01:20:00 | 2024-10-27 02:20:00 | 2024-10-27 00:15:00  | 2024-10-27 02:15:00
        2024-10-27 02:20:00 | 2024-10-27 03:20:00 | 2024-10-27 02:15:00  | 2024-10-27 03:15:00
        """,
    ),
    Spec(
        "A whole day can be skipped",
        "Samoa went from Thursday 29 to Saturday 31 December 2011.",
        "weekly@Fri 02:00 Pacific/Apia",
        "Pacific/Apia",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2011-12-30 09:59:59 | 2011-12-29 23:59:59 | 2011-12-23 12:00:00  | 2011-12-23 02:00:00
        2011-12-30 10:00:00 | 2011-12-31 00:00:00 | 2011-12-30 10:00:00  | 2011-12-31 00:00:00
        2012-01-05 12:00:00 | 2012-01-06 02:00:00 | 2012-01-05 12:00:00  | 2012-01-06 02:00:00
        """,
    ),
    Spec(
        "A lag is a fixed time, whatever clocks do",
        "As of six hours ago.",
        "lag 6h",
        "Europe/Berlin",
        """
        asked at (UTC)      | asked at (local)    | answered as of (UTC) | answered as of (local)
        2024-03-31 05:00:00 | 2024-03-31 07:00:00 | 2024-03-30 23:00:00  | 2024-03-31 00:00:00
        """,
    ),
)
