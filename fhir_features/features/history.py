"""Which definitions has a feature view had? Each version that was built or asked for is recorded in the warehouse.

In goes a view under its lock; out comes one JSON file a version, `<folder>/<view>/<version>.json`, with the definition
and the lock, written once. Read again it gives the view as it was, under the ontologies that it was made with: a value
from plain data, no code is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from fhir_features.errors import DefinitionError, LakeError, UsageError
from fhir_features.features.view import SEMANTICS_VERSION, FeatureView, LockedView
from fhir_features.files import disk_errors, sealed, unsealed, written_aside
from fhir_features.ontology import Lock, ontologies_under

# As many digits of a version as are asked for at least, and shown in lists.
MIN_PREFIX, SHOWN = 4, 12


class RecordedView(BaseModel):
    """One version of a view as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    semantics: int
    definition: dict[str, Any]
    lock: Lock

    @property
    def name(self) -> str:
        """The name of the view."""
        return str(self.definition["name"])


def record(folder: Path, locked: LockedView) -> None:
    """Write a version of a view down, if that was not done before."""
    file = folder / locked.view.name / f"{locked.version}.json"
    if file.exists():
        return
    with disk_errors(LakeError, str(folder)), written_aside(file) as aside:
        aside.write_bytes(sealed(record_of(locked).model_dump_json(indent=2)))


def record_of(locked: LockedView) -> RecordedView:
    """What is written down of a version."""
    return RecordedView(
        version=locked.version,
        semantics=SEMANTICS_VERSION,
        definition=locked.view.definition(),
        lock=locked.known.lock,
    )


def recorded_views(folder: Path) -> list[RecordedView]:
    """All versions that were recorded, by view and version."""
    return [recorded_view(file) for file in sorted(folder.glob("*/*.json"))]


def find_version(folder: Path, name: str, prefix: str) -> RecordedView:
    """The recorded version of a view that begins with some digits. Raises UsageError when none or several do."""
    files = sorted((folder / name).glob("*.json"))
    versions = ", ".join(file.stem[:SHOWN] for file in files) or "none"
    if len(prefix) < MIN_PREFIX:
        raise UsageError(f"'{name}@{prefix}' is too short: give at least {MIN_PREFIX} digits of a version ({versions})")
    found = [file for file in files if file.stem.startswith(prefix)]
    if len(found) != 1:
        how_many = "no version" if not found else f"{len(found)} versions"
        raise UsageError(f"{how_many} of feature view '{name}' begin with '{prefix}': recorded are {versions}")
    return recorded_view(found[0])


def restore(recorded: RecordedView) -> LockedView:
    """A recorded view, under its own lock.

    Raises DefinitionError when this engine would not answer as the one did that recorded it, OntologyError when
    something of the lock is gone.
    """
    title = f"version {recorded.version[:SHOWN]} of feature view '{recorded.name}'"
    if recorded.semantics != SEMANTICS_VERSION:
        raise DefinitionError(
            f"{title} was made for semantics {recorded.semantics} of the engine, this is {SEMANTICS_VERSION}: use the "
            "fhir-features that it was made with"
        )
    locked = LockedView(FeatureView(**recorded.definition), ontologies_under(recorded.lock))
    if locked.version != recorded.version:
        raise DefinitionError(f"{title} is {locked.version[:SHOWN]} when it is read: its record was changed")
    return locked


def recorded_view(file: Path) -> RecordedView:
    """The version of a view that a file records. Raises DefinitionError for another file."""
    try:
        return RecordedView.model_validate_json(unsealed(file.read_bytes()))
    except (OSError, ValueError):
        raise DefinitionError(f"{file} is no recorded feature view: move it away") from None
