"""What to know about a training set before trusting it: how its rows came to be known, what was left out, what is open.

The engine counts the event rows that it reads into a `Summary`; a row that two features' code sets select counts for
both. The counts are of rows that were known, and true, by the last question of their patient, and not before what his
first question reaches back to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import duckdb
import numpy as np

from fhir_features.features.arrays import Array
from fhir_features.features.compile import Plan, leaves
from fhir_features.features.counting import KNOWN_AT_SOURCES, NOT_CONVERTIBLE, OUT_OF_RANGE
from fhir_features.features.kernel import Columns
from fhir_features.features.nodes import Value
from fhir_features.lake import EVENT_TABLES

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}


@dataclass
class Summary:
    """The summary of one retrieval.

    - `rows`: rows of the training set; `unknown_patients`: those whose patient was not known at K.
    - `incomplete`: rows whose T is beyond the watermark of their site and a type that was read (TIME rule 23).
    - `known_at_source`: event rows by how their known_at was found (TIME rule 11); `shares` gives the same as shares.
    - `excluded_values`: numbers that could not be brought to a feature's unit, or are no clinical quantity.
    - `out_of_range`: numbers outside the range that a feature asks for.
    - `absent`: features over codes of which the lake has no row; their answers are null, or 0.
    """

    rows: int = 0
    unknown_patients: int = 0
    incomplete: int = 0
    known_at_source: Counter[str] = field(default_factory=Counter)
    excluded_values: int = 0
    out_of_range: int = 0
    absent: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What a person should hear of before using the training set, a line each; absent features first."""
        said = []
        if self.absent:
            are = "1 feature is" if len(self.absent) == 1 else f"{len(self.absent)} features are"
            said.append(
                f"{are} over codes that the data has none of: {', '.join(self.absent)}; `fhir-features report` shows "
                "which codes it has (is descendants=True or ingredient=True missing?)"
            )
        if self.excluded_values:
            said.append(f"{self.excluded_values:,} numbers could not be brought to the unit of a feature: left out")
        if self.incomplete:
            said.append(f"{self.incomplete:,} rows lie beyond the watermark")
        if self.rows and self.unknown_patients == self.rows:
            said.append("no row's patient was known then: see that patient_id, site and instants are as meant")
        if not self.rows:
            said.append("there are no rows: the entity frame is empty, or nobody has its anchors")
        return said

    @property
    def shares(self) -> dict[str, float]:
        """Share of event rows by known_at_source, the most frequent first."""
        total = self.known_at_source.total()
        ordered = sorted(self.known_at_source.items(), key=lambda item: (-item[1], item[0]))
        return {source: count / total for source, count in ordered}

    def count(self, rows: Columns, last_k: Array) -> None:
        """Count rows that the engine has read, which are true by the last T of their person, up to his last K."""
        by_then = rows.column("visible_from") <= last_k[rows.column("person")]
        excluded = rows.column("excluded")[by_then]
        self.excluded_values += int(np.count_nonzero(excluded == NOT_CONVERTIBLE))
        self.out_of_range += int(np.count_nonzero(excluded == OUT_OF_RANGE))
        counts = np.bincount(rows.column("known_at_source")[by_then], minlength=len(KNOWN_AT_SOURCES) + 1)
        for source, count in zip(KNOWN_AT_SOURCES, counts[1:].tolist(), strict=True):
            if count:
                self.known_at_source[source] += count


def resource_types(plan: Plan) -> tuple[str, ...]:
    """The resource types that a plan reads, Patient among them, in alphabetical order."""
    types = {"Patient", *(_TYPE_OF[table] for table in plan.asked)}
    if plan.reads_encounters:
        types.add("Encounter")
    return tuple(sorted(types))


def absent_features(con: duckdb.DuckDBPyConnection, plan: Plan) -> list[str]:
    """The features of whose codes the lake's dictionary has none; asked after `terms.create_members`."""
    empty: set[Value] = set()
    for table, chosen in plan.asked.items():
        if table == "encounters":
            continue
        found = con.execute(f"SELECT DISTINCT selection FROM {table}_members")
        present = {number for (number,) in found.fetchall()}
        empty |= {value for number, each in enumerate(chosen) if number not in present for value in each.values}
    return [feature.name for feature in plan.features if empty.issuperset(leaves(feature.value))]


def unknown_questions(con: duckdb.DuckDBPyConnection) -> Array:
    """The questions whose patient was not known at K."""
    return con.execute(_UNKNOWN).fetchnumpy()["question"]


def incomplete_questions(con: duckdb.DuckDBPyConnection, types: tuple[str, ...]) -> Array:
    """The questions whose T is beyond the watermark of their site in one of the resource types."""
    return con.execute(_INCOMPLETE, [list(types), len(types)]).fetchnumpy()["question"]


# Nearly everyone has one version, which lasts: only the questions of the others are looked at one by one.
_UNKNOWN = """
WITH first_asked AS (
  SELECT person, min(k) AS first_k
  FROM asked
  GROUP BY person
),
always_known AS (
  SELECT person
  FROM patients e
  JOIN persons p
    ON e.site = p.site
    AND e.patient_id = p.patient_id
  JOIN first_asked USING (person)
  WHERE e.known_at <= first_k
    AND e.known_to IS NULL
)
SELECT question
FROM asked q
ANTI JOIN always_known USING (person)
JOIN persons p USING (person)
WHERE NOT EXISTS (
  FROM patients e
  WHERE e.bucket = p.bucket
    AND e.site = p.site
    AND e.patient_id = p.patient_id
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
JOIN persons USING (person)
LEFT JOIN reached USING (site)
WHERE watermark IS NULL OR t > watermark"""
