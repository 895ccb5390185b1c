"""Which row of a log holds for each question, and what does it say? The SQL of point-in-time retrieval.

In go a `Log` (rows with keys, an instant and a time of creation) and questions, or an interval; out come the columns
that are asked for. First it is found which row holds, by keys and instants alone; then its columns are fetched. Of
several rows with the same keys and instant the one that was created last holds, and of those the last one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from fhir_features.feast.holding import Holding
from fhir_features.features.arrays import Array
from fhir_features.lake import identifier

_LOWEST = -(1 << 62)
_ROWS_A_BATCH = 200_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Log:
    """Rows by keys and instants. `rows` is what to read FROM; keys, `at` and `created` are columns of it. `place`: an
    expression over a row of it, as `log`, that is another whole number for each, in their order.

    Instants without a time zone are UTC.
    """

    rows: str
    keys: tuple[str, ...]
    at: str
    created: str | None
    place: str

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
    places = _holding(con, log, rule, asked.num_rows)
    chosen, number = np.unique(places[places >= 0], return_inverse=True)
    con.register("chosen", pa.table({"number": np.arange(len(chosen)), "place": chosen}))
    listed = "".join(f", log.{identifier(column)} AS c{number}" for number, column in enumerate(columns))
    on = f"{log.place} = chosen.place"
    fetched = con.sql(f"SELECT chosen.number{listed}\nFROM {log.rows} AS log\nJOIN chosen ON {on}").to_arrow_table()
    con.unregister("chosen")
    place_of = np.empty(len(chosen), np.int64)
    place_of[fetched.column("number").to_numpy()] = np.arange(len(chosen))
    taken = np.zeros(asked.num_rows, np.int64)
    taken[places >= 0] = place_of[number]
    indices = pa.array(taken, mask=places < 0)
    answers = []
    for column in range(len(columns)):
        answers.append(fetched.column(f"c{column}").take(indices))
        # Let go of each column once it is taken: two of all would need twice the memory.
        fetched = fetched.drop_columns(f"c{column}")
    return answers


def _holding(con: duckdb.DuckDBPyConnection, log: Log, rule: Rule, questions: int) -> Array:
    """The place of the row of the log that holds at each question, by its number; -1 where there is none."""
    same_keys = [f"asked.k{number} = people.k{number}" for number in range(len(log.keys))]
    asked = con.execute(f"""
SELECT row, person, epoch_us(t) AS t
FROM asked
JOIN people ON {" AND ".join(same_keys) or "true"}
WHERE t IS NOT NULL
ORDER BY person, t, row""").fetchnumpy()
    places = np.full(questions, -1)
    if len(asked["row"]):
        holding = Holding(asked["person"], asked["t"])
        for batch in con.execute(_rows(log, rule)).to_arrow_reader(_ROWS_A_BATCH):
            person, instant, created, place = (column.to_numpy() for column in batch.columns)
            since = np.maximum(instant, created) if rule.by_created and log.created else instant
            holding.take(person, since, instant, created, place)
        ttl_us = None if rule.ttl is None else rule.ttl // dt.timedelta(microseconds=1)
        places[asked["row"]] = holding.holds(ttl_us)
    return places


def _rows(log: Log, rule: Rule) -> str:
    """Whose rows there are, their instants as microseconds, and their places. What is not known to have been created is
    of before all time, or does not count where creation is heeded."""
    created = f"epoch_us({_utc(log.created)})" if log.created else "NULL::BIGINT"
    heeded = f"\n  AND log.{identifier(log.created)} IS NOT NULL" if rule.by_created and log.created else ""
    return f"""
SELECT
  people.person,
  epoch_us({_utc(log.at)}) AS instant,
  coalesce({created}, {_LOWEST}) AS created,
  {log.place} AS place
FROM {log.rows} AS log
JOIN people ON {_is_of_person(log)}
WHERE log.{identifier(log.at)} IS NOT NULL{heeded}"""


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
    return _fetch(con, log, columns).drop_columns("row").rename_columns(list(columns))


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


def _is_of_person(log: Log) -> str:
    same = [f"log.{identifier(key)} = people.k{number}" for number, key in enumerate(log.keys)]
    return " AND ".join(same) or "true"


def _fetch(con: duckdb.DuckDBPyConnection, log: Log, columns: Sequence[str]) -> pa.Table:
    """`row` and the columns, as `c0`, `c1`…, of the rows that `matched` tells by keys and instant."""
    chosen = "".join(f", log.{identifier(column)} AS c{number}" for number, column in enumerate(columns))
    on = [f"log.{identifier(key)} IS NOT DISTINCT FROM matched.k{number}" for number, key in enumerate(log.keys)]
    on.append(f"{_utc(log.at)} = matched.instant")
    fetch = f"SELECT matched.row{chosen}\nFROM {log.rows} AS log\nJOIN matched ON {' AND '.join(on)}"
    fetched = con.sql(fetch).to_arrow_table()
    (matched,) = con.sql("SELECT count(*) FROM matched").fetchone() or (0,)
    if fetched.num_rows == matched:
        return fetched
    del fetched
    # Ties are rare, and to look for them before is dear: the fetch is done again, with the last of each chosen.
    last = [*([_utc(log.created)] if log.created else []), log.place]
    order = ", ".join(f"{column} DESC NULLS LAST" for column in last)
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
