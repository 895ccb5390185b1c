"""Is an exported resource one that was asked for? Servers have been seen to ignore `_typeFilter`, and may ignore whose
resources were asked for. In: a type's filters, or patients, and a resource. Out: false only for what surely was not
asked for. Of filters, category, code and status without modifiers are looked at; else the server's word is taken."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from fhir_features.sources.reading import NOT_JSON

_PATIENT = re.compile(r"(?:^|/)Patient/([^/]+)")
_CHECKED = ("category", "code", "status")


class _Filtered(msgspec.Struct):
    category: Any = None
    code: Any = None
    status: Any = None


class _Reference(msgspec.Struct):
    reference: str | None = None


class _Concerning(msgspec.Struct):
    subject: _Reference | None = None


def concerns(line: bytes, patients: Collection[str]) -> bool:
    """Whether a resource is of one of the patients (ids), or of nobody that could be told."""
    try:
        resource = msgspec.json.decode(line, type=_Concerning)
    except NOT_JSON:
        return True
    named = _PATIENT.search((resource.subject and resource.subject.reference) or "")
    return named is None or named[1] in patients


def can_be_checked(filters: Sequence[str]) -> bool:
    """Whether each of these filters says something that is looked at here."""
    return all(any(name in _CHECKED for name, _ in parse_qsl(each)) for each in filters)


def fulfils(line: bytes, filters: Sequence[str]) -> bool:
    """Whether a resource fulfils one of the filters, as far as that can be seen; what cannot be read is kept."""
    try:
        resource = msgspec.json.decode(line, type=_Filtered)
    except NOT_JSON:
        return True
    return any(
        all(_has(getattr(resource, name), value) for name, value in parse_qsl(each) if name in _CHECKED)
        for each in filters
    )


def _has(element: Any, value: str) -> bool:
    """Whether a code or CodeableConcept, or one of several, has one of the tokens
    (https://hl7.org/fhir/R4/search.html#token), regardless of case, which some systems heed and some do not."""
    if element is None:
        return True  # What a parameter means may stand elsewhere: a MedicationRequest has no element `code`.
    elements = element if isinstance(element, list) else [element]
    codings = [coding for each in elements for coding in _codings(each)]
    return any(_is(coding, token.casefold()) for token in value.split(",") for coding in codings)


def _codings(element: Any) -> list[tuple[str, str]]:
    if isinstance(element, str):
        return [("", element.casefold())]
    found = element.get("coding") if isinstance(element, dict) else None
    return [
        (str(coding.get("system", "")).casefold(), str(coding.get("code", "")).casefold())
        for coding in (found if isinstance(found, list) else [])
        if isinstance(coding, dict)
    ]


def _is(coding: tuple[str, str], token: str) -> bool:
    system, bar, code = token.rpartition("|")
    if bar and not code:
        return coding[0] == system
    return coding[1] == code and (not bar or coding[0] == system)
