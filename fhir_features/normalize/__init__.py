"""Normalize: from landed resources to event tables in two clocks."""

from fhir_features.normalize.findings import Finding
from fhir_features.normalize.quarantine import OPEN as OPEN_QUARANTINE
from fhir_features.normalize.quarantine import Count, SetAside, counts, set_aside
from fhir_features.normalize.retrying import RetrySummary, retry
from fhir_features.normalize.run import RunSummary, normalize, normalize_runs
from fhir_features.normalize.validation import Validation

__all__ = [
    "OPEN_QUARANTINE",
    "Count",
    "Finding",
    "RetrySummary",
    "RunSummary",
    "SetAside",
    "Validation",
    "counts",
    "normalize",
    "normalize_runs",
    "retry",
    "set_aside",
]
