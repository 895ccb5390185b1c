"""What Python code of a project may use, from its signatures and docstrings. Run this file to write
docs/reference/python.md."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import fhir_features
from fhir_features import feast, synthetic
from fhir_features.definitions import Definitions
from fhir_features.features import series, spine
from fhir_features.features.assurance import Assurance
from fhir_features.features.audit import Audit
from fhir_features.features.explain import Explanation
from fhir_features.features.reproduce import Reproduction
from fhir_features.features.retrieval import TrainingSet
from fhir_features.features.summary import Summary
from fhir_features.features.tables import Build
from fhir_features.lake import Evidence
from fhir_features.ontology import ConceptSet, Ontologies, load_ontologies, value_set
from fhir_features.store import FeatureStore

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "python.md"
INTRODUCTION = """# Python

Generated from the code: do not edit. All of it is typed. Errors are those of [`fhir_features.errors`](exit-codes.md).
"""
SERIES = (series.ObservationSeries, series.ConditionSeries, series.MedicationSeries, series.EncounterSeries)


def chapters() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each chapter: its title, what it is about, and the things in it by the names that they are known by."""
    yield "The store", "`from fhir_features import FeatureStore`", {"FeatureStore": FeatureStore}
    words = (
        "observation",
        "condition",
        "medication",
        "encounter",
        "patient",
        "FeatureView",
        "FeatureService",
        "between",
        "coalesce",
    )
    defining = {name: getattr(fhir_features, name) for name in (*words, "concept_set")}
    yield "Definitions", "`from fhir_features import …`", {**defining, "value_set": value_set, "ConceptSet": ConceptSet}
    asked = "What can be asked of rows of one kind. [Operators](../operators.md) has what each answers, as tables."
    yield "Operators", asked, {each.__name__: each for each in (series.Series, *SERIES, series.Unnamed)}
    found = {f"spine.{name}": getattr(spine, name) for name in ("encounters", "grid", "first")}
    yield "Spines and servings", "`from fhir_features import spine, lag`", {**found, "lag": fhir_features.lag}
    results = (TrainingSet, Summary, Explanation, Reproduction, Audit, Assurance, Build, Evidence)
    yield "Results", "What the store gives back.", {each.__name__: each for each in results}
    yield (
        "Ontologies",
        "`from fhir_features.ontology import …`",
        {
            "load_ontologies": load_ontologies,
            "Ontologies": Ontologies,
        },
    )
    yield "Feast", "`from fhir_features.feast import …`", {name: getattr(feast, name) for name in feast.__all__}
    invented = {name: getattr(synthetic, name) for name in ("population", "later", "write_ndjson")}
    yield "Invented patients", "`from fhir_features.synthetic import …`", invented


def written() -> str:
    """The page as it is to be."""
    parts = [INTRODUCTION]
    for title, about, things in chapters():
        parts += [f"## {title}\n", f"{about}\n"]
        for name, thing in things.items():
            parts += _entry(name, thing)
    return "\n".join(parts).rstrip() + "\n"


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}\n"
    is_value = not inspect.isclass(thing) and not inspect.isroutine(thing)
    if not is_value and not dataclasses.is_dataclass(thing):
        yield f"```python\n{name}{_signature(thing)}\n```\n"
    yield _said(type(thing) if is_value else thing) + "\n"
    if inspect.isroutine(thing):
        return
    for member, value in _members(type(thing) if is_value else thing):
        if not inspect.isfunction(value):
            getter = getattr(value, "fget", None) or getattr(value, "func", None)
            yield f"**`{member}`**: {_said(getter)}\n"
        else:
            yield f"**`{member}{_signature(value, method=True)}`**\n"
            yield _said(value) + "\n"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class states itself, in their order; after those of the definitions of a
    project, of a store."""
    stated = {**vars(Definitions), **vars(kind)} if kind is FeatureStore else vars(kind)
    for name, value in stated.items():
        own = inspect.isfunction(value) or isinstance(value, property | cached_property)
        if not name.startswith("_") and own:
            yield name, value


def _signature(thing: Any, *, method: bool = False) -> str:
    found = inspect.signature(thing)
    parameters = [
        each.replace(annotation=_Written(each.annotation), default=_named(each.default))
        for each in found.parameters.values()
    ]
    if method and parameters and parameters[0].name == "self":
        del parameters[0]
    return str(found.replace(parameters=parameters, return_annotation=_Written(found.return_annotation)))


def _named(default: Any) -> Any:
    """A function by its name, as its own text has an address in it."""
    return _Written(default.__name__) if inspect.isfunction(default) else default


class _Written:
    """An annotation as it stands in the code, without the modules that names come from."""

    def __new__(cls, annotation: Any) -> Any:
        return annotation if annotation is inspect.Parameter.empty else super().__new__(cls)

    def __init__(self, annotation: Any) -> None:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        self.text = re.sub(r"\b(?:fhir_features|datetime|pathlib|collections|typing)(?:\.\w+)*\.(?=\w)", "", text)

    def __repr__(self) -> str:
        return self.text


def _said(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    # A list in a docstring is one on the page; what else is indented is no code.
    return re.sub(r"(?<!\n)\n- ", "\n\n- ", text)


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
