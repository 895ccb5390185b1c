"""What was a training set made from? A receipt: every input by its hash, and the hash of what came out.

In goes what a retrieval read (`Provenance`), its spine and its answers; out comes a `Receipt`, plain JSON without
patient data: the spine is named by its hash alone and kept in the warehouse. `reproduce` reads it again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fhir_features.errors import LakeError, UsageError
from fhir_features.features.content_hash import TableHash, table_hash
from fhir_features.features.view import SEMANTICS_VERSION, LockedView
from fhir_features.files import disk_errors, written_aside
from fhir_features.ontology import Lock


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Engine(_Record):
    """Which program answered. The same `semantics` gives the same answers; the other two are told where it does not."""

    semantics: int
    package: str
    duckdb: str


class AskedView(_Record):
    """One feature view that was asked: its whole definition, its version, the id of its lock, and which features."""

    name: str
    version: str
    lock: str
    features: tuple[str, ...]
    definition: dict[str, Any]


class Watermark(_Record):
    """Up to which instant (UTC) the store had seen all of a site's resources of a type."""

    site: str
    resource_type: str
    watermark: AwareDatetime


class Receipt(_Record):
    """Everything that a training set rests on, and the hashes of its spine and of its whole output.

    `commits` is the hash of the list of commits up to `store_seq`, by which a lake that was made anew is told from the
    one that was read. `summary` is the retrieval's (`Summary`), with the shares of rows by known_at_source. `serving`
    and `known_as_of` are as they were asked for.
    """

    format: Literal[1] = 1
    engine: Engine
    store_seq: int
    commits: str
    watermarks: tuple[Watermark, ...]
    known_as_of: AwareDatetime | None
    serving: str | None
    views: tuple[AskedView, ...]
    locks: tuple[Lock, ...]
    spine: TableHash
    summary: dict[str, Any]
    output: TableHash

    def __repr__(self) -> str:
        views = ", ".join(f"{view.name}@{view.version[:12]}" for view in self.views)
        return f"<Receipt of {self.output.rows:,} rows: {views}; store_seq {self.store_seq}, {self.output.sha256[:12]}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from fhir_features.notebook import receipt_html

        return receipt_html(self)

    def to_json(self) -> str:
        """The receipt as a file has it."""
        return self.model_dump_json(indent=2) + "\n"


@dataclass(frozen=True)
class Provenance:
    """What a retrieval read, beside its spine: see `Receipt`. `views` are the views with the names of features."""

    store_seq: int
    commits: str
    watermarks: tuple[Watermark, ...]
    known_as_of: AwareDatetime | None
    serving: str | None
    views: tuple[tuple[LockedView, tuple[str, ...]], ...]


def engine() -> Engine:
    """The program that is running."""
    package = importlib.metadata.version("fhir-features")
    return Engine(semantics=SEMANTICS_VERSION, package=package, duckdb=duckdb.__version__)


def make_receipt(provenance: Provenance, spine: pa.Table, output: pa.Table, summary: dict[str, Any]) -> Receipt:
    """The receipt of a training set. Raises UsageError for a column of the spine that cannot be hashed."""
    locks = {locked.known.lock_id: locked.known.lock for locked, _ in provenance.views}
    return Receipt(
        engine=engine(),
        store_seq=provenance.store_seq,
        commits=provenance.commits,
        watermarks=provenance.watermarks,
        known_as_of=provenance.known_as_of,
        serving=provenance.serving,
        views=tuple(
            AskedView(
                name=locked.view.name,
                version=locked.version,
                lock=locked.known.lock_id,
                features=names,
                definition=locked.view.definition(),
            )
            for locked, names in provenance.views
        ),
        locks=tuple(locks[lock_id] for lock_id in sorted(locks)),
        spine=table_hash(spine),
        summary=summary,
        output=table_hash(output),
    )


def read_receipt(path: Path) -> Receipt:
    """The receipt in a file. Raises UsageError when it is none."""
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"the receipt {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{path} is no receipt of this version: {where or 'the file'}: {problem['msg']}") from None


def commits_hash(con: duckdb.DuckDBPyConnection, store_seq: int) -> str:
    """The hash of the list of commits up to one: source, run and balance of each."""
    commits = con.execute("SELECT * FROM lake.commits WHERE store_seq <= ? ORDER BY store_seq", [store_seq]).fetchall()
    return hashlib.sha256("\n".join(map(repr, commits)).encode()).hexdigest()


def read_watermarks(con: duckdb.DuckDBPyConnection) -> tuple[Watermark, ...]:
    """The watermarks of the lake as the connection stands (`engine.stand_at`), by site and type."""
    rows = con.execute("SELECT site, resource_type, watermark FROM watermarks ORDER BY ALL").fetchall()
    return tuple(Watermark(site=site, resource_type=kind, watermark=at) for site, kind, at in rows)


def keep_spine(folder: Path, spine: pa.Table, sha256: str) -> None:
    """Keep a spine in the warehouse under its hash, once."""
    file = spine_file(folder, sha256)
    if file.exists():
        return
    with disk_errors(LakeError, str(folder)), written_aside(file) as aside:
        pq.write_table(spine, aside, compression="zstd")


def spine_file(folder: Path, sha256: str) -> Path:
    """Where a spine is kept."""
    return folder / f"{sha256}.parquet"
