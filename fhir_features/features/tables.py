"""Feature tables: the log of a view's answers, built by the same engine as training sets (DESIGN.md, "Feature tables").

In go a view and a connection that reads the lake as it stood at a store_seq; out comes one Parquet file a build in the
view's folder (`table_folder`), with rows (site, patient_id, answered_at, published_at, store_seq, features), ordered by
bucket, site, patient and instant. "The latest row at or before T" of a patient is what the view, by its cadence, has
answered at T. A build goes up to the last instant of the cadence at or before each site's watermark; what it reached
stands in the file's metadata, where the next begins.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.errors import FeatureTableError
from fhir_features.features.cadence import EXACT, Serving, read_cadence
from fhir_features.features.changes import changed_rows, create_previous
from fhir_features.features.compile import Plan, compile_features, leaves
from fhir_features.features.engine import answers, buckets_holding
from fhir_features.features.instants import START, Span, create_spans, last_instants, next_instant, questions_of
from fhir_features.features.nodes import canonical_json
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.spine import INSTANT
from fhir_features.features.summary import resource_types
from fhir_features.features.table_files import checked_files, write_file
from fhir_features.features.terms import create_members
from fhir_features.features.view import FeatureView
from fhir_features.files import alone, disk_errors, make_folder
from fhir_features.lake import bucket_count
from fhir_features.ontology import Ontologies

_METADATA = b"fhir_features"
_FOREIGN = "is no feature table file of this package: move it away"

# Rows whose questions are worked out together: each can give several.
_ROWS_A_PASS = 300_000


@dataclass(frozen=True)
class Reached:
    """How far the builds of a table have come, by site: the last instant answered, the store_seq, the end of the fill.

    The fill is a site's first build, which answers for the time before the view was deployed. Instants are UTC.
    """

    watermarks: dict[str, dt.datetime]
    store_seqs: dict[str, int]
    filled_to: dict[str, dt.datetime]


@dataclass(frozen=True)
class Build:
    """What one build did: the file that it wrote (None: nothing was new), its rows, and how far each site has come."""

    view: str
    version: str
    file: Path | None
    rows: int
    watermarks: dict[str, dt.datetime]


def table_folder(folder: Path, view: FeatureView) -> Path:
    """Where the files of a view's table are: `<folder>/<view>/<first 12 of version>`.

    A restatement is a table of its own, `<first 12 of version>-r<number>`; the newest one counts.
    """
    first = folder / view.name / view.version[:12]
    restated = [each for each in first.parent.glob(f"{first.name}-r*") if any(each.glob("*.parquet"))]
    return max(restated, key=_restatement, default=first)


def table_files(folder: Path) -> list[Path]:
    """The files of a table, in the order of their builds."""
    return sorted(folder.glob("*.parquet"), key=_age)


def newest_file(folder: Path) -> Path | None:
    """The file of a table's last build; None before the first."""
    return max(folder.glob("*.parquet"), key=_age, default=None)


def reached(file: Path) -> Reached:
    """What a file of a feature table says about how far it goes. Raises FeatureTableError for another file."""
    try:
        state = json.loads(pq.read_schema(file).metadata[_METADATA])
        return Reached(_instants(state["watermarks"]), state["store_seqs"], _instants(state["filled_to"]))
    except (KeyError, TypeError, OSError, pa.ArrowInvalid):
        raise FeatureTableError(f"{file} {_FOREIGN}") from None


def build(
    con: duckdb.DuckDBPyConnection, known: Ontologies, view: FeatureView, folder: Path, *, store_seq: int
) -> Build:
    """Append to a view's table what is new up to the watermarks. Raises FeatureTableError.

    The connection must stand at `store_seq` (`engine.stand_at`). What the store has learned about a time that the table
    has answered already is answered at the next instant of a schedule, or else where the build ends.
    """
    with _alone(folder / view.name, view):
        return _build(con, known, view, folder, store_seq)


def _build(con: duckdb.DuckDBPyConnection, known: Ontologies, view: FeatureView, folder: Path, store_seq: int) -> Build:
    plan, serving = _buildable(view)
    table = table_folder(folder, view)
    files = checked_files(table)
    newest = newest_file(table)
    before = reached(newest) if newest else Reached({}, {}, {})
    seen = last_instants(serving, _watermarks(con, view, plan))
    moved = {site: at for site, at in seen.items() if at > before.watermarks.get(site, START)}
    watermarks = {**before.watermarks, **moved}
    if not moved:
        return Build(view.name, view.version, None, 0, watermarks)
    now = Reached(
        watermarks,
        {**before.store_seqs, **dict.fromkeys(moved, store_seq)},
        {**moved, **before.filled_to},
    )
    spans = [_span(serving, before, site, reach) for site, reach in moved.items()]
    file = table / _file_name(spans, store_seq)
    create_previous(con, plan, files)
    create_members(con, known, plan)
    create_spans(con, plan, serving, spans)
    rows = write_file(file, _schema(plan, view, now), _changed_answers(con, known, plan, serving, store_seq))
    return Build(view.name, view.version, file, rows, watermarks)


def restate(
    con: duckdb.DuckDBPyConnection, known: Ontologies, view: FeatureView, folder: Path, *, store_seq: int
) -> Build:
    """Write a view's table anew, with the history that the store knows now. Raises FeatureTableError.

    The connection must stand at `store_seq`. The new table goes as far as the one before, which stays where it is, and
    the newest row of each patient says what it said: news is answered by the next build, as without a restatement.
    """
    with _alone(folder / view.name, view):
        return _restate(con, known, view, folder, store_seq)


def _restate(
    con: duckdb.DuckDBPyConnection, known: Ontologies, view: FeatureView, folder: Path, store_seq: int
) -> Build:
    plan, serving = _buildable(view)
    table = table_folder(folder, view)
    newest = newest_file(table)
    if newest is None:
        raise FeatureTableError(
            f"view '{view.name}' has no feature table to restate: run `fhir-features build {view.name}` first"
        )
    now = reached(newest)
    spans = [
        Span(site, START, now.store_seqs[site], reach, reach, answers_all=True, restates=True)
        for site, reach in now.watermarks.items()
    ]
    name = f"{view.version[:12]}-r{_restatement(table) + 1}"
    file = folder / view.name / name / _file_name(spans, store_seq)
    create_previous(con, plan, checked_files(table))
    create_members(con, known, plan)
    create_spans(con, plan, serving, spans)
    rows = write_file(file, _schema(plan, view, now), _changed_answers(con, known, plan, serving, store_seq))
    return Build(view.name, view.version, file, rows, now.watermarks)


@contextmanager
def _alone(folder: Path, view: FeatureView) -> Iterator[None]:
    """Two builds at once would both answer for the same time."""
    with disk_errors(FeatureTableError, str(folder)):
        make_folder(folder)
        with alone(folder / "build.lock", f"the table of view '{view.name}' is being built"):
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


def _restatement(table: Path) -> int:
    """The number of a restatement; that of the first table is 0."""
    _, _, number = table.name.partition("-r")
    return int(number or 0)


def _age(file: Path) -> tuple[int, str]:
    """By what files are put in order: the store_seq, then the end of the interval."""
    try:
        _, end, store_seq = file.stem.split("_")
        return int(store_seq), end
    except ValueError:
        raise FeatureTableError(f"{file} {_FOREIGN}") from None


def _instants(texts: dict[str, str]) -> dict[str, dt.datetime]:
    return {site: dt.datetime.fromisoformat(text) for site, text in texts.items()}


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


def _file_name(spans: list[Span], store_seq: int) -> str:
    start, end = min(span.built_to for span in spans), max(span.reach for span in spans)
    return f"{_stamp(start)}_{_stamp(end)}_{store_seq}.parquet"


def _stamp(instant: dt.datetime) -> str:
    # "0" sorts before all years.
    return "0" if instant == START else instant.strftime("%Y%m%dT%H%M%S%fZ")


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


def _schema(plan: Plan, view: FeatureView, now: Reached) -> pa.Schema:
    state = {
        "view": view.name,
        "version": view.version,
        "definition": view.definition(),
        "watermarks": {site: at.isoformat() for site, at in now.watermarks.items()},
        "store_seqs": now.store_seqs,
        "filled_to": {site: at.isoformat() for site, at in now.filled_to.items()},
    }
    keys = [("site", pa.string()), ("patient_id", pa.string()), ("answered_at", INSTANT), ("published_at", INSTANT)]
    columns = [*keys, ("store_seq", pa.int64()), *[(field.name, field.type) for field in plan.schema][1:]]
    return pa.schema(columns, {_METADATA: canonical_json(state).encode()})


def _changed_answers(
    con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan, serving: Serving, store_seq: int
) -> Iterator[pa.Table]:
    """The rows to write, some buckets at a time."""
    questions = questions_of(plan, serving)
    together = buckets_holding(con, plan, _ROWS_A_PASS)
    for first in range(0, bucket_count(con), together):
        buckets = {"first_bucket": first, "last_bucket": first + together - 1}
        con.execute(
            f"""
CREATE OR REPLACE TEMP TABLE asked AS
SELECT *, t AS k
FROM (
{questions}
)""",
            buckets,
        )
        for answered in answers(con, known, plan, carry=True):
            yield changed_rows(con, plan, answered, store_seq)
