"""How are the text tables of a release read: whole, with the columns that its format prescribes, or not at all.

In: delimited files. Out: tables in DuckDB, every column text, with the number of the line. A missing file, another
header, a line with too few or too many fields and a last line that was cut off are refused with file and line.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fhir_features.errors import OntologyError

if TYPE_CHECKING:
    import duckdb


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The path itself, or a temporary folder with what a zip holds."""
    if path.suffix.lower() != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="ontology-import-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise OntologyError(f"{path} is not a whole zip file: download it again") from None
        yield Path(folder)


def find_file(folder: Path, pattern: str) -> Path:
    """The one file that matches a pattern below a folder. Raises OntologyError if there is none, or more."""
    file = find_optional(folder, pattern)
    if file is None:
        raise OntologyError(f"{folder} has no {pattern}: name the folder that the release was unpacked into")
    return file


def find_optional(folder: Path, pattern: str) -> Path | None:
    """The one file that matches a pattern below a folder, or None. Raises OntologyError if there is more than one."""
    files = [folder] if folder.is_file() and folder.match(pattern) else sorted(folder.rglob(pattern))
    if len(files) > 1:
        raise OntologyError(f"{folder} has both {files[0].name} and {files[1].name}: import one release at a time")
    return files[0] if files else None


def read_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    file: Path,
    columns: Sequence[str],
    *,
    delimiter: str,
    header: bool,
    quoted: bool = False,
) -> None:
    """Read a delimited file into the DuckDB table `name`, with a column `line`.

    With a header, the file may have more columns than those asked for, in any order. Raises OntologyError.
    """
    import duckdb

    check_last_line(file)
    present = _header(file, delimiter, columns) if header else list(columns)
    path, quote = str(file).replace("'", "''"), '"' if quoted else ""
    types = ", ".join("'{}': 'VARCHAR'".format(column.replace("'", "''")) for column in present)
    wanted = ", ".join(f'"{column}"' for column in columns)
    try:
        connection.execute(
            f'CREATE OR REPLACE TABLE "{name}" AS\n'
            f"SELECT {wanted}, row_number() OVER () + {int(header)} AS line\n"
            f"FROM read_csv('{path}', delim = '{delimiter}', quote = '{quote}', escape = '{quote}', "
            f"header = {header}, auto_detect = false, null_padding = false, columns = {{{types}}})"
        )
    except duckdb.Error as error:
        line = re.search(r"Line: (\d+)", str(error))
        where = f"line {line[1]}" if line else "a line"
        raise OntologyError(
            f"{file}: {where} does not have the {len(present)} fields of its table; get the file again"
        ) from None


def refuse_rows(connection: duckdb.DuckDBPyConnection, file: Path, what: str, query: str) -> None:
    """Refuse a file if a query, which gives line and offending code, has a row. Raises OntologyError."""
    row = connection.execute(f"{query}\nORDER BY 1\nLIMIT 1").fetchone()
    if row:
        raise OntologyError(f"{file}: line {row[0]}: {what} '{row[1]}'; the release is incomplete, get it again")


def check_last_line(file: Path) -> None:
    """Refuse a text file whose last line does not end, or that is empty. Raises OntologyError."""
    with file.open("rb") as stream:
        stream.seek(0, 2)
        size = stream.tell()
        if size:
            stream.seek(size - 1)
        if not size or stream.read(1) != b"\n":
            with file.open("rb") as lines:
                count = sum(1 for _ in lines)
            raise OntologyError(f"{file}: line {count} is cut off; get the file again")


def _header(file: Path, delimiter: str, columns: Sequence[str]) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        present = [name.strip('"') for name in stream.readline().rstrip("\r\n").split(delimiter)]
    missing = [column for column in columns if column not in present]
    if missing:
        raise OntologyError(f"{file}: line 1 has no column {missing[0]}; this is not the table that its name says")
    return present
