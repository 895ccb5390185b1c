"""Which versions are new, in which order do they stand, and what does each close (TIME rules 6, 7 and 13)?

In goes a staged run and the lake. `find_crowded` finds the resources that have several versions, new or held: of each
part of these `order_versions` makes `ordered_versions`, in the order of their beginning, with what makes each
witnessed. `name_versions` makes `new_versions` of a slice of the run: the new ones of them, and those of all other
resources, in a first load nearly all, which need no order. Resources of one identity, which a source declares, are
ordered as one: `first_id` is what they share. `close_versions` says what is closed, once it is known when each version
became known.
"""

from __future__ import annotations

import duckdb

from fhir_features.config import Source
from fhir_features.lake import bucket_count, bucket_sql, first_version_no, literal
from fhir_features.lake.schema import CLOSINGS
from fhir_features.normalize.run_tables import ROWS_AT_ONCE, RunTables
from fhir_features.sources import LandedRun

# The resources whose history the run is part of: those in it, and those that share an identity with one of them. A
# deletion, and what cannot be read, does not say its identity: it is that of the other versions of its id.
_TOUCHED = """
WITH identified AS (
  SELECT resource_type, resource_id, identity FROM staged_versions WHERE identity IS NOT NULL
  UNION
  SELECT resource_type, resource_id, identity FROM lake.versions WHERE site = {site} AND identity IS NOT NULL
),
received AS (
  SELECT DISTINCT resource_type, resource_id
  FROM staged_versions
),
concerned AS (
  SELECT DISTINCT resource_type, identity
  FROM identified
  SEMI JOIN received USING (resource_type, resource_id)
),
named AS (
  SELECT resource_type, resource_id, min(identity) AS identity
  FROM identified
  SEMI JOIN concerned USING (resource_type, identity)
  GROUP BY ALL
)
SELECT resource_type, resource_id, min(resource_id) OVER (PARTITION BY resource_type, identity) AS first_id
FROM named
UNION ALL
SELECT resource_type, resource_id, resource_id
FROM received
ANTI JOIN named USING (resource_type, resource_id)"""

# Where a source declares no identities, there is nothing to look for.
_TOUCHED_BY_ID = """
SELECT DISTINCT resource_type, resource_id, resource_id AS first_id
FROM staged_versions"""

_RECEIVED = """
CREATE OR REPLACE TEMP VIEW received_versions AS
SELECT
  slice, resource_type, resource_id, version_id, outcome, withdrawn, patient_id, {bucket} AS bucket, last_updated,
  {version_number} AS version_number,
  received_at, content_hash, identity, {first_id} AS first_id, row_no, {first_version_no} + row_no AS version_no,
  {source} AS source, {run_id} AS run_id, false AS is_held,
  list_contains({backfills}, file_no) AS backfilled, system,
  CASE WHEN p.history AND NOT backfilled AND last_updated IS NOT NULL THEN -row_no END AS history_place,
  version_id IS NULL AND last_updated IS NULL AS anonymous
FROM staged_versions
{join_touched}
LEFT JOIN pulled_types p USING (resource_type)
WHERE outcome <> 'quarantined' OR version_id IS NOT NULL OR last_updated IS NOT NULL"""

# The index is long: it is looked through by one key, and only for what is not found out from the rest.
_HELD_OF_TYPE = """
  SELECT h.* EXCLUDE (site, identity, version_number) RENAME (witnessed AS was_witnessed), first_id
  FROM lake.versions h
  JOIN (FROM touched WHERE resource_type = '{resource_type}') t ON t.resource_id = h.resource_id
  WHERE h.site = {site} AND h.resource_type = '{resource_type}'"""

# What was set aside and has been read by a retry is held as the retry found it.
_HELD = """
SELECT h.*, {version_number} AS version_number, true AS is_held,
  version_id IS NULL AND last_updated IS NULL AS anonymous
FROM (
{held}
) h
ANTI JOIN lake.quarantine_resolved r ON h.outcome = 'quarantined' AND r.source = h.source AND r.run_id = h.run_id
  AND r.row_no = h.row_no AND r.store_seq > h.store_seq"""

_HELD_CLOSINGS = """
SELECT resource_type, resource_id, version, first_id, min(closed_at) AS closed_at
FROM lake.closings
JOIN touched USING (resource_type, resource_id)
WHERE site = {site} AND reason NOT IN ('revised', 'witnessed', 'reopened')
GROUP BY ALL"""

_CROWDED = """
SELECT resource_type, first_id
FROM (
  SELECT resource_type, first_id
  FROM received_versions
  UNION ALL
  SELECT resource_type, first_id
  FROM held_versions
)
GROUP BY ALL
HAVING count(*) > 1"""

_CROWDED_VERSIONS = """
FROM (FROM held_versions UNION ALL BY NAME FROM received_versions)
SEMI JOIN crowded USING (resource_type, first_id)"""

# All versions of the resources that have several, as far as they differ: versionId proves nothing, so a version is
# what versionId and lastUpdated say together, and where lastUpdated says nothing its content. Where a version was read
# twice, the reading that could be normalized counts; where it was stated anew, the last of them. One that says neither
# is compared with its predecessor below.
_CANDIDATES = """
CREATE OR REPLACE TEMP TABLE candidate_versions AS
SELECT * EXCLUDE (store_seq)
FROM (
  FROM crowded_versions
  WHERE NOT is_held
  UNION ALL
  FROM crowded_versions
  WHERE is_held
  QUALIFY row_number() OVER (PARTITION BY source, run_id, row_no ORDER BY store_seq DESC) = 1
)
QUALIFY anonymous OR row_number() OVER (
  PARTITION BY resource_type, resource_id, version_id, last_updated,
    CASE WHEN last_updated IS NULL THEN content_hash END
  ORDER BY outcome = 'quarantined', is_held DESC, row_no
) = 1"""

# Versions stand in the order of their lastUpdated; those of one instant in that of their numbers, else in that of the
# history that they were read by, which lists the newest first: https://hl7.org/fhir/R4/http.html#history
_BEGINNINGS = "last_updated, version_number, history_place, received_at, run_id, source, row_no"

# Versions that say when they began stand in that order. One that says nothing stands where it was received: after all
# that were received before it, and before those received after it, but for older ones that came late. `era` counts
# the anonymous ones before a version; one `repeats` what its predecessor says.
_ERAS = """counted AS (
  SELECT
    *,
    count(*) FILTER (WHERE anonymous) OVER (
      PARTITION BY resource_type, first_id
      ORDER BY received_at, run_id, source, row_no
    ) AS anonymous_so_far
  FROM candidate_versions
),
placed AS (
  SELECT
    *,
    CASE WHEN anonymous THEN anonymous_so_far ELSE min(anonymous_so_far) OVER (
      PARTITION BY resource_type, first_id, anonymous
      ORDER BY {beginnings}
      ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) END AS era
  FROM counted
),
compared AS (
  SELECT
    * EXCLUDE (anonymous_so_far),
    anonymous AND content_hash = lag(content_hash) OVER beginnings AS repeats
  FROM placed
  WINDOW beginnings AS (
    PARTITION BY resource_type, first_id
    ORDER BY era, anonymous DESC, {beginnings}
  )
)"""

# Nearly all say when they began, and to find eras takes as long as to order them.
_ONE_ERA = """compared AS (
  SELECT *, 0::BIGINT AS era, false AS repeats
  FROM candidate_versions
)"""

_ORDERED = """
WITH {compared},
named AS (
  SELECT
    * REPLACE (
      CASE
        WHEN is_held THEN version
        WHEN version_id IS NULL THEN {unnumbered}
        WHEN row_number() OVER (PARTITION BY resource_type, resource_id, version_id ORDER BY is_held DESC, row_no) = 1
        THEN version_id
        ELSE concat(version_id, '~', epoch_us(last_updated), '~', content_hash)
      END AS version
    )
  FROM compared
  WHERE repeats IS NOT TRUE OR is_held
)
SELECT
  n.* EXCLUDE (repeats, backfilled),
  row_number() OVER beginnings AS place,
  count(*) OVER (PARTITION BY resource_type, first_id) AS versions,
  coalesce(was_witnessed, false) OR lag(version) OVER beginnings IS NOT NULL
    OR (NOT n.is_held AND n.last_updated > p.since AND NOT n.backfilled) IS TRUE AS witnessed
FROM named n
LEFT JOIN pulled_types p USING (resource_type)
WINDOW beginnings AS (
  PARTITION BY resource_type, first_id
  ORDER BY era, anonymous DESC, {beginnings}
)"""

_NEW_OF_CROWDED = """
SELECT * EXCLUDE (is_held, was_witnessed, anonymous, era, place, states, known_at, source, run_id)
FROM ordered_versions
WHERE NOT is_held"""

_NEW = """
CREATE OR REPLACE TEMP TABLE new_versions AS
SELECT * EXCLUDE (slice)
FROM new_of_crowded
UNION ALL BY NAME
SELECT
  r.* EXCLUDE (slice, backfilled, anonymous, is_held, source, run_id),
  coalesce(version_id, {unnumbered}) AS version,
  1 AS versions,
  (last_updated > p.since AND NOT backfilled) IS TRUE AS witnessed
FROM received_versions r
ANTI JOIN rows_of_crowded USING (row_no)
LEFT JOIN pulled_types p USING (resource_type)"""

# A versionId that is an integer.
_VERSION_NUMBER = "CASE WHEN regexp_full_match(version_id, '\\d{1,18}') THEN version_id::BIGINT END"

# What a version without a versionId is called.
_UNNUMBERED = """CASE
          WHEN last_updated IS NULL THEN concat('~', epoch_us(received_at), '~', row_no)
          ELSE concat('~', epoch_us(last_updated), '~', content_hash)
        END"""


def find_crowded(con: duckdb.DuckDBPyConnection, tables: RunTables, run: LandedRun, source: Source, slices: int) -> int:
    """Make `crowded_versions`, all of the resources that have several, and `pulled_types`: what the run asked for.

    Gives into how many parts they are divided.
    """
    con.execute("CREATE TEMP TABLE pulled_types (resource_type VARCHAR, since TIMESTAMPTZ, history BOOLEAN)")
    for resource_type, landed in run.types.items():
        con.execute("INSERT INTO pulled_types VALUES (?, ?, ?)", [resource_type, landed.since, landed.history])
    site = literal(run.site)
    tables.keep("touched", (_TOUCHED if source.one_result_by else _TOUCHED_BY_ID).format(site=site))
    # Of a run without versions there is a table all the same.
    types = con.execute("SELECT DISTINCT resource_type FROM touched ORDER BY resource_type").fetchall()
    held = [_HELD_OF_TYPE.format(resource_type=name, site=site) for (name,) in types or [("Patient",)]]
    tables.keep("held_versions", _HELD.format(held="\n  UNION ALL".join(held), version_number=_VERSION_NUMBER))
    _create_received(con, run, source)
    tables.keep("crowded", _CROWDED)
    parts = 1
    if tables.in_parts:
        ((versions,),) = con.execute(f"SELECT count(*)\n{_CROWDED_VERSIONS}").fetchall()
        parts = max(1, -(-int(versions) // ROWS_AT_ONCE))
    tables.divide("crowded_versions", _CROWDED_VERSIONS, part_of(parts), parts)
    tables.divide("held_closings", _HELD_CLOSINGS.format(site=site), part_of(parts), parts)
    tables.open(("crowded_versions",))
    tables.divide("rows_of_crowded", "SELECT row_no, slice FROM crowded_versions WHERE NOT is_held", "slice", slices)
    return parts


def part_of(parts: int) -> str:
    """In which of some parts a resource is, as a SQL expression: those of one identity are in the same."""
    return f"hash(first_id) % {parts}"


def _create_received(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source) -> None:
    """Make `received_versions`: what is open of `staged_versions`, as far as it can be a version."""
    backfills = [file_no for file_no, file in enumerate(run.files) if file.backfill]
    con.execute(
        _RECEIVED.format(
            bucket=bucket_sql(literal(run.site), "patient_id", bucket_count(con)),
            first_version_no=first_version_no(con),
            source=literal(run.source),
            run_id=literal(run.run_id),
            backfills=f"{backfills}::INTEGER[]",
            version_number=_VERSION_NUMBER,
            first_id="t.first_id" if source.one_result_by else "resource_id",
            join_touched="JOIN touched t USING (resource_type, resource_id)" if source.one_result_by else "",
        )
    )


def order_versions(con: duckdb.DuckDBPyConnection, tables: RunTables, part: int, slices: int) -> None:
    """Add to `ordered_versions` those of the open part, and to `new_of_crowded` the new ones of them."""
    con.execute(_CANDIDATES)
    ((some_are_anonymous,),) = con.execute("SELECT EXISTS (FROM candidate_versions WHERE anonymous)").fetchall()
    compared = _ERAS.format(beginnings=_BEGINNINGS) if some_are_anonymous else _ONE_ERA
    ordered = _ORDERED.format(compared=compared, beginnings=_BEGINNINGS, unnumbered=_UNNUMBERED)
    tables.add("ordered_versions", ordered, part)
    tables.open(("ordered_versions",), part)
    tables.divide("new_of_crowded", _NEW_OF_CROWDED, "slice", slices)


def name_versions(con: duckdb.DuckDBPyConnection) -> None:
    """Make `new_versions` of the open slice."""
    con.execute(_NEW.format(unnumbered=_UNNUMBERED))


# Each state of a version is closed by whichever of the versions after it was known first, unless a closing is held
# that was as early.
_CLOSINGS = """
WITH known AS (
  SELECT o.* REPLACE (
    coalesce(r.restated_as, o.version) AS version,
    coalesce(r.restated_no, o.version_no) AS version_no,
    coalesce(r.known_at, v.known_at, o.known_at) AS known_at,
    coalesce(r.states, v.states, o.states) AS states
  )
  FROM ordered_versions o
  LEFT JOIN clocks_of_crowded v ON v.row_no = CASE WHEN NOT o.is_held THEN o.row_no END
  LEFT JOIN restated r USING (resource_type, resource_id, version)
  WHERE o.versions > 1
),
succeeded AS (
  SELECT
    resource_type, resource_id, version, version_no, states, patient_id, bucket,
    arg_min(
      struct_pack(known_at, outcome, withdrawn, patient_id, version), (known_at, place)
    ) OVER successors AS successor
  FROM known
  WINDOW successors AS (
    PARTITION BY resource_type, first_id
    ORDER BY place
    ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
  )
)
SELECT
  {site} AS site,
  s.bucket,
  s.patient_id,
  s.resource_type,
  s.resource_id,
  s.version,
  s.version_no,
  unnest(range(2 - s.states, 2))::UTINYINT AS state,
  successor.known_at AS closed_at,
  CASE
    WHEN successor.outcome IN ('deleted', 'quarantined') THEN successor.outcome
    WHEN successor.patient_id <> s.patient_id THEN 'subject-changed'
    WHEN successor.withdrawn THEN 'entered-in-error'
    ELSE 'superseded'
  END AS reason,
  successor.version AS closed_by
FROM succeeded s
LEFT JOIN held_closings h USING (resource_type, resource_id, version)
WHERE s.states > 0 AND successor IS NOT NULL AND (h.closed_at <= successor.known_at) IS NOT TRUE
UNION ALL BY NAME
SELECT {site} AS site, *
FROM restated_closings"""

# State 0 of a snapshot is over when state 1 is known.
_REVISED = """
SELECT {site} AS site, n.bucket, n.patient_id, n.resource_type, n.resource_id, n.version, n.version_no,
  0::UTINYINT AS state, c.known_at AS closed_at, 'revised' AS reason, n.version AS closed_by
FROM new_versions n
JOIN version_clocks c USING (row_no)
WHERE c.states = 2"""

_CLOCKS_OF_CROWDED = """
SELECT row_no, known_at, states, first_id
FROM version_clocks
JOIN new_versions USING (row_no)
WHERE versions > 1"""


def close_revised(tables: RunTables, run: LandedRun, parts: int) -> None:
    """Put aside the closings of what was revised in the open slice, and keep for `parts` when versions became known."""
    tables.put(CLOSINGS.name, _REVISED.format(site=literal(run.site)))
    tables.divide("clocks_of_crowded", _CLOCKS_OF_CROWDED, part_of(parts), parts)


def close_versions(tables: RunTables, run: LandedRun) -> None:
    """Put aside the closings of the open part of `ordered_versions`, by `clocks_of_crowded` and `restated`."""
    tables.put(CLOSINGS.name, _CLOSINGS.format(site=literal(run.site)))
