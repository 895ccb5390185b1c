"""What is an ontology artifact, which ones are in use, and are they what they claim to be?

An artifact is one release of a code system or one version of a map: a folder with `manifest.json` and its tables, as
Parquet or as reviewable text (TSV). The lock (`ontologies.lock`) names the exact artifacts in use by content hash. The
hash covers the canonical rows, not the bytes of a file, so that a rebuild with another writer gives the same hash.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fhir_features.errors import OntologyError
from fhir_features.files import disk_errors, written_aside
from fhir_features.ontology.systems import SYSTEMS_FILE, shipped_folder, ucum_file

if TYPE_CHECKING:
    import duckdb

LOCK_FILE = "ontologies.lock"
MANIFEST_FILE = "manifest.json"

# The version of the rules in code (`resolve`, `expand`), part of the lock because it changes answers as data does.
RULES_VERSION = 2

# What a version may be written with: it is part of folder names.
VERSION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")

TableName = Literal["concept", "designation", "edge", "history", "map", "member"]

# concept      a code in one state. kind: RxNorm term type, LOINC class; selectable: ICD billable; unit: LOINC's example
#              UCUM unit; the state holds as long as the release does, or in [valid_from, valid_to), with a row for each
#              state that the code was in
# designation  another name of a code
# edge         child is below parent: is_a, or for drugs has_ingredient, consists_of, tradename_of, contains
# history      what a retired code became: replaced_by, same_as, merged (one-to-one and safe), possibly_equivalent,
#              was_a, split (candidates)
# map          source to target; target null says that there is none. Equivalence as in FHIR R4 ConceptMap: wider means
#              that the target is wider. One group is one needed target; in it the first rule that holds wins
# member       what a value set names: a code, with all below it (descendants) or only that (below), in it or out of it
TABLES: dict[TableName, dict[str, str]] = {
    "concept": {
        "code": "VARCHAR",
        "display": "VARCHAR",
        "kind": "VARCHAR",
        "active": "BOOLEAN",
        "selectable": "BOOLEAN",
        "unit": "VARCHAR",
        "valid_from": "DATE",
        "valid_to": "DATE",
    },
    "designation": {"code": "VARCHAR", "language": "VARCHAR", "text": "VARCHAR"},
    "edge": {"child": "VARCHAR", "parent": "VARCHAR", "relation": "VARCHAR"},
    "history": {"code": "VARCHAR", "kind": "VARCHAR", "successor": "VARCHAR"},
    "map": {
        "source": "VARCHAR",
        "target": "VARCHAR",
        "equivalence": "VARCHAR",
        "map_group": "INTEGER",
        "map_priority": "INTEGER",
        "rule": "VARCHAR",
        "advice": "VARCHAR",
    },
    "member": {
        "member_system": "VARCHAR",
        "code": "VARCHAR",
        "display": "VARCHAR",
        "reach": "VARCHAR",
        "excluded": "BOOLEAN",
    },
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(_Record):
    """Under which terms the content may be used, and whether it may be passed on."""

    id: str
    redistributable: bool
    attribution: str


class SourceFile(_Record):
    """Where the content came from: a file, the package and version it lay in (if any), and its hash."""

    file: str
    package: str | None = None
    sha256: str | None = None


class TableFile(_Record):
    """One table of an artifact: file name, number of rows, hash of the canonical rows."""

    name: TableName
    file: str
    rows: int
    content_sha256: str


class Manifest(_Record):
    """What an artifact says of itself.

    `effective_from` and `effective_to` (exclusive, null = not yet ended) are the dates on which the release governs
    coding. `content` is `complete` if a code that is not in it does not exist. A `map` translates between systems; a
    `classification` groups codes of `system` into classes of `target_system`; a `history` says what became of codes; a
    `valueset`, whose `system` is its own name, says which codes it means.
    """

    id: str
    kind: Literal["codesystem", "map", "classification", "history", "valueset"]
    system: str
    target_system: str | None = None
    version: Annotated[str, Field(pattern=VERSION.pattern)]
    title: str
    content: Literal["complete", "fragment"]
    effective_from: dt.date | None = None
    effective_to: dt.date | None = None
    predecessor: str | None = None
    notes: str | None = None
    licence: Licence
    sources: tuple[SourceFile, ...]
    tables: tuple[TableFile, ...]
    content_sha256: str

    @property
    def folder(self) -> Path:
        """Where an artifact lies below an ontologies folder."""
        if self.kind in ("codesystem", "valueset"):
            return Path(self.kind, self.system, self.version)
        return Path("map", f"{self.system}__{self.target_system}", self.version)


class LockedArtifact(_Record):
    """One line of the lock. `external`: licensed content that lies outside the package and is locked by its hash."""

    id: str
    folder: str
    location: Literal["shipped", "external"]
    content_sha256: str


class Lock(_Record):
    """The exact artifacts in use, the version of the rules that read them, and the hash of what these rules know of
    systems and units (`systems.toml`, `units/`)."""

    rules: int
    facts_sha256: str
    artifacts: tuple[LockedArtifact, ...]

    @property
    def id(self) -> str:
        """The hash of the lock: it stands for every release, map and rule in use."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """The lock as it stands in its file: one artifact a line, sorted."""
        lines = ",\n".join("    " + artifact.model_dump_json() for artifact in self.artifacts)
        head = f'  "rules": {self.rules},\n  "facts_sha256": "{self.facts_sha256}"'
        return f'{{\n{head},\n  "artifacts": [\n{lines}\n  ]\n}}\n'


def read_lock(folder: Path) -> Lock:
    """The lock of an ontologies folder. Raises OntologyError if there is none or it cannot be read."""
    file = folder / LOCK_FILE
    try:
        lock = Lock.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise OntologyError(f"there is no {file}: write it with `fhir-features ontology lock`") from None
    except (ValidationError, OSError) as error:
        raise OntologyError(f"{file} cannot be read: write it again with `fhir-features ontology lock`") from error
    if (lock.rules, lock.facts_sha256) != (RULES_VERSION, facts_hash(folder)):
        raise OntologyError(
            f"{file} was written for other resolver rules, code systems or units than this version has: "
            "write it again with `fhir-features ontology lock`, or install the version that it was written with"
        )
    return lock


def check_usable(lock: Lock, home: Path) -> None:
    """Refuse a lock of which something is gone. Raises OntologyError that names each artifact with its hash."""
    if (lock.rules, lock.facts_sha256) != (RULES_VERSION, facts_hash(home)):
        raise OntologyError(
            f"lock {lock.id[:12]} needs resolver rules {lock.rules} and facts on systems and units with the hash "
            f"{lock.facts_sha256[:12]}, this version has rules {RULES_VERSION} and {facts_hash(home)[:12]}: install "
            "the version of fhir-features that it was written with"
        )
    gone = [artifact for artifact in lock.artifacts if not _is_there(artifact, home)]
    if gone:
        names = ", ".join(f"{artifact.id} with the hash {artifact.content_sha256}" for artifact in gone)
        raise OntologyError(f"lock {lock.id[:12]} needs {names}, which is gone or replaced: import it again")


def _is_there(artifact: LockedArtifact, home: Path) -> bool:
    try:
        return read_manifest(locked_folder(home, artifact)).content_sha256 == artifact.content_sha256
    except OntologyError:
        return False


def facts_hash(home: Path) -> str:
    """The hash of the files that say what systems and units are: the shipped ones, UCUM, the site's own systems."""
    shipped = shipped_folder()
    files = [shipped / SYSTEMS_FILE, *sorted((shipped / "units").glob("*.tsv")), ucum_file()]
    if home.resolve() != shipped.resolve() and (home / SYSTEMS_FILE).is_file():
        files.append(home / SYSTEMS_FILE)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def locked_folder(home: Path, artifact: LockedArtifact) -> Path:
    """Where a locked artifact lies: shipped ones in the package, external ones beside the lock."""
    return (shipped_folder() if artifact.location == "shipped" else home) / artifact.folder


def make_lock(home: Path) -> Lock:
    """The lock over all shipped artifacts and, if `home` is another folder, all that were imported into it.

    An imported artifact takes the place of a shipped one of the same id.
    """
    locations: list[tuple[Literal["shipped", "external"], Path]] = [("shipped", shipped_folder())]
    if home.resolve() != shipped_folder().resolve():
        locations.append(("external", home))
    locked = {
        manifest.id: LockedArtifact(
            id=manifest.id,
            folder=manifest.folder.as_posix(),
            location=location,
            content_sha256=manifest.content_sha256,
        )
        for location, folder in locations
        for manifest in found_manifests(folder)
    }
    return Lock(
        rules=RULES_VERSION,
        facts_sha256=facts_hash(home),
        artifacts=tuple(locked[name] for name in sorted(locked)),
    )


def lock_changes(home: Path, made: Lock) -> tuple[list[str], list[str]]:
    """The ids that a lock has and the one that stands in a folder has not, with that content, and the reverse."""
    file = home / LOCK_FILE
    before = Lock.model_validate_json(file.read_bytes()).artifacts if file.is_file() else ()
    contents = [{(each.id, each.content_sha256) for each in artifacts} for artifacts in (made.artifacts, before)]
    return sorted(name for name, _ in contents[0] - contents[1]), sorted(name for name, _ in contents[1] - contents[0])


def write_lock(home: Path, lock: Lock) -> None:
    """Put a lock in the place of the one that stands in a folder, at once."""
    with disk_errors(OntologyError, str(home)), written_aside(home / LOCK_FILE) as aside:
        aside.write_text(lock.text(), encoding="utf-8")


def found_manifests(folder: Path) -> Iterable[Manifest]:
    """The manifests of all artifacts that lie in an ontologies folder, sorted by place."""
    for file in sorted(folder.glob(f"*/*/*/{MANIFEST_FILE}")):
        yield read_manifest(file.parent)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of one artifact. Raises OntologyError if it is missing or wrong."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise OntologyError(f"the ontology artifact at {folder} is missing: import it again") from None
    except (ValidationError, OSError) as error:
        raise OntologyError(f"{folder / MANIFEST_FILE} cannot be read: import the artifact again") from error


def manifest_text(manifest: Manifest) -> str:
    """A manifest as it stands in its file."""
    facts = manifest.model_dump(mode="json", exclude_none=True)
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def content_hash(tables: Iterable[TableFile], sources: Iterable[SourceFile] = ()) -> str:
    """The hash of an artifact: over the hashes of its tables by name, or, if it has none, over those of its sources."""
    lines = sorted(f"{table.name} {table.content_sha256}\n" for table in tables)
    lines = lines or sorted(f"{source.file} {source.sha256}\n" for source in sources)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def rows_hash(connection: duckdb.DuckDBPyConnection, name: TableName, source: str) -> tuple[int, str]:
    """The number of rows of a table and the SHA-256 of its canonical rows.

    Canonical: the columns of TABLES in that order, rows sorted by all of them, text in Unicode NFC, columns closed by
    U+001F and rows by a newline, null as U+0000. `source` is SQL that reads the table.
    """
    texts = ", ".join(f'CAST("{column}" AS VARCHAR) AS "{column}"' for column in TABLES[name])
    closed = ", ".join(f'coalesce("{column}", chr(0)), chr(31)' for column in TABLES[name])
    ordered = ", ".join(f'"{column}" NULLS FIRST' for column in TABLES[name])
    lines = connection.execute(
        f"SELECT concat({closed}, chr(10)) AS line\nFROM (SELECT {texts} FROM {source})\nORDER BY {ordered}"
    ).to_arrow_reader(20_000)
    digest, rows = hashlib.sha256(), 0
    for batch in lines:
        rows += batch.num_rows
        digest.update(unicodedata.normalize("NFC", "".join(batch.column(0).to_pylist())).encode())
    return rows, digest.hexdigest()


def table_sql(name: TableName, file: Path) -> str:
    """SQL that reads the file of a table with the columns and types of TABLES."""
    path = str(file).replace("'", "''")
    if file.suffix == ".parquet":
        return f"read_parquet('{path}')"
    columns = ", ".join(f"'{column}': '{kind}'" for column, kind in TABLES[name].items())
    return (
        f"read_csv('{path}', delim = '\t', quote = '', escape = '', header = true, auto_detect = false, "
        f"columns = {{{columns}}})"
    )


def ucum_source() -> SourceFile:
    """The file that UCUM is read from, as a manifest says it."""
    return SourceFile(file="ucum-essence.xml", sha256=hashlib.sha256(ucum_file().read_bytes()).hexdigest())


def verify_artifact(home: Path, artifact: LockedArtifact) -> Manifest:
    """Recompute every hash of a locked artifact. Raises OntologyError that names the table which differs."""
    import duckdb

    folder = locked_folder(home, artifact)
    manifest = read_manifest(folder)
    connection = duckdb.connect()
    for table in manifest.tables:
        file = folder / table.file
        if not file.is_file():
            raise OntologyError(f"{artifact.id}: {file} is missing: import the artifact again")
        try:
            rows, digest = rows_hash(connection, table.name, table_sql(table.name, file))
        except duckdb.Error as error:
            raise OntologyError(f"{artifact.id}: {file} cannot be read: import the artifact again") from error
        if (rows, digest) != (table.rows, table.content_sha256):
            raise OntologyError(f"{artifact.id}: {file} differs from its manifest: import the artifact again")
    if manifest.system == "ucum" and manifest.sources != (ucum_source(),):
        raise OntologyError(f"{artifact.id}: ucumvert holds another version of UCUM: install the one that is locked")
    content = content_hash(manifest.tables, manifest.sources)
    if content != manifest.content_sha256 or content != artifact.content_sha256:
        raise OntologyError(
            f"{artifact.id}: the manifest differs from the lock: import it again, or write a new lock with "
            "`fhir-features ontology lock`"
        )
    return manifest
