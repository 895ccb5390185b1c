"""When did each new version become known, and in how many states (TIME rules 6 to 14, and the table of section C)?

In go the staging, `new_versions`, their context and policies; out come `clocks` (row_no, state, known_at,
known_at_source), one row a state, and `version_clocks` (row_no, known_at, states), one row a version. A witnessed
version has one state. A snapshot whose elements are revised in place has two: 0 is how it stood from its author time,
1 is as it was received.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from fhir_features.config import Source
from fhir_features.lake import literal
from fhir_features.normalize.policies import HAVE_CATEGORIES, SERVER_AT
from fhir_features.normalize.run_tables import RunTables
from fhir_features.normalize.staging import staged
from fhir_features.times import duration_us


@dataclass(frozen=True)
class Clock:
    """How the snapshots of one resource type are read; SQL expressions over its staging table and `e`, `p`.

    - `author_at`: the author time; null where the resource states none. `author_source`: what it is called.
    - `stated_at`: what `reported` falls back to when there is no author time.
    - `foreign`: whether it was stated elsewhere and only written down here (TIME rule 10).
    - `suspect`: whether something in the resource itself says that its content is younger than its author time.
    - `revises`: whether the resource shows an end state that its first state did not have; `revised_at`: that state's
      own date, where it has one, and `revised_source` what it is called. `keeps_first`: whether the first state is
      known even though lastUpdated is late.
    - `rows`: which rows of the staging table stand for a resource; `joins`: what the expressions need besides.
    """

    author_at: str
    author_source: str
    stated_at: str
    foreign: str = "false"
    suspect: str = "false"
    revises: str = "false"
    revised_at: str = "NULL::TIMESTAMPTZ"
    revised_source: str = "'assumed'"
    keeps_first: str = "false"
    rows: str = "true"
    joins: str = ""


# The earliest evidence of a diagnosis of an encounter: discharge codes come after its end, unless a Provenance says
# when it was recorded, or the encounter that it was the admission's. Alternatives without a time are left out.
_DIAGNOSED = """list_min(list_filter([
      {{'author_at': greatest(s.recorded_last, e.end_latest_at + to_microseconds({coding_lag})),
        'author_source': CASE WHEN s.recorded_last >= e.end_latest_at + to_microseconds({coding_lag})
          THEN 'recorded_date' ELSE 'encounter_end' END, 'known': e.end_latest_at IS NOT NULL}},
      {{'author_at': greatest(s.recorded_last, d.recorded_at),
        'author_source': CASE WHEN s.recorded_last >= d.recorded_at THEN 'recorded_date' ELSE 'provenance' END,
        'known': d.recorded_at IS NOT NULL}},
      {{'author_at': s.recorded_last, 'author_source': 'recorded_date',
        'known': list_contains(e.admission_diagnoses, v.resource_id) AND s.recorded_last IS NOT NULL}}
    ], lambda evidence: evidence.known))"""

CLOCKS: dict[str, Clock] = {
    # Birth date and sex are of always; a death is revised in place. Without a birth date: from before any record.
    "Patient": Clock(
        author_at="coalesce(s.birth_first, TIMESTAMPTZ '1900-01-01 00:00:00+00')",
        author_source="'assumed'",
        stated_at="s.birth_first",
        revises="s.deceased IS TRUE OR len(s.replaced_by) > 0 OR len(s.replaces) > 0",
        revised_at="s.deceased_last",
        keeps_first="true",
    ),
    "Encounter": Clock(
        author_at="""CASE
      WHEN s.status IN ('arrived', 'triaged', 'in-progress', 'onleave', 'finished') THEN s.start_last
    END""",
        author_source="'encounter_start'",
        stated_at="s.start_last",
        revises="""s.status = 'finished'
      OR (s.status IN ('arrived', 'triaged', 'in-progress', 'onleave') AND s.end_text IS NOT NULL)""",
        revised_at="s.end_last",
        revised_source="'encounter_end'",
        keeps_first="true",
    ),
    "Observation": Clock(
        author_at="""coalesce(
      s.issued_last,
      r.issued_at,
      CASE WHEN p.bedside THEN s.effective_last + to_microseconds({bedside_lag}) END
    )""",
        author_source="""CASE
      WHEN s.issued_last IS NOT NULL THEN 'issued'
      WHEN r.issued_at IS NOT NULL THEN 'report_issued'
      ELSE 'bedside'
    END""",
        stated_at="s.effective_last",
        # A withdrawal, too, came after what it withdraws.
        suspect="s.status IN ('corrected', 'amended', 'appended', 'cancelled', 'entered-in-error')",
        rows="s.component = 0",
        joins="LEFT JOIN report_issues r ON r.observation_id = v.resource_id",
    ),
    # A late lastUpdated may have changed the code, so the earlier state is not known then.
    "Condition": Clock(
        author_at=f"CASE WHEN p.encounter_diagnosis THEN ({_DIAGNOSED}).author_at ELSE s.recorded_last END",
        author_source=f"CASE WHEN p.encounter_diagnosis THEN ({_DIAGNOSED}).author_source ELSE 'recorded_date' END",
        stated_at="coalesce(s.recorded_last, s.onset_first)",
        revises="""coalesce(s.verification_status, '') <> 'entered-in-error' AND (
      s.clinical_status <> 'active' OR s.verification_status IS NOT NULL OR s.severity_code_id IS NOT NULL
      OR s.abated)""",
        suspect="s.verification_status = 'entered-in-error'",
        revised_at="s.abatement_last",
        joins="LEFT JOIN encounters_of_conditions e ON e.encounter_id = s.encounter_id",
    ),
    "MedicationRequest": Clock(
        author_at="s.authored_last",
        author_source="'authored_on'",
        stated_at="s.authored_last",
        foreign="s.reported",
        revises="""s.status IN ('completed', 'stopped', 'cancelled', 'on-hold')
      OR (s.status IN ('active', 'unknown') AND s.bounds_end IS NOT NULL)""",
        suspect="s.status = 'entered-in-error'",
        revised_at="s.bounds_end_last",
        keeps_first="s.status NOT IN ('draft', 'entered-in-error')",
    ),
}

_KNOWN = """
INSERT INTO clocks
WITH read AS (
  SELECT
    v.row_no,
    v.received_at,
    v.witnessed,
    v.history_place,
    p.policy,
    p.tolerance,
    {server_at} AS server_at,
    {author_at} AS author_at,
    {author_source} AS author_source,
    {stated_at} AS stated_at,
    ({foreign} OR d.transmitted_at IS NOT NULL OR {elsewhere}) IS TRUE AS is_foreign,
    d.transmitted_at,
    {suspect} AS suspect,
    ({revises}) IS TRUE AS revises,
    {revised_at} AS revised_at,
    {revised_source} AS revised_source,
    ({keeps_first}) IS TRUE AS keeps_first
  FROM {table} s
  JOIN new_versions v ON v.row_no = s.row_no AND v.outcome = 'normalized'
  JOIN policies p ON p.resource_type = '{resource_type}' AND p.categories = {categories}
  LEFT JOIN provenance_dates d ON d.resource_type = v.resource_type AND d.resource_id = v.resource_id
  {joins}
  WHERE {rows}
),
held AS (
  SELECT
    *,
    coalesce(server_at, received_at) AS held_at,
    CASE
      WHEN server_at IS NULL THEN 'received'
      WHEN history_place IS NULL THEN 'last_updated'
      ELSE 'history'
    END AS held_source
  FROM read
),
authored AS (
  SELECT * REPLACE (
    CASE WHEN is_foreign THEN greatest(author_at, transmitted_at, held_at) ELSE author_at END AS author_at,
    CASE
      WHEN NOT is_foreign OR author_at >= greatest(transmitted_at, held_at) THEN author_source
      WHEN transmitted_at > held_at THEN 'provenance'
      ELSE held_source
    END AS author_source
  )
  FROM held
),
judged AS (
  SELECT
    *,
    coalesce(suspect OR server_at > author_at + to_microseconds(tolerance), false) AS suspected,
    coalesce(held_at > author_at, true) AS held_later
  FROM authored
),
first_known AS (
  SELECT
    *,
    CASE
      WHEN policy = 'received' THEN received_at
      WHEN witnessed THEN held_at
      WHEN policy = 'server' THEN held_at
      WHEN policy = 'latest' THEN coalesce(greatest(author_at, server_at), received_at)
      WHEN policy = 'reported' THEN coalesce(author_at, stated_at, held_at)
      WHEN author_at IS NULL THEN held_at
      WHEN suspected AND NOT keeps_first THEN greatest(author_at, held_at)
      ELSE author_at
    END AS first_at,
    CASE
      WHEN policy = 'received' THEN 'received'
      WHEN witnessed OR policy = 'server' THEN held_source
      WHEN policy = 'latest' AND author_at IS NULL THEN held_source
      WHEN policy = 'latest' THEN CASE WHEN server_at > author_at THEN held_source ELSE author_source END
      WHEN policy = 'reported' AND (author_at IS NULL OR suspected) THEN 'assumed'
      WHEN author_at IS NULL THEN held_source
      WHEN suspected AND NOT keeps_first AND held_later AND policy = 'default' THEN held_source
      ELSE author_source
    END AS first_source,
    least(greatest(revised_at, held_at), received_at) AS last_at,
    CASE
      WHEN revised_at > held_at THEN CASE WHEN revised_at > received_at THEN 'received' ELSE revised_source END
      ELSE held_source
    END AS last_source
  FROM judged
),
capped AS (
  SELECT * REPLACE (
    least(first_at, received_at) AS first_at,
    CASE WHEN first_at > received_at THEN 'received' ELSE first_source END AS first_source
  )
  FROM first_known
),
stated AS (
  SELECT *, revises AND NOT witnessed AND policy IN ('default', 'reported') AND last_at > first_at AS two
  FROM capped
)
SELECT row_no, 1, CASE WHEN two THEN last_at ELSE first_at END, CASE WHEN two THEN last_source ELSE first_source END
FROM stated
UNION ALL
SELECT row_no, 0, first_at, first_source
FROM stated
WHERE two"""

# What was deleted or cannot be read is known by lastUpdated, where that is a clock, else from its receipt.
_VERSION_CLOCKS = f"""
CREATE OR REPLACE TEMP TABLE version_clocks AS
WITH normalized AS (
  SELECT
    row_no,
    max(known_at) FILTER (WHERE state = 1) AS known_at,
    count(*)::UTINYINT AS states
  FROM clocks
  GROUP BY row_no
)
SELECT
  v.row_no,
  coalesce(c.known_at, least({SERVER_AT}, v.received_at)) AS known_at,
  coalesce(c.states, 0)::UTINYINT AS states
FROM new_versions v
JOIN policies p ON p.resource_type = v.resource_type AND p.categories = []
LEFT JOIN normalized c USING (row_no)"""


def read_clocks(con: duckdb.DuckDBPyConnection, tables: RunTables, source: Source) -> None:
    """Make `clocks` and `version_clocks` for all new versions of the open slice, by the `policies` of its run."""
    con.execute("""
CREATE OR REPLACE TEMP TABLE clocks (
  row_no BIGINT, state UTINYINT, known_at TIMESTAMPTZ, known_at_source VARCHAR)""")
    lags = {"bedside_lag": _lag(source.bedside_lag), "coding_lag": _lag(source.coding_lag)}
    for resource_type, clock in CLOCKS.items():
        if tables.has_rows(staged(resource_type)):
            con.execute(_known_sql(resource_type, clock, lags, _elsewhere(source)))
    con.execute(_VERSION_CLOCKS)


def _elsewhere(source: Source) -> str:
    """Whether meta.source, whose fragment names a request, is another system than the source's own."""
    if not source.own_systems:
        return "false"
    return f"split_part(v.system, '#', 1) NOT IN ({', '.join(map(literal, ('', *source.own_systems)))})"


def _known_sql(resource_type: str, clock: Clock, lags: dict[str, int], elsewhere: str) -> str:
    """The statement that fills `clocks` for one resource type. Who a patient is was always known, whoever says it."""
    return _KNOWN.format(
        table=staged(resource_type),
        resource_type=resource_type,
        categories="s.categories" if resource_type in HAVE_CATEGORIES else "[]::VARCHAR[]",
        server_at=SERVER_AT,
        author_at=clock.author_at.format(**lags),
        author_source=clock.author_source.format(**lags),
        stated_at=clock.stated_at,
        foreign=clock.foreign,
        elsewhere="false" if resource_type == "Patient" else elsewhere,
        suspect=clock.suspect,
        revises=clock.revises,
        revised_at=clock.revised_at,
        revised_source=clock.revised_source,
        rows=clock.rows,
        keeps_first=clock.keeps_first,
        joins=clock.joins,
    )


def _lag(text: str) -> int:
    return 0 if text == "0" else duration_us(text)
