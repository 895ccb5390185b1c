"""What does a CodeableConcept stand for, and when? Ranked concepts with status and trail; nothing is ever dropped.

In: the dictionary of distinct codings (DESIGN: `code_id`). Out: rows for each code_id: the coded concepts, what retired
ones became where that is safe, and the targets of maps. It never raises for what a source wrote.

Statuses: `valid`, `header` (not billable), `retired`, `not_yet_valid` on the date; `unverified` (well formed, in a
system of which the lock has a fragment); `followed` (a retired code's safe successor); `mapped` (a map's target);
`candidate` (one of several targets of which only some are right: never take it as a fact); `unmapped`; `text_only`.

Flags: `outside_releases` (judged by the nearest release), `version_not_in_lock` (the coding names a version of its
system that the lock lacks, and is judged as if it named none), `display_mismatch` (the name is that of something else),
`discordant` (codings of one concept that contradict), `rule_unevaluated` (a map rule asks for more than the code),
`narrower` or `inexact` (the target says more than the source, or other than it), `no_map` (maps know that there is no
target), `partly_unmapped` (another coding of the concept could not be read), and for `unmapped`: `no_code`,
`unknown_system`, `bad_syntax`, `unknown_code`, `ambiguous_ndc`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from fhir_features.ontology.catalog import Catalog
from fhir_features.ontology.displays import same_meaning
from fhir_features.ontology.facts import MAX_HOPS, Fact, Facts, MapRow
from fhir_features.ontology.systems import Concept, System, code_forms, identify_system, stated_version, systems
from fhir_features.ontology.validity import Span

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Coding:
    """One coding of a CodeableConcept as the source wrote it."""

    code_id: int
    ordinal: int
    system: str | None
    code: str | None
    version: str | None
    display: str | None
    user_selected: bool | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """One row of the resolution: in [valid_from, valid_to) the code_id stands for this concept, in this rank."""

    code_id: int
    valid_from: dt.date | None
    valid_to: dt.date | None
    rank: int
    system: str | None
    code: str | None
    display: str | None
    status: str
    via: str
    flags: tuple[str, ...]

    @property
    def concept(self) -> Concept | None:
        """The concept, or None for what could not be resolved."""
        return Concept(self.system, self.code) if self.system and self.code else None


def resolution_schema() -> pa.Schema:
    """The columns of a resolution. Dates are those that control coding (recorded, authored, issued), end exclusive."""
    import pyarrow as pa

    return pa.schema(
        [
            ("code_id", pa.int64()),
            ("valid_from", pa.date32()),
            ("valid_to", pa.date32()),
            ("rank", pa.int16()),
            ("system", pa.string()),
            ("code", pa.string()),
            ("display", pa.string()),
            ("status", pa.string()),
            ("via", pa.string()),
            ("flags", pa.list_(pa.string())),
        ]
    )


def resolve_dictionary(catalog: Catalog, codings: pa.Table) -> pa.Table:
    """Resolve a dictionary of codings: rows by code_id, interval and rank."""
    import pyarrow as pa

    resolved = resolve(catalog, [Coding(**row) for row in codings.to_pylist()])
    columns = {name: [getattr(row, name) for row in resolved] for name in resolution_schema().names}
    columns["flags"] = [list(row.flags) for row in resolved]
    return pa.table(columns, schema=resolution_schema())


def resolve(catalog: Catalog, codings: list[Coding]) -> list[Resolved]:
    """The resolution of codings, which may belong to many concepts, in the order of code_id, interval and rank."""
    by_code_id: dict[int, list[Coding]] = defaultdict(list)
    for coding in codings:
        by_code_id[coding.code_id].append(coding)
    read = {coding: _forms(coding) for coding in codings}
    facts = Facts(catalog, (concept for _, forms in read.values() for concept in forms))
    found = {coding: _identified(catalog, facts, *read[coding]) for coding in codings}
    concepts = [
        _resolve_concept(facts, sorted(by_code_id[code_id], key=lambda coding: coding.ordinal), found)
        for code_id in sorted(by_code_id)
    ]
    return [row for rows in _with_discord(facts, concepts) for row in _ranked(rows)]


@dataclass(frozen=True, slots=True)
class _Row:
    """A resolved row before it is ranked, with the coding that it came from."""

    coding: Coding
    concept: Concept | None
    span: Span
    status: str
    via: str
    display: str | None
    flags: frozenset[str]


_ALWAYS = Span(None, None, "valid", outside=False)


def _forms(coding: Coding) -> tuple[System | None, tuple[Concept, ...]]:
    system = identify_system(coding.system)
    if system is None or coding.code is None:
        return system, ()
    return system, tuple(Concept(system.name, form) for form in code_forms(system, coding.code))


def _identified(catalog: Catalog, facts: Facts, system: System | None, forms: tuple[Concept, ...]) -> Concept | str:
    """The concept that a coding names, or the flag that says why it names none."""
    if system is None:
        return "unknown_system"
    if not forms:
        return "bad_syntax"
    existing = [form for form in forms if facts[form].spans or facts[form].maps]
    if len(existing) == 1:
        return existing[0]
    if len(forms) > 1:
        return "ambiguous_ndc"
    return "unknown_code" if catalog.is_complete(system.name) else forms[0]


def _resolve_concept(facts: Facts, codings: list[Coding], found: dict[Coding, Concept | str]) -> list[_Row]:
    rows: list[_Row] = []
    reasons: set[str] = set()
    for coding in codings:
        concept = found[coding]
        if isinstance(concept, Concept):
            rows += _coding_rows(facts, coding, concept)
        elif coding.code is not None:
            reasons.add(concept)
    if not rows:
        status = "unmapped" if reasons or any(c.system for c in codings) else "text_only"
        flags = frozenset(reasons or ({"no_code"} if status == "unmapped" else ()))
        return [_Row(codings[0], None, _ALWAYS, status, "direct", None, flags)]
    return [replace(row, flags=row.flags | {"partly_unmapped"}) for row in rows] if reasons else rows


def _coding_rows(facts: Facts, coding: Coding, concept: Concept) -> list[_Row]:
    fact = facts[concept]
    flags = frozenset(_coding_flags(coding, fact))
    if not fact.spans:
        direct = [_Row(coding, concept, _ALWAYS, "unverified", "direct", coding.display, flags)]
        return direct + _map_rows(facts, coding, concept, _ALWAYS, flags)
    rows = []
    spans, versioned = facts.spans(concept, stated_version(coding.system, coding.version))
    for span in spans:
        here = flags | versioned | {"outside_releases"} if span.outside else flags | versioned
        rows.append(_Row(coding, concept, span, span.state, "direct", fact.display, here))
        current, trail = _followed(facts, concept) if span.state == "retired" else (concept, "")
        if trail:
            rows.append(_Row(coding, current, span, "followed", trail, facts[current].display, here))
        rows += _map_rows(facts, coding, current if facts[current].maps else concept, span, here)
    return rows


def _coding_flags(coding: Coding, fact: Fact) -> Iterator[str]:
    if not same_meaning(coding.display, fact.displays.values()):
        yield "display_mismatch"
    if fact.maps and not any(row.target for row in fact.maps):
        yield "no_map"


def _followed(facts: Facts, concept: Concept) -> tuple[Concept, str]:
    """Where the safe history of a retired concept ends, and the trail to there (empty: nowhere else)."""
    seen = [concept]
    for _ in range(MAX_HOPS):
        successor = facts[seen[-1]].safe_successor()
        if successor is None or successor in seen:
            break
        seen.append(successor)
        if facts[successor].spans and facts[successor].spans[-1].state != "retired":
            break
    return seen[-1], f"history {' > '.join(str(step) for step in seen)}" if len(seen) > 1 else ""


def _map_rows(facts: Facts, coding: Coding, source: Concept, span: Span, flags: frozenset[str]) -> list[_Row]:
    by_group: dict[tuple[str, int], list[MapRow]] = defaultdict(list)
    for row in facts[source].maps:
        by_group[row.artifact, row.group].append(row)
    rows = []
    for (artifact, _), group in sorted(by_group.items()):
        for target, status, extra in _group_targets(sorted(group, key=lambda row: row.priority)):
            via = f"{artifact} {source}"
            rows.append(_Row(coding, target, span, status, via, facts[target].display, flags | extra))
    return rows


_ALWAYS_TRUE = frozenset({"", "TRUE", "OTHERWISE TRUE"})

# FHIR R4 ConceptMap equivalences whose target says more than the source, or something else beside it.
_LOOSE_EQUIVALENCES = {"narrower": "narrower", "specializes": "narrower", "inexact": "inexact"}


def _group_targets(group: list[MapRow]) -> Iterator[tuple[Concept, str, set[str]]]:
    """The targets of one map group: the first rule that holds wins (SNOMED CT extended map, mapPriority).

    Rules on age, sex or another finding cannot be judged from a code: their targets are candidates, and the one that
    holds otherwise is taken, flagged. Several targets of the same priority are alternatives: candidates.
    """
    unsure: set[str] = set()
    decided: int | None = None
    for row in group:
        if decided is not None and row.priority > decided:
            break
        loose = {flag for flag in [_LOOSE_EQUIVALENCES.get(row.equivalence or "")] if flag}
        if (row.rule or "") not in _ALWAYS_TRUE:
            unsure = {"rule_unevaluated"}
            status = "candidate"
        else:
            decided = row.priority
            rivals = sum(other.priority == row.priority and other.target is not None for other in group)
            status = "mapped" if rivals == 1 else "candidate"
        if row.target:
            yield row.target, status, unsure | loose


def _with_discord(facts: Facts, concepts: list[list[_Row]]) -> list[list[_Row]]:
    """Mark the concepts whose codings contradict: in a system that two of them reach, nothing of one is, or is above or
    below, something of the other."""
    reach = [_reach_by_coding(rows) for rows in concepts]
    pairs = {
        pair
        for by_coding in reach
        for first, second in _coding_pairs(by_coding)
        for one in first
        for other in second
        if one.system == other.system
        for pair in ((one, other), (other, one))
    }
    agree = facts.subsumed(pairs)
    return [
        [replace(row, flags=row.flags | {"discordant"}) for row in rows] if _contradict(by_coding, agree) else rows
        for rows, by_coding in zip(concepts, reach, strict=True)
    ]


def _reach_by_coding(rows: list[_Row]) -> list[frozenset[Concept]]:
    reach: dict[int, set[Concept]] = defaultdict(set)
    for row in rows:
        if row.concept:
            reach[row.coding.ordinal].add(row.concept)
    return [frozenset(concepts) for concepts in reach.values()]


def _coding_pairs(by_coding: list[frozenset[Concept]]) -> list[tuple[frozenset[Concept], frozenset[Concept]]]:
    return [(first, second) for place, first in enumerate(by_coding) for second in by_coding[place + 1 :]]


def _contradict(by_coding: list[frozenset[Concept]], agree: set[tuple[Concept, Concept]]) -> bool:
    for first, second in _coding_pairs(by_coding):
        for system in {concept.system for concept in first} & {concept.system for concept in second}:
            pairs = [(a, b) for a in first for b in second if a.system == b.system == system]
            if not any(pair in agree or (pair[1], pair[0]) in agree for pair in pairs):
                return True
    return False


def _ranked(rows: list[_Row]) -> list[Resolved]:
    """Cut the time at every change, rank what holds in each piece, and join pieces that say the same."""
    first, last = dt.date.min, dt.date.max
    cuts = sorted({first, last} | {day for row in rows for day in (row.span.start, row.span.end) if day})
    pieces: list[tuple[dt.date, dt.date, list[_Row]]] = []
    for start, end in pairwise(cuts):
        here = [row for row in rows if (row.span.start or first) <= start and end <= (row.span.end or last)]
        here.sort(key=_preference)
        if pieces and _content(pieces[-1][2]) == _content(here):
            pieces[-1] = (pieces[-1][0], end, here)
        else:
            pieces.append((start, end, here))
    return [
        Resolved(
            code_id=row.coding.code_id,
            valid_from=None if start == first else start,
            valid_to=None if end == last else end,
            rank=rank,
            system=row.concept.system if row.concept else None,
            code=row.concept.code if row.concept else None,
            display=row.display,
            status=row.status,
            via=row.via,
            flags=tuple(sorted(row.flags)),
        )
        for start, end, here in pieces
        for rank, row in enumerate(_distinct(here))
    ]


def _content(rows: list[_Row]) -> list[tuple[object, ...]]:
    return [(row.concept, row.status, row.via, row.display, row.flags) for row in rows]


def _distinct(rows: list[_Row]) -> list[_Row]:
    """The first row of each concept: what a better rank has said is not said again."""
    seen: dict[Concept | None, _Row] = {}
    for row in rows:
        seen.setdefault(row.concept, row)
    return list(seen.values())


_STATUS_ORDER = {
    status: place
    for place, status in enumerate(
        ("valid", "followed", "unverified", "header", "retired", "not_yet_valid", "mapped", "candidate")
    )
}


def _preference(row: _Row) -> tuple[object, ...]:
    """Coded before mapped, better states first, what the user picked, the system's priority, the order of writing."""
    priority = systems()[row.concept.system].priority if row.concept else 0
    return (
        _STATUS_ORDER.get(row.status, 0),
        not row.coding.user_selected,
        priority,
        row.coding.ordinal,
        row.via,
        row.concept or Concept("", ""),
    )
