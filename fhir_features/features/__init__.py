"""Feature definitions and the as-of engine: what others may use of it."""

from fhir_features.features.cadence import Lag, lag
from fhir_features.features.define import coalesce, condition, encounter, medication, observation, patient
from fhir_features.features.repository import load_views
from fhir_features.features.retrieval import TrainingSet
from fhir_features.features.series import between
from fhir_features.features.service import FeatureService
from fhir_features.features.summary import Summary
from fhir_features.features.view import FeatureView

__all__ = [
    "FeatureService",
    "FeatureView",
    "Lag",
    "Summary",
    "TrainingSet",
    "between",
    "coalesce",
    "condition",
    "encounter",
    "lag",
    "load_views",
    "medication",
    "observation",
    "patient",
]
