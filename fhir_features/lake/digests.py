"""Are the data files of the lake as they were committed? Silent damage to a Parquet file changes answers unnoticed, as
nothing in it is checked. So each commit keeps the SHA-256 of the files that it brought, in its own record in the
catalog, and whoever attaches the lake has each file checked against it, once a process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fhir_features.cores import cores
from fhir_features.errors import LakeError
from fhir_features.files import is_intact, sha256_of, sync

# Where DuckLake's own tables are when the lake is attached as `lake`.
METADATA = "__ducklake_metadata_lake"
# The variable of a connection that says at which of DuckLake's snapshots it stands; null: at the newest.
SNAPSHOT = "lake_snapshot"


@dataclass(frozen=True)
class DataFile:
    """A data file that the lake consists of: its path below the folder of data, and the SHA-256 that it was committed
    with, null when no commit names it."""

    name: str
    sha256: str | None


def data_files(con: duckdb.DuckDBPyConnection) -> list[DataFile]:
    """The files that the lake consists of, as it is attached, by name."""
    rows = con.execute(f"""
WITH attached AS (
  SELECT coalesce(getvariable('{SNAPSHOT}'), max(snapshot_id)) AS snapshot
  FROM {METADATA}.ducklake_snapshot
),
committed AS (
  SELECT unnest(map_entries(CAST(commit_extra_info->'sha256' AS MAP(VARCHAR, VARCHAR)))) AS file
  FROM {METADATA}.ducklake_snapshot_changes
  WHERE commit_extra_info IS NOT NULL
),
digests AS (
  SELECT file.key AS name, any_value(file.value) AS sha256
  FROM committed
  GROUP BY ALL
),
live AS (
  SELECT concat(s.path, t.path, f.path) AS name
  FROM {METADATA}.ducklake_data_file f
  JOIN {METADATA}.ducklake_table t USING (table_id)
  JOIN {METADATA}.ducklake_schema s USING (schema_id)
  WHERE f.begin_snapshot <= (FROM attached) AND coalesce(f.end_snapshot > (FROM attached), true)
)
SELECT name, sha256
FROM live
LEFT JOIN digests USING (name)
ORDER BY name""").fetchall()
    return [DataFile(name, sha256) for name, sha256 in rows]


def check_data(con: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Refuse to read a lake of which a data file is missing or changed. Raises LakeError that names the first."""
    files = data_files(con)
    with ThreadPoolExecutor(cores()) as pool:
        intact = pool.map(lambda file: file.sha256 is not None and is_intact(data / file.name, file.sha256), files)
        for file, is_as_committed in zip(files, intact, strict=True):
            if not is_as_committed:
                raise LakeError(
                    f"{data / file.name} is missing or not as it was committed: run 'fhir-features verify' to see what "
                    "else is, then restore the lake from a backup, or make it anew with 'fhir-features rebuild'"
                )


def newest_snapshot(con: duckdb.DuckDBPyConnection) -> int:
    """The number of the newest of DuckLake's snapshots, one a transaction."""
    row = con.execute(f"SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot").fetchone()
    assert row is not None
    return int(row[0])


def digests_of(files: set[Path], data: Path, kept: Mapping[str, str]) -> str:
    """What the record of a commit says of the files that it brings, which are made to survive a power cut first, and
    of the earlier ones in `kept`."""
    digests = dict(kept)
    for file in sorted(files):
        sync(file)
        digests[file.relative_to(data).as_posix()] = sha256_of(file)
    for folder in sorted({parent for file in files for parent in file.parents if parent.is_relative_to(data)}):
        sync(folder)
    return json.dumps({"sha256": digests})


def found_files(data: Path) -> set[Path]:
    """All data files that lie in the folder of data, committed or not."""
    return set(data.glob("*/*/*.parquet"))
