"""What do the locked releases say about these concepts: states, names, successors, map targets?

In: the distinct concepts of a dictionary (thousands). Out: for each of them, for what it became and for what it maps
to, the facts that the resolver's rules need, gathered in a few queries, so that the rules are plain Python.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from fhir_features.ontology.catalog import WANTED, Catalog
from fhir_features.ontology.systems import Concept, systems

# History associations that say the same under another code; the others offer candidates, which a person must judge.
# SNOMED CT historical associations: https://confluence.ihtsdotools.org/display/DOCRELFMT/5.2.5.1+Historical+Association
SAFE_HISTORY = frozenset({"replaced_by", "same_as", "merged"})

MAX_HOPS = 8

State = Literal["valid", "header", "retired", "not_yet_valid"]


@dataclass(frozen=True, slots=True)
class Span:
    """A time (half-open, null = unbounded) in which a concept is in one state; `outside`: no release covers it."""

    start: dt.date | None
    end: dt.date | None
    state: State
    outside: bool


@dataclass(frozen=True, slots=True)
class MapRow:
    """One row of a map: where it comes from, its target (None: there is none) and under which rule it holds."""

    artifact: str
    target: Concept | None
    equivalence: str | None
    group: int
    priority: int
    rule: str | None


@dataclass(slots=True)
class Fact:
    """What is known of one concept. `spans` is empty if no release in the lock has the code."""

    spans: tuple[Span, ...] = ()
    displays: dict[str, str] = field(default_factory=dict)
    history: list[tuple[str, Concept, str]] = field(default_factory=list)
    maps: list[MapRow] = field(default_factory=list)

    @property
    def display(self) -> str | None:
        """The name in the latest release that has the code."""
        return self.displays[max(self.displays)] if self.displays else None

    def safe_successor(self) -> Concept | None:
        """The one concept that a retired one became, if its history says so without choice."""
        safe = {successor for kind, successor, _ in self.history if kind in SAFE_HISTORY}
        return next(iter(safe)) if len(safe) == 1 and len({s for _, s, _ in self.history}) == 1 else None


class Facts:
    """Facts about a set of concepts and everything that the resolver may reach from them."""

    def __init__(self, catalog: Catalog, concepts: Iterable[Concept]) -> None:
        self._catalog = catalog
        self._facts: dict[Concept, Fact] = {}
        self._releases: dict[str, list[_Release]] = {}
        wanted = set(concepts)
        for _ in range(MAX_HOPS + 1):
            wanted -= self._facts.keys()
            if not wanted:
                break
            wanted = self._gather(wanted)

    def __getitem__(self, concept: Concept) -> Fact:
        return self._facts.get(concept, _NOTHING)

    def subsumed(self, pairs: set[tuple[Concept, Concept]]) -> set[tuple[Concept, Concept]]:
        """Those of the pairs whose first concept is the second or lies below it in some hierarchy of the lock."""
        rows = self._catalog.query_concepts(_ABOVE, {lower for lower, _ in pairs})
        above = {(Concept(system, lower), Concept(system, upper)) for system, lower, upper in rows}
        return {pair for pair in pairs if pair[0] == pair[1] or pair in above}

    def _gather(self, wanted: set[Concept]) -> set[Concept]:
        rows: dict[Concept, list[_StateRow]] = defaultdict(list)
        self._facts.update((concept, Fact()) for concept in wanted)
        for system, code, artifact, display, active, selectable in self._catalog.query_concepts(_STATES, wanted):
            rows[Concept(system, code)].append(_StateRow(artifact, active, selectable))
            if display is not None:
                self._facts[Concept(system, code)].displays[artifact] = display
        for system, code, artifact, text in self._catalog.query_concepts(_NAMES, wanted):
            self._facts[Concept(system, code)].displays[artifact] = text
        for concept, states in rows.items():
            self._facts[concept].spans = self._spans(concept.system, states)
        reached: set[Concept] = set()
        for system, code, artifact, kind, successor in self._catalog.query_concepts(_SUCCESSORS, wanted):
            reached.add(Concept(system, successor))
            self._facts[Concept(system, code)].history.append((kind, Concept(system, successor), artifact))
        for system, code, artifact, target_system, target, *rule in self._catalog.query_concepts(_MAPS, wanted):
            aim = None if target is None else Concept(target_system, target)
            reached |= {aim} if aim else set()
            self._facts[Concept(system, code)].maps.append(MapRow(artifact, aim, *rule))
        return reached

    def _spans(self, system: str, rows: list[_StateRow]) -> tuple[Span, ...]:
        windows = self._windows(system)
        if not any(row.artifact == window.artifact for row in rows for window in windows):
            latest = max(rows, key=lambda row: self._rank(system)[row.artifact])
            return (Span(None, None, _state_now(latest), outside=False),)
        return _dated_spans(windows, rows)

    def _rank(self, system: str) -> dict[str, tuple[bool, int]]:
        releases = self._catalog.code_systems(system)
        return {release.id: (release.content == "complete", place) for place, release in enumerate(releases)}

    def _windows(self, system: str) -> list[_Release]:
        if system not in self._releases:
            self._releases[system] = [
                _Release(release.id, release.effective_from, release.effective_to)
                for release in self._catalog.code_systems(system)
                if systems()[system].dated and release.effective_from and release.effective_to
            ]
        return self._releases[system]


@dataclass(frozen=True, slots=True)
class _Release:
    artifact: str
    start: dt.date
    end: dt.date


@dataclass(frozen=True, slots=True)
class _StateRow:
    artifact: str
    active: bool
    selectable: bool


_NOTHING = Fact()


def _state_now(row: _StateRow) -> State:
    if not row.active:
        return "retired"
    return "valid" if row.selectable else "header"


def _dated_spans(releases: list[_Release], rows: list[_StateRow]) -> tuple[Span, ...]:
    """The states of a code from the beginning to the end of time: before the first release and after the last the
    nearest release counts, marked as outside; so does the time between two releases."""
    by_artifact = {row.artifact: row for row in rows}
    first = next(place for place, release in enumerate(releases) if release.artifact in by_artifact)
    spans: list[Span] = []
    was_selectable = False
    for place, release in enumerate(releases):
        state = _state_in(by_artifact.get(release.artifact), was_selectable, begun=place >= first)
        was_selectable = was_selectable or state == "valid"
        if place == 0:
            spans.append(Span(None, release.start, state, outside=True))
        elif release.start > releases[place - 1].end:
            spans.append(Span(releases[place - 1].end, release.start, spans[-1].state, outside=True))
        spans.append(Span(release.start, release.end, state, outside=False))
    spans.append(Span(releases[-1].end, None, spans[-1].state, outside=True))
    return tuple(_merged(spans))


def _state_in(row: _StateRow | None, was_selectable: bool, begun: bool) -> State:
    if row is None:
        return "retired" if begun else "not_yet_valid"
    if not row.active or (was_selectable and not row.selectable):
        return "retired"
    return "valid" if row.selectable else "header"


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and (merged[-1].state, merged[-1].outside) == (span.state, span.outside):
            merged[-1] = Span(merged[-1].start, span.end, span.state, span.outside)
        else:
            merged.append(span)
    return merged


_STATES = f"""
WITH {WANTED}
SELECT
  system,
  code,
  concept.artifact,
  concept.display,
  concept.active,
  concept.selectable
FROM wanted
JOIN concept USING (system, code)
"""

# Other names sort before those of releases, of which the latest is the one that is shown.
_NAMES = f"""
WITH {WANTED}
SELECT
  system,
  code,
  '' || row_number() OVER (PARTITION BY system, code ORDER BY text, artifact),
  text
FROM wanted
JOIN designation USING (system, code)
"""

_SUCCESSORS = f"""
WITH {WANTED}
SELECT
  system,
  code,
  artifact,
  kind,
  successor
FROM wanted
JOIN history USING (system, code)
ORDER BY ALL
"""

_MAPS = f"""
WITH {WANTED}
SELECT
  wanted.system,
  wanted.code,
  map.artifact,
  map.target_system,
  map.target,
  map.equivalence,
  map.map_group,
  map.map_priority,
  map.rule
FROM wanted
JOIN map ON map.system = wanted.system
  AND map.source = wanted.code
  AND map.artifact_kind = 'map'
ORDER BY ALL
"""

_ABOVE = f"""
WITH RECURSIVE {WANTED}, above AS (
  SELECT
    system,
    code AS lower_code,
    code AS upper_code
  FROM wanted
  UNION
  SELECT
    above.system,
    above.lower_code,
    edge.parent
  FROM above
  JOIN edge ON edge.system = above.system
    AND edge.child = above.upper_code
)
FROM above
"""
