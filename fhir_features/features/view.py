"""A feature view: a named group of features over one entity, its canonical definition and its version.

In go features from `define`; out comes a frozen value whose version changes with everything that can change an answer.
A wrong view is refused when it is made (DefinitionError of one line).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError, ValidationInfo, field_validator, model_validator

from fhir_features.errors import DefinitionError
from fhir_features.features.cadence import ON_CHANGE, read_cadence
from fhir_features.features.compile import leaves
from fhir_features.features.nodes import Aggregate, Encounters, Feature, Node, Observations, canonical_json
from fhir_features.features.terms import ontologies
from fhir_features.features.unnamed import Unnamed
from fhir_features.ontology import Ontologies
from fhir_features.times import duration_text, duration_us

# Goes up when the same definition over the same rows would give another answer.
SEMANTICS_VERSION = 2

# The columns that stand beside the features in a training set, a feature table, or an answer of engine or online store.
RESERVED = frozenset(
    {"site", "patient_id", "event_timestamp", "answered_at", "published_at", "store_seq", "question"}
    | {"answer_age", "is_stale"}
)

_CHANGES_NO_ANSWER: Any = {
    "description": True,
    "owner": True,
    "max_age": True,
    "features": {"__all__": {"description"}},
}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class FeatureView(Node):
    """A group of features that are asked for, built and served together.

    `cadence`: at which instants it is answered: `on_change`, or a schedule with its time zone, such as
    `daily@02:00 Europe/Berlin`, `hourly@:15 UTC` or `weekly@Mon 02:00 Europe/Berlin`. It is part of the version.

    `description` and `owner` are what a catalog shows; `max_age`, such as `26h`, is how old an answer may be online
    before it is called stale. They change no answer, so they are no part of the version.
    """

    name: str
    entity: Literal["patient"]
    features: tuple[Feature, ...]
    cadence: str = ON_CHANGE
    description: str = ""
    owner: str = ""
    max_age: str | None = None

    if TYPE_CHECKING:  # What an editor completes: as definitions are written, before they are read.

        def __init__(
            self,
            *,
            name: str,
            entity: object,
            features: Sequence[Feature],
            cadence: str = ON_CHANGE,
            description: str = "",
            owner: str = "",
            max_age: str | None = None,
        ) -> None: ...

    else:

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                problem = error.errors()[0]
                where = ".".join(str(part) for part in problem["loc"])
                raise DefinitionError(f"feature view '{fields.get('name', '')}', {where}: {problem['msg']}") from None

    def __repr__(self) -> str:
        names = shorten(", ".join(feature.name for feature in self.features), 80, placeholder=" ...")
        return f"<FeatureView {self.name}, {self.cadence}: {names}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from fhir_features.notebook import view_html

        return view_html(self)

    @field_validator("entity", mode="before")
    @classmethod
    def _entity_name(cls, entity: Any) -> Any:
        return getattr(entity, "entity", entity)

    @field_validator("features", mode="before")
    @classmethod
    def _are_named(cls, features: Any) -> Any:
        for number, feature in enumerate(features if isinstance(features, list | tuple) else (), start=1):
            if isinstance(feature, Unnamed):
                raise DefinitionError(f"feature {number} of the view has no name: add .named('...')")
        return features

    @field_validator("cadence")
    @classmethod
    def _is_a_cadence(cls, cadence: str, info: ValidationInfo) -> str:
        try:
            serving = read_cadence(cadence)
        except ValueError as error:
            raise DefinitionError(f"feature view '{info.data.get('name', '')}', cadence: {error}") from None
        return cadence if cadence == ON_CHANGE else str(serving)

    @field_validator("max_age")
    @classmethod
    def _is_a_duration(cls, max_age: str | None, info: ValidationInfo) -> str | None:
        try:
            return None if max_age is None else duration_text(duration_us(max_age))
        except ValueError as error:
            raise DefinitionError(f"feature view '{info.data.get('name', '')}', max_age: {error}") from None

    @model_validator(mode="after")
    def _names_fit(self) -> FeatureView:
        check_name("feature view", self.name)
        if not self.features:
            raise DefinitionError(f"feature view '{self.name}' has no features: list at least one")
        seen: set[str] = set()
        for feature in self.features:
            check_name("feature", feature.name)
            if feature.name in RESERVED:
                raise DefinitionError(f"feature '{feature.name}' has the name of a key column: name it otherwise")
            if feature.name in seen:
                raise DefinitionError(f"feature view '{self.name}' has two features '{feature.name}': rename one")
            seen.add(feature.name)
        return self

    @cached_property
    def version(self) -> str:
        """The view's version (`version_under`) under the lock in use."""
        return self.version_under(ontologies())

    def version_under(self, known: Ontologies) -> str:
        """The hash (64 hexadecimal digits) of everything that can change an answer, under the lock of `known`.

        Of the ontologies it covers what the view's concept sets reach (members, maps, rules), and the facts that their
        units are converted by, and nothing else.
        """
        return hashlib.sha256(canonical_json(self._reach(known)).encode()).hexdigest()

    def feature(self, name: str) -> Feature:
        """One feature by its name. Raises KeyError."""
        return next(feature for feature in self.features if feature.name == name)

    def definition(self) -> dict[str, Any]:
        """The view as plain data, without what changes no answer; `FeatureView(**definition)` answers alike."""
        return self.model_dump(mode="json", exclude=_CHANGES_NO_ANSWER)

    def _reach(self, known: Ontologies) -> dict[str, Any]:
        values = [value for feature in self.features for value in leaves(feature.value)]
        rows = [value.rows for value in values if isinstance(value, Aggregate)]
        concepts = [each.concepts for each in rows if not isinstance(each, Encounters)]
        measured = [each.concepts for each in rows if isinstance(each, Observations) and each.unit is not None]
        return {
            "semantics": SEMANTICS_VERSION,
            "definition": _said(self.definition()),
            "ontologies": [known.digest(each) for each in concepts],
            "units": [known.units_digest(each) for each in measured],
        }


@dataclass(frozen=True)
class LockedView:
    """A feature view and the ontologies that it is answered under: together they have a version."""

    view: FeatureView
    known: Ontologies

    @cached_property
    def version(self) -> str:
        """The view's version under these ontologies."""
        return self.view.version_under(self.known)


def _said(definition: Any) -> Any:
    """What a definition says: a field that asks for nothing is left out, so that a later one changes no version."""
    if isinstance(definition, dict):
        return {name: _said(value) for name, value in definition.items() if not _asks_nothing(value)}
    return [_said(value) for value in definition] if isinstance(definition, list) else definition


def _asks_nothing(value: Any) -> bool:
    # By identity: a limit of 0 asks for something, and equals False.
    return value is None or value is False or value == []


def check_name(what: str, name: str) -> None:
    """Refuse a name that could not be a column, a file and a variable alike. Raises DefinitionError."""
    if not _NAME.fullmatch(name):
        raise DefinitionError(
            f"{what} '{name}' needs another name: a lower-case letter, then lower-case letters, digits or underscores"
        )
