"""Whose answers may change in a build, and when: the rows that something happens to, or that are news.

In go a plan whose members stand (`terms.create_members`) and the temporary tables `spans` and `linked`; out comes the
statement for `moving`, of the patients of some buckets: (site, bucket, patient_id, is_news, is_restless, begins, until,
moments), a row a version of a resource. Something happens to it at those of the moments that lie in [begins, until].
The rows of a merged patient's other records count among his own while they are known to be his (TIME rule 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.features.compile import Plan, leaves
from fhir_features.features.counting import ENDS_AT, MEMBERS
from fhir_features.features.nodes import Aggregate, PatientFact
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.people import create_kin, create_people
from fhir_features.lake import EVENT_TABLES, in_buckets_sql, literal

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}

# In years; longer than anyone has lived.
_LONGEST_LIFE = 150

# News alone, without an instant at which something happens.
_NO_MOMENT = "NULL::TIMESTAMPTZ AS begins, NULL::TIMESTAMPTZ AS until, [NULL::TIMESTAMPTZ] AS moments"


def moving(plan: Plan, condition: str) -> str:
    """The statement; its parameters are `first_bucket` and `last_bucket`. `condition`: of which patients."""
    parts = [*_moving_events(plan, _OWN), _moving_patients(plan), _LINKED, _closed(plan)]
    joined = "\n  UNION ALL\n".join(parts)
    return f"""CREATE OR REPLACE TEMP TABLE moving AS
FROM (
{joined}
)
WHERE {condition}"""


def _here(column: str) -> str:
    return in_buckets_sql(column, "$first_bucket", "$last_bucket")


_LINKED = f"""  FROM linked
  WHERE {_here("bucket")}"""


def _closed(plan: Plan) -> str:
    return f"""  SELECT DISTINCT site, bucket, patient_id, true, false, {_NO_MOMENT}
  FROM lake.closings c
  JOIN spans s USING (site)
  WHERE {_here("c.bucket")}
    AND c.resource_type IN ({_types(plan)})
    AND c.store_seq > s.built_seq"""


def tables_of(plan: Plan) -> list[str]:
    """The event tables that a plan reads, by name."""
    return sorted({*plan.selections, "patients", *(["encounters"] if plan.reads_encounters else [])})


def _types(plan: Plan) -> str:
    return ", ".join(literal(_TYPE_OF[table]) for table in tables_of(plan))


def _values(plan: Plan) -> list[Aggregate | PatientFact]:
    return [value for feature in plan.features for value in leaves(feature.value)]


@dataclass(frozen=True)
class _Whose:
    """For whom rows are looked through: the keys of the patient, how a row is found to be his, and while it is."""

    keys: str
    join: str
    since: str
    until: str


_OWN = _Whose("e.site, e.bucket, e.patient_id", "", "e.known_at", "e.known_to")
_OF_LINKED = _Whose(
    "a.site, a.bucket, a.patient_id",
    """
  JOIN aliases a
    ON a.site = e.site
    AND a.other_bucket = e.bucket
    AND a.other_id = e.patient_id""",
    "greatest(e.known_at, a.since)",
    "least(e.known_to, a.until)",
)


def create_linked(con: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Create the temporary table `linked`: the rows of `moving` that merged patients have of their other records.

    They lie in any bucket, and are few: they are found once a build.
    """
    con.execute("""
CREATE OR REPLACE TEMP TABLE linked (
  site VARCHAR,
  bucket USMALLINT,
  patient_id VARCHAR,
  is_news BOOLEAN,
  is_restless BOOLEAN,
  begins TIMESTAMPTZ,
  until TIMESTAMPTZ,
  moments TIMESTAMPTZ[]
)""")
    create_kin(con)
    buckets = con.execute("SELECT DISTINCT other_bucket FROM kin ORDER BY other_bucket").fetchall()
    if not buckets:
        return
    con.execute("CREATE OR REPLACE TEMP TABLE persons AS SELECT DISTINCT site, bucket, patient_id FROM kin")
    create_people(con)
    con.execute("""
CREATE OR REPLACE TEMP TABLE aliases AS
SELECT k.*, p.since, p.until
FROM kin k
JOIN people p
  ON p.asked_site = k.site
  AND p.asked_patient_id = k.patient_id
  AND p.patient_id = k.other_id""")
    for (bucket,) in buckets:
        for part in (*_moving_events(plan, _OF_LINKED), _news_of_kin(plan)):
            con.execute(f"INSERT INTO linked\n{part}", {"first_bucket": bucket, "last_bucket": bucket})


def _news_of_kin(plan: Plan) -> str:
    """Whose other records, of some buckets, are stated anew or have had a version closed since the last build."""
    return f"""  SELECT DISTINCT k.site, k.bucket, k.patient_id, true, false, {_NO_MOMENT}
  FROM kin k
  JOIN spans s ON s.site = k.site
  JOIN (
    SELECT site, bucket, patient_id, store_seq
    FROM lake.closings
    WHERE {_here("bucket")}
      AND resource_type IN ({_types(plan)})
    UNION ALL
    SELECT site, bucket, patient_id, store_seq
    FROM lake.patients
    WHERE {_here("bucket")}
  ) n
    ON n.site = k.site
    AND n.bucket = k.other_bucket
    AND n.patient_id = k.other_id
    AND n.store_seq > s.built_seq"""


def _moving_events(plan: Plan, whose: _Whose) -> list[str]:
    parts = [_moving_rows_of(plan, table, whose) for table in plan.selections]
    return [*parts, _moving_rows("encounters", ["e.end_at"], whose)] if plan.reads_encounters else parts


def _moving_rows_of(plan: Plan, table: str, whose: _Whose) -> str:
    values = [value for value in _values(plan) if isinstance(value, Aggregate) and value.rows.table == table]
    windows = [value.window for value in values]
    edges = sorted({us for window in windows for us in (window.start_us, window.end_us) if us})
    # As whole numbers: an interval added to a TIMESTAMPTZ goes through the calendar, which takes ten times as long.
    moments = [f"make_timestamptz(epoch_us(e.effective_at) + {us})" for us in edges]
    ends = {"conditions": ["e.abatement_at"], "medication_requests": [ENDS_AT], "encounters": ["e.end_at"]}
    is_restless = any(value.operator in INSTANT_OPERATORS for value in values)
    # When an order ends is asked by each feature for itself.
    join = "JOIN" if table == "medication_requests" else "SEMI JOIN"
    members = f"\n  {join} {table}_members m ON {MEMBERS[table]}"
    return _moving_rows(table, moments + ends.get(table, []), whose, is_restless=is_restless, members=members)


def _moving_patients(plan: Plan) -> str:
    operators = {value.operator for value in _values(plan) if isinstance(value, PatientFact)}
    # The day after, too: who was born on 29 February is a year older on 1 March of other years.
    day = "CAST(e.birth_date + to_years(n // 2) + to_days(n % 2) AS TIMESTAMPTZ)"
    birthdays = f"list_transform(range({2 * _LONGEST_LIFE}), lambda n: {day})" if "age" in operators else ""
    is_restless = not INSTANT_OPERATORS.isdisjoint(operators)
    return _moving_rows("patients", [], _OWN, is_true_from="e.known_at", is_restless=is_restless, more=birthdays)


def _moving_rows(
    table: str,
    ends: list[str],
    whose: _Whose,
    *,
    is_true_from: str = "e.effective_at",
    is_restless: bool = False,
    members: str = "",
    more: str = "",
) -> str:
    """A row a version of a resource, with the moments at which it begins to count, ceases to, or changes its part.

    `more`: a list of further moments. Versions that nothing happens to in the span, and are no news, are left out.
    """
    moments = [f"greatest({whose.since}, {is_true_from})", whose.until, *ends]
    within = "".join(f"\n    OR ({moment} > s.built_to AND {moment} <= s.reach)" for moment in moments)
    return f"""  SELECT
    {whose.keys},
    s.answers_all OR {_is_news(table)} AS is_news,
    {str(is_restless).lower()} AS is_restless,
    {moments[0]} AS begins,
    {whose.until} AS until,
    [{", ".join(moments)}]{f" || {more}" if more else ""} AS moments
  FROM {table}_in($first_bucket, $last_bucket) e
  JOIN spans s ON s.site = e.site{whose.join}{members}
  WHERE s.answers_all
    OR {str(is_restless or bool(more)).lower()}
    OR {_is_news(table)}{within}"""


def _is_news(table: str) -> str:
    news = "e.store_seq > s.built_seq"
    if table != "medication_requests":
        return news
    # The code of an order can come later than the order, with the Medication that it points to.
    return f"""{news}
      OR EXISTS (
        FROM lake.medications d
        WHERE d.site = e.site
          AND d.resource_id = e.medication_id
          AND d.store_seq > s.built_seq
      )"""
