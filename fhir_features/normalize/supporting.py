"""What do DiagnosticReports and Provenances say of when other resources came to be known? One of them in, raw rows out:
one for each result that a report names, and for each resource that a Provenance is about."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import Dictionary
from fhir_features.normalize.elements import Unusable, codes, local_id

DIAGNOSTIC_REPORT_COLUMNS = (
    ("row_no", pa.int64()),
    ("observation_id", pa.string()),
    ("issued_text", pa.string()),
)
PROVENANCE_COLUMNS = (
    ("row_no", pa.int64()),
    ("target_type", pa.string()),
    ("target_id", pa.string()),
    ("recorded_text", pa.string()),
    ("transmitted", pa.bool_()),
)

# Of these, Provenances date the rows.
_DATED_TYPES = ("Encounter", "Observation", "Condition", "MedicationRequest")
# US Core: the system that sent a resource on.
# https://hl7.org/fhir/us/core/STU6.1/CodeSystem-us-core-provenance-participant-type.html
_TRANSMITTER = "transmitter"
# What was copied from elsewhere. https://hl7.org/fhir/R4/valueset-provenance-entity-role.html
_COPIED = ("quotation", "source")


def diagnostic_report_rows(d: fhir.DiagnosticReport, row_no: int, dictionary: Dictionary) -> list[tuple[Any, ...]]:
    """A row a result of a DiagnosticReport: when the report that names an Observation was issued."""
    results = [local_id(result, "Observation") for result in d.result]
    return [(row_no, observation_id, d.issued) for observation_id in results if observation_id]


def provenance_rows(p: fhir.Provenance, row_no: int, dictionary: Dictionary) -> list[tuple[Any, ...]]:
    """A row a target of a Provenance: when it was recorded, and whether the target came from another system."""
    if p.recorded is None:
        raise Unusable("required", "$.recorded", "it has no recorded")
    transmitted = any(_TRANSMITTER in codes([agent.type] if agent.type else []) for agent in p.agent)
    transmitted |= any(entity.role in _COPIED for entity in p.entity)
    named = [(kind, local_id(target, kind)) for target in p.target for kind in _DATED_TYPES]
    return [(row_no, kind, target_id, p.recorded, transmitted) for kind, target_id in named if target_id]
