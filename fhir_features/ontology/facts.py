"""What do the locked releases say about these concepts: states, names, successors, map targets?

In: the distinct concepts of a dictionary (thousands). Out: for each of them, for what it became and for what it maps
to, the facts that the resolver's rules need, gathered in a few queries, so that the rules are plain Python.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fhir_features.errors import OntologyError
from fhir_features.ontology.artifacts import Manifest
from fhir_features.ontology.catalog import WANTED, Catalog
from fhir_features.ontology.systems import BY_DATE, LATEST, Concept, systems
from fhir_features.ontology.validity import (
    Span,
    State,
    StateRow,
    Window,
    dated_spans,
    named_day,
    named_release,
    own_spans,
    span_on,
    state_now,
)

# History associations that say the same under another code; the others offer candidates, which a person must judge.
# SNOMED CT historical associations: https://confluence.ihtsdotools.org/display/DOCRELFMT/5.2.5.1+Historical+Association
SAFE_HISTORY = frozenset({"replaced_by", "same_as", "merged"})

MAX_HOPS = 8


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
    """What is known of one concept. `spans` is empty if no release in the lock has the code; `states` is by release."""

    spans: tuple[Span, ...] = ()
    states: dict[str, State] = field(default_factory=dict)
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
        self._releases: dict[str, list[Manifest]] = {}
        self._begins: dict[str, dt.date | None] = {}
        wanted = set(concepts)
        for _ in range(MAX_HOPS + 1):
            wanted -= self._facts.keys()
            if not wanted:
                break
            wanted = self._gather(wanted)

    def __getitem__(self, concept: Concept) -> Fact:
        return self._facts.get(concept, _NOTHING)

    def spans(self, concept: Concept, version: str | None) -> tuple[tuple[Span, ...], frozenset[str]]:
        """The states of a concept in time, and flags on them.

        A coding that names the version of its system is judged by that version at all times: a release in the lock,
        or a date of which the lock knows. If the lock has neither, it is judged as any other, and flagged.
        """
        found = self[concept]
        if version is None or not found.spans:
            return found.spans, frozenset()
        release = named_release(self._systems_releases(concept.system), version)
        day = named_day(version)
        if release and (release.content == "complete" or release.id in found.states):
            return (Span(None, None, self._state_in(found, release), outside=False),), frozenset()
        if day and len(found.spans) > 1:
            return (span_on(found.spans, day),), frozenset()
        return found.spans, frozenset({"version_not_in_lock"})

    def subsumed(self, pairs: set[tuple[Concept, Concept]]) -> set[tuple[Concept, Concept]]:
        """Those of the pairs whose first concept is the second or lies below it in some hierarchy of the lock."""
        rows = self._catalog.query_concepts(_ABOVE, {lower for lower, _ in pairs})
        above = {(Concept(system, lower), Concept(system, upper)) for system, lower, upper in rows}
        return {pair for pair in pairs if pair[0] == pair[1] or pair in above}

    def _gather(self, wanted: set[Concept]) -> set[Concept]:
        rows: dict[Concept, list[StateRow]] = defaultdict(list)
        self._facts.update((concept, Fact()) for concept in wanted)
        for system, code, artifact, display, *state in self._catalog.query_concepts(_STATES, wanted):
            rows[Concept(system, code)].append(StateRow(artifact, *state))
            if display is not None:
                self._facts[Concept(system, code)].displays[artifact] = display
        for system, code, artifact, text in self._catalog.query_concepts(_NAMES, wanted):
            self._facts[Concept(system, code)].displays[artifact] = text
        for concept, states in rows.items():
            self._judge(concept, states)
        reached: set[Concept] = set()
        for concept, kind, successor, artifact in successors(self._catalog, wanted):
            reached.add(successor)
            self._facts[concept].history.append((kind, successor, artifact))
        for system, code, artifact, target_system, target, *rule in self._catalog.query_concepts(_MAPS, wanted):
            aim = None if target is None else Concept(target_system, target)
            reached |= {aim} if aim else set()
            self._facts[Concept(system, code)].maps.append(MapRow(artifact, aim, *rule))
        return reached

    def _judge(self, concept: Concept, rows: list[StateRow]) -> None:
        """Write down the states of a concept by release, and its spans by the policy of its system."""
        found, policy = self._facts[concept], systems()[concept.system].release
        windows = self._windows(concept.system, {row.artifact for row in rows})
        by_window = dated_spans(windows, rows) if windows else ()
        found.states = {row.artifact: state_now(row) for row in rows}
        found.states |= {window.artifact: span_on(by_window, window.start).state for window in windows}
        if policy not in (BY_DATE, LATEST):
            state = self._state_in(found, self._pinned(concept.system))
            found.spans = (Span(None, None, state, outside=False),)
        elif policy == BY_DATE and windows:
            found.spans = by_window
        else:
            found.spans = self._latest_spans(concept.system, rows, dated=policy == BY_DATE)

    def _windows(self, system: str, present: set[str]) -> list[Window]:
        """When each release of a system governs, if one of those in which a concept is present governs for a time."""
        windows = [
            Window(release.id, release.effective_from, release.effective_to)
            for release in self._systems_releases(system)
            if release.effective_from and release.effective_to
        ]
        return windows if any(window.artifact in present for window in windows) else []

    def _latest_spans(self, system: str, rows: list[StateRow], dated: bool) -> tuple[Span, ...]:
        """What the latest release that has a concept says of it, complete releases before fragments."""
        present = {row.artifact for row in rows}
        releases = [release for release in self._systems_releases(system) if release.id in present]
        latest = max(releases, key=lambda release: (release.content == "complete", releases.index(release))).id
        states = [row for row in rows if row.artifact == latest]
        if dated and any(row.valid_from for row in states):
            return own_spans(states, self._begin(latest))
        return (Span(None, None, state_now(states[-1]), outside=False),)

    def _state_in(self, found: Fact, release: Manifest) -> State:
        releases = [each.id for each in self._systems_releases(release.system)]
        earlier = releases[: releases.index(release.id)]
        return found.states.get(release.id) or (
            "retired" if any(e in found.states for e in earlier) else "not_yet_valid"
        )

    def _pinned(self, system: str) -> Manifest:
        version = systems()[system].release
        release = named_release(self._systems_releases(system), version)
        if release is None:
            raise OntologyError(f"{system} is pinned to '{version}', which the lock lacks: see `ontology list`")
        return release

    def _systems_releases(self, system: str) -> list[Manifest]:
        if system not in self._releases:
            self._releases[system] = self._catalog.code_systems(system)
        return self._releases[system]

    def _begin(self, artifact: str) -> dt.date | None:
        """The first day that the states in a release tell of."""
        if artifact not in self._begins:
            sql = "SELECT min(valid_from)\nFROM concept\nWHERE artifact = $artifact"
            ((self._begins[artifact],),) = self._catalog.query(sql, {"artifact": artifact})
        return self._begins[artifact]


def successors(catalog: Catalog, concepts: Iterable[Concept]) -> Iterator[tuple[Concept, str, Concept, str]]:
    """What retired concepts became: (concept, kind of association, successor, the artifact that says so)."""
    for system, code, artifact, kind, successor in catalog.query_concepts(_SUCCESSORS, concepts):
        yield Concept(system, code), kind, Concept(system, successor), artifact


_NOTHING = Fact()


_STATES = f"""
WITH {WANTED}
SELECT
  system,
  code,
  concept.artifact,
  concept.display,
  concept.active,
  concept.selectable,
  concept.valid_from,
  concept.valid_to
FROM wanted
JOIN concept USING (system, code)
ORDER BY concept.valid_from NULLS FIRST
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
