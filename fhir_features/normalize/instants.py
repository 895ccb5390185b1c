"""How FHIR dates and times are read: text in, the first and the last UTC instant that it can mean out (TIME section E).

The rules are SQL macros, since DuckDB does them for a whole batch at once. `instant_first(text, zone)` is what counts
for when something was true, `instant_last(text, zone, midnight_is_date)` for when it was known; both are null for a
text that is not a FHIR dateTime, instant or date. `instant_precision(text)` names what was written.

Source of the grammar: https://hl7.org/fhir/R4/datatypes.html#dateTime. More lenient than it in two places that occur in
practice: a time may lack its seconds, and its offset (TIME rule 20: then it is in the source's zone).
"""

from __future__ import annotations

import duckdb

_DATE = r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
_TIME = r"T([01]\d|2[0-3]):[0-5]\d(:([0-5]\d|60)(\.\d+)?)?"
_OFFSET = r"(Z|[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00)"
# What nearly every text is: DuckDB's own cast reads it nearly three times as fast as the macros (1 M texts).
_PLAIN = rf"\d{{4}}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{{1,6}})?{_OFFSET}"
_ANY = rf"{_DATE}|\d{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]){_TIME}{_OFFSET}?"

# In the order in which they build on each other. `local` is a wall-clock TIMESTAMP, `utc` a TIMESTAMPTZ.
_MACROS = (
    f"""
instant_precision(t) AS CASE
  WHEN t IS NULL OR NOT regexp_full_match(t, '{_ANY}') OR t[1:4] = '0000' THEN NULL
  WHEN length(t) = 4 THEN 'year'
  WHEN length(t) = 7 THEN 'month'
  WHEN length(t) = 10 THEN 'day'
  WHEN contains(t, '.') THEN 'subsecond'
  WHEN regexp_matches(t, ':\\d\\d:\\d\\d') AND t[17:17] = ':' THEN 'second'
  ELSE 'minute'
END""",
    # Year 0000 is no year of FHIR. A leap second is the last microsecond of its minute (TIME rule 18).
    """
local_text(t, p) AS CASE p
  WHEN 'year' THEN t || '-01-01T00:00:00'
  WHEN 'month' THEN t || '-01T00:00:00'
  WHEN 'day' THEN t || 'T00:00:00'
  WHEN 'minute' THEN t[1:16] || ':00'
  ELSE CASE WHEN t[18:19] = '60' THEN t[1:17] || '59.999999' ELSE t[1:19] || regexp_extract(t, '\\.\\d{1,6}') END
END""",
    """
local_first(t, p) AS TRY_CAST(local_text(t, p) AS TIMESTAMP)""",
    # A birthday is a day of the calendar, in no time zone.
    """
instant_day(t) AS local_first(t, instant_precision(t))::DATE""",
    # More digits than microseconds: known rounds up, true rounds down.
    """
beyond_microseconds(t) AS regexp_matches(t, '\\.\\d{6}\\d*[1-9]')""",
    """
local_last(t, p, midnight_is_date) AS CASE
  WHEN p = 'year' THEN local_first(t, p) + INTERVAL 1 YEAR - INTERVAL 1 MICROSECOND
  WHEN p = 'month' THEN local_first(t, p) + INTERVAL 1 MONTH - INTERVAL 1 MICROSECOND
  WHEN p = 'day' OR (midnight_is_date AND t[11:19] = 'T00:00:00')
  THEN local_first(t, p) + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND
  WHEN p = 'minute' THEN local_first(t, p) + INTERVAL 1 MINUTE - INTERVAL 1 MICROSECOND
  WHEN p = 'subsecond' AND t[18:19] <> '60' AND beyond_microseconds(t) THEN local_first(t, p) + INTERVAL 1 MICROSECOND
  ELSE local_first(t, p)
END""",
    """
written_offset(t) AS CASE
  WHEN length(t) < 11 THEN NULL
  WHEN t[-1:] = 'Z' THEN INTERVAL 0 MINUTE
  WHEN t[-6:-6] IN ('+', '-') AND t[-3:-3] = ':'
  THEN to_minutes((t[-6:-6] || '1')::BIGINT * (60 * t[-5:-4]::BIGINT + t[-2:]::BIGINT))
END""",
    # A wall-clock time is one instant, two (clocks set back) or none (clocks set forward): the offsets in force a day
    # before and a day after give the candidates.
    """
zone_offset(utc, zone) AS timezone(zone, utc) - timezone('UTC', utc)""",
    """
candidate(local, zone, days) AS
timezone('UTC', local - zone_offset(timezone('UTC', local) + to_days(days), zone))""",
    """
is_local(utc, local, zone) AS timezone(zone, utc) = local""",
    """
zone_first(local, zone) AS CASE
  WHEN candidate(local, zone, -1) = candidate(local, zone, 1) THEN candidate(local, zone, 1)
  WHEN is_local(candidate(local, zone, -1), local, zone) = is_local(candidate(local, zone, 1), local, zone)
  THEN least(candidate(local, zone, -1), candidate(local, zone, 1))
  WHEN is_local(candidate(local, zone, -1), local, zone) THEN candidate(local, zone, -1)
  ELSE candidate(local, zone, 1)
END""",
    """
zone_last(local, zone) AS CASE
  WHEN candidate(local, zone, -1) = candidate(local, zone, 1) THEN candidate(local, zone, 1)
  WHEN is_local(candidate(local, zone, -1), local, zone) = is_local(candidate(local, zone, 1), local, zone)
  THEN greatest(candidate(local, zone, -1), candidate(local, zone, 1))
  ELSE zone_first(local, zone)
END""",
    f"""
is_plain(t) AS regexp_full_match(t, '{_PLAIN}') AND t >= '0001'""",
    """
instant_first(t, zone) AS CASE
  WHEN is_plain(t) THEN TRY_CAST(t AS TIMESTAMPTZ)
  WHEN instant_precision(t) IS NULL THEN NULL
  WHEN written_offset(t) IS NOT NULL THEN timezone('UTC', local_first(t, instant_precision(t)) - written_offset(t))
  ELSE zone_first(local_first(t, instant_precision(t)), zone)
END""",
    """
instant_last(t, zone, midnight_is_date) AS CASE
  WHEN is_plain(t) AND NOT midnight_is_date THEN TRY_CAST(t AS TIMESTAMPTZ)
  WHEN instant_precision(t) IS NULL THEN NULL
  WHEN written_offset(t) IS NOT NULL
  THEN timezone('UTC', local_last(t, instant_precision(t), midnight_is_date) - written_offset(t))
  ELSE zone_last(local_last(t, instant_precision(t), midnight_is_date), zone)
END""",
)


def create_instant_macros(con: duckdb.DuckDBPyConnection) -> None:
    """Make the macros in a connection, whose time zone must be UTC."""
    for macro in _MACROS:
        con.execute(f"CREATE OR REPLACE TEMP MACRO {macro}")
