"""Lines or Bundle entries in; Arrow batches out: of what each line is, and of the raw rows of those that are resources.

A line is a resource that can be normalized, the word of a deletion, of a type that is ignored, or rejected: by which
rule, at which JSON path and why, without patient data. A rejection still carries what could be read of the resource's
name (type, id, version, status), so that it can close the version before it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import CodingRow, Dictionary, UnitRow, content_id
from fhir_features.normalize.dialect import Dialect
from fhir_features.normalize.elements import VERIFICATION_STATUS, Unusable, code, patient_of
from fhir_features.normalize.r4_types import R4_TYPES
from fhir_features.normalize.rows import RAW_TABLES, Columns, Row, arrow_table
from fhir_features.normalize.validation import Validation, findings
from fhir_features.sources import LONGEST_LINE, NOT_JSON, with_local_references

_RESOURCE = msgspec.json.Decoder(fhir.NORMALIZED)
_BUNDLE = msgspec.json.Decoder(fhir.Bundle)
_ENTRY = msgspec.json.Decoder(fhir.Entry)
_MOST_PARTS = 5_000_000
_MOST_ENTRIES = 100_000
_PATH = re.compile(r" - at `(.+)`$")
# Free of values as they are, msgspec's messages of these kinds quote what they found.
_QUOTED = re.compile(r"'.*'")

VERSION_COLUMNS: Columns = (
    ("row_no", pa.int64()),
    ("resource_type", pa.string()),
    ("resource_id", pa.string()),
    ("version_id", pa.string()),
    ("last_updated_text", pa.string()),
    ("received_at", pa.timestamp("us", tz="UTC")),
    ("content_hash", pa.int64()),
    ("patient_id", pa.string()),
    ("outcome", pa.string()),
    ("withdrawn", pa.bool_()),
    ("file_no", pa.int32()),
    ("line", pa.int64()),
    ("entry", pa.int32()),
    ("system", pa.string()),
    ("identity", pa.int64()),
)
QUARANTINE_COLUMNS: Columns = (
    ("row_no", pa.int64()),
    ("file_no", pa.int32()),
    ("line", pa.int64()),
    ("entry", pa.int32()),
    ("resource_type", pa.string()),
    ("resource_id", pa.string()),
    ("json_path", pa.string()),
    ("rule", pa.string()),
    ("reason", pa.string()),
)
# A finding has a rule and no reason: its words would be those of a library, which may quote.
FINDING_COLUMNS: Columns = QUARANTINE_COLUMNS[:-1]

# Received at (UTC, microseconds since 1970), number of the file in the run, number of the line in the file, and number
# of the entry where the line is a Bundle of an NDJSON file.
Place = tuple[int, int, int, int | None]


class Name(NamedTuple):
    """Which version of which resource a line is about, as far as that can be read."""

    resource_type: str | None = None
    resource_id: str | None = None
    version_id: str | None = None
    last_updated: str | None = None
    status: str | None = None


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


# What a line can be that is no resource which can be normalized.
Other = Deleted | Ignored | Rejected


@dataclass(frozen=True)
class Batch:
    """What some lines hold, in their order. `row_no` numbers what was received in it from 0 on.

    `versions` has a row a resource version that could be named, `quarantine` one a rejection, `findings` one a finding
    in the resources that were `validated`, `rows` by resource type the raw rows; `codings` and `units` are those that
    the decoder had not met before.
    """

    received: int
    versions: pa.Table
    quarantine: pa.Table
    findings: pa.Table
    validated: int
    rows: dict[str, pa.Table]
    codings: list[CodingRow]
    units: list[UnitRow]
    ignored: Counter[str]


class Decoder:
    """Decodes lines of a source's `dialect`, one after the other, and hands over what they hold as batches.

    `validation` says in which of them more is looked for than what cannot be normalized.
    """

    def __init__(self, dialect: Dialect, validation: Validation) -> None:
        self._dialect = dialect
        self._validation = validation
        self._dictionary = Dictionary()
        self._start()

    def _start(self) -> None:
        self.received = 0
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        self._versions: list[Row] = []
        self._quarantine: list[Row] = []
        self._findings: list[Row] = []
        self._validated = 0
        self._ignored: Counter[str] = Counter()

    def line(self, line: bytes, place: Place) -> None:
        """Take an NDJSON line. It is one resource, but for a Bundle, which is what is in it."""
        if reason := _too_large(line):
            self._take(Rejected(Name(), "size", None, reason), place)
            return
        other = self._resource(line, place)
        if other is None:
            return
        if isinstance(other, Ignored) and other.resource_type == "Bundle":
            self._bundle(line, place)
        else:
            self._take(other, place)

    def entry(self, line: bytes, place: Place) -> None:
        """Take an entry of a Bundle."""
        if reason := _too_large(line):
            self._take(Rejected(Name(), "size", None, reason), place)
            return
        try:
            entry = _ENTRY.decode(line)
        except NOT_JSON as error:
            self._take(_rejected(Name(), error), place)
        else:
            self._entry(entry, place)

    def unreadable(self, resource_type: str | None, reason: str, place: Place) -> None:
        """Take the place of a file from which on no line can be read."""
        self._take(Rejected(Name(resource_type), "unreadable", None, reason), place)

    def batch(self) -> Batch:
        """What was taken since the last batch."""
        codings, units = self._dictionary.newly_met()
        batch = Batch(
            received=self.received,
            versions=arrow_table(VERSION_COLUMNS, self._versions),
            quarantine=arrow_table(QUARANTINE_COLUMNS, self._quarantine),
            findings=arrow_table(FINDING_COLUMNS, self._findings),
            validated=self._validated,
            rows={name: arrow_table(RAW_TABLES[name].columns, rows) for name, rows in self._rows.items() if rows},
            codings=codings,
            units=units,
            ignored=self._ignored,
        )
        self._start()
        return batch

    def _bundle(self, line: bytes, place: Place) -> None:
        try:
            found = entries(line)
        except NOT_JSON as error:
            self._take(_rejected(Name("Bundle"), error), place)
            return
        if len(found) > _MOST_ENTRIES:
            reason = f"it has more than {_MOST_ENTRIES} entries: give them as a file of their own"
            self._take(Rejected(Name("Bundle"), "size", "$.entry", reason), place)
            return
        for number, entry in enumerate(found, start=1):
            self.entry(entry, (*place[:3], number))

    def _entry(self, entry: fhir.Entry, place: Place) -> None:
        other: Other | None
        if entry.request is not None and entry.request.method == "DELETE":
            other = _deleted(entry)
        elif resource := bytes(entry.resource):
            other = self._resource(resource, place)
        else:
            other = Rejected(Name(), "required", "$.resource", "the entry has no resource and is no deletion")
        if isinstance(other, Ignored) and other.resource_type == "Bundle":
            other = Rejected(Name("Bundle"), "bundle", "$.resource", "a Bundle inside a Bundle is not read")
        if other is not None:
            self._take(other, place)

    def _resource(self, line: bytes, place: Place) -> Other | None:
        """Take a resource that can be normalized; of any other, what it is."""
        try:
            line.decode()  # Text in elements that are skipped is checked nowhere else.
            resource = _RESOURCE.decode(line)
        except NOT_JSON as error:
            return _classify(line, error)
        resource_type = type(resource).__name__
        meta = resource.meta or _NO_META
        status = _status(resource)
        try:
            self._dialect.read(resource, line)
            _check(resource)
            patient_id = None if resource_type in _OF_NO_PATIENT else patient_of(resource)
            rows = RAW_TABLES[resource_type].rows(resource, self.received, self._dictionary)
            named = meta.version_id and meta.last_updated
            content_hash = None if named else content_id(msgspec.json.decode(line))
        except (Unusable, *NOT_JSON) as error:
            name = Name(resource_type, resource.id, meta.version_id, meta.last_updated, status)
            if isinstance(error, Unusable):
                return Rejected(name, error.rule, error.json_path, error.reason)
            return _rejected(name, error)  # of a contained resource, or of an element that is skipped
        received_at, file_no, line_no, entry = place
        version = (self.received, resource_type, resource.id, meta.version_id, meta.last_updated, received_at)
        outcome = (content_hash, patient_id, "normalized", status == "entered-in-error", file_no, line_no, entry)
        identity = self._dialect.identity(resource_type, line)
        self._versions.append((*version, *outcome, meta.source, identity))
        self._rows[resource_type] += rows
        if self._validation.takes(resource_type, resource.id):
            told = findings(resource_type, line)
            where = (file_no, line_no, entry)
            self._findings += [(self.received, *where, resource_type, resource.id, *each) for each in told]
            self._validated += 1
        self.received += 1
        return None

    def _take(self, other: Other, place: Place) -> None:
        if isinstance(other, Ignored):
            self._ignored[other.resource_type] += 1
        elif isinstance(other, Deleted):
            # Two deletions have the same content: a repeated word of a deletion is a duplicate.
            self._name(other.name, "deleted", 0, place)
        else:
            self._reject(other, place)
        self.received += 1

    def _reject(self, rejected: Rejected, place: Place) -> None:
        name = rejected.name
        _, *where = place
        told = (rejected.json_path, rejected.rule, rejected.reason)
        self._quarantine.append((self.received, *where, name.resource_type, name.resource_id, *told))
        says_status = name.status is not None or name.resource_type in (
            "Patient",
            "Condition",
            "Medication",
            "Provenance",
        )
        says_version = name.version_id or name.last_updated
        if name.resource_type in RAW_TABLES and name.resource_id and says_version and says_status:
            self._name(name, "quarantined", None, place)

    def _name(self, name: Name, outcome: str, content_hash: int | None, place: Place) -> None:
        received_at, *where = place
        self._versions.append(
            (self.received, *name[:4], received_at, content_hash, None, outcome, False, *where, None, None)
        )


def entries(line: bytes) -> list[bytes]:
    """The entries of a line that is a Bundle, their references resolved. Raises DecodeError when it is none."""
    return list(with_local_references(_BUNDLE.decode(line).entry))


def _too_large(line: bytes) -> str | None:
    """Why a line would take more memory than a resource may, if it would."""
    if len(line) > LONGEST_LINE:
        return f"it is longer than {LONGEST_LINE >> 20} MiB"
    # What is written in two bytes can take two hundred. Of resources that are there, a part takes ten bytes or more.
    if len(line) > _MOST_PARTS and line.count(b"{") + line.count(b"[") + line.count(b",") > _MOST_PARTS:
        return f"it has more than {_MOST_PARTS} elements"
    return None


_NO_META = fhir.Meta()
_OF_NO_PATIENT = ("Medication", "DiagnosticReport", "Provenance")


def _check(resource: Any) -> None:
    if not resource.id:
        raise Unusable("id", "$.id", "it has no id")
    if resource.modifier_extension:
        # FHIR R4: a resource whose modifier extension is not understood must not be processed.
        # https://hl7.org/fhir/R4/extensibility.html#modifierExtension
        raise Unusable("modifier-extension", "$.modifierExtension", "a modifier extension is not understood")


def _status(resource: Any) -> str | None:
    if isinstance(resource, fhir.Condition):
        return code(resource.verification_status, VERIFICATION_STATUS)
    return getattr(resource, "status", None)


def _deleted(entry: fhir.Entry) -> Other:
    url = (entry.request.url if entry.request else None) or ""
    parts = url.split("?")[0].split("/_history/")[0].split("/")
    if len(parts) < 2 or not parts[-1] or parts[-2] not in R4_TYPES:
        return Rejected(Name(), "deletion", "$.request.url", "it does not name a resource as Type/id")
    resource_type, resource_id = parts[-2:]
    if resource_type not in RAW_TABLES:
        return Ignored(resource_type)
    return Deleted(Name(resource_type, resource_id, None, entry.response.last_modified if entry.response else None))


def _classify(line: bytes, error: Exception) -> Other:
    """What a line is that is none of the resources that are normalized: of another type, or broken."""
    try:
        name = _name(line)
    except NOT_JSON as unnamed:
        return _rejected(Name(), unnamed)
    if name is None:
        return Rejected(Name(), "json", "$", "the line is not a JSON object")
    if name.resource_type is None:
        return Rejected(name, "resource-type", "$.resourceType", "it has no resourceType")
    if name.resource_type not in R4_TYPES:
        # What stands there can be anything, and types are told in reports.
        unknown = name._replace(resource_type=None)
        return Rejected(unknown, "resource-type", "$.resourceType", "its resourceType is none of FHIR R4's")
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
