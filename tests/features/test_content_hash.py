"""One hash for the same values however they are held, and another for any difference."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from fhir_features.errors import UsageError
from fhir_features.features.content_hash import table_hash

INSTANTS = [dt.datetime(2024, 3, 5, 14, tzinfo=dt.UTC), dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC), None, None]


def a_table(**changed: Any) -> pa.Table:
    columns = {
        "patient_id": ["p1", "", None, "Ä€"],
        "event_timestamp": pa.array(INSTANTS, pa.timestamp("us", "UTC")),
        "number": pa.array([1.5, float("nan"), 0.0, None]),
        "count": pa.array([1, 0, None, -3], pa.int64()),
        "yes": pa.array([True, False, None, True]),
        "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1), None]),
        "vector": pa.array([[1.0], [], None, [2.0, 3.0]]),
    }
    return pa.table({**columns, **changed})


def chunked(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table.slice(1, 2), table.slice(3, 0), table.slice(3)])


def sliced(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table, table]).combine_chunks().slice(4, 4)


HOLDERS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "chunks": chunked,
    "a slice": sliced,
    "an empty chunk": lambda t: t.set_column(0, "patient_id", pa.chunked_array([pa.array([], pa.string()), *t["patient_id"].chunks])),
    "a dictionary": lambda t: t.set_column(0, "patient_id", t["patient_id"].dictionary_encode()),
    "wide offsets": lambda t: t.set_column(0, "patient_id", t["patient_id"].cast(pa.large_string())),
    "views": lambda t: t.set_column(0, "patient_id", t["patient_id"].cast(pa.string_view())),
    "another zone": lambda t: t.set_column(1, "event_timestamp", t["event_timestamp"].cast(pa.timestamp("us", "Asia/Tokyo"))),
    "nanoseconds": lambda t: t.set_column(1, "event_timestamp", t["event_timestamp"].cast(pa.timestamp("ns", "UTC"))),
    "narrow integers": lambda t: t.set_column(3, "count", t["count"].cast(pa.int8())),
    "other NaN bits": lambda t: t.set_column(2, "number", pa.array([1.5, np.uint64(0xFFF8000000000001).view(np.float64), -0.0, None])),
    "polars": lambda t: pl.from_arrow(t).to_arrow(),  # type: ignore[union-attr]
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_same_values_have_the_same_hash(holder: str) -> None:
    assert table_hash(HOLDERS[holder](a_table())) == table_hash(a_table())


def test_pandas_holds_the_same_values() -> None:
    full = a_table().select(["patient_id", "event_timestamp", "yes"])
    assert table_hash(pa.Table.from_pandas(full.to_pandas(), preserve_index=False)) == table_hash(full)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("patient_id", ["p1", None, "", "Ä€"]),
        ("patient_id", ["p", "1", None, "Ä€"]),
        ("patient_id", pa.array(["p1", "", None, "Ä€"]).cast(pa.large_string()).take(pa.array([1, 0, 2, 3]))),
        ("number", pa.array([1.5, None, 0.0, float("nan")])),
        ("number", pa.array([1.5, float("nan"), np.nextafter(0, 1), None])),
        ("number", pa.array([1.5, float("nan"), None, None])),
        ("count", pa.array([1, None, 0, -3])),
        ("count", pa.array([1.0, 0.0, None, -3.0])),
        ("count", pa.array([1, 0, None, 2**64 - 3], pa.uint64())),
        ("yes", pa.array([True, False, False, True])),
        ("yes", pa.nulls(4)),
        ("vector", pa.array([[1.0], [2.0], None, [3.0]])),
        ("vector", pa.array([[1.0], None, [], [2.0, 3.0]])),
        ("event_timestamp", pa.array([1, None, None, None], pa.timestamp("ns", "UTC"))),
    ],
)
def test_a_difference_changes_the_hash_of_its_column_alone(column: str, values: Any) -> None:
    one, other = table_hash(a_table()), table_hash(a_table(**{column: values}))
    assert one.sha256 != other.sha256
    assert [a.name for a, b in zip(one.columns, other.columns, strict=True) if a != b] == [column]


def test_the_order_of_columns_counts_and_so_does_the_number_of_rows() -> None:
    table = a_table()
    assert table_hash(table.select(table.column_names[::-1])).sha256 != table_hash(table).sha256
    nothing = table.slice(0, 0)
    assert table_hash(nothing).rows == 0
    assert table_hash(nothing.select([])).sha256 != table_hash(pa.table({"a": [None]}).select([])).sha256


def test_no_rows_may_have_no_buffers() -> None:
    without = pa.LargeStringArray.from_buffers(0, pa.py_buffer(b""), pa.py_buffer(b""))
    assert table_hash(pa.table({"a": without})) == table_hash(pa.table({"a": pa.array([], pa.large_string())}))


def test_decimals_keep_their_digits() -> None:
    assert table_hash(pa.table({"d": [Decimal("1.0")]})) != table_hash(pa.table({"d": [Decimal("1.00")]}))


def test_what_has_no_canonical_form_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"column 'far' holds timestamp\[s\]"):
        table_hash(pa.table({"far": pa.array([2**62], pa.timestamp("s"))}))
    with pytest.raises(UsageError, match="column 'odd' holds map"):
        table_hash(pa.table({"odd": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}))
