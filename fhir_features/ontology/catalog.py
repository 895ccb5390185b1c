"""What do the locked releases and maps say? The one place that reads the tables of artifacts.

In: the lock. Out: SQL views `concept`, `designation`, `edge`, `history` and `map` over all artifacts in it, each row
with its artifact and system. Files are read only when a query needs them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fhir_features.errors import OntologyError, UsageError, did_you_mean
from fhir_features.ontology.artifacts import (
    TABLES,
    Lock,
    Manifest,
    TableName,
    locked_folder,
    read_manifest,
    table_sql,
)
from fhir_features.ontology.systems import Concept

if TYPE_CHECKING:
    import duckdb


# The concepts of a query come as variables: bound parameters and Arrow tables make DuckDB load pandas, which takes
# longer than everything else that the command line does for one code.
WANTED = """wanted AS MATERIALIZED (
  SELECT
    unnest(getvariable('wanted_systems')) AS system,
    unnest(getvariable('wanted_codes')) AS code
)"""
_SEPARATOR = "\x1f"


class Catalog:
    """The tables of all artifacts in the lock of one ontologies folder."""

    def __init__(self, home: Path, lock: Lock) -> None:
        self.home = home
        self.lock = lock
        self._open = threading.Lock()

    @cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests of the locked artifacts, by id. Raises OntologyError for one that is not what was locked."""
        manifests = []
        for artifact in self.lock.artifacts:
            manifest = read_manifest(locked_folder(self.home, artifact))
            if manifest.content_sha256 != artifact.content_sha256:
                raise OntologyError(
                    f"{artifact.id} is not the content that was locked: import it again, or write a new lock with "
                    "`fhir-features ontology lock`"
                )
            manifests.append(manifest)
        return tuple(manifests)

    def code_systems(self, system: str) -> list[Manifest]:
        """The releases of one code system in the lock, in the order in which they came into force."""
        found = [m for m in self.manifests if m.kind == "codesystem" and m.system == system]
        return sorted(found, key=lambda m: (str(m.effective_from or ""), m.id))

    def release(self, artifact: str, kinds: tuple[str, ...] = ("codesystem",)) -> Manifest:
        """One release of a code system, or artifact of other kinds, by its id. Raises UsageError if there is none."""
        releases = {manifest.id: manifest for manifest in self.manifests if manifest.kind in kinds}
        if artifact not in releases:
            raise UsageError(f"there is no release '{artifact}' in the lock: {did_you_mean(artifact, releases)}")
        return releases[artifact]

    def is_complete(self, system: str) -> bool:
        """Whether a code of the system that is in no release does not exist."""
        return any(manifest.content == "complete" for manifest in self.code_systems(system))

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query over the views."""
        return self._cursor().execute(sql, parameters).fetchall()

    def query_concepts(self, sql: str, concepts: Iterable[Concept]) -> list[tuple[Any, ...]]:
        """The rows of a query over the views and over `wanted` (system, code), which WANTED defines in it."""
        ordered = sorted(concepts)
        if not ordered:
            return []
        cursor = self._cursor()
        for name, texts in (("systems", [c.system for c in ordered]), ("codes", [c.code for c in ordered])):
            joined = _SEPARATOR.join(texts).replace("'", "''")
            cursor.execute(f"SET VARIABLE wanted_{name} = string_split('{joined}', '{_SEPARATOR}')")
        return cursor.execute(sql).fetchall()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._open:
            return self._connection.cursor()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect()
        for name in TABLES:
            connection.execute(f'CREATE VIEW "{name}" AS\n{self._view(name)}')
        return connection

    def _view(self, name: TableName) -> str:
        columns = ", ".join(f'"{column}"' for column in TABLES[name])
        parts = [
            f"SELECT {_facts(manifest)}, {columns}\nFROM {table_sql(name, self._folders[manifest.id] / table.file)}"
            for manifest in self.manifests
            for table in manifest.tables
            if table.name == name
        ]
        if not parts:
            nulls = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in TABLES[name].items())
            parts = [f"SELECT {_NO_FACTS}, {nulls}\nWHERE FALSE"]
        return "\nUNION ALL\n".join(parts)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {artifact.id: locked_folder(self.home, artifact) for artifact in self.lock.artifacts}


_NO_FACTS = "'' AS artifact, '' AS artifact_kind, '' AS system, '' AS target_system"


def _facts(manifest: Manifest) -> str:
    # Ids and system names are checked when an artifact is made: letters, digits and a few signs, no quotation marks.
    return (
        f"'{manifest.id}' AS artifact, '{manifest.kind}' AS artifact_kind, '{manifest.system}' AS system, "
        f"'{manifest.target_system or ''}' AS target_system"
    )
