"""At which instants must whom a view be answered for, so that its table stays right: the spine of a feature table.

In go a plan whose members stand (`terms.create_members`), the view's cadence, and what the build adds for each site
(`Span`); out comes the statement for the questions of some buckets. A patient is asked about at the instants in
(built_to, reach] at which something became known or true, was closed, ended, or left a window (TIME rule 22), and at
`news_at` where the store has learned something since the last build. A schedule answers all of these at its next
instant, and what changes at every instant at each of its own. The rows of a merged patient's other records count among
his own while they are known to be his (TIME rule 13).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import duckdb
import pyarrow as pa

from fhir_features.features.cadence import Schedule, Serving
from fhir_features.features.compile import Plan, leaves
from fhir_features.features.counting import ENDS_AT, MEMBERS
from fhir_features.features.nodes import Aggregate, PatientFact
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.people import create_kin, create_people
from fhir_features.features.spine import INSTANT
from fhir_features.lake import EVENT_TABLES, literal

START = dt.datetime(1, 1, 1, tzinfo=dt.UTC)

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}

# In years; longer than anyone has lived.
_LONGEST_LIFE = 150


@dataclass(frozen=True)
class Span:
    """What a build adds for a site: the instants in (built_to, reach], UTC.

    `built_seq` is the store_seq of the site's last build. At `news_at` whoever there is news of since then is answered;
    with `answers_all`, everyone. `restates`: the table is written anew, and keeps what its newest rows say.
    """

    site: str
    built_to: dt.datetime
    built_seq: int
    reach: dt.datetime
    news_at: dt.datetime
    answers_all: bool
    restates: bool


def last_instants(serving: Serving, instants: dict[str, dt.datetime]) -> dict[str, dt.datetime]:
    """By site the last instant of a cadence at or before one."""
    column = pa.array(list(instants.values()), INSTANT).cast(pa.int64())
    answered_at = pa.array(serving.answered_at(column.to_numpy())).cast(INSTANT)
    return dict(zip(instants, answered_at.to_pylist(), strict=True))


def next_instant(serving: Serving, after: dt.datetime, up_to: dt.datetime) -> dt.datetime:
    """The first instant of a schedule after one and at or before another; of no schedule, the other."""
    if not isinstance(serving, Schedule):
        return up_to
    found: dt.datetime = _due(serving, after, up_to)[0].as_py()
    return found


def create_spans(con: duckdb.DuckDBPyConnection, plan: Plan, serving: Serving, spans: Sequence[Span]) -> None:
    """Create the temporary tables that the statement reads: `spans`, `linked_instants`, and `due` of a schedule."""
    con.execute("""
CREATE OR REPLACE TEMP TABLE spans (
  site VARCHAR,
  built_to TIMESTAMPTZ,
  built_seq BIGINT,
  reach TIMESTAMPTZ,
  news_at TIMESTAMPTZ,
  answers_all BOOLEAN,
  restates BOOLEAN
)""")
    con.executemany("INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?)", [astuple(span) for span in spans])
    if isinstance(serving, Schedule):
        reach = max(span.reach for span in spans)
        first = min(_first_known(con, plan) or reach, reach)
        after = max(min(span.built_to for span in spans), first - dt.timedelta(microseconds=1))
        con.register("due_in", pa.table({"t": _due(serving, after, reach)}))
        con.execute("CREATE OR REPLACE TEMP TABLE due AS SELECT t FROM due_in ORDER BY t")
        con.unregister("due_in")
    _create_linked_instants(con, plan)


def questions_of(plan: Plan, serving: Serving) -> str:
    """The statement; its parameters are `first_bucket` and `last_bucket`.

    Its rows are (question, site, bucket, patient_id, t), numbered from 1 in the order of bucket, site, patient and t.
    """
    parts = [*_instants_of_events(plan, _OWN), _instants_of_patients(plan), _LINKED_INSTANTS]
    all_instants = "\n  UNION ALL\n".join(parts)
    # Instants are told apart and put in order by numbers of persons: by texts it takes twice the time.
    return f"""WITH instants AS (
{all_instants}
),
closed AS (
  SELECT DISTINCT site, bucket, patient_id
  FROM lake.closings c
  JOIN spans s USING (site)
  WHERE c.bucket BETWEEN $first_bucket AND $last_bucket
    AND c.resource_type IN ({_types(plan)})
    AND c.store_seq > s.built_seq
),
persons_here AS (
  SELECT *, row_number() OVER (ORDER BY bucket, site, patient_id) AS person
  FROM (
    SELECT site, bucket, patient_id FROM instants
    UNION
    SELECT site, bucket, patient_id FROM closed
  )
),
changes AS (
  SELECT p.person, i.t
  FROM instants i
  JOIN persons_here p USING (site, bucket, patient_id)
  JOIN spans s USING (site)
  WHERE i.t > s.built_to
    AND i.t <= s.reach
),
news AS (
  SELECT site, bucket, patient_id
  FROM instants
  WHERE is_news
  UNION
  SELECT site, bucket, patient_id
  FROM closed
),
asked_for AS (
{_ON_SCHEDULE if isinstance(serving, Schedule) else _AT_ONCE}
  UNION
  SELECT p.person, s.news_at
  FROM news n
  JOIN persons_here p USING (site, bucket, patient_id)
  JOIN spans s USING (site)
)
SELECT row_number() OVER (ORDER BY a.person, a.t) AS question, p.site, p.bucket, p.patient_id, a.t
FROM asked_for a
JOIN persons_here p USING (person)"""


_LINKED_INSTANTS = """  SELECT site, bucket, patient_id, is_news, is_restless, t
  FROM linked_instants
  WHERE bucket BETWEEN $first_bucket AND $last_bucket"""

_AT_ONCE = """  SELECT person, t
  FROM changes"""

_ON_SCHEDULE = """  SELECT c.person, d.t
  FROM changes c
  ASOF JOIN due d ON d.t >= c.t
  UNION
  SELECT p.person, d.t
  FROM (
    SELECT site, bucket, patient_id, min(t) AS since
    FROM instants
    WHERE is_restless
    GROUP BY ALL
  ) r
  JOIN persons_here p USING (site, bucket, patient_id)
  JOIN spans s USING (site)
  JOIN due d
    ON d.t >= r.since
    AND d.t > s.built_to
    AND d.t <= s.reach"""


def _due(schedule: Schedule, after: dt.datetime, up_to: dt.datetime) -> pa.Array:
    """The instants of a schedule with `after` < instant <= `up_to`."""
    first, last = pa.array([after, up_to], INSTANT).cast(pa.int64()).to_pylist()
    return pa.array(schedule.between(first, last)).cast(INSTANT)


def _first_known(con: duckdb.DuckDBPyConnection, plan: Plan) -> dt.datetime | None:
    """When the first of the rows that the plan reads was known."""
    known = [f"SELECT min(known_at) AS known_at FROM lake.{table}" for table in _tables(plan)]
    row = con.execute(f"SELECT min(known_at) FROM ({' UNION ALL '.join(known)})").fetchone()
    assert row is not None
    first: dt.datetime | None = row[0]
    return first


def _tables(plan: Plan) -> list[str]:
    return sorted({*plan.selections, "patients", *(["encounters"] if plan.reads_encounters else [])})


def _types(plan: Plan) -> str:
    return ", ".join(literal(_TYPE_OF[table]) for table in _tables(plan))


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


def _create_linked_instants(con: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Create the temporary table `linked_instants`: what the other records of merged patients give them to answer.

    They lie in any bucket, and are few: they are found once a build. Where only the news of a link, or of a version
    that was closed, concerns a patient, there is no instant.
    """
    con.execute("""
CREATE OR REPLACE TEMP TABLE linked_instants (
  site VARCHAR,
  bucket USMALLINT,
  patient_id VARCHAR,
  is_news BOOLEAN,
  is_restless BOOLEAN,
  t TIMESTAMPTZ
)""")
    create_kin(con)
    buckets = con.execute("SELECT DISTINCT other_bucket FROM kin ORDER BY other_bucket").fetchall()
    if not buckets:
        return
    con.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT DISTINCT site, bucket, patient_id FROM kin")
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
        for part in (*_instants_of_events(plan, _OF_LINKED), _news_of_kin(plan)):
            con.execute(f"INSERT INTO linked_instants\n{part}", {"first_bucket": bucket, "last_bucket": bucket})


def _news_of_kin(plan: Plan) -> str:
    """Whose other records, of some buckets, are stated anew or have had a version closed since the last build."""
    return f"""  SELECT DISTINCT k.site, k.bucket, k.patient_id, true, false, NULL::TIMESTAMPTZ
  FROM kin k
  JOIN spans s ON s.site = k.site
  JOIN (
    SELECT site, bucket, patient_id, store_seq
    FROM lake.closings
    WHERE bucket BETWEEN $first_bucket AND $last_bucket
      AND resource_type IN ({_types(plan)})
    UNION ALL
    SELECT site, bucket, patient_id, store_seq
    FROM lake.patients
    WHERE bucket BETWEEN $first_bucket AND $last_bucket
  ) n
    ON n.site = k.site
    AND n.bucket = k.other_bucket
    AND n.patient_id = k.other_id
    AND n.store_seq > s.built_seq"""


def _instants_of_events(plan: Plan, whose: _Whose) -> list[str]:
    parts = [_instants_of_rows(plan, table, whose) for table in plan.selections]
    return [*parts, _instants("encounters", "[e.end_at]", whose)] if plan.reads_encounters else parts


def _instants_of_rows(plan: Plan, table: str, whose: _Whose) -> str:
    values = [value for value in _values(plan) if isinstance(value, Aggregate) and value.rows.table == table]
    windows = [value.window for value in values]
    edges = sorted({us for window in windows for us in (window.start_us, window.end_us) if us})
    moments = [f"e.effective_at + to_microseconds({us})" for us in edges]
    ends = {"conditions": ["e.abatement_at"], "medication_requests": [ENDS_AT], "encounters": ["e.end_at"]}
    moments += ends.get(table, [])
    is_restless = any(value.operator in INSTANT_OPERATORS for value in values)
    members = f"\n    JOIN {table}_members m ON {MEMBERS[table]}"
    return _instants(table, f"[{', '.join(moments)}]", whose, is_restless=is_restless, members=members)


def _instants_of_patients(plan: Plan) -> str:
    operators = {value.operator for value in _values(plan) if isinstance(value, PatientFact)}
    # The day after, too: who was born on 29 February is a year older on 1 March of other years.
    day = "CAST(e.birth_date + to_years(n // 2) + to_days(n % 2) AS TIMESTAMPTZ)"
    birthdays = f"list_transform(range({2 * _LONGEST_LIFE}), lambda n: {day})" if "age" in operators else "[]"
    is_restless = not INSTANT_OPERATORS.isdisjoint(operators)
    return _instants("patients", birthdays, _OWN, is_true_from="e.known_at", is_restless=is_restless)


def _instants(
    table: str,
    moments: str,
    whose: _Whose,
    *,
    is_true_from: str = "e.effective_at",
    is_restless: bool = False,
    members: str = "",
) -> str:
    """One row an instant at which a version of a resource begins to count, ceases to, or changes its part."""
    begins = f"greatest({whose.since}, {is_true_from})"
    return f"""  SELECT site, bucket, patient_id, is_news, is_restless, unnest(moments) AS t
  FROM (
    SELECT
      {whose.keys},
      {str(is_restless).lower()} AS is_restless,
      s.answers_all OR {_is_news(table)} AS is_news,
      list_filter(
        [{begins}, {whose.until}] || {moments},
        lambda t: t >= {begins} AND (t <= {whose.until} OR {whose.until} IS NULL)
      ) AS moments
    FROM {table} e
    JOIN spans s ON s.site = e.site{whose.join}{members}
    WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
  )"""


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
