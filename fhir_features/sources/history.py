"""What happened to the resources of a type since an instant? In: an answer to the history of a type
(https://hl7.org/fhir/R4/http.html#history), newest first. Out: a page as of a search, but with every version, and with
deletions: the entry of one is a line of its own, in a Bundle around it."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import msgspec

from fhir_features.sources.reading import NOT_JSON
from fhir_features.sources.searchset import (
    NEWLINES,
    Entry,
    Page,
    decoded_bundle,
    read_bundle,
    read_entry,
    refusal,
    remarks_in,
)
from fhir_features.sources.transport import Answer


class _Meta(msgspec.Struct, frozen=True):
    versionId: Any = None
    lastUpdated: Any = None


class _Resource(msgspec.Struct, frozen=True):
    resourceType: Any = None
    id: Any = None
    meta: _Meta = _Meta()


def is_history(answer: Answer) -> bool:
    """Whether an answer is a page of a history; servers without one refuse, or take it for another question."""
    try:
        return answer.status == 200 and decoded_bundle(answer.body).type == "history"
    except NOT_JSON:
        return False


def history_page(name: str, resource_type: str, answer: Answer, since: dt.datetime) -> Page:
    """Read a page of the history of one resource type; versions before `since` were not asked for and are left out.

    Raises SourceRefused, SourceNotFhir, or SourceIncomplete when the server itself says that something is missing.
    """
    if answer.status != 200:
        raise refusal(name, resource_type, answer)
    bundle = read_bundle(name, answer)
    resources: list[tuple[bytes, bytes]] = []
    remarks: list[str] = []
    older = 0
    for raw in bundle.entry or []:
        entry, resource = _read(bytes(raw))
        if resource.resourceType == "OperationOutcome":
            remarks += remarks_in(name, resource_type, bytes(entry.resource))
        elif _is_before(since, resource.meta.lastUpdated, entry.said("response", "lastModified")):
            older += 1
        else:
            resources.append(_line(bytes(raw), entry, resource))
    # Some servers do not heed `_since`, or forget it in their links. Then they count everything; but the newest stand
    # first, so that what follows is older still.
    beyond = older > 0
    next_url = None if beyond and not resources else bundle.url_of("next")
    return Page(resources, bundle.count(), bundle.url_of("self"), next_url, tuple(remarks), beyond)


def _read(raw: bytes) -> tuple[Entry, _Resource]:
    """An entry and the head of its resource, as far as they can be read; normalize judges what they are."""
    entry = read_entry(raw)
    try:
        return entry, msgspec.json.decode(entry.resource, type=_Resource | None) or _Resource()
    except NOT_JSON:
        return entry, _Resource()


def _is_before(since: dt.datetime, *instants: Any) -> bool:
    for text in instants:
        try:
            return dt.datetime.fromisoformat(text) < since
        except (TypeError, ValueError):
            continue
    return False


def _line(raw: bytes, entry: Entry, resource: _Resource) -> tuple[bytes, bytes]:
    version = resource.meta.versionId
    if entry.said("request", "method") == "DELETE" or bytes(entry.resource) == b"null":
        # https://hl7.org/fhir/R4/bundle.html: a deletion is told by the entry's request, and has no resource.
        line = b'{"resourceType":"Bundle","type":"history","entry":[%s]}' % raw.translate(NEWLINES)
        return hashlib.sha256(line).digest(), line
    line = bytes(entry.resource).translate(NEWLINES)
    if isinstance(resource.id, str) and isinstance(version, str):
        return f"{resource.resourceType}/{resource.id}/_history/{version}".encode(), line
    return hashlib.sha256(line).digest(), line
