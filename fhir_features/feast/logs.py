"""Where are the rows of a Feast data source? In goes a source of the registry; out comes the `Log` to join to.

Parquet files are read in place: a file, a folder with its hive partitions, or a pattern, relative to the repository.
What is no local Parquet (Delta, Iceberg, an object store) is read as Feast's DuckDB store reads it, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.duckdb import _read_data_source
from feast.infra.offline_stores.file_source import FileSource

from fhir_features.errors import FeatureTableError
from fhir_features.feast.as_of import Log
from fhir_features.files import parquet_at
from fhir_features.lake import literal

if TYPE_CHECKING:
    from feast.data_source import DataSource
    from feast.repo_config import RepoConfig

_READ_BY_FEAST = "read_by_feast"
_PLACE = "place in what Feast has read"


def repository_of(config: RepoConfig) -> Path:
    """The folder of a Feast repository."""
    return Path(config.repo_path or ".")


def open_log(
    con: duckdb.DuckDBPyConnection,
    config: RepoConfig,
    source: DataSource,
    keys: Sequence[str],
    at: str,
    created: str | None,
) -> Log:
    """The rows of a source, by the names of its own columns. Raises FeatureTableError when it has no files."""
    pattern = _local_parquet(source, config)
    if pattern is None:
        con.register(_READ_BY_FEAST, _read_data_source(source, str(config.repo_path)).to_pyarrow())
        numbered = f'(SELECT *, row_number() OVER () AS "{_PLACE}" FROM {_READ_BY_FEAST})'
        return Log(numbered, tuple(keys), at, created or None, f'log."{_PLACE}"')
    (files,) = con.execute("SELECT count(*) FROM glob(?)", [pattern]).fetchone() or (0,)
    if not files:
        raise FeatureTableError(
            f"source '{source.name}' of the registry has no Parquet files at {pattern}: put them there, or correct its "
            "path and run `feast apply`"
        )
    # No file has so many rows, nor a folder so many files, that a place takes more than 63 bits.
    place = "(CAST(log.file_index AS BIGINT) << 40) + log.file_row_number"
    return Log(f"read_parquet({literal(pattern)})", tuple(keys), at, created or None, place)


def source_column(source: DataSource, name: str) -> str:
    """The column of a source that its field mapping gives another name."""
    before = {new: old for old, new in source.field_mapping.items()}
    return str(before.get(name, name))


def column_types(config: RepoConfig, source: DataSource) -> list[tuple[str, str]]:
    """The columns of a source and their Arrow types."""
    if _local_parquet(source, config) is None:
        return list(source.get_table_column_names_and_types(config))
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        log = open_log(con, config, source, (), source.timestamp_field, None)
        schema = con.sql(f"SELECT * FROM {log.rows} LIMIT 0").to_arrow_table().schema
    return [(field.name, str(field.type)) for field in schema]


def _local_parquet(source: Any, config: RepoConfig) -> str | None:
    """The pattern of a source's Parquet files; None for any other source."""
    if not isinstance(source, FileSource) or not isinstance(source.file_format or ParquetFormat(), ParquetFormat):
        return None
    path = source.path.removeprefix("file://")
    if "://" in path:
        return None
    return parquet_at(path, repository_of(config))
