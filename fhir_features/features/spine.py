"""Whose features are asked for, and when: an entity frame, read and checked.

In goes a polars or pandas frame, an Arrow table, or the path of a Parquet or CSV file, with the columns site,
patient_id and event_timestamp; out comes an Arrow table with those three as text, text and UTC microseconds, and every
other column as it was. Raises SpineError of one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from fhir_features.errors import SpineError

TIME = "event_timestamp"
KEYS = ("site", "patient_id")
INSTANT = pa.timestamp("us", tz="UTC")


def read_spine(entities: Any, *, sites: tuple[str, ...]) -> pa.Table:
    """The spine of an entity frame. `site` may be absent when `sites`, those of the configuration, is one."""
    table = _arrow(entities)
    if TIME not in table.column_names:
        raise SpineError(f"the entity frame has no column '{TIME}': add the instant to ask at, with a time zone")
    if "patient_id" not in table.column_names:
        raise SpineError("the entity frame has no column 'patient_id': add the FHIR id of the patient")
    if "site" not in table.column_names:
        table = _with_the_one_site(table, sites)
    for key in KEYS:
        table = _replaced(table, key, _text(table, key))
    return _replaced(table, TIME, _instants(table))


def _arrow(entities: Any) -> pa.Table:
    if isinstance(entities, str | Path):
        return _read_file(Path(entities))
    if isinstance(entities, pa.Table):
        return entities
    if isinstance(entities, pa.RecordBatch):
        return pa.Table.from_batches([entities])
    module = type(entities).__module__.split(".")[0]
    if module == "pandas":
        return pa.Table.from_pandas(entities, preserve_index=False)
    if module == "polars" and hasattr(entities, "to_arrow"):
        return entities.to_arrow()
    raise SpineError(
        f"an entity frame is a polars or pandas frame, an Arrow table or a path, not {type(entities).__name__}"
    )


def _read_file(path: Path) -> pa.Table:
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            types = {key: pa.string() for key in KEYS}
            return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowInvalid) as error:
        raise SpineError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    raise SpineError(f"{path} is neither .parquet nor .csv: convert it to one of them")


def _with_the_one_site(table: pa.Table, sites: tuple[str, ...]) -> pa.Table:
    if len(sites) != 1:
        raise SpineError(f"the entity frame has no column 'site', and there are {len(sites)} sites: add it")
    return table.append_column("site", pa.array([sites[0]] * table.num_rows, pa.string()))


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
    return column.cast(pa.timestamp("us", tz=column.type.tz)).cast(INSTANT)


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
