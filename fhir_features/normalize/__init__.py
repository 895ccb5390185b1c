"""Normalize: from landed resources to event tables in two clocks."""

from fhir_features.normalize.run import RunSummary, normalize

__all__ = ["RunSummary", "normalize"]
