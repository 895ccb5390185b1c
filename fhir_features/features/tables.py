"""Feature tables: the log of a view's answers, built by the same engine as training sets (DESIGN.md, "Feature tables").

In go a view and a connection that reads the lake as it stood at a store_seq; out comes one Parquet file a build under
`<folder>/<view>/<first 12 of version>/`, with rows (site, patient_id, answered_at, published_at, store_seq, features),
ordered by bucket, site, patient and instant. "The latest row at or before T" of a patient is what the view answers at
T. A build goes up to the watermark of each site; what it reached stands in the file's metadata, where the next begins.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.errors import FeatureTableError
from fhir_features.features.compile import Plan, compile_features, leaves
from fhir_features.features.engine import answers
from fhir_features.features.instants import change_instants
from fhir_features.features.nodes import canonical_json
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.spine import INSTANT
from fhir_features.features.summary import resource_types
from fhir_features.features.terms import create_members
from fhir_features.features.view import FeatureView
from fhir_features.lake import bucket_count, identifier
from fhir_features.ontology import Ontologies

_METADATA = b"fhir_features"
_START = dt.datetime(1, 1, 1, tzinfo=dt.UTC)

# Buckets whose questions are worked out together; more would only cost memory.
_BUCKETS_A_PASS = 4


@dataclass(frozen=True)
class Reached:
    """How far the builds of a table have come: by site the watermark (UTC) and the store_seq."""

    watermarks: dict[str, dt.datetime]
    store_seqs: dict[str, int]


@dataclass(frozen=True)
class Build:
    """What one build did: the file that it wrote (None: nothing was new), its rows, and how far each site has come."""

    view: str
    version: str
    file: Path | None
    rows: int
    watermarks: dict[str, dt.datetime]


def table_folder(folder: Path, view: FeatureView) -> Path:
    """Where the files of a view's table are: `<folder>/<view>/<first 12 of version>`."""
    return folder / view.name / view.version[:12]


def build(
    con: duckdb.DuckDBPyConnection, known: Ontologies, view: FeatureView, folder: Path, *, store_seq: int
) -> Build:
    """Append to a view's table what is new up to the watermarks. Raises FeatureTableError.

    The connection must stand at `store_seq` (`engine.stand_at`).
    """
    _refuse_instants(view)
    plan = compile_features(view.features)
    files = sorted(table_folder(folder, view).glob("*.parquet"))
    before = _reached(files)
    watermarks = _watermarks(con, view, plan)
    moved = {site: at for site, at in watermarks.items() if at > before.watermarks.get(site, _START)}
    now = {**before.watermarks, **moved}
    if not moved:
        return Build(view.name, view.version, None, 0, now)
    seqs = {**before.store_seqs, **dict.fromkeys(moved, store_seq)}
    schema = _schema(plan, view, Reached(now, seqs))
    start = min(before.watermarks.get(site, _START) for site in moved)
    name = f"{_stamp(start)}_{_stamp(max(moved.values()))}_{store_seq}.parquet"
    file = table_folder(folder, view) / name
    _create_spans(con, moved, before)
    _create_previous(con, plan, files)
    create_members(con, known, plan)
    rows = _write(file, schema, _changed_answers(con, known, plan, store_seq))
    return Build(view.name, view.version, file, rows, now)


def _refuse_instants(view: FeatureView) -> None:
    for feature in view.features:
        if any(value.operator in INSTANT_OPERATORS for value in leaves(feature.value)):
            raise FeatureTableError(
                f"feature '{feature.name}' of view '{view.name}' changes at every instant, which cadence on_change "
                "cannot hold: leave it out of the view that is built"
            )


def _reached(files: list[Path]) -> Reached:
    """What the newest file says; its store_seq is the greatest."""
    if not files:
        return Reached({}, {})
    newest = max(files, key=lambda file: int(file.stem.rsplit("_", 1)[1]))
    try:
        state = json.loads(pq.read_schema(newest).metadata[_METADATA])
    except (KeyError, TypeError, OSError, pa.ArrowInvalid):
        raise FeatureTableError(f"{newest} is no feature table file of this package: move it away") from None
    watermarks = {site: dt.datetime.fromisoformat(text) for site, text in state["watermarks"].items()}
    return Reached(watermarks, state["store_seqs"])


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


def _schema(plan: Plan, view: FeatureView, reached: Reached) -> pa.Schema:
    state = {
        "view": view.name,
        "version": view.version,
        "definition": view.definition(),
        "watermarks": {site: at.isoformat() for site, at in reached.watermarks.items()},
        "store_seqs": reached.store_seqs,
    }
    keys = [("site", pa.string()), ("patient_id", pa.string()), ("answered_at", INSTANT), ("published_at", INSTANT)]
    columns = [*keys, ("store_seq", pa.int64()), *[(field.name, field.type) for field in plan.schema][1:]]
    return pa.schema(columns, {_METADATA: canonical_json(state).encode()})


def _stamp(instant: dt.datetime) -> str:
    # "0" sorts before all years.
    return "0" if instant == _START else instant.strftime("%Y%m%dT%H%M%S%fZ")


def _create_spans(con: duckdb.DuckDBPyConnection, moved: dict[str, dt.datetime], before: Reached) -> None:
    con.execute("""
CREATE OR REPLACE TEMP TABLE spans (
  site VARCHAR, is_first BOOLEAN, built_to TIMESTAMPTZ, built_seq BIGINT, reach TIMESTAMPTZ
)""")
    for site, reach in moved.items():
        built_to = before.watermarks.get(site, _START)
        built_seq = before.store_seqs.get(site, 0)
        con.execute("INSERT INTO spans VALUES (?, ?, ?, ?, ?)", [site, built_seq == 0, built_to, built_seq, reach])


def _create_previous(con: duckdb.DuckDBPyConnection, plan: Plan, files: list[Path]) -> None:
    """The newest row of each patient in the table so far."""
    columns = ", ".join(identifier(name) for name in plan.names)
    if files:
        newest = f"""
SELECT site, patient_id, answered_at, {columns}
FROM read_parquet($files)
QUALIFY row_number() OVER (PARTITION BY site, patient_id ORDER BY answered_at DESC) = 1"""
        con.execute(f"CREATE OR REPLACE TEMP TABLE previous AS {newest}", {"files": [str(file) for file in files]})
        return
    con.register("no_rows", plan.schema.empty_table())
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE previous AS
SELECT NULL::VARCHAR AS site, NULL::VARCHAR AS patient_id, NULL::TIMESTAMPTZ AS answered_at, {columns}
FROM no_rows""")
    con.unregister("no_rows")


def _changed_answers(
    con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan, store_seq: int
) -> Iterator[pa.Table]:
    """The rows to write, some buckets at a time."""
    instants = change_instants(plan)
    changed = _changed(plan)
    for first in range(0, bucket_count(con), _BUCKETS_A_PASS):
        buckets = {"first_bucket": first, "last_bucket": first + _BUCKETS_A_PASS - 1}
        con.execute(
            f"""
CREATE OR REPLACE TEMP TABLE asked AS
SELECT row_number() OVER (ORDER BY bucket, site, patient_id, t) AS question, *, t AS k
FROM (
{instants}
)""",
            buckets,
        )
        for answered in answers(con, known, plan):
            con.register("answered", answered)
            yield con.execute(changed, {"store_seq": store_seq}).to_arrow_table()
            con.unregister("answered")


def _changed(plan: Plan) -> str:
    """Of the answers, in `answered`, those that differ from the patient's answer before.

    The first build of a table answers every patient at its reach, so that online stores, which refuse a row that is
    not newer, take the answers of a changed definition.
    """
    names = [identifier(name) for name in plan.names]
    columns = ", ".join(names)
    differs = "\n    OR ".join(f"{name} IS DISTINCT FROM lag({name}) OVER in_time" for name in names)
    return f"""
WITH in_question AS (
  SELECT q.bucket, q.site, q.patient_id, q.t AS answered_at, true AS is_new, {columns}
  FROM answered a
  JOIN asked q USING (question)
),
with_previous AS (
  SELECT * FROM in_question
  UNION ALL
  SELECT NULL, site, patient_id, answered_at, false, {columns}
  FROM previous
  WHERE (site, patient_id) IN (SELECT (site, patient_id) FROM in_question)
)
SELECT site, patient_id, answered_at, reach AS published_at, CAST($store_seq AS BIGINT) AS store_seq, {columns}
FROM with_previous
JOIN spans USING (site)
WINDOW in_time AS (PARTITION BY site, patient_id ORDER BY answered_at)
QUALIFY is_new
  AND (
    (is_first AND answered_at = reach)
    OR {differs}
  )
ORDER BY bucket, site, patient_id, answered_at"""


def _write(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    """Write the tables aside, then give the file its name, which must not be taken."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for table in tables:
                rows += table.num_rows
                writer.write_table(table.cast(schema))
        os.link(aside, file)
    except FileExistsError:
        raise FeatureTableError(f"{file} is there already: another build of the view has just written it") from None
    finally:
        aside.unlink(missing_ok=True)
    return rows
