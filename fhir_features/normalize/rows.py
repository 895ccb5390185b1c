"""One resource in, the raw rows of its event table out: plain tuples, instants still as text.

Each resource type has the columns of its raw rows (name and Arrow type) and a function that fills them. What makes a
resource unusable as a whole is raised as `Unusable`, with the rule, the JSON path and a reason free of patient data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import Dictionary
from fhir_features.normalize.elements import (
    CLINICAL_STATUS,
    VERIFICATION_STATUS,
    Unusable,
    code,
    codes,
    days,
    local_id,
    moment,
    one_of,
)
from fhir_features.normalize.supporting import (
    DIAGNOSTIC_REPORT_COLUMNS,
    PROVENANCE_COLUMNS,
    diagnostic_report_rows,
    provenance_rows,
)
from fhir_features.normalize.values import VALUE_COLUMNS, value_row

Row = tuple[Any, ...]
Columns = tuple[tuple[str, pa.DataType], ...]

_INT, _TEXT, _NUMBER, _FLAG = pa.int64(), pa.string(), pa.float64(), pa.bool_()
_TEXTS = pa.list_(pa.string())

OBSERVATION_COLUMNS: Columns = (
    ("row_no", _INT),
    ("component", pa.uint16()),
    ("status", _TEXT),
    ("effective_text", _TEXT),
    ("effective_path", _TEXT),
    ("issued_text", _TEXT),
    ("encounter_id", _TEXT),
    ("categories", _TEXTS),
    ("method_code_id", _INT),
    ("body_site_code_id", _INT),
    ("device_id", _TEXT),
    ("derived_from", _TEXTS),
    ("members", _TEXTS),
    *VALUE_COLUMNS,
)
CONDITION_COLUMNS: Columns = (
    ("row_no", _INT),
    ("encounter_id", _TEXT),
    ("code_id", _INT),
    ("code_text", _TEXT),
    ("categories", _TEXTS),
    ("clinical_status", _TEXT),
    ("verification_status", _TEXT),
    ("severity_code_id", _INT),
    ("onset_text", _TEXT),
    ("onset_path", _TEXT),
    ("onset_months", _INT),
    ("onset_days", _INT),
    ("abatement_text", _TEXT),
    ("abatement_path", _TEXT),
    ("abatement_months", _INT),
    ("abatement_days", _INT),
    ("abated", _FLAG),
    ("recorded_text", _TEXT),
)
MEDICATION_REQUEST_COLUMNS: Columns = (
    ("row_no", _INT),
    ("encounter_id", _TEXT),
    ("status", _TEXT),
    ("code_id", _INT),
    ("code_text", _TEXT),
    ("categories", _TEXTS),
    ("intent", _TEXT),
    ("medication_id", _TEXT),
    ("authored_text", _TEXT),
    ("bounds_start_text", _TEXT),
    ("bounds_end_text", _TEXT),
    ("dosage_days", _NUMBER),
    ("supply_days", _NUMBER),
    ("repeats", pa.int32()),
    ("dose", _NUMBER),
    ("dose_unit_id", _INT),
    ("do_not_perform", _FLAG),
    ("reported", _FLAG),
)
ENCOUNTER_COLUMNS: Columns = (
    ("row_no", _INT),
    ("status", _TEXT),
    ("class_system", _TEXT),
    ("class_code", _TEXT),
    ("type_code_ids", pa.list_(_INT)),
    ("start_text", _TEXT),
    ("end_text", _TEXT),
    ("discharge_disposition", _TEXT),
    ("admission_diagnoses", _TEXTS),
)
PATIENT_COLUMNS: Columns = (
    ("row_no", _INT),
    ("birth_text", _TEXT),
    ("sex", _TEXT),
    ("deceased", _FLAG),
    ("deceased_text", _TEXT),
    ("replaced_by", _TEXTS),
    ("replaces", _TEXTS),
)
MEDICATION_COLUMNS: Columns = (("row_no", _INT), ("code_id", _INT), ("code_text", _TEXT))

# Required bindings of FHIR R4; `appended` is kept for Observations that come from R5 systems.
_OBSERVATION_STATUS = frozenset(
    "registered preliminary final amended corrected appended cancelled entered-in-error unknown".split()
)
_ORDER_STATUS = frozenset("active on-hold cancelled completed entered-in-error stopped draft unknown".split())
_ORDER_INTENT = frozenset("proposal plan order original-order reflex-order filler-order instance-order option".split())
_ENCOUNTER_STATUS = frozenset(
    "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown".split()
)
# https://hl7.org/fhir/R4/valueset-diagnosis-role.html
_ADMISSION = "AD"
_MOST_COMPONENTS = 65_535


def observation_rows(o: fhir.Observation, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The row of an Observation's own value, then one a component."""
    one_of("status", o.status, _OBSERVATION_STATUS)
    if o.code is None:
        raise Unusable("required", "$.code", "it has no code")
    effective_text, effective_path = _effective(o)
    sources = (*o.has_member, *o.derived_from)
    shared = (
        o.status,
        effective_text,
        effective_path,
        o.issued,
        local_id(o.encounter, "Encounter"),
        codes(o.category),
        dictionary.code_id(o.method),
        dictionary.code_id(o.body_site),
        local_id(o.device, "Device"),
        [source.reference for source in sources if source.reference] if sources else (),
        [local_id(member, "Observation") for member in o.has_member] if o.has_member else (),
    )
    if not o.component:
        return [(row_no, 0, *shared, *value_row(o, "$", dictionary))]
    if len(o.component) > _MOST_COMPONENTS:
        raise Unusable("value", "$.component", f"it has more than {_MOST_COMPONENTS} components")
    rows = [(row_no, 0, *shared, *value_row(o, "$", dictionary))]
    for number, component in enumerate(o.component, start=1):
        path = f"$.component[{number - 1}]"
        if component.modifier_extension:
            raise Unusable("modifier-extension", f"{path}.modifierExtension", "a modifier extension is not understood")
        rows.append((row_no, number, *shared, *value_row(component, path, dictionary)))
    return rows


def condition_rows(c: fhir.Condition, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The one row of a Condition."""
    onset = moment("onset", c.onset_date_time, c.onset_period, c.onset_age, c.onset_range)
    abatement = moment("abatement", c.abatement_date_time, c.abatement_period, c.abatement_age, c.abatement_range)
    abated = c.abatement_string is not None or any(part is not None for part in abatement)
    row = (
        row_no,
        local_id(c.encounter, "Encounter"),
        dictionary.code_id(c.code),
        c.code.text if c.code else None,
        codes(c.category),
        code(c.clinical_status, CLINICAL_STATUS),
        code(c.verification_status, VERIFICATION_STATUS),
        dictionary.code_id(c.severity),
        *onset,
        *abatement,
        abated,
        c.recorded_date,
    )
    return [row]


def medication_request_rows(m: fhir.MedicationRequest, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The one row of a MedicationRequest, with the code of its medication where the order itself has it."""
    one_of("status", m.status, _ORDER_STATUS)
    one_of("intent", m.intent, _ORDER_INTENT)
    if any(dosage.modifier_extension for dosage in m.dosage_instruction):
        raise Unusable("modifier-extension", "$.dosageInstruction", "a modifier extension is not understood")
    medication = m.medication_codeable_concept or _contained_medication(m)
    repeats = [d.timing.repeat for d in m.dosage_instruction if d.timing and d.timing.repeat]
    periods = [r.bounds_period for r in repeats if r.bounds_period]
    lengths = [days(r.bounds_duration) or days(r.bounds_range.high if r.bounds_range else None) for r in repeats]
    doses = [rate.dose_quantity for d in m.dosage_instruction for rate in d.dose_and_rate if rate.dose_quantity]
    dispense = m.dispense_request or fhir.DispenseRequest()
    row = (
        row_no,
        local_id(m.encounter, "Encounter"),
        m.status,
        dictionary.code_id(medication),
        medication.text if medication else None,
        codes(m.category),
        m.intent,
        local_id(m.medication_reference, "Medication"),
        m.authored_on,
        periods[0].start if periods else None,
        periods[-1].end if periods else None,
        max((length for length in lengths if length is not None), default=None),
        days(dispense.expected_supply_duration),
        dispense.number_of_repeats_allowed,
        doses[0].value if doses else None,
        dictionary.unit_id(doses[0]) if doses else None,
        bool(m.do_not_perform),
        bool(m.reported_boolean) or m.reported_reference is not None,
    )
    return [row]


def encounter_rows(e: fhir.Encounter, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The one row of an Encounter."""
    one_of("status", e.status, _ENCOUNTER_STATUS)
    period = e.period or fhir.Period()
    disposition = e.hospitalization.discharge_disposition if e.hospitalization else None
    row = (
        row_no,
        e.status,
        e.class_.system if e.class_ else None,
        e.class_.code if e.class_ else None,
        [code_id for code_id in map(dictionary.code_id, e.type) if code_id is not None],
        period.start,
        period.end,
        code(disposition),
        [local_id(d.condition, "Condition") for d in e.diagnosis if d.use and _ADMISSION in codes([d.use])],
    )
    return [row]


def patient_rows(p: fhir.Patient, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The one row of a Patient."""
    deceased = True if p.deceased_date_time is not None else p.deceased_boolean
    links = [(link.type, local_id(link.other, "Patient")) for link in p.link]
    row = (
        row_no,
        p.birth_date,
        p.gender,
        deceased,
        p.deceased_date_time,
        [other for kind, other in links if kind == "replaced-by" and other],
        [other for kind, other in links if kind == "replaces" and other],
    )
    return [row]


def medication_rows(m: fhir.Medication, row_no: int, dictionary: Dictionary) -> list[Row]:
    """The one row of a Medication."""
    return [(row_no, dictionary.code_id(m.code), m.code.text if m.code else None)]


@dataclass(frozen=True)
class RawTable:
    """The raw rows of one resource type: their columns, and what makes them."""

    columns: Columns
    rows: Callable[[Any, int, Dictionary], list[Row]]


# In the order in which a run is normalized: what others point to comes first.
RAW_TABLES: dict[str, RawTable] = {
    "Patient": RawTable(PATIENT_COLUMNS, patient_rows),
    "Encounter": RawTable(ENCOUNTER_COLUMNS, encounter_rows),
    "Medication": RawTable(MEDICATION_COLUMNS, medication_rows),
    "DiagnosticReport": RawTable(DIAGNOSTIC_REPORT_COLUMNS, diagnostic_report_rows),
    "Provenance": RawTable(PROVENANCE_COLUMNS, provenance_rows),
    "Observation": RawTable(OBSERVATION_COLUMNS, observation_rows),
    "Condition": RawTable(CONDITION_COLUMNS, condition_rows),
    "MedicationRequest": RawTable(MEDICATION_REQUEST_COLUMNS, medication_request_rows),
}


_NO_PERIOD = fhir.Period()


def arrow_table(columns: Columns, rows: Sequence[Row]) -> pa.Table:
    """Tuples as an Arrow table."""
    by_column: list[Any] = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [pa.array(values, type=kind) for values, (_, kind) in zip(by_column, columns, strict=True)]
    return pa.table(arrays, names=[name for name, _ in columns])


def _effective(o: fhir.Observation) -> tuple[str | None, str | None]:
    if o.effective_date_time is not None:
        return o.effective_date_time, "$.effectiveDateTime"
    period = o.effective_period or _NO_PERIOD
    timing = o.effective_timing.event if o.effective_timing else ()
    choices = (
        (o.effective_instant, "$.effectiveInstant"),
        (period.end, "$.effectivePeriod.end"),
        (period.start, "$.effectivePeriod.start"),
        (timing[0] if timing else None, "$.effectiveTiming.event[0]"),
    )
    return next(((text, path) for text, path in choices if text is not None), (None, None))


def _contained_medication(m: fhir.MedicationRequest) -> fhir.CodeableConcept | None:
    reference = m.medication_reference.reference if m.medication_reference else None
    if not reference or not reference.startswith("#"):
        return None
    for raw in m.contained:
        header = msgspec.json.decode(raw, type=fhir.Header)
        if header.resource_type == "Medication" and header.id == reference[1:]:
            return msgspec.json.decode(raw, type=fhir.ContainedMedication).code
    return None
