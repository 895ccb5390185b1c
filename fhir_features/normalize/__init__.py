"""Normalize: from landed resources to event tables in two clocks."""

from fhir_features.normalize.quarantine import Count, SetAside, counts, set_aside
from fhir_features.normalize.retrying import RetrySummary, retry
from fhir_features.normalize.run import RunSummary, normalize

__all__ = ["Count", "RetrySummary", "RunSummary", "SetAside", "counts", "normalize", "retry", "set_aside"]
