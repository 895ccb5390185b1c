"""Whom does a Feast retrieval ask about, and when? In goes what Feast's `get_historical_features` is given as
`entity_df`: a pandas or polars frame, an Arrow table, a query, or the path of Parquet files. Out comes an Arrow table
with every column as it was, and in its time column instants in UTC.

Raises SpineError of one line, without a value of the frame in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.cores import cores
from fhir_features.errors import SpineError
from fhir_features.features.spine import INSTANT, TIME
from fhir_features.files import parquet_at
from fhir_features.lake import identifier, literal


@dataclass(frozen=True)
class EntityFrame:
    """The rows that are asked for, and which of their columns is the instant. Times without a zone are UTC."""

    table: pa.Table
    time: str

    def asked(self, keys: list[str]) -> pa.Table:
        """The questions: `row`, the values of these columns as `k0`, `k1`…, and the instant in microseconds as `t`."""
        columns = {f"k{number}": self.table.column(key) for number, key in enumerate(keys)}
        # Of finer digits none may make a question later than it is.
        t = pc.floor_temporal(self.table.column(self.time), unit="microsecond").cast(INSTANT)
        return pa.table({"row": np.arange(self.table.num_rows), **columns, "t": t})

    def require(self, keys: list[str]) -> None:
        """Refuse a frame without some of these columns. Raises SpineError."""
        for key in keys:
            if key not in self.table.column_names:
                raise SpineError(
                    f"the entity frame has no column '{key}', a key of a feature view that is asked: add it"
                )


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in UTC. What does not fit into memory is patient data, and stays in a folder of ours."""
    con = duckdb.connect(config={"threads": cores()})
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"SET temp_directory = {literal(str(spill))}")
    return con


def read_entity_frame(given: Any, repository: Path) -> EntityFrame:
    """The rows of an `entity_df`. Relative paths, also those within a query, are relative to the repository."""
    table = _arrow(given, repository)
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise SpineError(f"the entity frame has two columns '{name}': rename one")
    time = _time_column(table)
    return EntityFrame(table.set_column(table.column_names.index(time), time, _instants(table, time)), time)


def _arrow(given: Any, repository: Path) -> pa.Table:
    if isinstance(given, str | Path):
        return _query(given, repository)
    if type(given).__module__.startswith("pandas."):
        try:
            return pa.Table.from_pandas(given, preserve_index=False)
        except pa.ArrowException as error:
            # Of the parts of Arrow's message the first quotes a value, and the last names the column.
            raise SpineError(f"the entity frame cannot be read: {error.args[-1]}") from None
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    raise SpineError(
        "an entity frame is a pandas or polars frame, an Arrow table, a query, or the path of Parquet files, not "
        f"{type(given).__name__}"
    )


def _query(given: str | Path, repository: Path) -> pa.Table:
    text = str(given)
    is_path = isinstance(given, Path) or text.endswith(".parquet") or (repository / text).is_dir()
    with connect(repository / "data" / "spill") as con:
        con.execute(f"SET file_search_path = {literal(str(repository))}")
        try:
            if is_path:
                rows = f"read_parquet({literal(parquet_at(text, repository))})"
                return con.sql(f"SELECT * FROM {rows}").to_arrow_table()
            answer = con.sql(text)
        except duckdb.IOException:
            what = text if is_path else "a file that the query of the entity frame names"
            raise SpineError(f"{what} cannot be read: there is no such Parquet file under {repository}") from None
        except duckdb.Error as error:
            # What a query meets in the data, it quotes; what is wrong with the query itself stands in the first line.
            said = str(error).splitlines()[0] if isinstance(error, duckdb.ProgrammingError) else type(error).__name__
            raise SpineError(f"the query of the entity frame failed: {said}") from None
        if answer is None:
            raise SpineError("the query of the entity frame gives no rows: write one that SELECTs them")
        return answer.to_arrow_table()


def _time_column(table: pa.Table) -> str:
    if TIME in table.column_names:
        return TIME
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise SpineError(f"the entity frame has no column '{TIME}', and {len(times)} others with instants: name one so")
    return str(times[0])


def _instants(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The instants of a column in UTC, which has them, or dates, or texts, or nothing but nulls."""
    column = table.column(name)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp(column.type.unit, "UTC"))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _parsed(column, name)
    if pa.types.is_date(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.timestamp("us")).cast(INSTANT)
    raise SpineError(f"column '{name}' of the entity frame holds {column.type}, not instants: convert it")


def _parsed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    texts = pa.table({name: column})
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            read = con.from_arrow(texts).project(f"CAST({identifier(name)} AS TIMESTAMPTZ)").to_arrow_table()
        except duckdb.Error:
            raise SpineError(
                f"column '{name}' of the entity frame has texts that are no instants: write 2024-03-05T14:00:00Z"
            ) from None
    return read.column(0).cast(INSTANT)
