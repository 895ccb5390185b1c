"""What to know about a training set before trusting it: how its rows came to be known, what was left out, what is open.

In goes a connection on which a plan's questions have just been answered; out come counts. The event rows counted are
those of the features' codes that were known, and true, by the last question of their patient.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import duckdb

from fhir_features.features.compile import Plan
from fhir_features.features.counting import JOIN_CONVERSIONS, MEMBERS, OBSERVATION_STATUSES, VALUE, listed
from fhir_features.features.operators import MAGNITUDE
from fhir_features.lake import EVENT_TABLES

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}


@dataclass
class Summary:
    """The summary of one retrieval.

    - `rows`: rows of the training set; `unknown_patients`: those whose patient was not known at K.
    - `incomplete`: rows whose T is beyond the watermark of their site and a type that was read (TIME rule 23).
    - `known_at_source`: event rows by how their known_at was found (TIME rule 11); `shares` gives the same as shares.
    - `excluded_values`: numbers that could not be brought to a feature's unit, or are no clinical quantity.
    """

    rows: int = 0
    unknown_patients: int = 0
    incomplete: int = 0
    known_at_source: Counter[str] = field(default_factory=Counter)
    excluded_values: int = 0

    @property
    def shares(self) -> dict[str, float]:
        """Share of event rows by known_at_source, the most frequent first."""
        total = self.known_at_source.total()
        ordered = sorted(self.known_at_source.items(), key=lambda item: (-item[1], item[0]))
        return {source: count / total for source, count in ordered}


def resource_types(plan: Plan) -> tuple[str, ...]:
    """The resource types that a plan reads, Patient among them, in alphabetical order."""
    types = {"Patient", *(_TYPE_OF[table] for table in plan.selections)}
    if plan.reads_encounters:
        types.add("Encounter")
    return tuple(sorted(types))


def count_rows(con: duckdb.DuckDBPyConnection, plan: Plan, summary: Summary) -> None:
    """Add what a plan's questions read to a summary."""
    for table in plan.selections:
        for source, count in con.execute(_known_at_sources(table)).fetchall():
            summary.known_at_source[source] += count
    if "observations" in plan.selections:
        row = con.execute(_EXCLUDED).fetchone()
        assert row is not None
        summary.excluded_values += row[0]


def unknown_questions(con: duckdb.DuckDBPyConnection) -> list[int]:
    """The questions whose patient was not known at K."""
    return [question for (question,) in con.execute(_UNKNOWN).fetchall()]


def incomplete_questions(con: duckdb.DuckDBPyConnection, types: tuple[str, ...]) -> list[int]:
    """The questions whose T is beyond the watermark of their site in one of the resource types."""
    return [question for (question,) in con.execute(_INCOMPLETE, [list(types), len(types)]).fetchall()]


_ASKERS = """askers AS (
  SELECT site, bucket, patient_id, max(t) AS t, max(k) AS k
  FROM asked
  GROUP BY ALL
)"""


def _read(table: str, joins: str = "") -> str:
    return f"""FROM askers a
JOIN {table} e
  ON e.site = a.site
  AND e.patient_id = a.patient_id{joins}
WHERE e.bucket IN (SELECT DISTINCT bucket FROM asked)
  AND e.effective_at <= a.t
  AND e.known_at <= a.k"""


def _known_at_sources(table: str) -> str:
    return f"""WITH {_ASKERS}
SELECT e.known_at_source, count(*)
{_read(table)}
  AND EXISTS (FROM {table}_members m WHERE {MEMBERS[table]})
GROUP BY e.known_at_source"""


# Numbers only: a result in words has no unit to be wrong in.
_WITH_FACTORS = f"\n  JOIN observations_members m ON {MEMBERS['observations']}{JOIN_CONVERSIONS}"

_EXCLUDED = f"""WITH {_ASKERS}
SELECT count(*)
{_read("observations", _WITH_FACTORS)}
  AND m.needs_number
  AND e.status IN {listed(OBSERVATION_STATUSES)}
  AND e.absent_reason IS NULL
  AND e.value_number IS NOT NULL
  AND (abs({VALUE}) <= {MAGNITUDE:.0e}) IS NOT TRUE"""

_UNKNOWN = """
SELECT question
FROM asked q
WHERE NOT EXISTS (
  FROM patients e
  WHERE e.site = q.site
    AND e.patient_id = q.patient_id
    AND e.known_at <= q.k
    AND (e.known_to > q.k OR e.known_to IS NULL)
)"""

_INCOMPLETE = """
WITH reached AS (
  SELECT site, min(watermark) AS watermark
  FROM watermarks
  WHERE resource_type IN (SELECT unnest(?))
  GROUP BY site
  HAVING count(*) = ?
)
SELECT question
FROM asked
LEFT JOIN reached USING (site)
WHERE watermark IS NULL OR t > watermark"""
