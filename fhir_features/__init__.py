"""fhir_features: a FHIR-native feature store with two clocks.

It answers "what did we know about patient P at time T?" exactly, offline and online with the same code.
Names are loaded when they are first used, so that the import stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE: dict[str, str] = {
    "FeatureService": "fhir_features.features",
    "FeatureStore": "fhir_features.store",
    "FeatureView": "fhir_features.features",
    "between": "fhir_features.features",
    "coalesce": "fhir_features.features",
    "concept_set": "fhir_features.ontology",
    "condition": "fhir_features.features",
    "encounter": "fhir_features.features",
    "lag": "fhir_features.features",
    "medication": "fhir_features.features",
    "observation": "fhir_features.features",
    "patient": "fhir_features.features",
    "spine": "fhir_features.features",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fhir_features' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
