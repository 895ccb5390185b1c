"""What is a table of the lake? Its name, its columns and their order, as `schema` and `ledger` state them."""

from __future__ import annotations

from dataclasses import dataclass

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """One table: its name, its columns as (name, DuckDB type), and the columns that order its rows in a file."""

    name: str
    columns: Columns
    sort: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(name for name, _ in self.columns)
