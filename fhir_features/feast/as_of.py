"""Which row of a log holds for each question, and what does it say? The SQL of point-in-time retrieval.

In go a `Log` (rows with keys, an instant and a time of creation) and questions, or an interval; out come the columns
that are asked for. First the instant of the row that holds is found, by keys and instants alone; then its columns are
fetched. Of several rows with the same keys and instant the one that was created last holds, and of those the last one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from fhir_features.lake import identifier

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Log:
    """Rows by keys and instants. `rows` is what to read FROM; the other fields are columns, `order` the rows' order.

    Instants without a time zone are UTC.
    """

    rows: str
    keys: tuple[str, ...]
    at: str
    created: str | None
    order: tuple[str, ...]

    @property
    def key_columns(self) -> str:
        """The keys as `k0`, `k1`…, each with a comma after it."""
        return "".join(f"log.{identifier(key)} AS k{number}, " for number, key in enumerate(self.keys))


@dataclass(frozen=True)
class Rule:
    """Which rows count: those at most `ttl` old (None: of any age), and by their creation, if it is to be heeded."""

    ttl: dt.timedelta | None
    by_created: bool


def as_of(
    con: duckdb.DuckDBPyConnection, log: Log, rule: Rule, asked: pa.Table, columns: Sequence[str]
) -> list[pa.ChunkedArray]:
    """What the newest row that counts says at each question, null where there is none, in the order of the questions.

    `asked` has `row` (0, 1, 2…), the keys as `k0`, `k1`…, and `t` in UTC. A null in a key or in `t` has no answer.
    """
    con.register("given", asked)
    con.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT * FROM given")
    con.unregister("given")
    con.execute(f"CREATE OR REPLACE TEMP TABLE people AS\n{_people(log)}")
    # Below this number of questions DuckDB compares each with every row; it takes a join for as small as it likes.
    con.execute("SET asof_loop_join_threshold = 0")
    con.execute(f"CREATE OR REPLACE TEMP TABLE matched AS\n{_matched(log, rule)}")
    fetched = _fetch(con, log, rule, columns)
    place = np.zeros(asked.num_rows, np.int64)
    is_answered = np.zeros(asked.num_rows, bool)
    rows = fetched.column("row").to_numpy()
    place[rows] = np.arange(len(rows))
    is_answered[rows] = True
    taken = pa.array(place, mask=~is_answered)
    answers = []
    for number in range(len(columns)):
        answers.append(fetched.column(f"c{number}").take(taken))
        # Let go of each column once it is taken: two of all would need twice the memory.
        fetched = fetched.drop_columns(f"c{number}")
    return answers


def newest(
    con: duckdb.DuckDBPyConnection,
    log: Log,
    columns: Sequence[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> pa.Table:
    """The columns of the newest row of each combination of keys with since <= instant <= until (UTC)."""
    keys = "".join(f"k{number}, " for number in range(len(log.keys)))
    grouped = f"\nGROUP BY {keys[:-2]}" if keys else "\nHAVING count(*) > 0"
    con.execute(
        f"""
CREATE OR REPLACE TEMP TABLE matched AS
SELECT row_number() OVER () - 1 AS row, *
FROM (
  SELECT {keys}max(instant) AS instant
  FROM (
    SELECT {log.key_columns}{_utc(log.at)} AS instant
    FROM {log.rows} AS log
  )
  WHERE {_between("instant", since, until)}{grouped}
)"""
    )
    return _fetch(con, log, Rule(None, by_created=False), columns).drop_columns("row").rename_columns(list(columns))


def within(
    con: duckdb.DuckDBPyConnection,
    log: Log,
    columns: Sequence[str],
    since: dt.datetime | None,
    until: dt.datetime | None,
) -> pa.Table:
    """The columns of all rows with since <= instant <= until (UTC)."""
    chosen = ", ".join(f"log.{identifier(column)}" for column in columns)
    is_within = _between(_utc(log.at), since, until)
    return con.sql(f"SELECT {chosen}\nFROM {log.rows} AS log\nWHERE {is_within}").to_arrow_table()


def keys_within(con: duckdb.DuckDBPyConnection, log: Log, since: dt.datetime, until: dt.datetime) -> pa.Table:
    """The keys, as `k0`, `k1`…, that have a row with since <= instant <= until (UTC)."""
    is_within = _between(_utc(log.at), since, until)
    return con.sql(
        f"SELECT DISTINCT {log.key_columns[:-2]}\nFROM {log.rows} AS log\nWHERE {is_within}"
    ).to_arrow_table()


def _people(log: Log) -> str:
    """A number for each combination of keys that is asked about: numbers are sorted and compared faster than texts."""
    if not log.keys:
        return "SELECT 1 AS person"
    keys = ", ".join(f"k{number}" for number in range(len(log.keys)))
    return f"SELECT row_number() OVER () AS person, {keys}\nFROM (SELECT DISTINCT {keys} FROM asked)"


def _matched(log: Log, rule: Rule) -> str:
    """For each question that has an answer the instant of the row that holds."""
    keys = "".join(f"asked.k{number}, " for number in range(len(log.keys)))
    same_keys = [f"asked.k{number} = people.k{number}" for number in range(len(log.keys))]
    known = _available(log) if rule.by_created and log.created else _known(log)
    expiry = f"\nWHERE known.instant >= asked.t - {_interval(rule.ttl)}" if rule.ttl else ""
    return f"""
WITH known AS ({known}
)
SELECT asked.row, {keys}asked.t, known.instant
FROM asked
JOIN people ON {" AND ".join(same_keys) or "true"}
ASOF JOIN known ON people.person = known.person AND asked.t >= known.since{expiry}"""


def _known(log: Log) -> str:
    """Whose rows there are, and their instants; a row counts from its instant on."""
    return f"""
  SELECT person, {_utc(log.at)} AS instant, {_utc(log.at)} AS since
  FROM {log.rows} AS log
  JOIN people ON {_is_of_person(log)}"""


def _available(log: Log) -> str:
    """From when on which instant is the latest of those whose rows had been created by then."""
    assert log.created is not None
    return f"""
  SELECT person, max(instant) OVER (PARTITION BY person ORDER BY since) AS instant, since
  FROM (
    SELECT
      person,
      {_utc(log.at)} AS instant,
      greatest({_utc(log.at)}, {_utc(log.created)}) AS since
    FROM {log.rows} AS log
    JOIN people ON {_is_of_person(log)}
    WHERE log.{identifier(log.created)} IS NOT NULL
  )"""


def _is_of_person(log: Log) -> str:
    same = [f"log.{identifier(key)} = people.k{number}" for number, key in enumerate(log.keys)]
    return " AND ".join(same) or "true"


def _fetch(con: duckdb.DuckDBPyConnection, log: Log, rule: Rule, columns: Sequence[str]) -> pa.Table:
    """`row` and the columns, as `c0`, `c1`…, of the rows that `matched` tells by keys and instant."""
    chosen = "".join(f", log.{identifier(column)} AS c{number}" for number, column in enumerate(columns))
    on = [f"log.{identifier(key)} IS NOT DISTINCT FROM matched.k{number}" for number, key in enumerate(log.keys)]
    on.append(f"{_utc(log.at)} = matched.instant")
    if rule.by_created and log.created:
        on.append(f"{_utc(log.created)} <= matched.t")
    fetch = f"SELECT matched.row{chosen}\nFROM {log.rows} AS log\nJOIN matched ON {' AND '.join(on)}"
    fetched = con.sql(fetch).to_arrow_table()
    (matched,) = con.sql("SELECT count(*) FROM matched").fetchone() or (0,)
    if fetched.num_rows == matched:
        return fetched
    del fetched
    # Ties are rare, and to look for them before is dear: the fetch is done again, with the last of each chosen.
    last = [*([_utc(log.created)] if log.created else []), *log.order]
    order = ", ".join(f"{column} DESC NULLS LAST" for column in last) or "1"
    is_last = f"row_number() OVER (PARTITION BY matched.row ORDER BY {order}) = 1"
    return con.sql(f"{fetch}\nQUALIFY {is_last}").to_arrow_table()


def _utc(column: str) -> str:
    return f"CAST(log.{identifier(column)} AS TIMESTAMPTZ)"


def _between(instant: str, since: dt.datetime | None, until: dt.datetime | None) -> str:
    after = [f"{instant} >= {_instant(since)}"] if since else []
    before = [f"{instant} <= {_instant(until)}"] if until else []
    return " AND ".join([*after, *before]) or "true"


def _instant(at: dt.datetime) -> str:
    return f"make_timestamptz({(at - _EPOCH) // dt.timedelta(microseconds=1)})"


def _interval(length: dt.timedelta) -> str:
    return f"to_microseconds({length // dt.timedelta(microseconds=1)})"
