"""How does an artifact come to be: complete or not at all.

In: what the manifest says, and one SQL query for each table, over whatever an importer or the builder has read into
DuckDB. Out: the artifact's folder, written aside and renamed when it is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fhir_features.errors import OntologyError
from fhir_features.files import folder_aside, make_folder, sync
from fhir_features.ontology.artifacts import (
    MANIFEST_FILE,
    TABLES,
    Manifest,
    TableFile,
    TableName,
    content_hash,
    manifest_text,
    rows_hash,
    table_sql,
)

if TYPE_CHECKING:
    import duckdb


def write_artifact(
    connection: duckdb.DuckDBPyConnection,
    home: Path,
    manifest: Manifest,
    tables: dict[TableName, str],
    suffix: Literal["parquet", "tsv"] = "parquet",
) -> Manifest:
    """Write one artifact below `home` and return its manifest, with tables and hashes filled in.

    `tables` gives a query for each table, whose columns are those of TABLES by name; columns that it lacks are null.
    An artifact of the same id with the same content is left as it is. Raises OntologyError for one with other content.
    """
    folder = home / manifest.folder
    with folder_aside(folder.parent) as partial:
        files = [_write_table(connection, partial, name, query, suffix) for name, query in sorted(tables.items())]
        written = manifest.model_copy(update={"tables": tuple(files), "content_sha256": content_hash(files)})
        (partial / MANIFEST_FILE).write_text(manifest_text(written), encoding="utf-8")
        if folder.exists():
            _refuse_other_content(folder, written)
            return written
        whole = partial / "whole"
        whole.mkdir()
        for name in [MANIFEST_FILE, *(file.file for file in files)]:
            sync((partial / name).replace(whole / name))
        sync(whole)
        whole.rename(folder)
        sync(folder.parent)
    return written


def publish(partial: Path, home: Path, manifests: list[Manifest]) -> None:
    """Move the artifacts of a release from where they were written to where they belong, once all of them are there.

    Raises OntologyError, and moves none, if one of them stands with other content.
    """
    new = [manifest for manifest in manifests if not (home / manifest.folder).exists()]
    for manifest in manifests:
        if manifest not in new:
            _refuse_other_content(home / manifest.folder, manifest)
    for manifest in new:
        make_folder((home / manifest.folder).parent)
        (partial / manifest.folder).rename(home / manifest.folder)
        sync((home / manifest.folder).parent)


def _write_table(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: TableName, query: str, suffix: str
) -> TableFile:
    file = folder / f"{name}.{suffix}"
    path = str(file).replace("'", "''")
    layout = (
        "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480"
        if suffix == "parquet"
        else "FORMAT csv, DELIMITER '\t', HEADER, QUOTE '', ESCAPE ''"
    )
    given = {column[0] for column in connection.execute(f"DESCRIBE {query}").fetchall()}
    columns = ",\n  ".join(
        f'CAST("{column}" AS {kind}) AS "{column}"' if column in given else f'CAST(NULL AS {kind}) AS "{column}"'
        for column, kind in TABLES[name].items()
    )
    connection.execute(f"COPY (\nSELECT\n  {columns}\nFROM ({query})\nORDER BY ALL\n) TO '{path}' ({layout})")
    rows, digest = rows_hash(connection, name, table_sql(name, file))
    return TableFile(name=name, file=file.name, rows=rows, content_sha256=digest)


def _refuse_other_content(folder: Path, written: Manifest) -> None:
    standing = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    if standing.content_sha256 != written.content_sha256:
        raise OntologyError(
            f"{written.id} exists at {folder} with other content: a release never changes; "
            "give this one another version, or remove the folder"
        )
