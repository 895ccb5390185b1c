"""From the landing to the event tables: each landed run that the lake does not have yet becomes one commit.

In go the configuration and the landing; out come commits of event rows, versions, closings, dictionaries, quarantine
and watermarks, and a summary a run whose counts balance: received = normalized + quarantined + duplicates + ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

import duckdb
import pyarrow as pa

from fhir_features.config import Config, Source
from fhir_features.cores import cores
from fhir_features.errors import ConfigError, LakeError
from fhir_features.files import refusal
from fhir_features.lake import commit, spill_folder, writing
from fhir_features.normalize.decoding import decoded
from fhir_features.normalize.dialect import dialect_of
from fhir_features.normalize.dictionaries import insert_resolution, unresolved
from fhir_features.normalize.findings import Finding, count_findings
from fhir_features.normalize.quarantine import insert_quarantine
from fhir_features.normalize.staging import Staging
from fhir_features.normalize.steps import (
    Balance,
    balance,
    count,
    derive,
    drop_temporary_tables,
    insert,
    insert_balance,
)
from fhir_features.normalize.validation import Validation
from fhir_features.ontology import Ontologies, load_ontologies
from fhir_features.sources import LandedRun, Progress, landed_runs, verify_run
from fhir_features.sources.progress import silent

_T = TypeVar("_T")
# What DuckDB may hold: the first is enough for a slice, and what does not fit is spilled, but for what is in use.
_MEMORY = ("100MB", "800MB", "6400MB")


@dataclass(frozen=True)
class RunSummary:
    """What became of one landed run, in resource versions. `store_seq` is its commit.

    `ignored` are of types that are not normalized; `known_before_effective` event rows have a known_at before their
    effective_at, which is kept as it came (TIME rule 14). `findings` were made in the `validated` ones.
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
    validated: int
    findings: tuple[Finding, ...]


def normalize(
    config: Config, progress: Progress = silent, *, validation: Validation = Validation.SAMPLE
) -> list[RunSummary]:
    """Normalize every landed run that the lake does not have, in their order, and resolve the dictionaries.

    `validation` says which resources are held to the whole of FHIR; what is found is told, and sets nothing aside. A
    run is one commit: it is there whole or not at all. Raises LakeLocked while another process writes, LandingError for
    a landed file that is gone, ConfigError for a run whose source is no longer configured.
    """
    runs = landed_runs(config.warehouse.path / "landing")
    with writing(config.warehouse.path / "lake", buckets=config.warehouse.buckets) as con:
        return normalize_runs(con, config, runs, progress, validation=validation)


def normalize_runs(
    con: duckdb.DuckDBPyConnection,
    config: Config,
    runs: Sequence[LandedRun],
    progress: Progress = silent,
    *,
    validation: Validation = Validation.SAMPLE,
) -> list[RunSummary]:
    """Normalize those of the runs that the lake does not have into it, in their order, and resolve the dictionaries."""
    ontologies = load_ontologies()
    summaries = []
    done = {tuple(row) for row in con.execute("SELECT source, run_id FROM lake.commits").fetchall()}
    for run in runs:
        if (run.source, run.run_id) not in done:
            source = source_of(config, run)
            with without_values(run):
                summaries.append(
                    within_memory(con, partial(_normalize_run, con, run, source, ontologies, validation, progress))
                )
    if unresolved(con, ontologies):
        with commit(con, f"resolve under lock {ontologies.lock_id[:12]}") as store_seq:
            insert_resolution(con, ontologies, store_seq)
            con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
    return summaries


def within_memory(con: duckdb.DuckDBPyConnection, normalized: Callable[[], _T]) -> _T:
    """Normalize what comes of a run in the memory that a slice takes; in more, from the beginning, where resources are
    so large that a few of them do not fit. What was begun is taken back, so that nothing is there twice."""
    # It would keep what was put aside, of which nearly all is read once.
    con.execute("SET enable_external_file_cache = false")
    for memory in _MEMORY[:-1]:
        con.execute(f"SET memory_limit = '{memory}'")
        with suppress(duckdb.OutOfMemoryException):
            return normalized()
    con.execute(f"SET memory_limit = '{_MEMORY[-1]}'")
    return normalized()


@contextmanager
def without_values(run: LandedRun) -> Iterator[None]:
    """The messages of DuckDB and Arrow quote values, which are patient data: only their kind may get out."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OverflowError) as error:
        if refusal(error):
            raise
        raise LakeError(
            f"run {run.run_id} of source '{run.source}' could not be normalized ({type(error).__name__}); "
            "nothing of it was written: please report this with the version of fhir-features"
        ) from None


def source_of(config: Config, run: LandedRun) -> Source:
    """The source that a run was landed from. Raises ConfigError when it is no longer configured."""
    if run.source not in config.sources:
        raise ConfigError(
            f"run {run.run_id} was landed from source '{run.source}', which {config.file.name} does not have: "
            "add the source again, its time zone and clocks are needed"
        )
    return config.sources[run.source]


def _normalize_run(
    con: duckdb.DuckDBPyConnection,
    run: LandedRun,
    source: Source,
    ontologies: Ontologies,
    validation: Validation,
    progress: Progress,
) -> RunSummary:
    drop_temporary_tables(con)
    verify_run(run)
    staging = _stage(con, run, source, validation, progress)
    derive(con, run, source, staging)
    with commit(con, f"normalize {run.source} {run.run_id}") as store_seq:
        insert(con, run, staging, ontologies, store_seq)
        insert_quarantine(con, run, store_seq)
        _insert_watermarks(con, run, store_seq)
        of = balance(con, run, staging)
        insert_balance(con, run, of, store_seq)
        return _summary(con, run, of, staging.validated, store_seq)


def _stage(
    con: duckdb.DuckDBPyConnection, run: LandedRun, source: Source, validation: Validation, progress: Progress
) -> Staging:
    staging = Staging(con, source, spill_folder(con) / "staged")
    # A batch is too small for two threads to share, and the other cores decode.
    con.execute("SET threads = 1")
    for batch in decoded(run, dialect_of(source), validation, progress):
        staging.add(batch)
    staging.finish()
    con.execute(f"SET threads = {cores()}")
    return staging


def _insert_watermarks(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int) -> None:
    seen = {name: landed.watermark for name, landed in sorted(run.types.items()) if landed.complete}
    if seen:
        con.execute(
            """
INSERT INTO lake.watermarks
SELECT ?, unnest(?), unnest(?::TIMESTAMPTZ[]), ?, ?, ?, ?""",
            [run.site, list(seen), list(seen.values()), run.kind, run.source, run.run_id, store_seq],
        )


def _summary(con: duckdb.DuckDBPyConnection, run: LandedRun, of: Balance, validated: int, store_seq: int) -> RunSummary:
    per_type = con.execute("""
SELECT resource_type, sum(new)::BIGINT AS versions
FROM tally
WHERE outcome = 'normalized'
GROUP BY resource_type
HAVING versions > 0
ORDER BY resource_type""").fetchall()
    sql = f"""
SELECT count(*)
FROM (
  SELECT effective_at, known_at, store_seq FROM lake.observations
  UNION ALL SELECT effective_at, known_at, store_seq FROM lake.conditions
  UNION ALL SELECT effective_at, known_at, store_seq FROM lake.medication_requests
)
WHERE store_seq = {store_seq} AND known_at < effective_at"""
    return RunSummary(
        source=run.source,
        run_id=run.run_id,
        store_seq=store_seq,
        **asdict(of),
        versions=dict(per_type),
        known_before_effective=count(con, sql),
        validated=validated,
        findings=count_findings(con),
    )
