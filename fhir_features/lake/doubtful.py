"""A COMMIT that failed may have been one all the same: how are its data files there, should it turn out so?

When a disk refuses to sync SQLite's log, the log can hold the whole transaction, and who opens the catalog next reads
it there (https://www.sqlite.org/wal.html); DuckLake, told that it failed, has deleted the data files. So a commit's
files have second names, in a folder beside the data, until it is known to be made; and whoever opens the lake has those
that the catalog names given their own again.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import duckdb

from fhir_features.errors import LakeError
from fhir_features.files import disk_errors, make_folder, sync
from fhir_features.lake.digests import data_files

# The folder of second names of a commit to a catalog, beside it.
_ENDING = ".doubtful"


def doubtful(catalog: Path) -> Path:
    """The folder for second names of the files that a commit to a catalog brings."""
    return catalog.with_name(catalog.name + _ENDING)


def keep(files: set[Path], folder: Path) -> None:
    """Give the data files of a commit second names, which survive a power cut: DuckLake's names are never the same."""
    make_folder(folder)
    for file in sorted(files):
        os.link(file, folder / file.name)
    sync(folder)


def forget(folder: Path) -> None:
    """Remove the second names: a later commit was made, or nobody else has the catalog open, so that all is known."""
    shutil.rmtree(folder, ignore_errors=True)


def put_back(con: duckdb.DuckDBPyConnection, data: Path, folder: Path) -> None:
    """Give the data files that the attached lake consists of their own names, where only the second ones are left.

    Raises LakeError when the disk refuses.
    """
    if not folder.exists():
        return
    files = [data / file.name for file in data_files(con)]
    back = [file for file in files if not file.exists() and (folder / file.name).exists()]
    with disk_errors(LakeError, str(data)):
        for file in back:
            # Another process may have done the same meanwhile, and a writer have removed the second names since.
            with suppress(FileExistsError, FileNotFoundError):
                os.link(folder / file.name, file)
        for parent in sorted({file.parent for file in back}):
            sync(parent)
