"""How do the files of a feature table stay what they were? Beside each lies its SHA-256, in the format of `sha256sum`:
`.<interval>.sha256` for `<interval>.parquet`, hidden from who reads a whole folder. It is there before its file is, and
checked before the file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.errors import FeatureTableError
from fhir_features.files import is_intact, sha256_of, written_aside

DIGEST = ".sha256"


def write_file(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    """Write the tables to a new file of a feature table, and its digest; the number of their rows.

    Raises OSError when the name is taken, or the disk refuses.
    """
    rows = 0
    with written_aside(file, replace=False) as aside:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for table in tables:
                rows += table.num_rows
                writer.write_table(table.cast(schema))
        with written_aside(digest_file(file)) as digest:
            digest.write_text(f"{sha256_of(aside)}  {file.name}\n", encoding="utf-8")
    return rows


def checked_files(folder: Path) -> list[Path]:
    """The files of a table in the order of their names, each with the bytes that it was written with.

    Raises FeatureTableError for one that has others, or was not written by this package.
    """
    files = sorted(folder.glob("*.parquet"))
    for file in files:
        if not digest_file(file).exists():
            raise FeatureTableError(
                f"{file} is no feature table file of this package, which have a {DIGEST}: move it away"
            )
        if not is_intact(file, recorded_digest(file)):
            raise damaged(file)
    return files


def digest_file(file: Path) -> Path:
    """Where the SHA-256 of a file of a table lies."""
    return file.with_name(f".{file.stem}{DIGEST}")


def recorded_digest(file: Path) -> str:
    """The SHA-256 that a file was written with; an empty text when that is not known."""
    try:
        digest, name = digest_file(file).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return digest if name == file.name else ""


def damaged(file: Path) -> FeatureTableError:
    """The error for a file that has other bytes than it was written with."""
    return FeatureTableError(
        f"{file} or its {DIGEST} is not as it was written: restore both from a backup, or move the folder away and "
        "build the view anew, which answers for all times by what is known now"
    )
