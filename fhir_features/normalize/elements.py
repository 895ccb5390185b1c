"""Elements that several resource types share, read into plain values, and the error for what cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fhir_features.normalize import structs as fhir

# UCUM units of time, and how they are written by those who do not use UCUM, in days. Months and years as UCUM has them.
_DAYS = {
    **dict.fromkeys(("s", "second", "seconds"), 1 / 86_400),
    **dict.fromkeys(("min", "minute", "minutes"), 1 / 1_440),
    **dict.fromkeys(("h", "hour", "hours", "hr"), 1 / 24),
    **dict.fromkeys(("d", "day", "days"), 1.0),
    **dict.fromkeys(("wk", "week", "weeks"), 7.0),
    **dict.fromkeys(("mo", "month", "months"), 30.4375),
    **dict.fromkeys(("a", "year", "years", "yr"), 365.25),
}
_MONTHS = {**dict.fromkeys(("a", "year", "years", "yr"), 12), **dict.fromkeys(("mo", "month", "months"), 1)}


_OLDEST_DAYS = 200 * 366

# The systems of the required status codes, in R4 and in earlier versions of FHIR; some servers leave them out.
CLINICAL_STATUS: frozenset[str | None] = frozenset(
    {None, "http://terminology.hl7.org/CodeSystem/condition-clinical", "http://hl7.org/fhir/condition-clinical"}
)
VERIFICATION_STATUS: frozenset[str | None] = frozenset(
    {None, "http://terminology.hl7.org/CodeSystem/condition-ver-status", "http://hl7.org/fhir/condition-ver-status"}
)


@dataclass
class Unusable(Exception):
    """A resource that cannot be normalized: by which rule, at which JSON path, and why."""

    rule: str
    json_path: str
    reason: str


def local_id(reference: fhir.Reference | None, resource_type: str) -> str | None:
    """The id that a reference to a resource type has on its server; null for any other reference.

    Literal references can be relative, absolute, versioned, or urn:uuid within a Bundle:
    https://hl7.org/fhir/R4/references.html#literal
    """
    text = reference.reference if reference else None
    if not text:
        return None
    head, _, tail = text.partition("/")
    if head == resource_type and "/" not in tail:
        return tail or None
    if text.startswith("urn:uuid:"):
        return text.removeprefix("urn:uuid:")
    parts = text.split("/_history/")[0].split("/")
    return parts[-1] if len(parts) >= 2 and parts[-2] == resource_type and parts[-1] else None


def patient_of(resource: Any) -> str:
    """The patient whom a resource is about. Raises Unusable when it names none."""
    if isinstance(resource, fhir.Patient):
        return str(resource.id)
    if resource.subject is None:
        raise Unusable("subject", "$.subject", "it has no subject")
    patient_id = local_id(resource.subject, "Patient")
    if patient_id is None:
        raise Unusable("subject", "$.subject.reference", "its subject is not a reference to a Patient")
    return patient_id


def one_of(element: str, code: str | None, allowed: frozenset[str]) -> None:
    """Raise Unusable when a required code is missing or is none of a required binding."""
    if code is None:
        raise Unusable("required", f"$.{element}", f"it has no {element}")
    if code not in allowed:
        raise Unusable("code", f"$.{element}", f"its {element} is none of FHIR R4's")


def moment(
    element: str,
    date_time: str | None,
    period: fhir.Period | None,
    age: fhir.Quantity | None,
    ages: fhir.Range | None,
) -> tuple[str | None, str | None, int | None, int | None]:
    """An onset or abatement: its text and JSON path, or the age (months and days) at which it was."""
    if date_time is not None:
        return date_time, f"$.{element}DateTime", None, None
    if period is not None and period.start:
        return period.start, f"$.{element}Period.start", None, None
    quantity = age or (ages.low if ages else None)
    if quantity is None or quantity.value is None:
        return None, None, None, None
    if not 0 <= (days(quantity) or 0) <= _OLDEST_DAYS:
        raise Unusable("value", f"$.{element}Age", "it is no age that anybody has")
    unit = quantity.code or quantity.unit or ""
    if unit in _MONTHS:
        return None, None, int(quantity.value * _MONTHS[unit]), 0
    length = days(quantity)
    return (None, None, None, None) if length is None else (None, None, 0, int(length))


def days(duration: fhir.Quantity | None) -> float | None:
    """The length of a Duration in days; null for none, or for one in a unit that is not of time."""
    if duration is None or duration.value is None:
        return None
    factor = _DAYS.get(duration.code or duration.unit or "d")
    return None if factor is None else duration.value * factor


def codes(concepts: Sequence[fhir.CodeableConcept]) -> list[str]:
    """The codes of all codings of some concepts, whatever their systems."""
    return [coding.code for concept in concepts for coding in concept.coding if coding.code]


def code(concept: fhir.CodeableConcept | None, systems: frozenset[str | None] | None = None) -> str | None:
    """The first code of a concept, else its text. Where `systems` are given, only their codes count, and no text."""
    if concept is None:
        return None
    if systems is not None:
        return next((coding.code for coding in concept.coding if coding.code and coding.system in systems), None)
    return next((coding.code for coding in concept.coding if coding.code), concept.text)
