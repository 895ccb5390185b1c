"""Feast: the feature tables as objects that an unmodified Feast registers, materializes and serves, and an offline
store that reads them.

The Feast package is imported only inside this folder, and only when something of it is called.
"""

from typing import TYPE_CHECKING, Any

from fhir_features.feast.checks import examine_repository
from fhir_features.feast.materializing import Materialized, materialize
from fhir_features.feast.objects import feast_objects
from fhir_features.feast.online import Freshness, OnlineFeatures, OnlineReader
from fhir_features.feast.parity import Parity, parity
from fhir_features.feast.repository import open_repository

if TYPE_CHECKING:
    from fhir_features.feast.offline_store import FhirOfflineStore, FhirOfflineStoreConfig

__all__ = [
    "FhirOfflineStore",
    "FhirOfflineStoreConfig",
    "Freshness",
    "Materialized",
    "OnlineFeatures",
    "OnlineReader",
    "Parity",
    "examine_repository",
    "feast_objects",
    "materialize",
    "open_repository",
    "parity",
]


def __getattr__(name: str) -> Any:
    """The classes that Feast looks for here by their names: importing them imports Feast."""
    if name in ("FhirOfflineStore", "FhirOfflineStoreConfig"):
        from fhir_features.feast import offline_store

        return getattr(offline_store, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
