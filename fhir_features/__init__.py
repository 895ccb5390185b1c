"""fhir_features: a FHIR-native feature store with two clocks.

It answers "what did we know about patient P at time T?" exactly, offline and online with the same code.
Names are loaded when they are first used, so that the import stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # What type checkers and editors see; a program loads each name by `__getattr__`.
    from fhir_features.features import (
        FeatureService,
        FeatureView,
        between,
        coalesce,
        condition,
        encounter,
        lag,
        medication,
        observation,
        patient,
        spine,
    )
    from fhir_features.ontology import concept_set
    from fhir_features.store import FeatureStore

__all__ = [
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "between",
    "coalesce",
    "concept_set",
    "condition",
    "encounter",
    "lag",
    "medication",
    "observation",
    "patient",
    "spine",
]

_NOT_IN_FEATURES = {"FeatureStore": "fhir_features.store", "concept_set": "fhir_features.ontology"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fhir_features' has no attribute '{name}'")
    return getattr(importlib.import_module(_NOT_IN_FEATURES.get(name, "fhir_features.features")), name)


def __dir__() -> list[str]:
    return list(__all__)
