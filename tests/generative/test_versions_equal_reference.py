"""Versions against a reference in plain Python: any arrival of versions gives the intervals that TIME rules 6 to 13 say.

Each case is a handful of resources whose versions arrive over several runs, out of order, repeated, corrected, withdrawn,
deleted, unreadable, with and without issued, early and late. The reference keeps lists and looks at
everything at the end, so the order in which runs come must not matter but for the times of receipt.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landing import few_rows_at_once, land, observation, rows, warehouse

from fhir_features.normalize import decoding, normalize

START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
DELETED = "DELETED"


@dataclass(frozen=True)
class Version:
    """One version of a resource as a server has it, or its deletion; hours count from START."""

    resource: str
    number: int
    updated: int
    issued: int | None
    status: str
    readable: bool

    @property
    def name(self) -> tuple[int | str, ...]:
        """What it is known by: deletions have no version of their own."""
        return ("deleted", self.updated) if self.status == DELETED else (self.number,)

    def as_entry(self) -> dict[str, Any]:
        if self.status == DELETED:
            url = f"Observation/{self.resource}"
            return {"request": {"method": "DELETE", "url": url}, "response": {"lastModified": _text(self.updated)}}
        resource = observation(
            self.resource,
            meta={"versionId": str(self.number), "lastUpdated": _text(self.updated)},
            status=self.status,
            valueQuantity={"value": self.number if self.readable else "x"},
            issued=None if self.issued is None else _text(self.issued),
        )
        return {"resource": {key: value for key, value in resource.items() if value is not None}}


@dataclass
class Held:
    version: Version
    received: dt.datetime
    known_at: dt.datetime


def reference(runs: list[list[Version]]) -> list[tuple[str, str, dt.datetime, dt.datetime | None]]:
    """(resource, version, known_at, known_to) of every version that could be read and was ever the one known."""
    held: dict[str, list[Held]] = {}
    for number, run in enumerate(runs):
        received = _received(number)
        for version in run:
            others = held.setdefault(version.resource, [])
            if all(other.version.name != version.name for other in others):
                others.append(Held(version, received, received))
    answer = []
    for versions in held.values():
        for one in versions:
            began = any(_order(other) < _order(one) for other in versions)
            one.known_at = min(_known(one.version, witnessed=began), one.received)
        for one in versions:
            later = [other.known_at for other in versions if _order(other) > _order(one)]
            known_to = min(later, default=None)
            if one.version.readable and one.version.status != DELETED and (known_to is None or known_to > one.known_at):
                answer.append((one.version.resource, str(one.version.number), one.known_at, known_to))
    return sorted(answer, key=lambda row: row[:2])


def _known(version: Version, *, witnessed: bool) -> dt.datetime:
    updated = START + dt.timedelta(hours=version.updated)
    if witnessed or not version.readable or version.status == DELETED or version.issued is None:
        return updated
    issued = START + dt.timedelta(hours=version.issued)
    if version.status in ("corrected", "amended", "appended", "entered-in-error") or updated > issued + DAY:
        return max(issued, updated)
    return issued


def _order(held: Held) -> tuple[Any, ...]:
    deleted = held.version.status == DELETED
    return held.version.updated, deleted, 0 if deleted else held.version.number, held.received


def _received(run: int) -> dt.datetime:
    return START + dt.timedelta(hours=40 * (run + 1))


def _text(hours: int) -> str:
    return (START + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[Version]]:
    """Runs of versions; a version may come in several runs, in any order."""
    statuses = st.sampled_from(
        ["preliminary", "final", "corrected", "amended", "appended", "entered-in-error", DELETED]
    )
    versions = [
        Version(
            f"o{resource}",
            number,
            draw(st.integers(0, 120)),
            draw(st.none() | st.integers(0, 120)),
            draw(statuses),
            draw(st.integers(0, 9)) > 0,
        )
        for resource in range(draw(st.integers(4, 12)))
        for number in range(1, draw(st.integers(1, 4)) + 1)
    ]
    return draw(st.lists(st.lists(st.sampled_from(versions), max_size=20), min_size=1, max_size=3))


# A number is that of one version, in the index, its rows and its closings.
MISNUMBERED = """
SELECT version_no
FROM (
  SELECT version_no, resource_id, version FROM lake.versions
  UNION SELECT version_no, resource_id, version FROM lake.observations
  UNION SELECT version_no, resource_id, version FROM lake.closings
)
GROUP BY version_no
HAVING count(*) > 1"""


@settings(max_examples=settings().max_examples // 8)
@given(arrivals(), st.sampled_from([4, 1000]))
def test_intervals_are_those_of_the_reference(runs: list[list[Version]], rows_at_once: int) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        few_rows_at_once(monkeypatch, rows_at_once)
        monkeypatch.setattr(decoding, "_BATCH_LINES", rows_at_once)
        config = warehouse(Path(folder))
        for number, run in enumerate(runs):
            land(config, [version.as_entry() for version in run], _received(number), format="bundle")
        normalize(config)
        sql = """
SELECT resource_id, split_part(version, '~', 1), known_at, known_to
FROM observations
WHERE known_to > known_at OR known_to IS NULL
ORDER BY ALL"""
        assert rows(config, sql) == reference(runs)
        assert rows(config, MISNUMBERED) == []
