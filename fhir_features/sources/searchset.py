"""What does an answer to a search say? In: an answer. Out: the resources that match, byte for byte on a line each, the
links and the total of a searchset Bundle (https://hl7.org/fhir/R4/http.html#search), and what the server remarked on
it; or a typed error that says why this is no such thing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from fhir_features.errors import FhirFeaturesError, SourceIncomplete, SourceNotFhir, SourceRefused
from fhir_features.sources.outcomes import clean_code, in_brackets, issues_in
from fhir_features.sources.reading import NOT_JSON
from fhir_features.sources.splitting import entries, members
from fhir_features.sources.transport import Answer

NEWLINES = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True)
class Page:
    """A page of a search, or of a history. `resources` are (identity, line): the identity is type and id (and version,
    in a history), or the content without an id. `beyond`: it reaches beyond what a history was asked for."""

    resources: list[tuple[bytes, bytes]]
    total: int | None
    self_url: str | None
    next_url: str | None
    remarks: tuple[str, ...]
    beyond: bool = False


class _Key(msgspec.Struct):
    resourceType: Any = None
    id: Any = None


class Entry(msgspec.Struct):
    """An entry of a Bundle, of which servers get each part wrong now and then."""

    resource: msgspec.Raw = msgspec.Raw(b"null")
    search: Any = None
    request: Any = None
    response: Any = None

    def said(self, part: str, name: str) -> Any:
        """What its `search`, `request` or `response` says; null if nothing."""
        told = getattr(self, part)
        return told.get(name) if isinstance(told, dict) else None


class _Link(msgspec.Struct):
    relation: Any = None
    url: Any = None


class Bundle(msgspec.Struct):
    """A Bundle whose entries are not read yet."""

    resourceType: str
    type: Any = None
    total: Any = None
    link: list[_Link] | None = None
    entry: list[msgspec.Raw] | None = None

    def count(self) -> int | None:
        """How many resources the server counts, if it does; some write so as a text."""
        return int(self.total) if re.fullmatch(r"\d{1,18}", str(self.total)) else None

    def url_of(self, relation: str) -> str | None:
        """The address of a link."""
        return next((str(link.url) for link in self.link or [] if link.relation == relation), None)


def searchset(name: str, resource_type: str, answer: Answer) -> Page:
    """Read the answer to a search for one resource type.

    Raises SourceRefused, SourceNotFhir, or SourceIncomplete when the server itself says that something is missing.
    """
    if answer.status != 200:
        raise refusal(name, resource_type, answer)
    bundle = read_bundle(name, answer)
    resources: list[tuple[bytes, bytes]] = []
    remarks: list[str] = []
    for raw in bundle.entry or []:
        entry = read_entry(bytes(raw))
        key, content = _key(entry.resource), bytes(entry.resource)
        if content == b"null":
            continue
        if key.resourceType == "OperationOutcome":
            remarks += remarks_in(name, resource_type, content)
        elif entry.said("search", "mode") not in ("include", "outcome"):
            resources.append((_identity(key, content), content.translate(NEWLINES)))
    return Page(resources, bundle.count(), bundle.url_of("self"), bundle.url_of("next"), tuple(remarks))


def read_bundle(name: str, answer: Answer) -> Bundle:
    """The Bundle that an answer holds, though some of its entries may be no JSON: these are there as they came.

    Raises SourceNotFhir when it holds none.
    """
    body = answer.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not body:
        what = "an empty answer"
    elif body.startswith(b"<"):
        html = "html" in answer.content_type.lower() or b"<html" in body[:2000].lower()
        what = "a web page, perhaps to log in," if html else "XML"
    else:
        try:
            bundle = decoded_bundle(body)
            if bundle.resourceType == "Bundle":
                return bundle
            what = f"{clean_code(bundle.resourceType)}{in_brackets(issues_in(body))} and not a Bundle"
        except msgspec.ValidationError:
            what = "JSON that is not a Bundle"
        except NOT_JSON:
            what = "no JSON, or JSON that is cut off,"
    raise SourceNotFhir(
        f"source '{name}': {what} came from {answer.place}: see that 'base_url' is that of a FHIR R4 server "
        "and that 'auth' is right, then pull again"
    )


def decoded_bundle(body: bytes) -> Bundle:
    """A Bundle, or what else has a resourceType. Raises one of NOT_JSON."""
    try:
        return msgspec.json.decode(body, type=Bundle)
    except msgspec.ValidationError:
        raise
    except NOT_JSON:
        found, is_whole = entries(body)
        if not is_whole:
            raise
        head = {name: value for name, value in members(body).items() if name != "entry"}
        bundle = msgspec.json.decode(
            b"{%s}" % b",".join(b'"%s":%s' % (n.encode(), v) for n, v in head.items()), type=Bundle
        )
        bundle.entry = [msgspec.Raw(each) for each in found]
        return bundle


def read_entry(raw: bytes) -> Entry:
    """An entry of a Bundle; of one that is no JSON the resource as it came."""
    try:
        return msgspec.json.decode(raw, type=Entry | None) or Entry()
    except NOT_JSON:
        return Entry(msgspec.Raw(members(raw).get("resource", raw)))


def refusal(name: str, resource_type: str, answer: Answer, place: str | None = None) -> FhirFeaturesError:
    """The error for an answer whose status is not 200, which names its place unless another is given."""
    told = f"source '{name}': HTTP {answer.status}{in_brackets(issues_in(answer.body))} at {place or answer.place}"
    if answer.status in (401, 403):
        if not answer.own:
            return SourceRefused(
                f"{told}, where credentials are not sent: let 'base_url' be the address that links have"
            )
        if answer.status == 401:
            return SourceRefused(
                f"{told}: set 'auth', or correct its secret; it must be allowed to search {resource_type}"
            )
        return SourceRefused(
            f"{told}: have the client or user of 'auth' allowed to search {resource_type}, its scopes too"
        )
    if answer.status in (404, 410):
        return SourceNotFhir(
            f"{told}: correct 'base_url', or take {resource_type} out of 'resource_types' if the server has none"
        )
    return SourceNotFhir(
        f"{told}: the server does not accept this search; see its documentation, "
        f"or take {resource_type} out of 'resource_types'"
    )


def remarks_in(name: str, resource_type: str, outcome: bytes) -> list[str]:
    """The issues of an OperationOutcome, by their codes only: their texts may quote what was searched for.

    Raises SourceIncomplete for one that says that something is missing.
    """
    issues = issues_in(outcome)
    # https://hl7.org/fhir/R4/valueset-issue-type.html: incomplete = not all data sources could be reached.
    if any(severity in ("error", "fatal") or code == "incomplete" for severity, code in issues):
        raise SourceIncomplete(
            f"source '{name}': with its answer on {resource_type} the server says that it is not whole"
            f"{in_brackets(issues)}: pull again later, or ask those who run it"
        )
    return [f"the server remarked on the search for {resource_type}: {severity} {code}" for severity, code in issues]


def _key(resource: msgspec.Raw) -> _Key:
    try:
        return msgspec.json.decode(resource, type=_Key)
    except NOT_JSON:
        return _Key()


def _identity(key: _Key, content: bytes) -> bytes:
    if isinstance(key.resourceType, str) and isinstance(key.id, str):
        return f"{key.resourceType}/{key.id}".encode()
    return hashlib.sha256(content).digest()
