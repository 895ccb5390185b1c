"""Whose features are asked for, and when: an entity frame, read and checked, or one of the anchored spines.

In goes a polars or pandas frame, an Arrow table, or the path of a Parquet or CSV file, with the columns site,
patient_id and event_timestamp; out comes an Arrow table with those three as text, text and UTC microseconds, and every
other column as it was. Raises SpineError of one line. `encounters`, `grid` and `first` are those of `anchors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.errors import SpineError
from fhir_features.features.anchors import encounters, first, grid

__all__ = ["INSTANT", "KEYS", "TIME", "as_arrow", "encounters", "first", "grid", "read_spine"]

TIME = "event_timestamp"
KEYS = ("site", "patient_id")
INSTANT = pa.timestamp("us", tz="UTC")

# The years of FHIR and of Python, 1 to 9999, in microseconds since 1970.
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
_NO_CLOCK = f"column '{TIME}' has instants outside the years 1 to 9999, that no clock will show: drop those rows"


def read_spine(entities: Any, *, sites: tuple[str, ...]) -> pa.Table:
    """The spine of an entity frame. `site` may be absent when `sites`, those of the configuration, is one."""
    table = as_arrow(entities)
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise SpineError(f"the entity frame has two columns '{name}': rename one")
    if TIME not in table.column_names:
        raise SpineError(f"the entity frame has no column '{TIME}': add the instant to ask at, with a time zone")
    if "patient_id" not in table.column_names:
        raise SpineError("the entity frame has no column 'patient_id': add the FHIR id of the patient")
    if "site" not in table.column_names:
        table = _with_the_one_site(table, sites)
    for key in KEYS:
        table = _replaced(table, key, _text(table, key))
    return _replaced(table, TIME, _instants(table))


def as_arrow(entities: Any) -> pa.Table:
    """An entity frame of any kind as an Arrow table, not yet checked. Raises SpineError."""
    if isinstance(entities, str | Path):
        return _read_file(Path(entities))
    if isinstance(entities, pa.Table):
        return entities
    if isinstance(entities, pa.RecordBatch):
        return pa.Table.from_batches([entities])
    module = type(entities).__module__.split(".")[0]
    if module == "pandas":
        return _from_pandas(entities)
    if module == "polars" and hasattr(entities, "to_arrow"):
        return entities.to_arrow()
    if module == "polars" and hasattr(entities, "collect"):
        raise SpineError("the entity frame is a lazy one: call .collect() on it first")
    raise SpineError(
        f"an entity frame is a polars or pandas frame, an Arrow table or a path, not {type(entities).__name__}"
    )


def _from_pandas(frame: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException as error:
        # Of the parts of Arrow's message the first quotes a value, and the last names the column.
        raise SpineError(f"the entity frame cannot be read: {error.args[-1]}") from None


def _read_file(path: Path) -> pa.Table:
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            types = {key: pa.string() for key in KEYS}
            table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
            if table.num_columns == 1 and ";" in table.column_names[0]:
                raise SpineError(f"{path} has semicolons between its columns: write it with commas")
            return table
    except FileNotFoundError:
        raise SpineError(f"{path} cannot be read: there is no such file") from None
    except (OSError, pa.ArrowInvalid):
        # Arrow's message quotes the line that it could not read, which is patient data.
        raise SpineError(f"{path} cannot be read: it is no whole {path.suffix} file of one table") from None
    raise SpineError(f"{path} is neither .parquet nor .csv: convert it to one of them")


def _with_the_one_site(table: pa.Table, sites: tuple[str, ...]) -> pa.Table:
    if len(sites) != 1:
        raise SpineError(f"the entity frame has no column 'site', and there are {len(sites)} sites: add it")
    return table.append_column("site", pa.repeat(sites[0], table.num_rows))


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not is_text and table.num_rows:
        raise SpineError(f"column '{name}' holds {kind}, not text: convert it, as ids may begin with a zero")
    if column.null_count:
        raise SpineError(f"column '{name}' has {column.null_count} nulls: drop those rows")
    return column.cast(pa.string())


def _instants(table: pa.Table) -> pa.ChunkedArray:
    column = table.column(TIME)
    if not table.num_rows:
        return pa.chunked_array([pa.array([], INSTANT)])
    if not pa.types.is_timestamp(column.type):
        raise SpineError(f"column '{TIME}' holds {column.type}, not instants: convert it, with a time zone")
    if column.type.tz is None:
        raise SpineError(f"column '{TIME}' has no time zone: say which one its times are in")
    if column.null_count:
        raise SpineError(f"column '{TIME}' has {column.null_count} nulls: drop those rows")
    if column.type.unit == "ns":
        # Towards the past also before 1970, where a cast would round towards the future.
        nanoseconds = column.cast(pa.int64()).to_numpy()
        return pa.chunked_array([pa.array(nanoseconds // 1000, pa.int64()).cast(INSTANT)])
    try:
        instants = column.cast(INSTANT)
    except pa.ArrowInvalid:
        raise SpineError(_NO_CLOCK) from None
    bounds = pc.min_max(instants.cast(pa.int64())).as_py()
    if bounds["min"] < _EARLIEST or bounds["max"] > _LATEST:
        raise SpineError(_NO_CLOCK)
    return instants


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
