"""What does the lake hold, how fresh is it, how late did it know, and what of it is not understood? In goes a
connection that stands at a store_seq (`engine.stand_at`), with the view `received_versions`; out come the facts of the
first sections of the page, every count as it may be told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import duckdb

from fhir_features.normalize import OPEN_QUARANTINE
from fhir_features.ontology.coverage import Coverage
from fhir_features.ontology.systems import identify_system
from fhir_features.report.disclosure import Count, Disclosure, share, sum_told
from fhir_features.report.facts import (
    Balance,
    Bin,
    Closed,
    Feed,
    FrequentCode,
    KnownThrough,
    LateKnowledge,
    Mapped,
    RuleCount,
    UnmappedCode,
    Volume,
)

# Of the unmapped codes the most frequent are told.
TOP_UNMAPPED = 25
# As many columns a chart of volume has at most, so that each can be seen.
_MOST_COLUMNS = 120
# How its columns are named.
_LABELS = {"day": "%Y-%m-%d", "week": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}

# What is known within so many seconds is known at once.
AT_ONCE = 1
# From true to known: the label of each column, and up to how many seconds it goes, its end included.
LAGS: tuple[tuple[str, float | None], ...] = (
    ("before it was true", -0.000_001),
    # A sample of 08:00:00 that is issued at 08:00:00.7 is not late: a date to the second says no more.
    ("at once", AT_ONCE),
    ("within 1 hour", 3_600),
    ("1 to 6 hours", 6 * 3_600),
    ("6 to 24 hours", 86_400),
    ("1 to 3 days", 3 * 86_400),
    ("3 to 7 days", 7 * 86_400),
    ("7 to 30 days", 30 * 86_400),
    ("30 days to a year", 365 * 86_400),
    ("more than a year", None),
)
# The first of them that one clock would have had too early.
FIRST_LATE = 2

# Of a date that is but a month or a year nobody can say how long after it something was known.
_DATED = "effective_precision NOT IN ('year', 'month') AND resource_type <> 'Patient'"


def as_of(con: duckdb.DuckDBPyConnection) -> dt.datetime | None:
    """When the last resource version was received."""
    (found,) = _one(con, "SELECT max(received_at) FROM lake.versions")
    return found  # type: ignore[no-any-return]


def patients(con: duckdb.DuckDBPyConnection, told: Disclosure) -> dict[str, Count]:
    """How many patients each site has."""
    rows = con.execute("SELECT site, count(DISTINCT patient_id) FROM patients GROUP BY site ORDER BY site").fetchall()
    return {site: told.count(number) for site, number in rows}


def feeds(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[Feed, ...]:
    """Each resource type of each source.

    The newest that is known would be one patient's, and of the records of patients, which are known from birth on, a
    birth date: so it is the day since which enough patients have something new, and of records none.
    """
    enough = max(told.suppress_below, 1)
    rows = con.execute(f"""
WITH seen AS (
  SELECT source, site, resource_type, any_value(kind) AS kind, max(watermark) AS watermark
  FROM lake.watermarks
  GROUP BY ALL
),
of_patients AS (
  SELECT source, site, resource_type, patient_id, max(known_at) AS newest, count(*) AS versions
  FROM received_versions
  GROUP BY ALL
),
held AS (
  SELECT
    source, site, resource_type,
    (max(newest, {enough}) FILTER (WHERE resource_type <> 'Patient'))[{enough}] AS newest_known,
    sum(versions) AS versions, count(DISTINCT patient_id) AS patients
  FROM of_patients
  GROUP BY ALL
),
came AS (
  SELECT source, site, resource_type, max(received_at) AS received, count(*) AS versions
  FROM lake.versions
  GROUP BY ALL
)
SELECT
  source, site, kind, resource_type, watermark, timezone('UTC', newest_known)::DATE, received,
  coalesce(held.versions, came.versions, 0)::BIGINT, patients
FROM seen
FULL JOIN held USING (source, site, resource_type)
FULL JOIN came USING (source, site, resource_type)
ORDER BY site, source, resource_type""").fetchall()
    return tuple(
        Feed(
            source, site, kind, resource_type, seen, newest, received,
            told.count(versions, people), told.count(people or 0),
        )
        for source, site, kind, resource_type, seen, newest, received, versions, people in rows
    )  # fmt: skip


def balances(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[tuple[Balance, ...], tuple[RuleCount, ...]]:
    """What became of what each source sent, the sums over its runs; and what of it is set aside, by source, type and
    rule, the most first.

    Both are one division of what was received: what is told to be set aside is the sum of what is told of the rules.
    """
    rows = con.execute("""
WITH came AS (
  SELECT
    source, sum(received)::BIGINT AS received, sum(normalized)::BIGINT AS normalized,
    sum(duplicates)::BIGINT AS duplicates, sum(ignored)::BIGINT AS ignored
  FROM lake.commits
  WHERE source IS NOT NULL
  GROUP BY source
),
held AS (
  SELECT source, count(DISTINCT patient_id) AS patients
  FROM received_versions
  GROUP BY source
)
SELECT patients, came.*
FROM came
LEFT JOIN held USING (source)
ORDER BY source""").fetchall()
    of_rules = _by_rule(con, OPEN_QUARANTINE)
    found: list[Balance] = []
    by_rule: list[RuleCount] = []
    for people, source, received, normalized, duplicates, ignored in rows:
        own = {rule: versions for rule, versions in of_rules.items() if rule[0] == source}
        parts: dict[Any, int] = {"normalized": normalized, "duplicates": duplicates, "ignored": ignored, **own}
        whole = told.count(received, people)
        divided = told.division(parts) if whole else dict.fromkeys(parts, whole)
        aside = sum_told(divided.get(rule) for rule in own)
        found.append(
            Balance(source, whole, divided.get("normalized"), aside, divided.get("duplicates"), divided.get("ignored"))
        )
        by_rule += [RuleCount(*rule, divided.get(rule)) for rule in own]
    return tuple(found), _most_first(by_rule)


def findings(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[RuleCount, ...]:
    """What validation found, by source, type and rule, the most first."""
    found = _by_rule(con, "FROM lake.findings q")
    return _most_first(RuleCount(*key, told.count(versions)) for key, versions in found.items())


def _by_rule(con: duckdb.DuckDBPyConnection, rows: str) -> dict[tuple[str, str, str], int]:
    found = con.execute(f"""
SELECT q.source, coalesce(q.resource_type, 'unreadable'), q.rule, count(*)
{rows}
GROUP BY ALL""").fetchall()
    return {(source, of_type, rule): versions for source, of_type, rule, versions in found}


def _most_first(counts: Iterable[RuleCount]) -> tuple[RuleCount, ...]:
    """By what is told of them: an order of what is not told would tell of it."""
    return tuple(sorted(counts, key=lambda each: (-(each.versions or 0), each.source, each.resource_type, each.rule)))


def volumes(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[Volume, ...]:
    """When the versions of each site and type were first known, from the first percentile of all on.

    The columns are days, or else weeks, months or years, so that there are not more than can be seen. The records of
    patients are left out: they are known from birth on.
    """
    con.execute("CREATE OR REPLACE TEMP VIEW dated_versions AS FROM received_versions WHERE resource_type <> 'Patient'")
    first, last = _one(con, "SELECT quantile_disc(first_known_at, 0.01), max(first_known_at) FROM dated_versions")
    if first is None:
        return ()
    unit = _unit(con, first, last)
    all_starts = f"SELECT unnest(generate_series({_start(unit, '?')}, {_start(unit, '?')}, INTERVAL 1 {unit}))::DATE"
    starts = [begin for (begin,) in con.execute(all_starts, [first, last]).fetchall()]
    rows = con.execute(
        f"""
SELECT
  site, resource_type,
  CASE WHEN {_start(unit, "first_known_at")} >= ? THEN {_start(unit, "first_known_at")}::DATE END AS begins,
  count(*), count(DISTINCT patient_id)
FROM dated_versions
GROUP BY ALL
ORDER BY ALL""",
        [starts[0]],
    ).fetchall()
    found: dict[tuple[str, str], dict[dt.date | None, tuple[int, int]]] = {}
    for site, resource_type, begins, *count in rows:
        found.setdefault((site, resource_type), {})[begins] = tuple(count)
    counts = {key: told.parts(columns) for key, columns in found.items()}
    return tuple(
        Volume(
            *key,
            unit,
            of.get(None, 0),
            tuple(Bin(begins.strftime(_LABELS[unit]), begins.isoformat(), of.get(begins, 0)) for begins in starts),
        )
        for key, of in counts.items()
    )


def _start(unit: str, instant: str) -> str:
    return f"date_trunc('{unit}', timezone('UTC', CAST({instant} AS TIMESTAMPTZ)))"


def _unit(con: duckdb.DuckDBPyConnection, first: dt.datetime, last: dt.datetime) -> str:
    """The shortest of day, week, month and year of which there are not too many; of centuries, years all the same."""
    for unit in ("day", "week", "month"):
        (columns,) = _one(con, f"SELECT date_diff('{unit}', ?::TIMESTAMPTZ, ?::TIMESTAMPTZ)", first, last)
        if columns < _MOST_COLUMNS:
            return unit
    return "year"


def late_knowledge(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[LateKnowledge, ...]:
    """How late each site knew of each type."""
    ends = [(number, end) for number, (_, end) in enumerate(LAGS) if end is not None]
    cases = " ".join(f"WHEN lag <= {end!r} THEN {number}" for number, end in ends)
    con.execute(f"""
CREATE OR REPLACE TEMP VIEW lags AS
SELECT site, resource_type, patient_id, (epoch_us(first_known_at) - epoch_us(effective_at)) / 1e6 AS lag
FROM received_versions
WHERE {_DATED}""")
    binned = con.execute(f"""
SELECT site, resource_type, CASE {cases} ELSE {len(LAGS) - 1} END AS bin, count(*), count(DISTINCT patient_id)
FROM lags
GROUP BY ALL""").fetchall()
    bins: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for site, resource_type, place, *count in binned:
        bins.setdefault((site, resource_type), {})[place] = tuple(count)
    counts = {key: told.parts(columns) for key, columns in bins.items()}
    found = con.execute(f"""
SELECT
  site, resource_type, count(*), count(DISTINCT patient_id),
  [count(*) FILTER (WHERE lag > {AT_ONCE}), count(DISTINCT patient_id) FILTER (WHERE lag > {AT_ONCE})],
  [count(*) FILTER (WHERE lag <= {AT_ONCE}), count(DISTINCT patient_id) FILTER (WHERE lag <= {AT_ONCE})],
  quantile_disc(lag, 0.5) / 3600, quantile_disc(lag, 0.9) / 3600
FROM lags
GROUP BY ALL
ORDER BY resource_type, site""").fetchall()
    return tuple(
        LateKnowledge(
            site,
            resource_type,
            versions := told.count(number, people),
            share(told.parts({"late": tuple(late), "at once": tuple(at_once)})["late"], versions),
            told.quantile(median, 0.5, people),
            told.quantile(p90, 0.9, people),
            tuple(Bin(label, None, counts[site, resource_type].get(place, 0)) for place, (label, _) in enumerate(LAGS)),
        )
        for site, resource_type, number, people, late, at_once, median, p90 in found
    )


def closed(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[Closed, ...]:
    """Why versions were closed: what was believed, and then was not any more."""
    rows = con.execute("""
SELECT site, resource_type, reason, count(DISTINCT version_no), count(DISTINCT patient_id)
FROM lake.closings
WHERE reason NOT IN ('witnessed', 'reopened')
GROUP BY ALL
ORDER BY ALL""").fetchall()
    return tuple(Closed(site, of_type, reason, told.count(*counts)) for site, of_type, reason, *counts in rows)


def known_through(con: duckdb.DuckDBPyConnection, told: Disclosure) -> tuple[KnownThrough, ...]:
    """How known_at was found, by source and type."""
    rows = con.execute("""
WITH counted AS (
  SELECT
    source, site, resource_type, known_at_source,
    count(*) AS versions,
    count(DISTINCT patient_id) AS patients,
    count(*) FILTER (WHERE known_at < effective_at) AS early,
    count(DISTINCT patient_id) FILTER (WHERE known_at < effective_at) AS patients_early
  FROM received_versions
  GROUP BY ALL
)
FROM counted
ORDER BY site, source, resource_type, versions DESC, known_at_source""").fetchall()
    found: dict[tuple[str, str, str], dict[str, tuple[int, int]]] = {}
    for source, site, of_type, through, *count, _, _ in rows:
        found.setdefault((source, site, of_type), {})[through] = tuple(count)
    counts = {key: told.parts(ways) for key, ways in found.items()}
    wholes = {key: told.count(sum(number for number, _ in ways.values())) for key, ways in found.items()}
    return tuple(
        KnownThrough(
            source,
            site,
            of_type,
            through,
            versions := counts[source, site, of_type][through],
            share(versions, wholes[source, site, of_type]),
            told.count(early, people_early),
        )
        for source, site, of_type, through, _, _, early, people_early in rows
    )


def mapped(coverage: Coverage, told: Disclosure) -> tuple[Mapped, ...]:
    """How much of each code system is understood.

    One that is not known is named only where enough patients have it: anything can stand there.
    """
    return tuple(
        Mapped(
            each.system if told.may_tell(each.patients) or identify_system(each.system) else "another",
            each.site,
            each.resource_type,
            rows := told.count(each.rows, each.patients),
            resolved := told.parts(
                {
                    True: (each.resolved, each.patients_resolved),
                    False: (each.rows - each.resolved, each.patients_unresolved),
                }
            )[True],
            share(resolved, rows),
        )
        for each in coverage.covered
    )


def frequent(coverage: Coverage, told: Disclosure) -> tuple[FrequentCode, ...]:
    """The most frequent codes that are understood, of those that enough patients have, by type and site."""
    return tuple(
        FrequentCode(
            each.system,
            each.code,
            each.display,
            each.site,
            each.resource_type,
            told.count(each.rows, each.patients),
            told.count(each.patients),
        )
        for each in coverage.frequent
        if told.may_tell(each.patients)
    )


def unmapped(coverage: Coverage, told: Disclosure) -> tuple[tuple[UnmappedCode, ...], int]:
    """The codes that stand for no concept, the most frequent first, and how many others too few patients have.

    What a source wrote is told only where enough patients have it: nothing that is in one record alone gets out.
    """
    common = [each for each in coverage.unmapped if told.may_tell(each.patients)]
    found = tuple(
        UnmappedCode(
            each.system,
            each.code,
            each.display,
            each.site,
            each.resource_type,
            each.why,
            told.count(each.rows, each.patients),
        )
        for each in common[:TOP_UNMAPPED]
    )
    return found, len(coverage.unmapped) - len(common)


def _one(con: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> tuple[Any, ...]:
    row = con.execute(sql, list(parameters)).fetchone()
    assert row is not None
    return tuple(row)
