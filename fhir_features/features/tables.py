"""Feature tables: the log of a view's answers, built by the same engine as training sets (DESIGN.md, "Feature tables").

In go a view and a connection that reads the lake as it stood at a store_seq; out comes one Parquet file a build in the
view's folder (`table_folder`), with rows (site, patient_id, answered_at, published_at, store_seq, features), ordered by
bucket, site, patient and instant. "The latest row at or before T" of a patient is what the view, by its cadence, has
answered at T. A build goes up to the last instant of the cadence at or before each site's watermark; what it reached
stands in the file's metadata, where the next begins. A refresh answers some patients ahead of the next build.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from fhir_features.errors import FeatureTableError
from fhir_features.features.cadence import EXACT, Serving, read_cadence
from fhir_features.features.changes import changed_rows, create_previous
from fhir_features.features.compile import Plan, compile_features, leaves
from fhir_features.features.engine import answers, buckets_holding
from fhir_features.features.instants import START, Span, create_questions, create_spans, last_instants, next_instant
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.summary import resource_types
from fhir_features.features.table_files import checked_files, write_file
from fhir_features.features.table_log import (
    Reached,
    file_name,
    newest_file,
    reached,
    refresh_name,
    restatement,
    table_folder,
    table_schema,
)
from fhir_features.features.terms import create_members
from fhir_features.features.view import FeatureView
from fhir_features.files import alone, disk_errors, make_folder
from fhir_features.lake import bucket_count, bucket_sql
from fhir_features.ontology import Ontologies
from fhir_features.sources.progress import Progress, silent

# Rows whose questions are worked out together: each can give several; where a table has been filled, few give any.
_ROWS_A_PASS = 1_200_000
_ROWS_A_PASS_OF_NEWS = 4_800_000


@dataclass(frozen=True)
class Build:
    """What one build did: the file that it wrote (None: nothing was new), its rows, and how far each site has come."""

    view: str
    version: str
    file: Path | None
    rows: int
    watermarks: dict[str, dt.datetime]


def build(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    *,
    store_seq: int,
    progress: Progress = silent,
) -> Build:
    """Append to a view's table what is new up to the watermarks. Raises FeatureTableError.

    The connection must stand at `store_seq` (`engine.stand_at`). What the store has learned about a time that the table
    has answered already is answered at the next instant of a schedule, or else where the build ends.
    """
    with _alone(folder / view.name, view):
        return _build(con, known, view, folder, store_seq, progress)


def _build(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    store_seq: int,
    progress: Progress,
) -> Build:
    plan, serving = _buildable(view)
    table = table_folder(folder, view)
    files = checked_files(table)
    newest = newest_file(table)
    before = reached(newest) if newest else Reached({}, {}, {}, {})
    seen = last_instants(serving, _watermarks(con, view, plan))
    moved = {site: at for site, at in seen.items() if at > _answered_to(before, site)}
    watermarks = {**before.watermarks, **moved}
    if not moved:
        return Build(view.name, view.version, None, 0, watermarks)
    now = Reached(
        watermarks,
        {**before.store_seqs, **dict.fromkeys(moved, store_seq)},
        {**moved, **before.filled_to},
        {site: at for site, at in before.refreshed_to.items() if site not in moved},
    )
    spans = [_span(serving, before, site, reach) for site, reach in moved.items()]
    file = table / file_name(spans, store_seq)
    create_previous(con, plan, files)
    create_members(con, known, plan)
    create_spans(con, plan, serving, spans)
    fills = any(span.built_to == START for span in spans)
    ranges = _ranges(con, plan, _ROWS_A_PASS if fills else _ROWS_A_PASS_OF_NEWS)
    answered = _changed_answers(con, plan, serving, store_seq, _watched(ranges, progress, view))
    rows = write_file(file, table_schema(plan, view, now), answered)
    return Build(view.name, view.version, file, rows, watermarks)


def refresh(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    patients: Sequence[tuple[str, str]],
    *,
    store_seq: int,
) -> Build:
    """Append the answers of some patients, each (site, patient_id), up to the watermarks. Raises FeatureTableError.

    The connection must stand at `store_seq`. What is written is what a build would write of these patients, and the
    next build goes on from there. Who was refreshed at the same watermark before is passed over.
    """
    with _alone(folder / view.name, view):
        return _refresh(con, known, view, folder, patients, store_seq)


def _refresh(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    patients: Sequence[tuple[str, str]],
    store_seq: int,
) -> Build:
    plan, serving = _buildable(view)
    if serving != EXACT:
        raise FeatureTableError(
            f"view '{view.name}' is answered {view.cadence}, and not before: refresh views of cadence on_change"
        )
    table = table_folder(folder, view)
    files = checked_files(table)
    newest = newest_file(table)
    before = reached(newest) if newest else Reached({}, {}, {}, {})
    seen = _watermarks(con, view, plan)
    sites = sorted({site for site, _ in patients})
    if unbuilt := [site for site in sites if site not in before.watermarks]:
        raise FeatureTableError(
            f"view '{view.name}' has no answers for site '{unbuilt[0]}' yet: run `fhir-features build {view.name}`"
        )
    moved = {site: seen[site] for site in sites if seen[site] > before.watermarks[site]}
    if not moved:
        return Build(view.name, view.version, None, 0, before.watermarks)
    now = replace(before, refreshed_to={**before.refreshed_to, **moved})
    spans = [
        Span(site, before.watermarks[site], before.store_seqs[site], reach, reach, answers_all=True, restates=False)
        for site, reach in moved.items()
    ]
    create_previous(con, plan, files)
    create_members(con, known, plan)
    create_spans(con, plan, serving, spans)
    buckets = _create_refreshed(con, patients)
    condition = "(site, patient_id) IN (SELECT (site, patient_id) FROM refreshed)"
    answered = _changed_answers(con, plan, serving, store_seq, buckets, condition)
    file = table / refresh_name(table, spans, store_seq)
    rows = write_file(file, table_schema(plan, view, now), answered)
    return Build(view.name, view.version, file, rows, before.watermarks)


def restate(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    *,
    store_seq: int,
    progress: Progress = silent,
) -> Build:
    """Write a view's table anew, with the history that the store knows now. Raises FeatureTableError.

    The connection must stand at `store_seq`. The new table goes as far as the one before, which stays where it is, and
    the newest row of each patient says what it said: news is answered by the next build, as without a restatement.
    """
    with _alone(folder / view.name, view):
        return _restate(con, known, view, folder, store_seq, progress)


def _restate(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    view: FeatureView,
    folder: Path,
    store_seq: int,
    progress: Progress,
) -> Build:
    plan, serving = _buildable(view)
    table = table_folder(folder, view)
    newest = newest_file(table)
    if newest is None:
        raise FeatureTableError(
            f"view '{view.name}' has no feature table to restate: run `fhir-features build {view.name}` first"
        )
    now = reached(newest)
    if now.refreshed_to:
        raise FeatureTableError(
            f"view '{view.name}' has patients that were refreshed since its last build: pull, normalize and run "
            f"`fhir-features build {view.name}` first"
        )
    spans = [
        Span(site, START, now.store_seqs[site], reach, reach, answers_all=True, restates=True)
        for site, reach in now.watermarks.items()
    ]
    name = f"{view.version[:12]}-r{restatement(table) + 1}"
    file = folder / view.name / name / file_name(spans, store_seq)
    create_previous(con, plan, checked_files(table))
    create_members(con, known, plan)
    create_spans(con, plan, serving, spans)
    ranges = _watched(_ranges(con, plan, _ROWS_A_PASS), progress, view)
    answered = _changed_answers(con, plan, serving, store_seq, ranges)
    rows = write_file(file, table_schema(plan, view, now), answered)
    return Build(view.name, view.version, file, rows, now.watermarks)


@contextmanager
def _alone(folder: Path, view: FeatureView) -> Iterator[None]:
    """Two builds at once would both answer for the same time."""
    with disk_errors(FeatureTableError, str(folder)):
        make_folder(folder)
        what = f"the table of view '{view.name}' is being built"
        with alone(folder / ".build.lock", what, refused=FeatureTableError):
            yield


def _buildable(view: FeatureView) -> tuple[Plan, Serving]:
    serving = read_cadence(view.cadence)
    for feature in view.features:
        if serving == EXACT and any(value.operator in INSTANT_OPERATORS for value in leaves(feature.value)):
            raise FeatureTableError(
                f"feature '{feature.name}' of view '{view.name}' changes at every instant, which cadence on_change "
                "cannot hold: leave it out of the view that is built, or give the view a schedule as its cadence"
            )
    return compile_features(view.features), serving


def _answered_to(before: Reached, site: str) -> dt.datetime:
    """Up to when some patient of a site has been answered: the next build must go beyond it."""
    return max(before.watermarks.get(site, START), before.refreshed_to.get(site, START))


def _span(serving: Serving, before: Reached, site: str, reach: dt.datetime) -> Span:
    """What a build adds for a site.

    Everyone is answered at the end of the fill, and at the first instant after it: an online store refuses a row that
    is not newer than what another version of the view has put there, which may have been answered at the same instant.
    """
    built_to = before.watermarks.get(site)
    if built_to is None:
        return Span(site, START, 0, reach, reach, answers_all=True, restates=False)
    news_at = next_instant(serving, built_to, reach)
    first_after_fill = built_to == before.filled_to[site]
    return Span(site, built_to, before.store_seqs[site], reach, news_at, first_after_fill, restates=False)


def _watermarks(con: duckdb.DuckDBPyConnection, view: FeatureView, plan: Plan) -> dict[str, dt.datetime]:
    """By site the instant up to which all types that the view reads have been seen."""
    types = resource_types(plan)
    found: dict[str, dt.datetime] = dict(
        con.execute(
            """
SELECT site, min(watermark)
FROM watermarks
WHERE resource_type IN (SELECT unnest(?))
GROUP BY site
HAVING count(*) = ?
ORDER BY site""",
            [list(types), len(types)],
        ).fetchall()
    )
    if not found:
        raise FeatureTableError(
            f"view '{view.name}' cannot be built: no site has a watermark for all of {', '.join(types)}; pull and "
            "normalize them first"
        )
    return found


def _create_refreshed(con: duckdb.DuckDBPyConnection, patients: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    """Create the temporary table `refreshed` (site, patient_id); out come the buckets that these patients lie in."""
    sites, patient_ids = zip(*patients, strict=True)
    con.register("patients_in", pa.table({"site": sites, "patient_id": patient_ids}))
    con.execute("CREATE OR REPLACE TEMP TABLE refreshed AS SELECT DISTINCT site, patient_id FROM patients_in")
    con.unregister("patients_in")
    bucket = bucket_sql("site", "patient_id", bucket_count(con))
    found = con.execute(f"SELECT DISTINCT {bucket} AS bucket FROM refreshed ORDER BY bucket").fetchall()
    return [(bucket, bucket) for (bucket,) in found]


def _ranges(con: duckdb.DuckDBPyConnection, plan: Plan, rows: int) -> list[tuple[int, int]]:
    """All buckets, in ranges that hold about so many rows."""
    together = buckets_holding(con, plan, rows)
    count = bucket_count(con)
    return [(first, min(first + together, count) - 1) for first in range(0, count, together)]


def _watched(ranges: Sequence[tuple[int, int]], progress: Progress, view: FeatureView) -> Iterator[tuple[int, int]]:
    """The ranges, one after the other, and to `progress` how many of all buckets are done."""
    for buckets in ranges:
        yield buckets
        progress(view.name, "buckets", buckets[1] + 1, ranges[-1][1] + 1)


def _changed_answers(
    con: duckdb.DuckDBPyConnection,
    plan: Plan,
    serving: Serving,
    store_seq: int,
    ranges: Iterable[tuple[int, int]],
    condition: str = "true",
) -> Iterator[pa.Table]:
    """The rows to write of patients that meet a condition, one range of buckets after the other."""
    for buckets in ranges:
        create_questions(con, plan, serving, buckets, condition)
        for answered in answers(con, plan, carry=True):
            yield changed_rows(con, plan, answered, store_seq)
