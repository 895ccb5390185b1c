"""The rules of versions, evidence and instants as tables that a clinician can check by eye: tests and docs/time.md in one.

Each `Spec` says what arrives, one line a resource version, and what is known of it when asked. Run this file to write
docs/time.md; `test_evidence.py` runs the tables and fails when the page is stale.

All times are of March 2024 in UTC, written `day hour:minute`, unless a table says otherwise. `-` is nothing.
"""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schedules

PAGE = Path(__file__).parents[2] / "docs" / "time.md"


@dataclass(frozen=True)
class Spec:
    """One rule: what arrives and what is then known. `source` is what the source's configuration says; with `history`,
    it is asked by the histories of its types what happened since 1 March."""

    rule: str
    title: str
    text: str
    arrives: str
    known: str
    source: dict[str, Any] = field(default_factory=dict)
    history: bool = False


# The settings that tables tell of, in one source, so that they are tested at the cost of one.
_TUNED = {
    "timezone": "Europe/Berlin",
    "bedside_lag": "10min",
    "coding_lag": "2d",
    "condition_category": "encounter-diagnosis",
    "midnight_is_date": True,
    "own_systems": ["https://north.example/ehr"],
    "migrated_before": {"Observation/procedure": "2024-03-10T00:00:00Z"},
    "tolerance": {"Observation/laboratory": "3d"},
    "trust_last_updated": {"Observation/activity": False},
    "known_at": {
        "Observation/exam": "server",
        "Observation/therapy": "received",
        "Observation/survey": "reported",
        "Observation/imaging": "latest",
    },
}

SPECS = (
    Spec(
        "6",
        "What a history has began when it says",
        "The server was read before, and its history since then is asked for: both versions are witnessed, the first too, "
        "though it was filed two hours after it was issued.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        20 00:00 | Observation | 2       | 7 10:30     | corrected | 5 08:00 | 5 14:00 | 6.1
        20 00:00 | Observation | 1       | 5 16:00     | final     | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 15:59  | -
        5 16:00  | 7.5
        7 10:29  | 7.5
        7 10:30  | 6.1
        """,
        history=True,
    ),
    Spec(
        "6",
        "Versions of one instant stand in the order of the history",
        "A history lists the newest first; versionIds that are no numbers say nothing.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        20 00:00 | Observation | a7      | 5 16:00     | corrected | 5 08:00 | 5 14:00 | 6.1
        20 00:00 | Observation | e2      | 5 16:00     | final     | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 15:59  | -
        5 16:00  | 6.1
        """,
        history=True,
    ),
    Spec(
        "6",
        "A history says when a result was deleted",
        "It was known until then, and not until the deletion was read.",
        """
        received | resource    | version | lastUpdated | status  | drawn   | issued  | value
        20 00:00 | Observation | -       | 7 10:30     | DELETED | -       | -       | -
        20 00:00 | Observation | 1       | 5 14:00     | final   | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        7 10:29  | 7.5
        7 10:30  | -
        """,
        history=True,
    ),
    Spec(
        "6",
        "An older version that comes late proves when the newer one began",
        "The second version was taken for known since it was issued, as nothing spoke against it. The first, which comes "
        "two days later, shows that this was a snapshot: from then on the store answers as if it had come first.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        8 00:00  | Observation | 2       | 6 10:30     | final  | 5 08:00 | 5 14:00 | 6.1
        10 00:00 | Observation | 1       | 5 14:00     | final  | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 14:00  | 7.5
        6 10:29  | 7.5
        6 10:30  | 6.1
        """,
    ),
    Spec(
        "7",
        "A correction is known when the server has it",
        "Drawn at 08:00, reported at 14:00, corrected on the 7th. The first version was seen before the second came, "
        "so the second is witnessed: it is known from its lastUpdated, and closes the first then.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 14:00     | final     | 5 08:00 | 5 14:00 | 7.5
        8 00:00  | Observation | 2       | 7 10:30     | corrected | 5 08:00 | 5 14:00 | 6.1
        """,
        """
        asked at | known
        5 13:59  | -
        5 14:00  | 7.5
        7 10:29  | 7.5
        7 10:30  | 6.1
        """,
    ),
    Spec(
        "7",
        "Versions are put in order by lastUpdated, not by arrival",
        "An older version that arrives after a newer one does not win.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        8 00:00  | Observation | 2       | 7 10:30     | corrected | 5 08:00 | 5 14:00 | 6.1
        9 00:00  | Observation | 1       | 5 14:00     | final     | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 14:00  | 7.5
        7 10:30  | 6.1
        9 12:00  | 6.1
        """,
    ),
    Spec(
        "7",
        "The same version twice is one version",
        "Overlapping pulls bring what is already held.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 14:00     | final  | 5 08:00 | 5 14:00 | 7.5
        6 15:00  | Observation | 1       | 5 14:00     | final  | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 14:00  | 7.5
        6 15:00  | 7.5
        """,
    ),
    Spec(
        "7",
        "Without versionId and lastUpdated, A, B, A are three versions",
        "Content equal to the latest held is a duplicate; content that returns is not. Each is known from its receipt.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        5 15:00  | Observation | -       | -           | final  | 5 08:00 | 5 14:00 | 7.5
        6 15:00  | Observation | -       | -           | final  | 5 08:00 | 5 14:00 | 7.5
        7 15:00  | Observation | -       | -           | final  | 5 08:00 | 5 14:00 | 6.1
        8 15:00  | Observation | -       | -           | final  | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 14:00  | 7.5
        6 15:00  | 7.5
        7 15:00  | 6.1
        8 15:00  | 7.5
        """,
    ),
    Spec(
        "8",
        "A snapshot is known from when it was issued",
        "Seen for the first time, long after: nothing says that its content is younger than its author time.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        20 00:00 | Observation | -       | -           | final  | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 13:59  | -
        5 14:00  | 7.5
        """,
    ),
    Spec(
        "8",
        "A corrected snapshot is not known before the correction",
        "The first value was never seen. That the corrected one was known on the 5th would be a lie.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        20 00:00 | Observation | 3       | 7 10:30     | corrected | 5 08:00 | 5 14:00 | 6.1
        """,
        """
        asked at | known
        5 14:00  | -
        7 10:29  | -
        7 10:30  | 6.1
        """,
    ),
    Spec(
        "8",
        "A snapshot that was touched long after it was issued is suspected",
        "lastUpdated is later than issued by more than the tolerance of one day.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        20 00:00 | Observation | 3       | 9 10:30     | final  | 5 08:00 | 5 14:00 | 6.1
        """,
        """
        asked at | known
        5 14:00  | -
        9 10:30  | 6.1
        """,
    ),
    Spec(
        "8",
        "Within the tolerance it is not",
        "An interface that files results some hours later is no sign of a change.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        20 00:00 | Observation | 3       | 6 10:30     | final  | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 14:00  | 7.5
        """,
    ),
    Spec(
        "9",
        "An order counts as ordered until its end was known",
        "A stopped order, seen for the first time: when it was stopped is not in it, so it is stopped from lastUpdated.",
        """
        received | resource          | version | lastUpdated | status  | authored
        20 00:00 | MedicationRequest | 4       | 9 10:30     | stopped | 5 08:00
        """,
        """
        asked at | known
        5 07:59  | -
        5 08:00  | active
        9 10:30  | stopped
        """,
    ),
    Spec(
        "9",
        "A condition counts as present until its resolution was known",
        "Recorded on the 5th, over on the 9th; the server heard of that on the 12th. The code may be as young as "
        "lastUpdated, more than a day after the recording, so nothing of it is known before.",
        """
        received | resource  | version | lastUpdated | recorded | onset   | abated  | status
        20 00:00 | Condition | -       | -           | 5 08:00  | 4 00:00 | 9 00:00 | resolved
        """,
        """
        asked at | known
        5 07:59  | -
        5 08:00  | active
        9 00:00  | active
        19 00:00 | active
        20 00:00 | resolved
        """,
    ),
    Spec(
        "9",
        "A condition that was touched late is not known before",
        "Its code is revised in place too, and lastUpdated is more than the tolerance after the recording.",
        """
        received | resource  | version | lastUpdated | recorded | onset   | abated  | status
        20 00:00 | Condition | 5       | 12 10:00    | 5 08:00  | 4 00:00 | 9 00:00 | resolved
        """,
        """
        asked at | known
        5 08:00  | -
        12 09:59 | -
        12 10:00 | resolved
        """,
    ),
    Spec(
        "9",
        "An encounter is in progress until its end was known",
        "Admitted on the 5th, discharged on the 8th, the server's record of the end is of the 9th.",
        """
        received | resource  | version | lastUpdated | start   | end     | status
        20 00:00 | Encounter | 7       | 9 06:00     | 5 08:00 | 8 12:00 | finished
        """,
        """
        asked at | known
        5 07:59  | -
        5 08:00  | in-progress
        8 12:00  | in-progress
        9 06:00  | finished
        """,
    ),
    Spec(
        "9",
        "A death is known from when it was written down",
        "Birth date and sex are of always; deceasedDateTime does not say when it was recorded.",
        """
        received | resource | version | lastUpdated | born       | deceased
        20 00:00 | Patient  | 3       | 10 09:00    | 1960-05-04 | 6 03:00
        """,
        """
        asked at         | known
        1990-01-01 00:00 | alive
        6 03:00          | alive
        10 08:59         | alive
        10 09:00         | deceased
        """,
    ),
    Spec(
        "10",
        "What is reported is known when it was written down here",
        "An order that the patient reports was authored elsewhere.",
        """
        received | resource          | version | lastUpdated | status | authored | reported
        20 00:00 | MedicationRequest | 1       | 9 10:30     | active | 1 08:00  | true
        """,
        """
        asked at | known
        1 08:00  | -
        9 10:30  | active
        """,
    ),
    Spec(
        "10",
        "What another system sent is known when it was written down here",
        "A Provenance names a transmitter: the laboratory's `issued` was not ours.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | about          | agent       | recorded
        20 00:00 | Provenance  | -       | -           | -      | -       | -       | -     | Observation/ID | transmitter | 6 09:00
        20 00:00 | Observation | 1       | 6 09:30     | final  | 5 08:00 | 5 14:00 | 7.5   | -              | -           | -
        """,
        """
        asked at | known
        5 14:00  | -
        6 09:00  | -
        6 09:30  | 7.5
        """,
    ),
    Spec(
        "10",
        "Another system in meta.source sent it, too",
        'The source says `own_systems = ["https://north.example/ehr"]`; what follows `#` in meta.source names a request.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category   | system
        20 00:00 | Observation | 1       | 6 09:30     | final  | 5 08:00 | 5 14:00 | 7.5   | laboratory | https://north.example/ehr#17
        20 00:00 | Observation | 1       | 6 09:30     | final  | 5 08:00 | 5 14:00 | 3     | laboratory | https://south.example/ehr#18
        """,
        """
        asked at | known
        5 14:00  | 7.5
        6 09:30  | 3.0, 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "lastUpdated before a migration means nothing",
        'Until the 10th the server copied old records in: `migrated_before = { "Observation/procedure" = 2024-03-10T00:00:00Z }`.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category
        20 00:00 | Observation | 1       | 9 23:00     | final  | 5 08:00 | 5 14:00 | 7.5 | procedure
        """,
        """
        asked at | known
        5 14:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "Each category can have a tolerance of its own",
        'Results of the laboratory are filed within three days: `tolerance = { "Observation/laboratory" = "3d" }`.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category
        20 00:00 | Observation | 1       | 7 14:00     | final  | 5 08:00 | 5 14:00 | 7.5   | laboratory
        20 00:00 | Observation | 1       | 7 14:00     | final  | 5 08:00 | 5 14:00 | 3     | other
        """,
        """
        asked at | known
        5 14:00  | 7.5
        7 14:00  | 3.0, 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "Each type and category can be trusted by itself",
        'An interface writes results with its own clock: `trust_last_updated = { "Observation/activity" = false }`. The corrected '
        "result is known from its receipt, the order from its author time until the server says that it was stopped.",
        """
        received | resource          | version | lastUpdated | status    | drawn   | issued  | value | authored | category
        20 00:00 | Observation       | 3       | 7 10:30     | corrected | 5 08:00 | 5 14:00 | 6.1   | - | activity
        20 00:00 | MedicationRequest | 4       | 9 10:30     | stopped   | -       | -       | -     | 5 08:00 | -
        """,
        """
        asked at | known
        7 10:30  | active
        9 10:30  | stopped
        20 00:00 | 6.1, stopped
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "The policy `server` goes by lastUpdated alone",
        '`known_at = { "Observation/exam" = "server" }`: for results whose `issued` cannot be trusted.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category
        20 00:00 | Observation | 1       | 5 18:00     | final  | 5 08:00 | 5 14:00 | 7.5 | exam
        """,
        """
        asked at | known
        5 14:00  | -
        5 18:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "The policy `received` goes by receipt alone",
        '`known_at = { "Observation/therapy" = "received" }`: known is what we hold.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category
        20 00:00 | Observation | 1       | 5 18:00     | final  | 5 08:00 | 5 14:00 | 7.5 | therapy
        """,
        """
        asked at | known
        5 18:00  | -
        20 00:00 | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "The policy `reported` believes the author time, and marks what nothing supports",
        '`known_at = { "Observation/survey" = "reported" }`: without `issued`, the time of drawing is assumed to be the time of knowing.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued | value | category
        20 00:00 | Observation | 1       | 9 18:00     | final  | 5 08:00 | -      | 7.5 | survey
        """,
        """
        asked at | known
        5 07:59  | -
        5 08:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "11",
        "The policy `latest` goes by the latest of what is there",
        'Issued at 14:00, last updated at 20:00; the source says `known_at = { "Observation/imaging" = "latest" }`.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value | category
        20 00:00 | Observation | 1       | 5 20:00     | final  | 5 08:00 | 5 14:00 | 7.5   | imaging
        """,
        """
        asked at | known
        5 19:59  | -
        5 20:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "12",
        "Nothing is known later than we hold it",
        "A server whose clock is ahead.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 16:00     | final  | 5 08:00 | 5 16:00 | 7.5
        """,
        """
        asked at | known
        5 14:59  | -
        5 15:00  | 7.5
        """,
    ),
    Spec(
        "13",
        "A withdrawn result is known no more",
        "entered-in-error closes what stood before.",
        """
        received | resource    | version | lastUpdated | status           | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 14:00     | final            | 5 08:00 | 5 14:00 | 7.5
        9 00:00  | Observation | 2       | 8 17:00     | entered-in-error | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        8 16:59  | 7.5
        8 17:00  | withdrawn
        """,
    ),
    Spec(
        "13",
        "A deleted result is known no more, and can come back",
        "A deletion without a time is known from its receipt.",
        """
        received | resource    | version | lastUpdated | status  | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 14:00     | final   | 5 08:00 | 5 14:00 | 7.5
        8 17:00  | Observation | -       | -           | DELETED | -       | -       | -
        9 17:00  | Observation | 3       | 9 12:00     | final   | 5 08:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        8 16:59  | 7.5
        8 17:00  | -
        9 12:00  | 7.5
        """,
    ),
    Spec(
        "13",
        "What cannot be read still closes what stood before",
        "The second version has a text where its value should be: it goes to the quarantine, and the first does not live on.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value
        5 15:00  | Observation | 1       | 5 14:00     | final     | 5 08:00 | 5 14:00 | 7.5
        9 00:00  | Observation | 2       | 8 17:00     | corrected | 5 08:00 | 5 14:00 | "high"
        """,
        """
        asked at | known
        8 16:59  | 7.5
        8 17:00  | -
        """,
    ),
    Spec(
        "13",
        "A result that moves to another patient leaves the first",
        "Filed under this patient by mistake; the second version has the right one.",
        """
        received | resource    | version | lastUpdated | status    | drawn   | issued  | value | subject
        5 15:00  | Observation | 1       | 5 14:00     | final     | 5 08:00 | 5 14:00 | 7.5   | -
        9 00:00  | Observation | 2       | 8 17:00     | corrected | 5 08:00 | 5 14:00 | 7.5   | another
        """,
        """
        asked at | known
        8 16:59  | 7.5
        8 17:00  | -
        """,
    ),
    Spec(
        "14",
        "Known before it was true stays as it came",
        "Issued two hours before it was drawn, says the source: kept, flagged and counted.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued  | value
        20 00:00 | Observation | -       | -           | final  | 5 16:00 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        5 13:59  | -
        5 14:00  | 7.5
        """,
    ),
    Spec(
        "C",
        "A result without issued is known when a report that names it was issued",
        "A DiagnosticReport names the Observation in its `result`.",
        """
        received | resource         | version | lastUpdated | status | drawn   | issued  | value
        20 00:00 | DiagnosticReport | -       | -           | final  | -       | 5 16:00 | -
        20 00:00 | Observation      | -       | -           | final  | 5 08:00 | -       | 7.5
        """,
        """
        asked at | known
        5 15:59  | -
        5 16:00  | 7.5
        """,
    ),
    Spec(
        "C",
        "A report of a panel reports what the panel has",
        "The DiagnosticReport names the panel, and the panel its members in `hasMember`.",
        """
        received | resource         | version | lastUpdated | status | drawn   | issued  | value | category   | result | members
        20 00:00 | DiagnosticReport | -       | -           | final  | -       | 5 16:00 | -     | -          | ID-1   | -
        20 00:00 | Observation      | -       | -           | final  | 5 08:00 | -       | -     | laboratory | -      | ID-2
        20 00:00 | Observation      | -       | -           | final  | 5 08:00 | -       | 7.5   | laboratory | -      | -
        """,
        """
        asked at | known
        5 15:59  | -
        5 16:00  | 7.5
        """,
    ),
    Spec(
        "C",
        "A vital sign is known at the bedside",
        "vital-signs are a bedside category unless the source says otherwise: known at the effective end when there is no issued.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued | value | category
        20 00:00 | Observation | -       | -           | final  | 5 08:00 | -      | 37.2  | vital-signs
        20 00:00 | Observation | -       | -           | final  | 6 08:00 | -      | 7.5   | laboratory
        """,
        """
        asked at | known
        5 08:00  | 37.2
        6 08:00  | 37.2
        20 00:00 | 37.2, 7.5
        """,
    ),
    Spec(
        "C",
        "A bedside category can have a lag",
        'A measurement is charted ten minutes after it: `bedside_lag = "10min"`.',
        """
        received | resource    | version | lastUpdated | status | drawn   | issued | value | category
        20 00:00 | Observation | -       | -           | final  | 5 08:00 | -      | 37.2  | vital-signs
        """,
        """
        asked at | known
        5 08:09  | -
        5 08:10  | 37.2
        """,
        _TUNED,
    ),
    Spec(
        "C",
        "Discharge diagnoses can be coded later, and can be what has no category",
        'The coders take two days, and write no category: `coding_lag = "2d"`, `condition_category = '
        '"encounter-diagnosis"`.',
        """
        received | resource  | version | lastUpdated | start   | end     | status   | recorded | onset   | encounter
        20 00:00 | Encounter | -       | -           | 5 08:00 | 8 12:00 | finished | -        | -       | -
        20 00:00 | Condition | -       | -           | -       | -       | active   | 5 08:00  | 5 08:00 | yes
        """,
        """
        asked at | known
        10 11:59 | in-progress
        10 12:00 | active, in-progress
        """,
        _TUNED,
    ),
    Spec(
        "C",
        "A discharge diagnosis is coded after discharge",
        "Its recordedDate is the admission's, as in the Synthea sample; it is known from the end of its encounter.",
        """
        received | resource  | version | lastUpdated | start   | end     | status   | recorded | onset   | category            | encounter
        20 00:00 | Encounter | -       | -           | 5 08:00 | 8 12:00 | finished | -        | -       | -                   | -
        20 00:00 | Condition | -       | -           | -       | -       | active   | 5 08:00  | 5 08:00 | encounter-diagnosis | yes
        """,
        """
        asked at | known
        5 08:00  | in-progress
        8 11:59  | in-progress
        8 12:00  | active, in-progress
        """,
    ),
    Spec(
        "C",
        "A diagnosis of an encounter is known earlier where a Provenance says so",
        "It was recorded on the 6th, during the stay.",
        """
        received | resource   | version | lastUpdated | start   | end     | status   | recorded | onset   | category            | encounter | about          | agent
        20 00:00 | Encounter  | -       | -           | 5 08:00 | 8 12:00 | finished | -        | -       | -                   | -         | -              | -
        20 00:00 | Condition  | -       | -           | -       | -       | active   | 5 08:00  | 5 08:00 | encounter-diagnosis | yes       | -              | -
        20 00:00 | Provenance | -       | -           | -       | -       | -        | 6 10:00  | -       | -                   | -         | Condition/ID-1 | author
        """,
        """
        asked at | known
        6 09:59  | in-progress
        6 10:00  | active, in-progress
        """,
    ),
    Spec(
        "C",
        "An admission diagnosis is known from when it was recorded",
        "The encounter names it with the use AD.",
        """
        received | resource   | version | lastUpdated | start   | end     | status   | recorded | onset   | category            | encounter | admission
        20 00:00 | Encounter  | -       | -           | 5 08:00 | 8 12:00 | finished | -        | -       | -                   | -         | ID-1
        20 00:00 | Condition  | -       | -           | -       | -       | active   | 5 09:00  | 5 08:00 | encounter-diagnosis | yes       | -
        """,
        """
        asked at | known
        5 08:59  | in-progress
        5 09:00  | active, in-progress
        """,
    ),
    Spec(
        "18",
        "A day that does not exist is not guessed",
        "The result goes to the quarantine.",
        """
        received | resource    | version | lastUpdated | status | drawn      | issued  | value
        20 00:00 | Observation | -       | -           | final  | 2024-02-30 | 5 14:00 | 7.5
        """,
        """
        asked at | known
        20 00:00 | -
        """,
    ),
    Spec(
        "19",
        "Midnight can mean the day",
        "The source writes 00:00:00 where it has only the date: `midnight_is_date = true`.",
        """
        received | resource    | version | lastUpdated | status | drawn   | issued               | value
        20 00:00 | Observation | -       | -           | final  | 4 08:00 | 2024-03-05T00:00:00Z | 7.5
        """,
        """
        asked at | known
        5 23:59  | -
        6 00:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "19",
        "A day is an interval: true from its first instant, known from its last",
        "Issued some time on the 5th.",
        """
        received | resource    | version | lastUpdated | status | drawn      | issued     | value
        20 00:00 | Observation | -       | -           | final  | 2024-03-05 | 2024-03-05 | 7.5
        """,
        """
        asked at | known
        5 23:59  | -
        6 00:00  | 7.5
        """,
    ),
    Spec(
        "20",
        "A time without an offset is in the source's time zone",
        "The source is in Berlin, an hour ahead of UTC in March.",
        """
        received | resource    | version | lastUpdated | status | drawn               | issued              | value
        20 00:00 | Observation | -       | -           | final  | 2024-03-05T08:00:00 | 2024-03-05T14:00:00 | 7.5
        """,
        """
        asked at | known
        5 12:59  | -
        5 13:00  | 7.5
        """,
        _TUNED,
    ),
    Spec(
        "20",
        "A time that occurs twice is known at its second occurrence",
        "On 27 October 2024 clocks in Berlin go back: 02:30 is 00:30 and 01:30 UTC.",
        """
        received         | resource    | version | lastUpdated | status | drawn               | issued              | value
        2024-12-01 00:00 | Observation | -       | -           | final  | 2024-10-27T02:30:00 | 2024-10-27T02:30:00 | 7.5
        """,
        """
        asked at         | known
        2024-10-27 01:29 | -
        2024-10-27 01:30 | 7.5
        """,
        _TUNED,
    ),
)


CHOICES = """
## Where the rules leave a choice

- **Nothing says when it was true.** A row without any time of its own counts as true from when it was known
  (`effective_precision` is `derived`).
- **The code of a condition.** A snapshot without lastUpdated shows its code from its author time: a condition that
  counts as present must be present as something. Where lastUpdated is late, the code may be as young, and nothing of
  the condition is known before.
- **A withdrawal seen first.** The first sight of a cancelled or entered-in-error resource is known from lastUpdated or
  receipt, as a correction is: a withdrawal is later than what it withdraws.
- **Versions that do not say when they began** stand where they were received, among those that do.
- **An older version that comes late** makes the snapshot after it a witnessed version. What was on record of the
  snapshot stays there, closed as early as it was known, and a row that states it anew (`~witnessed` behind its version)
  counts: the order in which runs come changes no answer. What the store said before is found under its `store_seq`.
- **Which drug was ordered** was known with the order, even where the Medication that it points to was pulled later.
- **Several sources of one site.** A site has been seen up to the least watermark of its servers; a folder is whole
  whenever it is read and holds nothing back.
- **A patient without a birth date** is known from 1900.
"""


def table(text: str) -> list[dict[str, str]]:
    """The lines of a table as dictionaries; `-` is an empty text."""
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return [
        {name: "" if cell == "-" else cell for name, cell in zip(lines[0], line, strict=True)} for line in lines[1:]
    ]


def instant(text: str) -> dt.datetime:
    """`5 14:00` (of March 2024) or `2024-12-01 00:00`, in UTC."""
    if "-" not in text:
        day, time = text.split()
        text = f"2024-03-{int(day):02} {time}"
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def markdown() -> str:
    """The page docs/time.md."""
    parts = [
        "# When what counts as known\n\nGenerated from the tables that the tests in `tests/spec` run: do not edit. "
        "All times are of March 2024 in UTC, as `day hour:minute`, unless a date is given; `-` is nothing.\n"
    ]
    for spec in SPECS:
        parts.append(f"\n## {spec.title}\n\nRule {spec.rule}. {spec.text}\n")
        parts += [f"\n{_markdown(text)}" for text in (spec.arrives, spec.known)]
    for schedule in schedules.SPECS:
        parts.append(f"\n## {schedule.title}\n\nRule 21. {schedule.text} Served by `{schedule.serving}`:\n")
        parts.append(f"\n{_markdown(schedule.asked)}")
    return "".join([*parts, CHOICES])


def _markdown(text: str) -> str:
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    rule = ["---"] * len(lines[0])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (lines[0], rule, *lines[1:]))


if __name__ == "__main__":
    PAGE.write_text(markdown(), encoding="utf-8")
    print(f"wrote {PAGE.name}", file=sys.stderr)
