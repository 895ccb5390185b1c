"""What a report tells: plain frozen values, in the order of the page. Every count in them is one that may be told
(`disclosure`): None stands for some, but too few. Instants are UTC; shares lie between 0 and 1.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from fhir_features.report.disclosure import Count


@dataclass(frozen=True)
class Feed:
    """One resource type of one source: what kind of source it is, up to when it was read, and what it brought.

    `newest_known`: the day (UTC) since which something of enough patients became known; of records of patients None,
    since they are known from birth on. `received`: when the last came in.
    """

    source: str
    site: str
    kind: str | None
    resource_type: str
    seen_up_to: dt.datetime | None
    newest_known: dt.date | None
    received: dt.datetime | None
    versions: Count
    patients: Count


@dataclass(frozen=True)
class Balance:
    """What became of all that a source sent, in resource versions."""

    source: str
    received: Count
    normalized: Count
    quarantined: Count
    duplicates: Count
    ignored: Count


@dataclass(frozen=True)
class RuleCount:
    """How many versions of a source and type are set aside by a rule, or were found to break one."""

    source: str
    resource_type: str
    rule: str
    versions: Count


@dataclass(frozen=True)
class Bin:
    """A column of a histogram: its label, the instant or number at which it begins (None: open), and its count."""

    label: str
    begins: str | float | None
    count: Count


@dataclass(frozen=True)
class Volume:
    """How many versions of a type were first known at a site, by `unit` (day, week, month or year), and before them."""

    site: str
    resource_type: str
    unit: str
    earlier: Count
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class LateKnowledge:
    """How long after it was true a version of a type became known at a site: `effective_at` to `known_at`.

    `late`: the share that was known more than a second after it was true; the median and the 90th percentile are in
    hours. Versions whose effective date is but a month or a year are left out.
    """

    site: str
    resource_type: str
    versions: Count
    late: float | None
    median_hours: float | None
    p90_hours: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Closed:
    """How many versions of a type were closed at a site, and for which reason."""

    site: str
    resource_type: str
    reason: str
    versions: Count


@dataclass(frozen=True)
class KnownThrough:
    """How many versions of a source and type have a known_at that was found in one way (TIME rule 11)."""

    source: str
    site: str
    resource_type: str
    known_at_source: str
    versions: Count
    share: float | None
    known_before_effective: Count


@dataclass(frozen=True)
class Mapped:
    """How many rows of a code system, site and type there are, and how many have a code that stands for a concept."""

    system: str
    site: str
    resource_type: str
    rows: Count
    resolved: Count
    share: float | None


@dataclass(frozen=True)
class FrequentCode:
    """A code that stands for a concept, how many rows have it, and at least how many patients: enough of them."""

    system: str
    code: str
    display: str
    site: str
    resource_type: str
    rows: Count
    patients: Count


@dataclass(frozen=True)
class UnmappedCode:
    """A code that stands for no concept, why, and how many rows have it: one that enough patients have."""

    system: str
    code: str
    display: str
    site: str
    resource_type: str
    why: str
    rows: Count


@dataclass(frozen=True)
class Quantiles:
    """The middle and the spread of a feature's values."""

    p5: float | None
    p25: float | None
    median: float | None
    p75: float | None
    p95: float | None


@dataclass(frozen=True)
class Values:
    """The answers to a feature at a site, one a patient: how many are null, and how the others are distributed.

    `bins` are numbers of a histogram whose columns are the same at all sites, or the words that the answers are; none
    where there are no answers, or too few to tell how they are distributed.
    """

    site: str
    patients: Count
    missing: Count
    missing_share: float | None
    quantiles: Quantiles | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class FeatureFacts:
    """A feature: its name, what it is in the words of who wrote it and in those of its definition, its UCUM unit, the
    kind of its answers, and those at each site."""

    name: str
    description: str
    definition: str
    unit: str | None
    kind: str
    sites: tuple[Values, ...]


@dataclass(frozen=True)
class ViewFacts:
    """A feature view: its version, its cadence, up to when its table is built at each site, and its features."""

    name: str
    version: str
    cadence: str
    built_to: dict[str, dt.datetime]
    features: tuple[FeatureFacts, ...]


@dataclass(frozen=True)
class Artifact:
    """One release or map in the ontology lock."""

    id: str
    title: str
    content: str
    content_sha256: str


@dataclass(frozen=True)
class Facts:
    """All that a report tells, of the lake as it stood after commit `store_seq`.

    `as_of`: when the last of it was received. `set_aside`: how many versions are now. `asked_at`: by site the instant
    at which its features were asked, the full hour after the last version became known there.
    `unmapped_untold`: how many unmapped codes too few patients have.
    """

    store_seq: int
    as_of: dt.datetime | None
    suppress_below: int
    lock_id: str
    patients: dict[str, Count]
    feeds: tuple[Feed, ...]
    balances: tuple[Balance, ...]
    set_aside: Count
    quarantined: tuple[RuleCount, ...]
    findings: tuple[RuleCount, ...]
    volumes: tuple[Volume, ...]
    late: tuple[LateKnowledge, ...]
    closed: tuple[Closed, ...]
    known_through: tuple[KnownThrough, ...]
    mapped: tuple[Mapped, ...]
    frequent: tuple[FrequentCode, ...]
    unmapped: tuple[UnmappedCode, ...]
    unmapped_untold: int
    asked_at: dict[str, dt.datetime]
    views: tuple[ViewFacts, ...]
    artifacts: tuple[Artifact, ...]
