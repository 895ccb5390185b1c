"""The files of a feature table: where they lie, how they are named, and how far each says that the table goes.

In goes the folder of a view's table; out come its files in order, their metadata, and each patient's newest row. A file
is named by the interval that it answers and its store_seq, `<start>_<end>_<store_seq>.parquet`; that of a refresh has
`-p<number>` after it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.errors import FeatureTableError
from fhir_features.features.compile import Plan
from fhir_features.features.instants import START, Span
from fhir_features.features.nodes import canonical_json
from fhir_features.features.spine import INSTANT
from fhir_features.features.view import FeatureView
from fhir_features.lake import identifier, literal

_METADATA = b"fhir_features"
_FOREIGN = "is no feature table file of this package: move it away"

# Between a file's store_seq and the number of a refresh.
_PART = "-p"


@dataclass(frozen=True)
class Reached:
    """How far the builds of a table have come, by site: the last instant answered, the store_seq, the end of the fill.

    The fill is a site's first build, which answers for the time before the view was deployed. `refreshed_to` is there
    for a site of which some patients were answered since its last build, and up to when. Instants are UTC.
    """

    watermarks: dict[str, dt.datetime]
    store_seqs: dict[str, int]
    filled_to: dict[str, dt.datetime]
    refreshed_to: dict[str, dt.datetime]


def table_folder(folder: Path, view: FeatureView) -> Path:
    """Where the files of a view's table are: `<folder>/<view>/<first 12 of version>`.

    A restatement is a table of its own, `<first 12 of version>-r<number>`; the newest one counts.
    """
    first = folder / view.name / view.version[:12]
    restated = [each for each in first.parent.glob(f"{first.name}-r*") if any(each.glob("*.parquet"))]
    return max(restated, key=restatement, default=first)


def newest_file(folder: Path) -> Path | None:
    """The file of a table's last build; None before the first."""
    return max(folder.glob("*.parquet"), key=_age, default=None)


def reached(file: Path) -> Reached:
    """What a file of a feature table says about how far it goes. Raises FeatureTableError for another file."""
    try:
        state = json.loads(pq.read_schema(file).metadata[_METADATA])
        return Reached(
            _instants(state["watermarks"]),
            state["store_seqs"],
            _instants(state["filled_to"]),
            _instants(state.get("refreshed_to", {})),
        )
    except (KeyError, TypeError, OSError, pa.ArrowInvalid):
        raise FeatureTableError(f"{file} {_FOREIGN}") from None


def table_files(folder: Path) -> list[Path]:
    """The files of a table, in the order of their builds."""
    return sorted(folder.glob("*.parquet"), key=_age)


def files_up_to(folder: Path, build: str) -> list[Path]:
    """The files of a table up to that of a build, by its name; none when it has no such file."""
    files = table_files(folder)
    names = [file.stem for file in files]
    return files[: names.index(build) + 1] if build in names else []


def newest_rows(folder: Path, view: FeatureView, *, after: str | None, rows: int) -> Iterator[pa.RecordBatch]:
    """The newest row of each patient in the files after a build, by its name, or in all; some rows at a time."""
    old = files_up_to(folder, after) if after else []
    new = [file for file in table_files(folder) if file not in old]
    if not new:
        return
    columns = ", ".join(identifier(feature.name) for feature in view.features)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        # What does not fit into memory is patient data, too: it stays in the warehouse.
        con.execute(f"SET temp_directory = {literal(str(folder / 'spill'))}")
        yield from con.execute(
            f"""
WITH newest AS (
  SELECT site, patient_id, max(answered_at) AS answered_at
  FROM read_parquet($files)
  GROUP BY site, patient_id
)
SELECT site, patient_id, answered_at, published_at, store_seq, {columns}
FROM read_parquet($files)
JOIN newest USING (site, patient_id, answered_at)""",
            {"files": [str(file) for file in new]},
        ).to_arrow_reader(rows)


def file_name(spans: Sequence[Span], store_seq: int) -> str:
    """The name of the file of a build."""
    start, end = min(span.built_to for span in spans), max(span.reach for span in spans)
    return f"{_stamp(start)}_{_stamp(end)}_{store_seq}.parquet"


def refresh_name(table: Path, spans: Sequence[Span], store_seq: int) -> str:
    """The name of the file of the next refresh."""
    whole = file_name(spans, store_seq).removesuffix(".parquet")
    part = 1 + sum(1 for _ in table.glob(f"{whole}{_PART}*.parquet"))
    return f"{whole}{_PART}{part}.parquet"


def restatement(table: Path) -> int:
    """The number of a restatement; that of the first table is 0."""
    _, _, number = table.name.partition("-r")
    return int(number or 0)


def table_schema(plan: Plan, view: FeatureView, now: Reached) -> pa.Schema:
    """The columns of a table's file, with what it reached as metadata."""
    state = {
        "view": view.name,
        "version": view.version,
        "definition": view.definition(),
        "watermarks": {site: at.isoformat() for site, at in now.watermarks.items()},
        "store_seqs": now.store_seqs,
        "filled_to": {site: at.isoformat() for site, at in now.filled_to.items()},
        "refreshed_to": {site: at.isoformat() for site, at in now.refreshed_to.items()},
    }
    keys = [("site", pa.string()), ("patient_id", pa.string()), ("answered_at", INSTANT), ("published_at", INSTANT)]
    columns = [*keys, ("store_seq", pa.int64()), *[(field.name, field.type) for field in plan.schema][1:]]
    return pa.schema(columns, {_METADATA: canonical_json(state).encode()})


def _age(file: Path) -> tuple[int, str, int]:
    """By what files are put in order: the store_seq, the end of the interval, and the number of a refresh."""
    try:
        _, end, last = file.stem.split("_")
        store_seq, _, part = last.partition(_PART)
        return int(store_seq), end, int(part or 0)
    except ValueError:
        raise FeatureTableError(f"{file} {_FOREIGN}") from None


def _instants(texts: dict[str, str]) -> dict[str, dt.datetime]:
    return {site: dt.datetime.fromisoformat(text) for site, text in texts.items()}


def _stamp(instant: dt.datetime) -> str:
    # "0" sorts before all years.
    return "0" if instant == START else instant.strftime("%Y%m%dT%H%M%S%fZ")
