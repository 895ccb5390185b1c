"""Where do the tables of a run lie while it is normalized? Statements in, tables and views of DuckDB out.

Those of a small run are temporary tables. Those of a large one are Parquet files, each table in parts, of which some
are open at a time under the table's name: whatever the size of a run, memory is bounded by a part. There are two ways
to divide a run: `slices` of it as it was received, which hold all of a version, and `parts` of the resources that have
several versions, which hold all versions of a resource.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb

from fhir_features.files import parquet_at, parquet_in
from fhir_features.lake import literal

# What is staged, joined or sorted together, whichever comes first.
ROWS_AT_ONCE = 40_000
BYTES_AT_ONCE = 32 << 20
# Each part that is written to has buffers of its own, about a megabyte.
PARTS_AT_ONCE = 32

# Columns as SQL expressions with their names.
Given = tuple[str, ...]

_WRITTEN = "FORMAT parquet, COMPRESSION uncompressed"


class RunTables:
    """The tables of one run: in memory, each whole, or with a `folder` in files there, in parts."""

    def __init__(self, con: duckdb.DuckDBPyConnection, folder: Path | None = None) -> None:
        self._con = con
        self._folder = folder
        self._made: set[str] = set()
        self._put: dict[str, list[tuple[str, Given]]] = {}
        self._given: dict[Path, Given] = {}
        self._opened: dict[str, list[str]] = {}
        self._written = 0

    @property
    def in_parts(self) -> bool:
        """Whether the tables are in parts."""
        return self._folder is not None

    def add(self, table: str, rows: str, part: int) -> None:
        """Add what a statement gives to a part of a table."""
        if self._folder is None:
            self._insert(table, rows)
        else:
            self.begin(table, rows)
            self._copy(rows, self._folder / table / f"part={part}" / f"{self._next()}.parquet")

    def begin(self, table: str, rows: str) -> None:
        """Have a table be there, with the columns that a statement gives, whether or not it ever gets rows."""
        if table in self._made:
            return
        none = f"FROM (\n{rows}\n)\nLIMIT 0"
        if self._folder is None:
            self._insert(table, none)
        else:
            self._copy(none, self._folder / table / "none.parquet")
            self._made.add(table)

    def divide(self, table: str, rows: str, by: str, parts: int) -> None:
        """Add what a statement gives to the parts of a table that a SQL expression names, of 0 to `parts` - 1."""
        if self._folder is None:
            self._insert(table, rows)
        else:
            self.begin(table, rows)
            self._divide(rows, self._folder / table, by, parts)

    def keep(self, table: str, rows: str) -> None:
        """Make a table of what a statement gives, which is not in parts."""
        if self._folder is None:
            self._insert(table, rows)
        else:
            self._copy(rows, self._folder / table / "rows.parquet")
            self.open((table,))

    def open(self, tables: Iterable[str], part: int | None = None) -> None:
        """Have the names of tables in parts mean one part of them, or the whole."""
        if self._folder is None:
            return
        for table in tables:
            folder, of_part = self._folder / table, self._folder / table / f"part={part}"
            # Most tables have nothing in most parts.
            opened = [parquet_in(folder, below=part is None), *([parquet_in(of_part)] if of_part.exists() else [])]
            if self._opened.get(table) != opened:
                self._con.execute(f"""
CREATE OR REPLACE TEMP VIEW {table} AS
FROM read_parquet([{", ".join(map(literal, opened))}], hive_partitioning => false)""")
                self._opened[table] = opened

    def has_rows(self, table: str) -> bool:
        """Whether the open part of a table has any rows: of what there is nothing, nothing need be looked for."""
        if self._folder is None:
            ((found,),) = self._con.execute(f"SELECT EXISTS (FROM {table})").fetchall()
            return bool(found)
        return len(self._opened[table]) > 1

    def put(self, table: str, rows: str, given: Given = (), *, by: str | None = None, parts: int = 1) -> None:
        """Put rows for a table of the lake aside; in parts that a SQL expression names, else each time apart.

        `given` are further columns, which are the same in all of them: they are not written.
        """
        if self._folder is None:
            view = f"put_{self._next()}"
            self._con.execute(f"CREATE TEMP VIEW {view} AS\n{rows}")
            self._put.setdefault(table, []).append((view, given))
        elif by is None:
            folder = self._folder / "put" / table / f"from={self._next()}"
            self._copy(rows, folder / "rows.parquet")
            self._given[folder] = given
        else:
            folder = self._folder / "put" / table
            self._divide(rows, folder, by, parts)
            self._given[folder] = given

    def taken(self, table: str) -> Iterator[tuple[str, Given]]:
        """What was put aside for a table of the lake, as relations, with the further columns of each: one part after
        the other, of a part that is too large to be sorted at once some slices after the others."""
        if self._folder is None:
            yield from self._put.get(table, [])
            return
        for folder in sorted((self._folder / "put" / table).glob("*"), key=_numbers):
            for files in self._together(folder):
                listed = ", ".join(literal(parquet_at(file.name, folder)) for file in files)
                given = self._given[folder if folder in self._given else folder.parent]
                yield f"read_parquet([{listed}], hive_partitioning => false)", given
            shutil.rmtree(folder)

    def _together(self, folder: Path) -> Iterator[list[Path]]:
        """The files of a folder, as many together as are sorted at once, about equally many each time."""
        counted = f"SELECT file_name, num_rows FROM parquet_file_metadata({literal(parquet_in(folder))})"
        rows = {Path(name).name: count for name, count in self._con.execute(counted).fetchall()}
        sizes = {file: file.stat().st_size for file in sorted(folder.iterdir(), key=_numbers)}
        times = max(math.ceil(sum(rows.values()) / ROWS_AT_ONCE), math.ceil(sum(sizes.values()) / BYTES_AT_ONCE))
        together: list[Path] = []
        row_count = size = 0
        for file in sizes:
            together.append(file)
            row_count += rows[file.name]
            size += sizes[file]
            if row_count * times >= sum(rows.values()) or size * times >= sum(sizes.values()):
                yield together
                together, row_count, size = [], 0, 0
        if together:
            yield together

    def _insert(self, table: str, rows: str) -> None:
        into = f"INSERT INTO {table} BY NAME" if table in self._made else f"CREATE TEMP TABLE {table} AS"
        self._con.execute(f"{into}\n{rows}")
        self._made.add(table)

    def _divide(self, rows: str, folder: Path, by: str, parts: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for first in range(0, parts, PARTS_AT_ONCE):
            some = f"\nWHERE part BETWEEN {first} AND {first + PARTS_AT_ONCE - 1}" if parts > PARTS_AT_ONCE else ""
            self._con.execute(f"""
COPY (
SELECT *, {by} AS part
FROM (
{rows}
){some}
) TO {literal(str(folder))}
({_WRITTEN}, PARTITION_BY (part), OVERWRITE_OR_IGNORE, FILENAME_PATTERN '{self._next()}-{{i}}')""")

    def _copy(self, rows: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._con.execute(f"COPY (\n{rows}\n) TO {literal(str(file))} ({_WRITTEN})")

    def _next(self) -> int:
        self._written += 1
        return self._written


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.stem)]
