"""What does a project define? In: the folder with `fhir_features.toml`. Out: its feature views, services and spines by
name, the versions of its views, what differs between two of them, and whether they answer as expected: all that needs
no lake."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from fhir_features.config import load_config
from fhir_features.errors import UsageError, did_you_mean
from fhir_features.features.anchors import Spine
from fhir_features.features.assurance import Assurance, assure
from fhir_features.features.compile import compile_features
from fhir_features.features.history import RecordedView, find_version, record_of, recorded_views, restore
from fhir_features.features.invented import read_patients
from fhir_features.features.repository import TESTS_NAME, load_services, load_spines, load_views
from fhir_features.features.service import FeatureService
from fhir_features.features.terms import ontologies
from fhir_features.features.view import FeatureView, LockedView
from fhir_features.features.view_diff import ViewDiff, diff_views


class Definitions:
    """What a project folder defines, whatever has come in. Raises ConfigError for a wrong one."""

    def __init__(self, path: str | Path) -> None:
        self.config = load_config(path)
        self.history = self.config.warehouse.path / "views"

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of the configuration, in alphabetical order."""
        return tuple(sorted({source.site for source in self.config.sources.values()}))

    @cached_property
    def views(self) -> dict[str, FeatureView]:
        """The feature views by name. Raises DefinitionError for a mistake in the definitions."""
        return load_views(self.config.features.path)

    def view(self, name: str) -> FeatureView:
        """One feature view by its name. Raises UsageError for an unknown one."""
        if name not in self.views:
            raise UsageError(f"there is no feature view '{name}': {did_you_mean(name, self.views)}")
        return self.views[name]

    @cached_property
    def services(self) -> dict[str, FeatureService]:
        """The feature services of the definitions, by name. Raises DefinitionError."""
        return load_services(self.config.features.path)

    @cached_property
    def spines(self) -> dict[str, Spine]:
        """The anchored spines of the definitions, by the names of their variables. Raises DefinitionError."""
        return load_spines(self.config.features.path)

    def locked(self, name: str) -> LockedView:
        """A view by its name, under the lock in use, or by its name and version (`diabetes@1a2b3c`), under its own.

        Raises UsageError for an unknown one, and what `history.restore` raises for one that cannot be restored.
        """
        plain, at, prefix = name.partition("@")
        if at:
            return restore(find_version(self.history, plain, prefix))
        return LockedView(self.view(plain), ontologies())

    def versions(self) -> list[RecordedView]:
        """The versions of the feature views that are in use, in the order of their definition."""
        return [record_of(self.locked(name)) for name in self.views]

    def earlier_versions(self) -> list[RecordedView]:
        """The other versions that were built or asked for, by view and version."""
        current = {each.version for each in self.versions()}
        return [each for each in recorded_views(self.history) if each.version not in current]

    def diff(self, before: str, after: str) -> ViewDiff:
        """What differs between two views, each a name, or a name and a version (`diabetes@1a2b3c`).

        Raises UsageError for an unknown one, OntologyError when something of its lock is gone.
        """
        return diff_views(self._recorded(before), self._recorded(after))

    def sql(self, view: str | FeatureView) -> str:
        """The statement that answers a view."""
        chosen = self.view(view) if isinstance(view, str) else view
        return compile_features(chosen.features).sql

    def test(self) -> Assurance:
        """Ask the features of the invented patients of `feature_tests.md`, beside the definitions; needs no warehouse.

        Raises DefinitionError for a mistake on that page or in the definitions.
        """
        patients = read_patients(self.config.features.path / TESTS_NAME)
        return assure(ontologies(), self.views, patients)

    def _recorded(self, name: str) -> RecordedView:
        plain, at, prefix = name.partition("@")
        return find_version(self.history, plain, prefix) if at else record_of(self.locked(plain))
