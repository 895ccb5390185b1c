"""One line or Bundle entry in; out what it is: a resource with its raw rows, a deletion, an ignored type, or a
rejection that says by which rule, at which JSON path and why, without patient data.

A rejection still carries what could be read of the resource's name (type, id, version, status), so that it can close
the version before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import Dictionary, content_id
from fhir_features.normalize.elements import VERIFICATION_STATUS, Unusable, code, patient_of
from fhir_features.normalize.r4_types import R4_TYPES
from fhir_features.normalize.rows import RAW_TABLES, Row

_RESOURCE = msgspec.json.Decoder(fhir.NORMALIZED)
_BUNDLE = msgspec.json.Decoder(fhir.Bundle)
_ENTRY = msgspec.json.Decoder(fhir.Entry)
_PATH = re.compile(r" - at `(.+)`$")
# Free of values as they are, msgspec's messages of these kinds quote what they found.
_QUOTED = re.compile(r"'.*'")


@dataclass(frozen=True)
class Name:
    """Which version of which resource a line is about, as far as that can be read."""

    resource_type: str | None = None
    resource_id: str | None = None
    version_id: str | None = None
    last_updated: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class Normalized:
    """A resource that can be normalized. `content_hash` is null where its name tells its version for sure."""

    name: Name
    patient_id: str | None
    withdrawn: bool
    content_hash: int | None
    rows: list[Row]


@dataclass(frozen=True)
class Deleted:
    """The word that a resource was deleted."""

    name: Name


@dataclass(frozen=True)
class Ignored:
    """A resource of a type that is not normalized."""

    resource_type: str


@dataclass(frozen=True)
class Rejected:
    """A line that goes to the quarantine."""

    name: Name
    rule: str
    json_path: str | None
    reason: str


Outcome = Normalized | Deleted | Ignored | Rejected


class Decoder:
    """Decodes the lines of a run. `dictionary` collects their codings and units."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._numbers = itertools.count(1)

    def line(self, line: bytes) -> Iterator[tuple[int, Outcome]]:
        """What one NDJSON line is, with its number. It is one resource, but for a Bundle, which is what is in it."""
        row_no = next(self._numbers)
        first = self._resource(line, row_no)
        if isinstance(first, Ignored) and first.resource_type == "Bundle":
            yield from self._bundle(line)
        else:
            yield row_no, first

    def entry(self, line: bytes) -> Iterator[tuple[int, Outcome]]:
        """What one entry of a Bundle file is, with its number."""
        row_no = next(self._numbers)
        try:
            entry = _ENTRY.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield row_no, _rejected(Name(), error)
        else:
            yield row_no, self._entry(entry, row_no)

    def unreadable(self, resource_type: str | None, reason: str) -> tuple[int, Outcome]:
        """The place of a file from which on no line can be read, with its number."""
        return next(self._numbers), Rejected(Name(resource_type), "unreadable", None, reason)

    def _bundle(self, line: bytes) -> Iterator[tuple[int, Outcome]]:
        try:
            bundle = _BUNDLE.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield next(self._numbers), _rejected(Name("Bundle"), error)
            return
        for entry in bundle.entry:
            row_no = next(self._numbers)
            yield row_no, self._entry(entry, row_no)

    def _entry(self, entry: fhir.Entry, row_no: int) -> Outcome:
        if entry.request is not None and entry.request.method == "DELETE":
            return _deleted(entry)
        resource = bytes(entry.resource)
        if not resource:
            return Rejected(Name(), "required", "$.resource", "the entry has no resource and is no deletion")
        outcome = self._resource(resource, row_no)
        if isinstance(outcome, Ignored) and outcome.resource_type == "Bundle":
            return Rejected(Name("Bundle"), "bundle", "$.resource", "a Bundle inside a Bundle is not read")
        return outcome

    def _resource(self, line: bytes, row_no: int) -> Outcome:
        try:
            line.decode()  # Text in elements that are skipped is checked nowhere else.
            resource = _RESOURCE.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _classify(line, error)
        resource_type = type(resource).__name__
        meta = resource.meta or fhir.Meta()
        name = Name(resource_type, resource.id, meta.version_id, meta.last_updated, _status(resource))
        try:
            return self._normalized(resource, name, line, row_no)
        except Unusable as unusable:
            return Rejected(name, unusable.rule, unusable.json_path, unusable.reason)
        except msgspec.DecodeError as error:  # of a contained resource
            return _rejected(name, error)

    def _normalized(self, resource: Any, name: Name, line: bytes, row_no: int) -> Normalized:
        if not name.resource_id:
            raise Unusable("id", "$.id", "it has no id")
        if resource.modifier_extension:
            # FHIR R4: a resource whose modifier extension is not understood must not be processed.
            # https://hl7.org/fhir/R4/extensibility.html#modifierExtension
            raise Unusable("modifier-extension", "$.modifierExtension", "a modifier extension is not understood")
        return Normalized(
            name=name,
            patient_id=None if name.resource_type in ("Medication", "DiagnosticReport") else patient_of(resource),
            withdrawn=name.status == "entered-in-error",
            content_hash=None if name.version_id and name.last_updated else content_id(msgspec.json.decode(line)),
            rows=RAW_TABLES[str(name.resource_type)].rows(resource, row_no, self._dictionary),
        )


def _status(resource: Any) -> str | None:
    if isinstance(resource, fhir.Condition):
        return code(resource.verification_status, VERIFICATION_STATUS)
    return getattr(resource, "status", None)


def _deleted(entry: fhir.Entry) -> Outcome:
    url = (entry.request.url if entry.request else None) or ""
    parts = url.split("?")[0].split("/_history/")[0].split("/")
    if len(parts) < 2 or not parts[-1] or parts[-2] not in R4_TYPES:
        return Rejected(Name(), "deletion", "$.request.url", "it does not name a resource as Type/id")
    resource_type, resource_id = parts[-2:]
    if resource_type not in RAW_TABLES:
        return Ignored(resource_type)
    return Deleted(Name(resource_type, resource_id, None, entry.response.last_modified if entry.response else None))


def _classify(line: bytes, error: Exception) -> Outcome:
    """What a line is that is none of the resources that are normalized: of another type, or broken."""
    try:
        name = _name(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _rejected(Name(), error)
    if name is None:
        return Rejected(Name(), "json", "$", "the line is not a JSON object")
    if name.resource_type is None:
        return Rejected(name, "resource-type", "$.resourceType", "it has no resourceType")
    if name.resource_type not in R4_TYPES:
        return Rejected(name, "resource-type", "$.resourceType", "its resourceType is none of FHIR R4's")
    if name.resource_type not in RAW_TABLES:
        return Ignored(name.resource_type)
    return _rejected(name, error)


def _name(line: bytes) -> Name | None:
    """What a line says of its name; null when it is not a JSON object. Raises DecodeError when it is no JSON."""
    try:
        header = msgspec.json.decode(line, type=fhir.Header)
    except msgspec.ValidationError:
        raw = msgspec.json.decode(line)
        if not isinstance(raw, dict):
            return None
        header = msgspec.convert({**_texts(raw), "meta": _texts(raw.get("meta"))}, fhir.Header)
    meta = header.meta or fhir.Meta()
    return Name(header.resource_type, header.id, meta.version_id, meta.last_updated, header.status)


def _texts(element: Any) -> dict[str, str]:
    """What of an object can be read as text: a server that writes versionId as a number still says which it is."""
    if not isinstance(element, dict):
        return {}
    return {key: str(value) for key, value in element.items() if isinstance(value, str | int) and value is not True}


def _rejected(name: Name, error: Exception) -> Rejected:
    if isinstance(error, UnicodeDecodeError):
        return Rejected(name, "encoding", None, f"it is not UTF-8 (byte {error.start})")
    if isinstance(error, RecursionError):
        return Rejected(name, "json", None, "it is nested too deeply")
    message = _QUOTED.sub("'…'", str(error))
    path = _PATH.search(message)
    rule = "type" if isinstance(error, msgspec.ValidationError) else "json"
    return Rejected(name, rule, path[1] if path else None, _PATH.sub("", message))
