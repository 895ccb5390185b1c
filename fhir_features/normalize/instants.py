"""How FHIR dates and times are read: texts in, the first and last UTC instant that each can mean out (TIME section E).

DuckDB reads the texts of a whole batch at once: the plain ones by its own cast, each of the others once. `first_at` is
what counts for when something was true, `last_at` for when it was known; `day` is the first day of the calendar, which
a birthday is; `precision` names what was written. All are null for a text that is not a date, dateTime or instant of
FHIR, or that does not exist.

Source of the grammar: https://hl7.org/fhir/R4/datatypes.html#dateTime. More lenient than it in two places that occur in
practice: a time may lack its seconds, and its offset (TIME rule 20: then it is in the source's zone).
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from fhir_features.lake import identifier, literal

_DAY = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_DATE = rf"\d{{4}}|\d{{4}}-(0[1-9]|1[0-2])|{_DAY}"
_OFFSET = r"(Z|[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00)"
_TIME = rf"{_DAY}T([01]\d|2[0-3]):[0-5]\d(:([0-5]\d|60)(\.\d+)?)?{_OFFSET}?"
# What nearly every text is, and DuckDB's own cast reads many times as fast. An offset can carry a text over the ends of
# the calendar, so its first and last days are left to the rules.
_PLAIN = rf"{_DAY}T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{{1,6}})?{_OFFSET}"
_IS_PLAIN = f"(regexp_full_match(text, '{_PLAIN}') AND text BETWEEN '0001-01-02' AND '9999-12-31')"

_MIDNIGHT = rf"{_DAY}T00:00(:00(\.0+)?)?{_OFFSET}?"

# Rules 18 to 20 of TIME.md. Year 0000 is no year of FHIR; :60 is the last microsecond of its minute; digits beyond
# microseconds round up for known and down for true. `_local` are wall-clock times. A wall-clock time without an offset
# is one instant, two (clocks set back) or none (clocks set forward): the offsets in force a day before and a day after
# give the candidates, and those that do have that wall-clock time count, or all where none does.
_READ = f"""
CREATE OR REPLACE TEMP TABLE instants AS
WITH written AS MATERIALIZED (
  SELECT
    text,
    CASE
      WHEN text < '0001' THEN NULL
      WHEN regexp_full_match(text, '{_DATE}')
      THEN CASE length(text) WHEN 4 THEN 'year' WHEN 7 THEN 'month' ELSE 'day' END
      WHEN regexp_full_match(text, '{_TIME}')
      THEN CASE WHEN contains(text, '.') THEN 'subsecond' WHEN text[17:17] = ':' THEN 'second' ELSE 'minute' END
    END AS precision
  FROM (SELECT DISTINCT text FROM odd_texts)
),
completed AS MATERIALIZED (
  SELECT
    *,
    CASE precision
      WHEN 'year' THEN text || '-01-01T00:00:00'
      WHEN 'month' THEN text || '-01T00:00:00'
      WHEN 'day' THEN text || 'T00:00:00'
      WHEN 'minute' THEN text[1:16] || ':00'
      ELSE CASE
        WHEN text[18:19] = '60' THEN text[1:17] || '59.999999'
        ELSE text[1:19] || regexp_extract(text, '\\.\\d{{1,6}}')
      END
    END AS local_text,
    CASE
      WHEN length(text) < 11 THEN NULL
      WHEN text[-1:] = 'Z' THEN INTERVAL 0 MINUTE
      WHEN text[-6:-6] IN ('+', '-') AND text[-3:-3] = ':'
      THEN CASE text[-6:-6] WHEN '-' THEN -1 ELSE 1 END
        * to_minutes(60 * TRY_CAST(text[-5:-4] AS INTEGER) + TRY_CAST(text[-2:] AS INTEGER))
    END AS utc_offset,
    CASE
      WHEN precision = 'year' THEN INTERVAL 1 YEAR
      WHEN precision = 'month' THEN INTERVAL 1 MONTH
      WHEN precision = 'day' THEN INTERVAL 1 DAY
      WHEN getvariable('midnight_is_date') AND regexp_full_match(text, '{_MIDNIGHT}') THEN INTERVAL 1 DAY
      WHEN precision = 'minute' THEN INTERVAL 1 MINUTE
      WHEN precision = 'subsecond' AND text[18:19] <> '60' AND regexp_matches(text, '\\.\\d{{6}}\\d*[1-9]')
      THEN INTERVAL 2 MICROSECOND
      ELSE INTERVAL 1 MICROSECOND
    END AS width
  FROM written
  WHERE precision IS NOT NULL
),
placed AS MATERIALIZED (
  SELECT
    *,
    TRY_CAST(local_text AS TIMESTAMP) AS first_local,
    TRY_CAST(local_text AS TIMESTAMP) + width - INTERVAL 1 MICROSECOND AS last_local
  FROM completed
),
candidates AS MATERIALIZED (
  SELECT
    *,
    timezone('UTC', first_local - zone_offset(first_local - INTERVAL 1 DAY)) AS first_before,
    timezone('UTC', first_local - zone_offset(first_local + INTERVAL 1 DAY)) AS first_after,
    timezone('UTC', last_local - zone_offset(last_local - INTERVAL 1 DAY)) AS last_before,
    timezone('UTC', last_local - zone_offset(last_local + INTERVAL 1 DAY)) AS last_after
  FROM placed
  WHERE utc_offset IS NULL
)
SELECT
  text,
  precision,
  first_local::DATE AS day,
  timezone('UTC', first_local - utc_offset) AS first_at,
  timezone('UTC', last_local - utc_offset) AS last_at
FROM placed
WHERE utc_offset IS NOT NULL
UNION ALL
SELECT
  text,
  precision,
  first_local::DATE,
  coalesce(
    list_min([utc FOR utc IN [first_before, first_after] IF timezone(getvariable('zone'), utc) = first_local]),
    least(first_before, first_after)
  ),
  coalesce(
    list_max([utc FOR utc IN [last_before, last_after] IF timezone(getvariable('zone'), utc) = last_local]),
    greatest(last_before, last_after)
  )
FROM candidates
UNION ALL
SELECT text, NULL, NULL, NULL, NULL
FROM written
WHERE precision IS NULL"""


def read_odd_texts(
    con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], *, zone: str, midnight_is_date: bool
) -> set[str]:
    """Which of some columns have a text that is not plain; if any, make the temporary table `instants` of such texts.

    `instants` is (text, precision, day, first_at, last_at), what is null where a text cannot be read. `zone` is the
    time zone of texts without an offset. The connection must be in UTC.
    """
    if not columns:
        return set()
    texts = "\nUNION ALL\n".join(
        f"SELECT {literal(column)} AS of_column, {identifier(column)} AS text FROM {table}" for column in columns
    )
    is_midnight = f" OR regexp_full_match(text, '{_MIDNIGHT}')" if midnight_is_date else ""
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE odd_texts AS
SELECT DISTINCT of_column, text
FROM (
{texts}
)
WHERE NOT {_IS_PLAIN}{is_midnight}""")
    odd = {column for (column,) in con.execute("SELECT DISTINCT of_column FROM odd_texts").fetchall()}
    if not odd:
        return odd
    con.execute(
        "CREATE OR REPLACE TEMP MACRO zone_offset(utc) AS timezone(getvariable('zone'), timezone('UTC', utc)) - utc"
    )
    con.execute("SET VARIABLE zone = ?", [zone])
    con.execute("SET VARIABLE midnight_is_date = ?", [midnight_is_date])
    con.execute(_READ)
    con.execute("""
UPDATE instants
SET first_at = NULL, last_at = NULL
WHERE first_at < '0001-01-01 00:00:00+00' OR last_at >= '10000-01-01 00:00:00+00'""")
    return odd


def plain_instant(text: str) -> dict[str, str]:
    """What a plain text in a column means, as SQL expressions: `first_at`, `last_at`, `precision` and `day`."""
    read = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    return {
        "first_at": read,
        "last_at": read,
        "precision": f"CASE WHEN contains({text}, '.') THEN 'subsecond' WHEN {text} IS NOT NULL THEN 'second' END",
        "day": f"TRY_CAST({text}[1:10] AS DATE)",
    }
