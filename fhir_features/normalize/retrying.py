"""Does what was set aside pass now, after a rule, the configuration or this package was corrected? In go the open rows
of the quarantine and the landing; out comes one commit a run of which something changes. What passes gets the time of
receipt, the place and the evidence that it would have had, if it had passed when its run was normalized. Nothing is
pulled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import duckdb

from fhir_features.config import Config, Source
from fhir_features.errors import LandingError
from fhir_features.lake import commit, literal, writing
from fhir_features.normalize.decode import entries
from fhir_features.normalize.decoding import Line, Rest, decoded_here, lines_of
from fhir_features.normalize.dialect import dialect_of
from fhir_features.normalize.quarantine import OPEN, create_run_files, insert_quarantine
from fhir_features.normalize.rows import RAW_TABLES
from fhir_features.normalize.run import source_of, within_memory, without_values
from fhir_features.normalize.staging import Staging, staged
from fhir_features.normalize.steps import balance, count, derive, drop_temporary_tables, insert, insert_balance
from fhir_features.normalize.validation import Validation
from fhir_features.ontology import Ontologies, load_ontologies
from fhir_features.sources import LandedRun, Progress, landed_runs, verify_run
from fhir_features.sources.progress import silent


@dataclass(frozen=True)
class RetrySummary:
    """What became of what was set aside of one run: `tried` rows, and resource versions by outcome; `quarantined` are
    set aside as before, or for another reason. `store_seq` is the commit; null where nothing changed.

    The outcomes can be more than was tried, when a line turns out to hold several resources.
    """

    source: str
    run_id: str
    store_seq: int | None
    tried: int
    normalized: int
    quarantined: int
    duplicates: int
    ignored: int


def retry(config: Config, progress: Progress = silent) -> list[RetrySummary]:
    """Decode and normalize again, from the landing, what is set aside: a summary a run that has any.

    What changes of a run is one commit, there whole or not at all; where nothing does, there is none. The quarantine
    keeps its rows, and `quarantine_resolved` says which are no longer open. Raises LakeLocked while another process
    writes, LandingError for a landed run or file that is gone, ConfigError for a run whose source is no longer
    configured.
    """
    ontologies = load_ontologies()
    summaries: list[RetrySummary] = []
    landed = {(run.source, run.run_id): run for run in landed_runs(config.warehouse.path / "landing")}
    with writing(config.warehouse.path / "lake", buckets=config.warehouse.buckets) as con:
        for key, until in _runs_with_open_rows(con):
            if key not in landed:
                raise LandingError(f"{'/'.join(key)} is missing from the landing: restore it from a backup")
            run = landed[key]
            with without_values(run):
                retried = partial(_retry_run, con, config, run, until, ontologies, progress)
                summaries.append(within_memory(con, retried))
    return summaries


def _runs_with_open_rows(con: duckdb.DuckDBPyConnection) -> list[tuple[tuple[str, str], int]]:
    """Runs, as (source, run_id), and the commit that brought each first, in the order of these commits."""
    found = con.execute(f"""
WITH open_rows AS (
  SELECT DISTINCT q.source, q.run_id
  {OPEN}
)
SELECT source, run_id, min(store_seq)
FROM lake.commits
SEMI JOIN open_rows USING (source, run_id)
GROUP BY ALL
ORDER BY 3""")
    return [((source, run_id), until) for source, run_id, until in found.fetchall()]


def _retry_run(
    con: duckdb.DuckDBPyConnection,
    config: Config,
    run: LandedRun,
    until: int,
    ontologies: Ontologies,
    progress: Progress,
) -> RetrySummary:
    drop_temporary_tables(con)
    verify_run(run)
    source = source_of(config, run)
    _create_open_rows(con, run)
    tried = count(con, "SELECT count(*) FROM open_rows")
    staging = _stage_open_rows(con, run, source, progress)
    if count(con, "SELECT count(*) FROM resolved_rows") == 0:
        return RetrySummary(run.source, run.run_id, None, tried, 0, tried, 0, 0)
    with commit(con, f"retry {run.source} {run.run_id}") as store_seq:
        con.execute(f"""
INSERT INTO lake.quarantine_resolved
SELECT {literal(run.source)}, {literal(run.run_id)}, row_no, {store_seq}
FROM resolved_rows
ORDER BY row_no""")
        derive(con, run, source, staging, until)
        insert(con, run, staging, ontologies, store_seq)
        insert_quarantine(con, run, store_seq, "q.row_no NOT IN (SELECT row_no FROM unchanged_rows)")
        now = balance(con, run, staging)
        change = replace(now, received=now.received - tried, quarantined=now.quarantined - tried)
        insert_balance(con, run, change, store_seq)
    return RetrySummary(
        run.source, run.run_id, store_seq, tried, now.normalized, now.quarantined, now.duplicates, now.ignored
    )


def _stage_open_rows(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, progress: Progress) -> Staging:
    """Stage what is set aside of a run, and make `unchanged_rows` and `resolved_rows` of `open_rows`."""
    staging = Staging(con, source)
    for batch in decoded_here(_open_lines(con, run, progress), dialect_of(source), Validation.SAMPLE):
        staging.add(batch)
    staging.finish()
    _number_as_before(con, run)
    _set_aside_what_has_no_order(con, run)
    _create_resolved_rows(con)
    return staging


def _create_open_rows(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Make `open_rows`: those of a run, with the number of their file."""
    create_run_files(con, run)
    con.execute(f"""
CREATE TEMP TABLE open_rows AS
WITH of_all AS (
  SELECT q.*
  {OPEN}
)
SELECT q.row_no, f.file_no, q.line, q.entry, q.json_path, q.rule, q.reason
FROM of_all q
JOIN run_files f USING (file)
WHERE q.source = {literal(run.source)} AND q.run_id = {literal(run.run_id)}""")


@dataclass
class _OpenPlaces:
    """Which lines of a file are set aside: whole, by their entries, and from `rest` on all of them."""

    entries: defaultdict[int, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    rest: int | None = None

    def of(self, line: Line) -> Iterator[Line]:
        """What of a line is set aside: it, or the entries of it that are."""
        _, place, content = line
        wanted = self.entries.get(place[2], set())
        if None in wanted or (self.rest is not None and place[2] >= self.rest):
            yield line
        elif wanted and not isinstance(content, Rest):
            found = entries(content)
            for entry in sorted(number for number in wanted if number is not None):
                yield "bundle", (*place[:3], entry), found[entry - 1]


def _open_lines(con: duckdb.DuckDBPyConnection, run: LandedRun, progress: Progress) -> Iterator[Line]:
    for file_no, file in enumerate(run.files):
        places = _open_places(con, file_no)
        if places.entries:
            for line in lines_of(run.folder, file_no, file):
                yield from places.of(line)
        progress(run.source, run.run_id, file_no + 1, len(run.files))


def _open_places(con: duckdb.DuckDBPyConnection, file_no: int) -> _OpenPlaces:
    places = _OpenPlaces()
    found = con.execute("SELECT line, entry, rule FROM open_rows WHERE file_no = ?", [file_no])
    for line, entry, rule in found.fetchall():
        places.entries[line].add(entry)
        if rule == "unreadable":
            places.rest = line
    return places


def _number_as_before(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Give what is staged the number in the run that its place had; what was not seen there before gets a new one."""
    this_run = f"source = {literal(run.source)} AND run_id = {literal(run.run_id)}"
    con.execute(f"""
CREATE TEMP TABLE numbers AS
WITH places AS (
  SELECT row_no, file_no, line, entry FROM staged_versions
  UNION
  SELECT row_no, file_no, line, entry FROM staged_quarantine
),
used AS (
  SELECT row_no FROM lake.versions WHERE {this_run}
  UNION ALL
  SELECT row_no FROM lake.quarantine WHERE {this_run}
)
SELECT
  p.row_no AS staged_no,
  coalesce(o.row_no, (SELECT max(row_no) FROM used)
    + row_number() OVER (PARTITION BY o.row_no IS NULL ORDER BY p.row_no)) AS row_no
FROM places p
LEFT JOIN open_rows o
  ON o.file_no = p.file_no AND o.line = p.line AND o.entry IS NOT DISTINCT FROM p.entry""")
    for table in ("staged_versions", "staged_quarantine", "staged_findings", *map(staged, RAW_TABLES)):
        con.execute(f"UPDATE {table} SET row_no = n.row_no FROM numbers n WHERE {table}.row_no = n.staged_no")


# What says neither versionId nor lastUpdated is a duplicate when it repeats the version held before it, and nothing is
# kept of it. If it came between the two, what repeats one of them would be a version too: A, B, A.
_WITHOUT_ORDER = """
CREATE TEMP TABLE without_order AS
SELECT v.row_no
FROM staged_versions v
SEMI JOIN lake.versions h
  ON h.resource_type = v.resource_type AND h.resource_id = v.resource_id AND h.site = {site}
  AND h.version_id IS NULL AND h.last_updated IS NULL AND h.outcome <> 'quarantined'
  AND h.received_at < v.received_at AND h.content_hash <> v.content_hash
WHERE v.version_id IS NULL AND v.last_updated IS NULL AND v.outcome <> 'quarantined' AND EXISTS (
  FROM lake.commits
  WHERE run_id > {run_id} AND duplicates > 0
)"""


def _set_aside_what_has_no_order(con: duckdb.DuckDBPyConnection, run: LandedRun) -> None:
    """Leave in the quarantine what cannot be put between versions that are held, since a later run repeated some."""
    con.execute(_WITHOUT_ORDER.format(site=literal(run.site), run_id=literal(run.run_id)))
    con.execute("""
INSERT INTO staged_quarantine
SELECT row_no, file_no, line, entry, resource_type, resource_id, NULL, 'order',
  'it can be read, but not put in order with what came later: normalize the landing into a new warehouse'
FROM staged_versions
SEMI JOIN without_order USING (row_no)""")
    con.execute("DELETE FROM staged_versions WHERE row_no IN (SELECT row_no FROM without_order)")


def _create_resolved_rows(con: duckdb.DuckDBPyConnection) -> None:
    """Make `unchanged_rows`, the open rows that are set aside as they were, and `resolved_rows`, the others."""
    con.execute("""
CREATE TEMP TABLE unchanged_rows AS
SELECT row_no
FROM open_rows o
JOIN staged_quarantine q USING (row_no)
WHERE (o.rule, o.reason) = (q.rule, q.reason) AND o.json_path IS NOT DISTINCT FROM q.json_path""")
    con.execute("DELETE FROM staged_versions WHERE row_no IN (SELECT row_no FROM unchanged_rows)")
    con.execute("""
CREATE TEMP TABLE resolved_rows AS
SELECT row_no
FROM open_rows
ANTI JOIN unchanged_rows USING (row_no)""")
