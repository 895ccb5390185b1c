"""Feast: the feature tables as objects that an unmodified Feast registers, materializes and serves.

The Feast package is imported only inside this folder, and only when something of it is called.
"""

from fhir_features.feast.materializing import Materialized, materialize
from fhir_features.feast.objects import feast_objects

__all__ = ["Materialized", "feast_objects", "materialize"]
