"""Which records are one person, as known at K, by plain loops over plain rows: the reference for `features.people`."""

from __future__ import annotations

import datetime as dt
from typing import Any

Row = dict[str, Any]
OPEN = dt.datetime.max.replace(tzinfo=dt.UTC)


def same_person(
    tables: dict[str, list[Row]], site: str, patient_id: str, k: dt.datetime
) -> dict[str, dt.datetime | None]:
    """The records that are the same person at K, each with the instant since which that was known without a break.

    The record itself is among them, with None. A row of another record counts when it is visible at K itself; it is
    known from the later of its own known_at and that instant.
    """
    links = [
        (row["patient_id"], other, row["known_at"], known_to(tables, row))
        for row in tables["patients"]
        if row["site"] == site
        for other in [*(row.get("replaced_by") or []), *(row.get("replaces") or [])]
    ]
    changes = sorted(
        {instant for *_, since, until in links for instant in (since, until) if instant <= k}, reverse=True
    )
    joined = joined_at(links, patient_id, k)
    found: dict[str, dt.datetime | None] = {patient_id: None}
    for other in joined - {patient_id}:
        for instant in changes:
            if other not in joined_at(links, patient_id, instant):
                break
            found[other] = instant
    return found


def joined_at(
    links: list[tuple[str, str, dt.datetime, dt.datetime]], patient_id: str, instant: dt.datetime
) -> set[str]:
    """All records that a path of links in force at an instant leads to."""
    joined = {patient_id}
    while True:
        more = {
            name
            for one, other, since, until in links
            if since <= instant < until and (one in joined or other in joined)
            for name in (one, other)
        }
        if more <= joined:
            return joined
        joined |= more


def known_to(tables: dict[str, list[Row]], row: Row) -> dt.datetime:
    """When a version of a Patient was closed first."""
    keys = ("site", "patient_id", "resource_id", "version", "state")
    closings = [
        closing["closed_at"]
        for closing in tables["closings"]
        if closing["resource_type"] == "Patient" and all(closing[key] == row[key] for key in keys)
    ]
    return min(closings, default=OPEN)
