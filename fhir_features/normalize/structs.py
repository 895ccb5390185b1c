"""The elements of FHIR R4 resources that normalize reads, as msgspec Structs; all others are skipped unread.

A wrong JSON type in one of these elements is refused by the decoder with its JSON path. Elements that FHIR requires
are optional here, so that what is missing can be named in the quarantine by `rows`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

# JSON that is kept as it came. A union with null is not possible for it: absent is empty.
Json = msgspec.Raw
ABSENT = msgspec.Raw()


# FHIR R4: an integer has 32 bits. https://hl7.org/fhir/R4/datatypes.html#integer
Integer = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]


class Element(msgspec.Struct, rename="camel", gc=False):
    """The base of everything below: FHIR names are camelCase. Repeating elements are tuples: none costs nothing."""


class Meta(Element):
    version_id: str | None = None
    last_updated: str | None = None
    source: str | None = None


class Coding(msgspec.Struct, rename="camel", gc=False, frozen=True):
    """Hashable, unlike other elements: most codings are met again and again."""

    system: str | None = None
    version: str | None = None
    code: str | None = None
    display: str | None = None
    user_selected: bool | None = None


class CodeableConcept(Element):
    coding: tuple[Coding, ...] = ()
    text: str | None = None


class Reference(Element):
    reference: str | None = None
    type: str | None = None


class Period(Element):
    start: str | None = None
    end: str | None = None


class Quantity(Element):
    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Range(Element):
    low: Quantity | None = None
    high: Quantity | None = None


class Timing(Element):
    event: tuple[str, ...] = ()
    repeat: TimingRepeat | None = None


class TimingRepeat(Element):
    bounds_period: Period | None = None
    bounds_duration: Quantity | None = None
    bounds_range: Range | None = None


class ReferenceRange(Element):
    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None
    text: str | None = None


class Valued(Element):
    """What an Observation and a component of one share: https://hl7.org/fhir/R4/observation.html"""

    code: CodeableConcept | None = None
    value_quantity: Quantity | None = None
    value_codeable_concept: CodeableConcept | None = None
    value_string: str | None = None
    value_boolean: bool | None = None
    value_integer: Integer | None = None
    value_range: Range | None = None
    value_ratio: Json = ABSENT
    value_sampled_data: Json = ABSENT
    value_time: str | None = None
    value_date_time: str | None = None
    value_period: Period | None = None
    data_absent_reason: CodeableConcept | None = None
    interpretation: tuple[CodeableConcept, ...] = ()
    reference_range: tuple[ReferenceRange, ...] = ()


class Component(Valued):
    modifier_extension: tuple[Json, ...] = ()


class Header(Element):
    """The little that names any resource; what a line that cannot be normalized is still read for."""

    resource_type: str | None = None
    id: str | None = None
    meta: Meta | None = None
    status: str | None = None


class Resource(Element, tag_field="resourceType"):
    id: str | None = None
    meta: Meta | None = None
    modifier_extension: tuple[Json, ...] = ()
    contained: tuple[Json, ...] = ()


class PatientLink(Element):
    other: Reference | None = None
    type: str | None = None


class Patient(Resource, tag="Patient"):
    birth_date: str | None = None
    gender: str | None = None
    deceased_boolean: bool | None = None
    deceased_date_time: str | None = None
    link: tuple[PatientLink, ...] = ()


class Hospitalization(Element):
    discharge_disposition: CodeableConcept | None = None


class EncounterDiagnosis(Element):
    condition: Reference | None = None
    use: CodeableConcept | None = None


class Encounter(Resource, tag="Encounter"):
    status: str | None = None
    class_: Coding | None = msgspec.field(name="class", default=None)
    type: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    period: Period | None = None
    hospitalization: Hospitalization | None = None
    diagnosis: tuple[EncounterDiagnosis, ...] = ()


class Observation(Valued, tag_field="resourceType", tag="Observation"):
    # The fields of Resource again: Structs cannot have two bases with fields.
    id: str | None = None
    meta: Meta | None = None
    modifier_extension: tuple[Json, ...] = ()
    contained: tuple[Json, ...] = ()
    status: str | None = None
    category: tuple[CodeableConcept, ...] = ()
    subject: Reference | None = None
    encounter: Reference | None = None
    effective_date_time: str | None = None
    effective_instant: str | None = None
    effective_period: Period | None = None
    effective_timing: Timing | None = None
    issued: str | None = None
    method: CodeableConcept | None = None
    body_site: CodeableConcept | None = None
    device: Reference | None = None
    has_member: tuple[Reference, ...] = ()
    derived_from: tuple[Reference, ...] = ()
    component: tuple[Component, ...] = ()


class Condition(Resource, tag="Condition"):
    clinical_status: CodeableConcept | None = None
    verification_status: CodeableConcept | None = None
    category: tuple[CodeableConcept, ...] = ()
    severity: CodeableConcept | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    onset_date_time: str | None = None
    onset_age: Quantity | None = None
    onset_period: Period | None = None
    onset_range: Range | None = None
    onset_string: str | None = None
    abatement_date_time: str | None = None
    abatement_age: Quantity | None = None
    abatement_period: Period | None = None
    abatement_range: Range | None = None
    abatement_string: str | None = None
    recorded_date: str | None = None


class DoseAndRate(Element):
    dose_quantity: Quantity | None = None


class Dosage(Element):
    timing: Timing | None = None
    dose_and_rate: tuple[DoseAndRate, ...] = ()
    modifier_extension: tuple[Json, ...] = ()


class DispenseRequest(Element):
    number_of_repeats_allowed: Integer | None = None
    expected_supply_duration: Quantity | None = None
    validity_period: Period | None = None


class MedicationRequest(Resource, tag="MedicationRequest"):
    status: str | None = None
    intent: str | None = None
    category: tuple[CodeableConcept, ...] = ()
    do_not_perform: bool | None = None
    reported_boolean: bool | None = None
    reported_reference: Reference | None = None
    medication_codeable_concept: CodeableConcept | None = None
    medication_reference: Reference | None = None
    subject: Reference | None = None
    encounter: Reference | None = None
    authored_on: str | None = None
    dosage_instruction: tuple[Dosage, ...] = ()
    dispense_request: DispenseRequest | None = None


class Medication(Resource, tag="Medication"):
    code: CodeableConcept | None = None


class DiagnosticReport(Resource, tag="DiagnosticReport"):
    status: str | None = None
    issued: str | None = None
    result: tuple[Reference, ...] = ()


class ProvenanceAgent(Element):
    type: CodeableConcept | None = None


class ProvenanceEntity(Element):
    role: str | None = None


class Provenance(Resource, tag="Provenance"):
    target: tuple[Reference, ...] = ()
    recorded: str | None = None
    agent: tuple[ProvenanceAgent, ...] = ()
    entity: tuple[ProvenanceEntity, ...] = ()


class ContainedMedication(Element):
    resource_type: str | None = None
    id: str | None = None
    code: CodeableConcept | None = None


class EntryRequest(Element):
    method: str | None = None
    url: str | None = None


class EntryResponse(Element):
    last_modified: str | None = None


class Entry(Element):
    """One entry of a Bundle: a resource, or the word that one was deleted."""

    resource: Json = ABSENT
    request: EntryRequest | None = None
    response: EntryResponse | None = None


class Bundle(Resource, tag="Bundle"):
    entry: tuple[Json, ...] = ()


NORMALIZED = (
    Patient | Encounter | Observation | Condition | MedicationRequest | Medication | DiagnosticReport | Provenance
)
