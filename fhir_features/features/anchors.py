"""Anchored spines: the patients and instants of the usual study designs, as one call instead of an entity frame.

In go `encounters(at="start+24h", class_="inpatient")`, `grid(every="7d", ...)` or `first(condition(...))`, frozen and
checked when they are made; out come, from a connection that stands at a store_seq, rows (site, patient_id,
event_timestamp, …). An instant is asked at only by virtue of what was known at that instant: a later withdrawal takes
no row away, and what became known later gives none earlier.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Literal

import duckdb
import pyarrow as pa

from fhir_features.errors import DefinitionError
from fhir_features.features.compile import compile_features
from fhir_features.features.counting import ENCOUNTER_STATUSES, listed
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Aggregate, Encounters, Feature, Node, Rows
from fhir_features.features.series import EncounterSeries, Series, duration
from fhir_features.features.terms import create_members
from fhir_features.features.words import encounter_classes
from fhir_features.ontology import Ontologies
from fhir_features.times import instant

_AT = re.compile(r"(start|end)(?:([+-])(\w+))?")


class Spine(Node):
    """The base of all anchored spines."""


class EncounterSpine(Spine):
    """`encounters`: `anchor` plus `offset_us` of each encounter of `rows`."""

    spine: Literal["encounters"] = "encounters"
    rows: Encounters
    anchor: Literal["start", "end"]
    offset_us: int
    while_open: bool


class GridSpine(Spine):
    """`grid`: the instants `start`, `start + every_us`, … before `end`."""

    spine: Literal["grid"] = "grid"
    every_us: int
    start: dt.datetime
    end: dt.datetime
    during: Encounters | None


class FirstSpine(Spine):
    """`first`: when there was first one of `rows`."""

    spine: Literal["first"] = "first"
    rows: Rows


def encounters(at: str = "start", *, class_: str | None = None, while_open: bool = False) -> EncounterSpine:
    """One row for each encounter, at the first instant at which it was known that `at` had come.

    `at`: `start` or `end`, and how long after it, such as `start+24h`. The instant that this names is `anchor_at`; T
    is later where the encounter (or its end, which is hidden until it is known) became known after it, so whoever
    wants only those that were known in time keeps the rows with `event_timestamp == anchor_at`. `class_`: as for
    `encounter()`, as known at T. `while_open`: only those that were not known at T to be over.

    Columns: site, patient_id, event_timestamp, encounter_id, anchor_at; instants in UTC. Raises DefinitionError.
    """
    match = _AT.fullmatch(at.replace(" ", "")) if isinstance(at, str) else None
    if match is None:
        raise DefinitionError(f"'{at}' is no anchor of an encounter: write 'start', 'end' or such as 'start+24h'")
    anchor: Literal["start", "end"] = "start" if match[1] == "start" else "end"
    if match[2] == "-":
        raise DefinitionError(
            f"'{at}' cannot be asked at: nobody knows at that instant that the encounter is to {anchor}; "
            "spine.grid(every=..., during=encounter()) asks again and again while it lasts"
        )
    if anchor == "end" and while_open:
        raise DefinitionError(f"'{at}' with while_open=True asks for nothing: an encounter is over at its end")
    return EncounterSpine(
        rows=Encounters(classes=() if class_ is None else encounter_classes(class_)),
        anchor=anchor,
        offset_us=duration(match[3], "at") if match[3] else 0,
        while_open=while_open,
    )


def grid(
    *, every: str, start: str | dt.datetime, end: str | dt.datetime, during: EncounterSeries | None = None
) -> GridSpine:
    """One row for each patient who was known, at each of the instants `start`, `start + every`, … before `end`.

    `start` and `end`: instants with a time zone, or as text such as `2024-03-05T00:00:00Z`. `during`: only while an
    encounter such as `encounter("inpatient")` was known to be going on.

    Columns: site, patient_id, event_timestamp (UTC); with `during` also encounter_id, of several the one that started
    first. Raises DefinitionError.
    """
    every_us, first, beyond = duration(every, "every"), _instant(start, "start"), _instant(end, "end")
    if beyond <= first:
        raise DefinitionError("a grid ends after it starts: the first of its instants is start, the last before end")
    if during is not None and not isinstance(during, EncounterSeries):
        raise DefinitionError("during takes encounters, such as encounter('inpatient')")
    return GridSpine(every_us=every_us, start=first, end=beyond, during=None if during is None else during.rows)


def first(series: Series[Any]) -> FirstSpine:
    """One row for each patient who has ever had one of a series such as `condition("icd10cm:E11")`.

    T is the first instant at which one was both known and true of the patient, and counted (TIME section C): the first
    at which `series.exists()` is true.

    Columns: site, patient_id, event_timestamp (UTC). Raises DefinitionError.
    """
    if not isinstance(series, Series):
        raise DefinitionError("spine.first() takes rows, such as condition('icd10cm:E11'), and no feature of them")
    return FirstSpine(rows=series.rows)


def anchored_rows(con: duckdb.DuckDBPyConnection, known: Ontologies, spine: Spine) -> pa.Table:
    """The rows of a spine, ordered by site, patient and instant. The connection must stand at a store_seq."""
    if isinstance(spine, FirstSpine):
        return _first_rows(con, known, spine)
    if isinstance(spine, GridSpine):
        times = {"start": spine.start, "end": spine.end, "every": spine.every_us}
        return con.execute(_grid(spine), times).to_arrow_table()
    assert isinstance(spine, EncounterSpine)
    return con.execute(_encounters(spine), {"offset": spine.offset_us}).to_arrow_table()


def _instant(given: object, what: str) -> dt.datetime:
    try:
        moment = instant(given) if isinstance(given, str) else given
    except ValueError as error:
        raise DefinitionError(f"{what}: {error}") from None
    if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
        raise DefinitionError(f"{what} is an instant with a time zone, such as '2024-03-05T00:00:00Z'")
    return moment.astimezone(dt.UTC)


def _encounters(spine: EncounterSpine) -> str:
    still_open = "\n  AND (end_at IS NULL OR event_timestamp < end_at)" if spine.while_open else ""
    return f"""
WITH versions AS (
  SELECT
    e.site, e.patient_id, e.resource_id AS encounter_id, e.known_to, e.end_at,
    e.{spine.anchor}_at + to_microseconds($offset) AS anchor_at,
    greatest(e.{spine.anchor}_at + to_microseconds($offset), e.known_at) AS event_timestamp
  FROM encounters e
  WHERE e.{spine.anchor}_at IS NOT NULL{_counting(spine.rows)}
)
SELECT
  site, patient_id, min(event_timestamp) AS event_timestamp, encounter_id,
  arg_min(anchor_at, event_timestamp) AS anchor_at
FROM versions
WHERE (known_to IS NULL OR event_timestamp < known_to){still_open}
GROUP BY site, patient_id, encounter_id
ORDER BY site, patient_id, event_timestamp, encounter_id"""


def _grid(spine: GridSpine) -> str:
    stay = stays = ""
    since, until = "p.known_at", "p.known_to"
    if spine.during is not None:
        stay = ",\n  arg_min(encounter_id, ROW(start_at, encounter_id)) AS encounter_id"
        stays = f"""
  JOIN encounters e
    ON e.bucket = p.bucket
    AND e.site = p.site
    AND e.patient_id = p.patient_id
    AND e.start_at IS NOT NULL{_counting(spine.during)}"""
        since, until = "p.known_at, e.known_at, e.start_at", "p.known_to, e.known_to, e.end_at"
    stated = ", e.resource_id AS encounter_id, e.start_at" if spine.during is not None else ""
    return f"""
WITH spans AS (
  SELECT
    p.site, p.patient_id{stated},
    epoch_us(greatest($start, {since})) - epoch_us($start::TIMESTAMPTZ) AS since_us,
    epoch_us(least($end, {until})) - epoch_us($start::TIMESTAMPTZ) AS until_us
  FROM patients p{stays}
),
steps AS (
  SELECT *, unnest(range((since_us + $every - 1) // $every, (until_us + $every - 1) // $every)) AS step
  FROM spans
  WHERE since_us < until_us
)
SELECT
  site, patient_id, $start + to_microseconds(step * $every) AS event_timestamp{stay}
FROM steps
GROUP BY site, patient_id, step
ORDER BY site, patient_id, event_timestamp"""


def _counting(rows: Encounters) -> str:
    """Which versions of encounters count, as further conditions."""
    classes = f"\n    AND e.class_code IN {listed(rows.classes)}" if rows.classes else ""
    sites = f"\n    AND e.site IN {listed(rows.sites)}" if rows.sites else ""
    return f"\n    AND e.status IN {listed(rows.statuses or ENCOUNTER_STATUSES)}{classes}{sites}"


def _first_rows(con: duckdb.DuckDBPyConnection, known: Ontologies, spine: FirstSpine) -> pa.Table:
    """Ask the engine when a row of the codes begins to be known and true: so no rule on what counts stands twice.

    Of most patients the first such instant is the answer; only of the others later ones are asked, ever more at once.
    """
    plan = compile_features((Feature(name="there_is", value=Aggregate(rows=spine.rows, operator="exists")),))
    create_members(con, known, plan)
    con.execute(_beginnings(spine.rows))
    con.execute("CREATE OR REPLACE TEMP TABLE firsts (site VARCHAR, patient_id VARCHAR, event_timestamp TIMESTAMPTZ)")
    turns = (1, 1)
    while (questions := con.execute(_OPEN_QUESTIONS, turns).to_arrow_table()).num_rows:
        ask(con, questions)
        for answered in answers(con, plan):
            con.register("answered", answered)
            con.execute(_ADD_FIRSTS)
            con.unregister("answered")
        turns = (turns[1] + 1, turns[1] * 4)
    return con.execute(_FIRST_ROWS).to_arrow_table()


def _beginnings(rows: Rows) -> str:
    """The instants at which a row, and where its encounter is asked for that one too, begins to be known and true."""
    table, instants, belongs = rows.table, "e.known_at, e.effective_at", ""
    if getattr(rows, "encounter_classes", ()):
        instants += ", s.known_at, s.effective_at"
        belongs = """
  JOIN encounters s
    ON s.bucket = e.bucket
    AND s.site = e.site
    AND s.patient_id = e.patient_id
    AND s.resource_id = e.encounter_id"""
    of_codes = "" if table == "encounters" else f"\n  WHERE e.code_id IN (SELECT code_id FROM {table}_members)"
    return f"""
CREATE OR REPLACE TEMP TABLE beginnings AS
WITH instants AS (
  SELECT DISTINCT e.site, e.patient_id, greatest({instants}) AS t
  FROM {table} e{belongs}{of_codes}
)
SELECT *, row_number() OVER (PARTITION BY site, patient_id ORDER BY t) AS turn
FROM instants"""


_OPEN_QUESTIONS = """
SELECT row_number() OVER (ORDER BY site, patient_id, t) AS question, site, patient_id, t, t AS k
FROM beginnings
ANTI JOIN firsts USING (site, patient_id)
WHERE turn BETWEEN ? AND ?"""

_ADD_FIRSTS = """
INSERT INTO firsts
SELECT site, patient_id, min(t)
FROM answered
JOIN asked USING (question)
JOIN persons USING (person)
WHERE there_is
GROUP BY site, patient_id"""

_FIRST_ROWS = """
SELECT site, patient_id, min(event_timestamp) AS event_timestamp
FROM firsts
GROUP BY site, patient_id
ORDER BY site, patient_id"""
