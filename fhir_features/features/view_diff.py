"""What differs between two versions of a feature view, or two views?

In go two records of views; out comes a `ViewDiff`: the fields of the view, the features that were added, removed or
changed, field by field, and the codes that each feature's concept sets gained and lost, each expanded under its own
lock. Codes are all that count when met in data: those that maps lead from are among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from fhir_features.features.compile import leaves
from fhir_features.features.history import RecordedView
from fhir_features.features.nodes import Aggregate, Encounters, Feature
from fhir_features.features.view import FeatureView
from fhir_features.ontology import Concept, ConceptSet, Ontologies, ontologies_under
from fhir_features.times import duration_text


@dataclass(frozen=True)
class FieldDiff:
    """One field, by its path in the definition, before and after; None where it is not there. Lengths as `365d`."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class FeatureDiff:
    """One feature that is not the same: `change` is added, removed or changed."""

    feature: str
    change: str
    fields: tuple[FieldDiff, ...] = ()
    codes_gained: tuple[str, ...] = ()
    codes_lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class ViewDiff:
    """What differs between two versions. `fields` are those of the view itself, the engine's semantics among them."""

    before: str
    after: str
    fields: tuple[FieldDiff, ...]
    features: tuple[FeatureDiff, ...]

    @property
    def same(self) -> bool:
        """Whether both answer alike: they have one version."""
        return self.before == self.after


def diff_views(before: RecordedView, after: RecordedView) -> ViewDiff:
    """The difference between two views, each under its own lock.

    Raises OntologyError when something of a lock is gone, DefinitionError for a definition that cannot be read.
    """
    one, other = FeatureView(**before.definition), FeatureView(**after.definition)
    facts, others = _facts(before, one), _facts(after, other)
    return ViewDiff(
        before=before.version,
        after=after.version,
        fields=tuple(_field_diffs(facts, others)),
        features=tuple(_feature_diffs(one, other, ontologies_under(before.lock), ontologies_under(after.lock))),
    )


def _facts(recorded: RecordedView, view: FeatureView) -> dict[str, str]:
    """What is said of the view itself, beside the features: their order, too, is part of its version."""
    own = {name: str(value) for name, value in recorded.definition.items() if name != "features"}
    order = " ".join(feature.name for feature in view.features)
    return {**own, "order of features": order, "semantics": str(recorded.semantics)}


def _feature_diffs(
    one: FeatureView, other: FeatureView, known: Ontologies, known_other: Ontologies
) -> Iterator[FeatureDiff]:
    before, after = ({feature.name: feature for feature in view.features} for view in (one, other))
    reach, reach_other = cache(known.reach), cache(known_other.reach)
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            yield FeatureDiff(name, "removed")
        elif name not in before:
            yield FeatureDiff(name, "added")
        else:
            codes = _codes(before[name], reach), _codes(after[name], reach_other)
            fields = tuple(_field_diffs(_flat(before[name]), _flat(after[name])))
            if fields or codes[0] != codes[1]:
                yield FeatureDiff(name, "changed", fields, _sorted(codes[1] - codes[0]), _sorted(codes[0] - codes[1]))


def _codes(feature: Feature, reach: Any) -> frozenset[Concept]:
    sets: list[ConceptSet] = [
        value.rows.concepts
        for value in leaves(feature.value)
        if isinstance(value, Aggregate) and not isinstance(value.rows, Encounters)
    ]
    return frozenset(concept for each in sets for concept in reach(each))


def _sorted(concepts: frozenset[Concept]) -> tuple[str, ...]:
    return tuple(str(concept) for concept in sorted(concepts))


def _field_diffs(before: dict[str, str], after: dict[str, str]) -> Iterator[FieldDiff]:
    for path in dict.fromkeys([*before, *after]):
        if before.get(path) != after.get(path):
            yield FieldDiff(path, before.get(path), after.get(path))


def _flat(feature: Feature) -> dict[str, str]:
    """The definition of a feature as paths and texts, without what is not said in it."""
    return dict(_paths(feature.value.model_dump(mode="json"), ""))


def _paths(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _paths(inner, f"{path}.{number}")
    elif path.endswith("_us") and value:
        yield path.removesuffix("_us"), duration_text(value)
    elif value is not None:
        yield path, str(value)
