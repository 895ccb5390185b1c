"""What does a source's configuration explain of its resources that they do not say themselves? In: a decoded resource.
Out: the same, without the modifier extensions that are known to change nothing, and without references to other
servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_features.config import Source
from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import content_id
from fhir_features.normalize.elements import Unusable

# A quick look at the bytes, so that resources with relative references alone are not searched.
_ABSOLUTE = re.compile(rb'"reference"\s*:\s*"https?:')
_SINGLE = ("subject", "encounter", "device", "medication_reference")
_REPEATING = ("has_member", "derived_from", "result", "target")


class _Extension(msgspec.Struct):
    url: str | None = None


class _Identifier(msgspec.Struct):
    system: Any = None
    value: Any = None


class _Identified(msgspec.Struct):
    identifier: list[_Identifier] = []


@dataclass(frozen=True)
class Dialect:
    """`base_urls`: those of the server that the resources are from, each ending in a slash; none where that is not
    known. `known_modifiers`: the URLs of modifier extensions that change nothing of what is read (TIME rule 17).
    `validity_is_taken`: an order's validityPeriod is when it is taken, where its dosage has no boundsPeriod.
    `one_result_by`: systems of identifiers; Observations that share one are one result, whatever their ids."""

    base_urls: tuple[str, ...] = ()
    known_modifiers: frozenset[str] = frozenset()
    validity_is_taken: bool = False
    one_result_by: tuple[str, ...] = ()

    def identity(self, resource_type: str, line: bytes) -> int | None:
        """What a resource that was decoded is beside its id: the hash of its first identifier of a declared system, in
        the order in which they are declared; null for none."""
        if resource_type != "Observation" or not self.one_result_by:
            return None
        try:
            identifiers = msgspec.json.decode(line, type=_Identified).identifier
        except msgspec.ValidationError:
            return None
        values = {each.system: each.value for each in reversed(identifiers) if isinstance(each.system, str)}
        named = ((system, values.get(system)) for system in self.one_result_by)
        return next((content_id(each) for each in named if isinstance(each[1], str) and each[1]), None)

    def read(self, resource: Any, line: bytes) -> None:
        """Take out of a resource what is to be left out. Raises Unusable when its subject is on another server, and
        DecodeError for a modifier extension that is none."""
        if self.known_modifiers:
            self._drop_known_modifiers(resource)
        if self.base_urls and _ABSOLUTE.search(line):
            self._drop_foreign_references(resource)
        if self.validity_is_taken and isinstance(resource, fhir.MedicationRequest):
            _bound_by_validity(resource)

    def _drop_known_modifiers(self, resource: Any) -> None:
        parts = (*getattr(resource, "component", ()), *getattr(resource, "dosage_instruction", ()))
        for element in (resource, *parts):
            element.modifier_extension = tuple(
                extension
                for extension in element.modifier_extension
                if msgspec.json.decode(extension, type=_Extension).url not in self.known_modifiers
            )

    def _drop_foreign_references(self, resource: Any) -> None:
        """A Patient/1 on another server is another patient: https://hl7.org/fhir/R4/references.html#literal"""
        for reference in _references(resource):
            text = reference.reference or ""
            if "://" in text and not text.startswith(self.base_urls):
                if reference is getattr(resource, "subject", None):
                    raise Unusable(
                        "subject",
                        "$.subject.reference",
                        "its subject is on another server: if that is this one, add the address to other_base_urls",
                    )
                reference.reference = None


def dialect_of(source: Source) -> Dialect:
    """What a source's configuration explains."""
    urls = (source.base_url, *source.other_base_urls)
    return Dialect(
        base_urls=tuple(f"{url.rstrip('/')}/" for url in urls if url),
        known_modifiers=frozenset(source.known_modifiers),
        validity_is_taken=source.validity_is_taken,
        one_result_by=source.one_result_by,
    )


def _bound_by_validity(order: fhir.MedicationRequest) -> None:
    validity = order.dispense_request.validity_period if order.dispense_request else None
    timings = [dosage.timing for dosage in order.dosage_instruction if dosage.timing]
    if validity and not any(timing.repeat and timing.repeat.bounds_period for timing in timings):
        bounds = fhir.Dosage(timing=fhir.Timing(repeat=fhir.TimingRepeat(bounds_period=validity)))
        order.dosage_instruction = (*order.dosage_instruction, bounds)


def _references(resource: Any) -> Iterator[fhir.Reference]:
    found = [getattr(resource, name, None) for name in _SINGLE]
    for name in _REPEATING:
        found += getattr(resource, name, ())
    found += [link.other for link in getattr(resource, "link", ())]
    found += [diagnosis.condition for diagnosis in getattr(resource, "diagnosis", ())]
    return (reference for reference in found if reference is not None)
