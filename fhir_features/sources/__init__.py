"""Sources: FHIR servers and folders of files, and the landing that keeps what they gave, exactly as it was received."""

from fhir_features.sources.doctor import Check, examine
from fhir_features.sources.landing import LandedFile, LandedRun, LandedType, Receipt, landed_runs, verify_run
from fhir_features.sources.progress import Progress, silent
from fhir_features.sources.pulling import PullSummary, TypeSummary, pull
from fhir_features.sources.reading import LONGEST_LINE, NOT_JSON, UnreadableRest, read_lines, with_local_references

__all__ = [
    "LONGEST_LINE",
    "NOT_JSON",
    "Check",
    "LandedFile",
    "LandedRun",
    "LandedType",
    "Progress",
    "PullSummary",
    "Receipt",
    "TypeSummary",
    "UnreadableRest",
    "examine",
    "landed_runs",
    "pull",
    "read_lines",
    "silent",
    "verify_run",
    "with_local_references",
]
