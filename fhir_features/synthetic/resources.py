"""What do the resources of an invented patient look like? In go the facts of one visit, result, problem or order, with
instants in UTC; out comes the resource of FHIR R4 as plain data, checked against the models of fhir.resources.

Written are only codes that the shipped ontologies know. `meta.lastUpdated` is when a hospital's server would have got
the version: when a result was issued, a problem recorded, an order written, a visit ended.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Resource = dict[str, Any]

TIME_ZONE = "America/New_York"

_SYSTEMS = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "icd10cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"


@dataclass(frozen=True)
class Code:
    """A code of one of the systems above, with its display."""

    system: str
    code: str
    display: str


@dataclass(frozen=True)
class Measure:
    """What is measured: its LOINC code, its UCUM unit, and to how many decimals."""

    code: Code
    unit: str
    decimals: int


def patient(patient_id: str, sex: str, born: dt.date, recorded: dt.datetime) -> Resource:
    """A patient."""
    identifier = {"system": "urn:example:mrn", "value": patient_id.upper()}
    return _checked(
        "Patient", patient_id, recorded, identifier=[identifier], gender=sex, birthDate=born.isoformat(), active=True
    )


def encounter(
    encounter_id: str, patient_id: str, class_code: str, class_display: str, start: dt.datetime, end: dt.datetime
) -> Resource:
    """A finished visit or stay; the class is a code of v3 ActCode."""
    class_ = {"system": f"{_TERMINOLOGY}/v3-ActCode", "code": class_code, "display": class_display}
    period = {"start": _local(start), "end": _local(end)}
    more = {"class": class_, "subject": _reference("Patient", patient_id), "period": period}
    return _checked("Encounter", encounter_id, end, status="finished", **more)


def laboratory(
    result_id: str, visit: Resource, measure: Measure, value: float, drawn: dt.datetime, issued: dt.datetime
) -> Resource:
    """A laboratory result: drawn at one time, known from another."""
    more = {"issued": _instant(issued), "valueQuantity": _quantity(measure, value)}
    return _observation(result_id, visit, "laboratory", measure.code, drawn, recorded=issued, **more)


def vital_sign(result_id: str, visit: Resource, measure: Measure, value: float, at: dt.datetime) -> Resource:
    """A vital sign, which is known when it is taken and has no `issued`."""
    return _observation(
        result_id, visit, "vital-signs", measure.code, at, recorded=at, valueQuantity=_quantity(measure, value)
    )


def panel(
    result_id: str, visit: Resource, code: Code, values: Iterable[tuple[Measure, float]], at: dt.datetime
) -> Resource:
    """Vital signs that are components of one Observation, such as a blood pressure."""
    components = [{"code": _concept(m.code), "valueQuantity": _quantity(m, value)} for m, value in values]
    return _observation(result_id, visit, "vital-signs", code, at, recorded=at, component=components)


def condition(
    condition_id: str, visit: Resource, category: str, codes: Iterable[Code], onset: str, recorded: dt.datetime
) -> Resource:
    """An active, confirmed condition; `onset` is a FHIR dateTime and may be a year or a month only."""
    return _checked(
        "Condition",
        condition_id,
        recorded,
        clinicalStatus=_status("condition-clinical", "active"),
        verificationStatus=_status("condition-ver-status", "confirmed"),
        category=[_status("condition-category", category)],
        code=_concept(*codes),
        subject=visit["subject"],
        encounter=_reference("Encounter", visit["id"]),
        onsetDateTime=onset,
        recordedDate=_local(recorded),
    )


def medication(medication_id: str, code: Code, recorded: dt.datetime) -> Resource:
    """A medication that orders refer to."""
    return _checked("Medication", medication_id, recorded, code=_concept(code))


def order(
    order_id: str, visit: Resource, what: Code | Resource, written: dt.datetime, completed: dt.datetime | None = None
) -> Resource:
    """A medication order for 90 days with one repeat, by code or by reference to a Medication; active or completed."""
    if isinstance(what, Code):
        name, value = "medicationCodeableConcept", _concept(what)
    else:
        name, value = "medicationReference", _reference("Medication", what["id"])
    supply = {"value": 90, "unit": "days", "system": "http://unitsofmeasure.org", "code": "d"}
    return _checked(
        "MedicationRequest",
        order_id,
        completed or written,
        status="completed" if completed else "active",
        intent="order",
        subject=visit["subject"],
        encounter=_reference("Encounter", visit["id"]),
        authoredOn=_local(written),
        dispenseRequest={"numberOfRepeatsAllowed": 1, "expectedSupplyDuration": supply},
        **{name: value},
    )


def next_version(resource: Resource, recorded: dt.datetime, **changed: Any) -> Resource:
    """The version of a resource that follows it: the same id, recorded later, with other elements."""
    body = {key: value for key, value in resource.items() if key not in ("resourceType", "id", "meta")}
    if "issued" in body:
        body["issued"] = _instant(recorded)
    version = int(resource["meta"]["versionId"]) + 1
    return _version(version, resource["resourceType"], resource["id"], recorded, {**body, **changed})


def write_ndjson(resources: Iterable[Resource], file: Path) -> int:
    """Write resources to a file, a line each; how many there were."""
    lines = [json.dumps(resource, separators=(",", ":"), ensure_ascii=False) for resource in resources]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def _observation(
    result_id: str, visit: Resource, category: str, code: Code, at: dt.datetime, recorded: dt.datetime, **more: Any
) -> Resource:
    return _checked(
        "Observation",
        result_id,
        recorded,
        status="final",
        category=[_status("observation-category", category)],
        code=_concept(code),
        subject=visit["subject"],
        encounter=_reference("Encounter", visit["id"]),
        effectiveDateTime=_local(at),
        **more,
    )


def _checked(resource_type: str, resource_id: str, recorded: dt.datetime, **body: Any) -> Resource:
    return _version(1, resource_type, resource_id, recorded, body)


def _version(
    version: int, resource_type: str, resource_id: str, recorded: dt.datetime, body: dict[str, Any]
) -> Resource:
    # Takes seconds to import, and only those who invent patients need it.
    from fhir.resources.R4B import get_fhir_model_class

    meta = {"versionId": str(version), "lastUpdated": _instant(recorded)}
    resource = {"resourceType": resource_type, "id": resource_id, "meta": meta, **body}
    get_fhir_model_class(resource_type).model_validate(resource)
    return resource


def _concept(*codes: Code) -> dict[str, Any]:
    codings = [{"system": _SYSTEMS[c.system], "code": c.code, "display": c.display} for c in codes]
    return {"coding": codings, "text": codings[0]["display"]}


def _status(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{_TERMINOLOGY}/{system}", "code": code}]}


def _quantity(measure: Measure, value: float) -> dict[str, Any]:
    rounded = round(value, measure.decimals) if measure.decimals else round(value)
    return {"value": rounded, "unit": measure.unit, "system": "http://unitsofmeasure.org", "code": measure.unit}


def _reference(resource_type: str, resource_id: str) -> dict[str, str]:
    return {"reference": f"{resource_type}/{resource_id}"}


def _local(at: dt.datetime) -> str:
    return at.astimezone(ZoneInfo(TIME_ZONE)).isoformat(timespec="seconds")


def _instant(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
