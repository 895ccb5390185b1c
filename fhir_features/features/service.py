"""A feature service: the features that one model takes, under one name.

In go names of features and views; out comes a frozen value that can stand wherever features are asked for, and that
Feast registers. A wrong one is refused when it is made (DefinitionError of one line).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import model_validator

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.nodes import Node
from fhir_features.features.view import FeatureView, check_name


class FeatureService(Node):
    """What a model takes: `features` are "view:feature", or "view" for all of its features, in the model's order."""

    name: str
    features: tuple[str, ...]
    description: str = ""
    owner: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> FeatureService:
        check_name("feature service", self.name)
        if not self.features:
            raise DefinitionError(f"feature service '{self.name}' has no features: list at least one")
        return self

    def chosen(self, views: Mapping[str, FeatureView]) -> dict[str, tuple[str, ...]]:
        """By view the names of the features that are taken, in the order of the service. Raises DefinitionError."""
        found: dict[str, tuple[str, ...]] = {}
        for item in self.features:
            view_name, _, name = item.partition(":")
            if view_name not in views:
                raise DefinitionError(
                    f"feature service '{self.name}' takes '{item}', but there is no such feature view: "
                    f"{did_you_mean(view_name, views)}"
                )
            known = [feature.name for feature in views[view_name].features]
            if name and name not in known:
                raise DefinitionError(
                    f"feature service '{self.name}' takes '{item}', which the view does not have: "
                    f"{did_you_mean(name, known)}"
                )
            taken = found.get(view_name, ())
            found[view_name] = tuple(dict.fromkeys([*taken, *((name,) if name else known)]))
        return found
