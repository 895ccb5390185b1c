"""From the landing to the event tables: each landed run that the lake does not have yet becomes one commit.

In go the configuration and the landing; out come commits of event rows, versions, closings, dictionaries, quarantine
and watermarks, and a summary a run whose counts balance: received = normalized + quarantined + duplicates + ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from fhir_features.config import Config, Source
from fhir_features.errors import ConfigError, LakeError
from fhir_features.lake import bucket_count, commit, literal, writing
from fhir_features.normalize.clocks import read_clocks
from fhir_features.normalize.context import create_context
from fhir_features.normalize.decoding import decoded
from fhir_features.normalize.dialect import dialect_of
from fhir_features.normalize.dictionaries import insert_dictionary, insert_resolution, unresolved
from fhir_features.normalize.events import insert_events
from fhir_features.normalize.policies import create_policies
from fhir_features.normalize.restating import insert_restated, restate_snapshots
from fhir_features.normalize.staging import Staging
from fhir_features.normalize.versions import close_versions, order_versions
from fhir_features.ontology import Ontologies, load_ontologies
from fhir_features.sources import LandedRun, Progress, landed_runs, verify_run
from fhir_features.sources.progress import silent


@dataclass(frozen=True)
class RunSummary:
    """What became of one landed run, in resource versions. `store_seq` is its commit.

    `ignored` are of types that are not normalized; `known_before_effective` event rows have a known_at before their
    effective_at, which is kept as it came (TIME rule 14).
    """

    source: str
    run_id: str
    store_seq: int
    received: int
    normalized: int
    quarantined: int
    duplicates: int
    ignored: int
    versions: dict[str, int]
    known_before_effective: int


def normalize(config: Config, progress: Progress = silent) -> list[RunSummary]:
    """Normalize every landed run that the lake does not have, in their order, and resolve the dictionaries.

    A run is one commit: it is there whole or not at all. Raises LakeLocked while another process writes, LandingError
    for a landed file that is gone, ConfigError for a run whose source is no longer configured.
    """
    ontologies = load_ontologies()
    summaries = []
    runs = landed_runs(config.warehouse.path / "landing")
    with writing(config.warehouse.path / "lake", buckets=config.warehouse.buckets) as con:
        done = {tuple(row) for row in con.execute("SELECT source, run_id FROM lake.commits").fetchall()}
        for run in runs:
            if (run.source, run.run_id) not in done:
                source = _source_of(config, run)
                with _without_values(run):
                    summaries.append(_normalize_run(con, run, source, ontologies, progress))
        if unresolved(con, ontologies):
            with commit(con, f"resolve under lock {ontologies.lock_id[:12]}") as store_seq:
                insert_resolution(con, ontologies, store_seq)
                con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
    return summaries


@contextmanager
def _without_values(run: LandedRun) -> Iterator[None]:
    """The messages of DuckDB and Arrow quote values, which are patient data: only their kind may get out."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OverflowError) as error:
        raise LakeError(
            f"run {run.run_id} of source '{run.source}' could not be normalized ({type(error).__name__}); "
            "nothing of it was written: please report this with the version of fhir-features"
        ) from None


def _source_of(config: Config, run: LandedRun) -> Source:
    if run.source not in config.sources:
        raise ConfigError(
            f"run {run.run_id} was landed from source '{run.source}', which {config.file.name} does not have: "
            "add the source again, its time zone and clocks are needed"
        )
    return config.sources[run.source]


def _normalize_run(
    con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, ontologies: Ontologies, progress: Progress
) -> RunSummary:
    _drop_temporary_tables(con)
    verify_run(run)
    staging = _stage(con, run, source, progress)
    order_versions(con, run)
    create_context(con, run)
    create_policies(con, source)
    read_clocks(con, source)
    restate_snapshots(con, run, source)
    buckets = bucket_count(con)
    close_versions(con, run, buckets)
    with commit(con, f"normalize {run.source} {run.run_id}") as store_seq:
        insert_events(con, run, store_seq, source.timezone, buckets)
        insert_restated(con, run, store_seq)
        insert_dictionary(con, staging, store_seq)
        insert_resolution(con, ontologies, store_seq)
        _insert_quarantine(con, run, store_seq)
        _insert_watermarks(con, run, store_seq)
        return _summary(con, run, staging, store_seq)


def _stage(con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, progress: Progress) -> Staging:
    staging = Staging(con, source)
    # A batch is too small for two threads to share, and the other cores decode.
    con.execute("SET threads = 1")
    for batch in decoded(run, dialect_of(source), progress):
        staging.add(batch)
    con.execute("RESET threads")
    staging.finish()
    return staging


def _insert_quarantine(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int) -> None:
    con.execute("CREATE TEMP TABLE run_files (file_no INTEGER, file VARCHAR)")
    for file_no, file in enumerate(run.files):
        con.execute("INSERT INTO run_files VALUES (?, ?)", [file_no, file.original or file.name])
    con.execute(f"""
INSERT INTO lake.quarantine
SELECT {literal(run.source)}, {literal(run.site)}, {literal(run.run_id)}, f.file, q.line, q.resource_type,
  q.resource_id, q.json_path, q.rule, q.reason, {store_seq}
FROM staged_quarantine q
JOIN run_files f USING (file_no)
ORDER BY file_no, line, json_path""")


def _insert_watermarks(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int) -> None:
    for resource_type, landed in sorted(run.types.items()):
        if landed.complete:
            con.execute(
                "INSERT INTO lake.watermarks VALUES (?, ?, ?, ?, ?, ?, ?)",
                [run.site, resource_type, landed.watermark, run.kind, run.source, run.run_id, store_seq],
            )


def _summary(con: duckdb.DuckDBPyConnection, run: LandedRun, staging: Staging, store_seq: int) -> RunSummary:
    def count(sql: str) -> int:
        row = con.execute(sql).fetchone()
        assert row is not None
        return int(row[0])

    normalized = count("SELECT count(*) FROM new_versions WHERE outcome <> 'quarantined'")
    quarantined = count("SELECT count(*) FROM staged_quarantine")
    duplicates = count("SELECT count(*) FROM staged_versions WHERE outcome <> 'quarantined'") - normalized
    ignored = staging.ignored.total()
    if staging.received != normalized + quarantined + duplicates + ignored:
        raise LakeError(
            f"run {run.run_id} of source '{run.source}' does not balance: {staging.received} received, {normalized} "
            f"normalized, {quarantined} quarantined, {duplicates} duplicates, {ignored} ignored; nothing was written"
        )
    con.execute(
        "INSERT INTO lake.commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [store_seq, run.source, run.run_id, staging.received, normalized, quarantined, duplicates, ignored],
    )
    per_type = con.execute("""
SELECT resource_type, count(*)
FROM new_versions
WHERE outcome = 'normalized'
GROUP BY ALL
ORDER BY ALL""").fetchall()
    early = count(f"""
SELECT count(*)
FROM (
  SELECT effective_at, known_at, store_seq FROM lake.observations
  UNION ALL SELECT effective_at, known_at, store_seq FROM lake.conditions
  UNION ALL SELECT effective_at, known_at, store_seq FROM lake.medication_requests
)
WHERE store_seq = {store_seq} AND known_at < effective_at""")
    return RunSummary(
        source=run.source,
        run_id=run.run_id,
        store_seq=store_seq,
        received=staging.received,
        normalized=normalized,
        quarantined=quarantined,
        duplicates=duplicates,
        ignored=ignored,
        versions=dict(per_type),
        known_before_effective=early,
    )


def _drop_temporary_tables(con: duckdb.DuckDBPyConnection) -> None:
    made = con.execute("SELECT table_name FROM duckdb_tables() WHERE temporary ORDER BY table_name").fetchall()
    for (name,) in made:
        con.execute(f"DROP TABLE {name}")
