"""At which instants must whom a view be answered for, so that its table stays right: the spine of a feature table.

In go a plan whose members stand (`terms.create_members`), the view's cadence, and what the build adds for each site
(`Span`); out come the questions of some buckets. A patient is asked about at the instants in (built_to, reach] at which
something became known or true, was closed, ended, or left a window (TIME rule 22), and at `news_at` where the store has
learned something since the last build. A schedule answers all of these at its next instant, and what changes at every
instant at each of its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import duckdb
import numpy as np
import pyarrow as pa

from fhir_features.features.arrays import NEVER, Array, distinct_pairs, expand
from fhir_features.features.cadence import Schedule, Serving
from fhir_features.features.compile import Plan
from fhir_features.features.moving import create_linked, moving, tables_of
from fhir_features.features.spine import INSTANT

START = dt.datetime(1, 1, 1, tzinfo=dt.UTC)

_BEFORE_ALL = -(1 << 62)


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
    """Create the temporary tables that questions are found by: `spans`, `linked`, and `due` of a schedule."""
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
    create_linked(con, plan)


def create_questions(
    con: duckdb.DuckDBPyConnection, plan: Plan, serving: Serving, buckets: tuple[int, int], condition: str
) -> None:
    """Put the questions of some buckets to the connection: the tables `persons` and `asked` of `engine.ask`, K = T.

    They are numbered from 1. `condition`: of which patients (site, patient_id).
    """
    bounds = {"first_bucket": buckets[0], "last_bucket": buckets[1]}
    con.execute(moving(plan, condition), bounds)
    con.execute(_PERSONS_HERE)
    moments = con.execute(_MOMENTS).to_arrow_table()
    person, is_news, is_restless, t = (column.to_numpy() for column in moments.columns)
    spans = con.execute(_SPANS_HERE).fetchnumpy()
    happens = (t > spans["built_to"][person]) & (t <= spans["reach"][person])
    asked = [(person[happens], t[happens])]
    if isinstance(serving, Schedule):
        asked = _on_schedule(con, *asked[0], person[is_restless], t[is_restless], spans)
    news = np.flatnonzero(np.bincount(person[is_news]))
    asked.append((news, spans["news_at"][news]))
    here, t = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    is_new = t > spans["answered_to"][here]
    here, t = distinct_pairs(here[is_new], t[is_new])
    begins = np.append(True, here[1:] != here[:-1])[: len(here)]
    t = pa.array(t).cast(INSTANT)
    con.register("persons_in", pa.table({"person": np.arange(begins.sum(), dtype=np.int32), "here": here[begins]}))
    numbered = {"question": np.arange(1, len(t) + 1), "person": np.cumsum(begins, dtype=np.int32) - 1, "t": t}
    con.register("asked_in", pa.table(numbered))
    con.execute("""
CREATE OR REPLACE TEMP TABLE persons AS
SELECT i.person, site, bucket, patient_id
FROM persons_in i
JOIN persons_here h ON h.person = i.here""")
    con.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT question, person, t, t AS k FROM asked_in")
    con.unregister("persons_in")
    con.unregister("asked_in")


def _on_schedule(
    con: duckdb.DuckDBPyConnection, person: Array, t: Array, restless: Array, seen: Array, spans: dict[str, Array]
) -> list[tuple[Array, Array]]:
    """The instants of the schedule that come next; and of the restless, who were seen at some moments, all since."""
    due = con.execute("SELECT epoch_us(t) AS t FROM due ORDER BY t").fetchnumpy()["t"]
    since = np.full(len(spans["reach"]), NEVER)
    np.minimum.at(since, restless, seen)
    first = np.searchsorted(due, np.maximum(since, spans["built_to"] + 1))
    last = np.where(since < NEVER, np.searchsorted(due, spans["reach"], "right"), 0)
    place, number = expand(first, np.maximum(last - first, 0))
    return [(person, due[np.searchsorted(due, t)]), (number, due[place])]


_PERSONS_HERE = """
CREATE OR REPLACE TEMP TABLE persons_here AS
SELECT
  CAST(row_number() OVER (ORDER BY bucket, site, patient_id) - 1 AS INTEGER) AS person,
  bucket, site, patient_id, built_to, reach, news_at,
  CASE WHEN NOT restates THEN answered_at END AS answered_to
FROM (SELECT DISTINCT bucket, site, patient_id FROM moving)
JOIN spans USING (site)
LEFT JOIN previous USING (site, patient_id)"""

# Persons are numbers from here on: texts are slow to tell apart. News without a moment is of before all time.
_MOMENTS = f"""
SELECT person, is_news, is_restless, coalesce(epoch_us(t), {_BEFORE_ALL}) AS t
FROM (
  SELECT person, is_news, is_restless, begins, until, unnest(moments) AS t
  FROM moving
  JOIN persons_here USING (bucket, site, patient_id)
)
WHERE begins IS NULL
  OR (t >= begins AND (t <= until OR until IS NULL))"""

_SPANS_HERE = f"""
SELECT
  epoch_us(built_to) AS built_to, epoch_us(reach) AS reach, epoch_us(news_at) AS news_at,
  epoch_us(coalesce(answered_to, TIMESTAMPTZ '{START.isoformat()}')) AS answered_to
FROM persons_here
ORDER BY person"""


def _due(schedule: Schedule, after: dt.datetime, up_to: dt.datetime) -> pa.Array:
    """The instants of a schedule with `after` < instant <= `up_to`."""
    first, last = pa.array([after, up_to], INSTANT).cast(pa.int64()).to_pylist()
    return pa.array(schedule.between(first, last)).cast(INSTANT)


def _first_known(con: duckdb.DuckDBPyConnection, plan: Plan) -> dt.datetime | None:
    """When the first of the rows that the plan reads was known."""
    known = [f"SELECT min(known_at) AS known_at FROM lake.{table}" for table in tables_of(plan)]
    row = con.execute(f"SELECT min(known_at) FROM ({' UNION ALL '.join(known)})").fetchone()
    assert row is not None
    first: dt.datetime | None = row[0]
    return first
