"""Are two tables the same? A hash of the values of a table, whatever holds them.

In goes an Arrow table; out comes one SHA-256 a column and one over all. It covers the names, order, kinds and values of
the columns and the order of the rows, and nothing of how they are stored: chunks, slices, dictionaries, 32 or 64 bit
offsets, the width of integers, the unit and zone of instants. All NaN are one value, -0.0 is 0.0, null is neither.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from fhir_features.errors import UsageError


class ColumnHash(BaseModel):
    """The name of a column, the kind of its values, and the SHA-256 of both and the values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    sha256: str


class TableHash(BaseModel):
    """The number of rows, the hashes of the columns in their order, and the SHA-256 of those."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    columns: tuple[ColumnHash, ...]
    sha256: str


def table_hash(table: pa.Table) -> TableHash:
    """The hash of a table's values. Raises UsageError for a column of a kind that has no canonical form."""
    columns = tuple(_column_hash(name, table.column(name)) for name in table.column_names)
    lines = [f"rows {table.num_rows}", *(column.sha256 for column in columns)]
    return TableHash(rows=table.num_rows, columns=columns, sha256=hashlib.sha256("\n".join(lines).encode()).hexdigest())


def _column_hash(name: str, column: pa.ChunkedArray) -> ColumnHash:
    kind, digest = _values_hash(name, column)
    return ColumnHash(name=name, kind=kind, sha256=hashlib.sha256(f"{name}\0{kind}\0".encode() + digest).hexdigest())


def _values_hash(name: str, column: pa.ChunkedArray) -> tuple[str, bytes]:
    """The kind of a column's values, and their digest; that of lists goes over their lengths and what is in them."""
    found = column.type
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        kind, inner = _values_hash(name, pc.list_flatten(column))
        return f"list of {kind}", _digest(pc.list_value_length(column).cast(pa.int64())) + inner
    kind, canonical = _canonical(name, column)
    return kind, _digest(canonical)


def _digest(column: pa.ChunkedArray) -> bytes:
    parts = _Parts()
    for chunk in column.chunks:
        parts.add(chunk)
    return parts.digest()


def _canonical(name: str, column: pa.ChunkedArray) -> tuple[str, pa.ChunkedArray]:
    """The kind of a column, and its values in the one type that stands for the kind."""
    found = column.type
    if pa.types.is_dictionary(found):
        return _canonical(name, column.cast(found.value_type))
    if pa.types.is_null(found):
        return "null", column.cast(pa.bool_())
    if pa.types.is_boolean(found):
        return "boolean", column
    if pa.types.is_uint64(found) and not _fits(column, pa.int64()):
        return "uint64", column
    if pa.types.is_integer(found):
        return "integer", column.cast(pa.int64())
    if pa.types.is_floating(found):
        return "number", column.cast(pa.float64())
    if pa.types.is_timestamp(found):
        return _instants(name, column)
    if pa.types.is_date(found):
        return "date", column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return "text", column.cast(pa.large_string())
    if pa.types.is_decimal(found):
        # As text, since 1.0 and 1.00 are written with different scales and kept so.
        return "decimal", column.cast(pa.large_string())
    raise _no_form(name, found)


def _no_form(name: str, found: pa.DataType) -> UsageError:
    return UsageError(f"column '{name}' holds {found}, which a receipt cannot vouch for: drop it, or convert it")


def _instants(name: str, column: pa.ChunkedArray) -> tuple[str, pa.ChunkedArray]:
    kind = "instant" if column.type.tz else "local time"
    for unit in ("us", "ns"):
        wanted = pa.timestamp(unit, column.type.tz)
        if _fits(column, wanted):
            return (kind if unit == "us" else f"{kind} (ns)"), column.cast(wanted).cast(pa.int64())
    raise _no_form(name, column.type)


def _fits(column: pa.ChunkedArray, wanted: pa.DataType) -> bool:
    try:
        column.cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True


class _Parts:
    """The running hashes of a column: which rows have a value, the values, and the lengths of texts.

    Three, as each must not depend on where a chunk ends.
    """

    def __init__(self) -> None:
        self._valid, self._values, self._lengths = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._nulls = 0

    def add(self, chunk: pa.Array) -> None:
        self._nulls += chunk.null_count
        self._valid.update(pc.cast(pc.is_valid(chunk), pa.uint8()).to_numpy())
        if pa.types.is_large_string(chunk.type):
            self._add_texts(chunk)
            return
        if pa.types.is_boolean(chunk.type):
            chunk = pc.cast(chunk, pa.uint8())
        values = pc.fill_null(chunk, 0).to_numpy()
        if values.dtype == np.float64:
            values = values + 0.0  # turns -0.0 into 0.0
            values[np.isnan(values)] = np.nan
        self._values.update(np.ascontiguousarray(values).data)

    def digest(self) -> bytes:
        parts = [self._values, self._lengths, *([self._valid] if self._nulls else [])]
        return b"".join(part.digest() for part in parts)

    def _add_texts(self, chunk: pa.Array) -> None:
        filled = pc.fill_null(chunk, "")
        self._lengths.update(pc.binary_length(filled).to_numpy())
        _, offsets, texts = filled.buffers()
        if texts is not None and len(filled):
            ends = np.frombuffer(offsets, np.int64)[[filled.offset, filled.offset + len(filled)]]
            self._values.update(memoryview(texts)[ends[0] : ends[1]])
