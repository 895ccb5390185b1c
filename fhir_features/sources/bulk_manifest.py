"""What does a server say that it has exported? In: the answer that ends an export. Out: the files of its manifest
(https://hl7.org/fhir/uv/bulkdata/export.html#response---output-manifest), read as loosely as servers write it; and of
the OperationOutcomes in its error files which types they mean and how bad it is."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin

import msgspec

from fhir_features.errors import SourceNotFhir
from fhir_features.sources.outcomes import clean_code
from fhir_features.sources.reading import NOT_JSON
from fhir_features.sources.transport import Answer
from fhir_features.times import instant


@dataclass(frozen=True)
class ExportedFile:
    """One file of a manifest. `resource_type` and `count` are what the manifest says of it, if anything; `authorized`
    whether it is asked for with credentials."""

    what: Literal["deleted", "output", "error"]
    resource_type: str | None
    url: str
    count: int | None
    authorized: bool


@dataclass(frozen=True)
class Manifest:
    """What an export gave, or a part of it if there is a `next_url`. `transaction_time` (UTC) is null when it is none.

    Deletions stand first: one that bears no date is older than what the same export says of the resource.
    """

    transaction_time: dt.datetime | None
    files: tuple[ExportedFile, ...]
    next_url: str | None


@dataclass(frozen=True)
class Remark:
    """An issue of an error file: what it is by its codes, whether something is missing because of it, and which of
    the types that were asked for it names."""

    text: str
    is_fatal: bool
    resource_types: tuple[str, ...]


class _File(msgspec.Struct):
    url: str
    type: Any = None
    count: Any = None


class _Link(msgspec.Struct):
    relation: Any = None
    url: Any = None


class _Manifest(msgspec.Struct):
    transactionTime: Any = None
    requiresAccessToken: Any = None
    output: list[_File] | None = None
    deleted: list[_File] | None = None
    error: list[_File] | None = None
    link: list[_Link] | None = None


def manifest(name: str, answer: Answer, status_url: str) -> Manifest:
    """Read the manifest of an export of the source `name`. Raises SourceNotFhir when it is none."""
    try:
        return read_manifest(answer.body, status_url)
    except ValueError:
        raise SourceNotFhir(
            f"source '{name}': what came from {answer.place} at the end of the export is no manifest: "
            "tell those who run the server"
        ) from None


def read_manifest(body: bytes, url: str) -> Manifest:
    """Read a manifest that came from a URL, to which its own may be relative. Raises ValueError when it is none."""
    try:
        read = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=_Manifest)
    except NOT_JSON:
        raise ValueError("it is not the JSON of a manifest") from None
    if read.output is None:
        raise ValueError("without output it is something else")
    authorized = read.requiresAccessToken is not False
    parts: tuple[tuple[Literal["deleted", "output", "error"], list[_File] | None], ...] = (
        ("deleted", read.deleted),
        ("output", read.output),
        ("error", read.error),
    )
    return Manifest(
        transaction_time=_instant(read.transactionTime),
        files=tuple(_exported(what, file, url, authorized) for what, files in parts for file in files or []),
        next_url=next((urljoin(url, str(link.url)) for link in read.link or [] if link.relation == "next"), None),
    )


def _exported(
    what: Literal["deleted", "output", "error"], file: _File, status_url: str, authorized: bool
) -> ExportedFile:
    return ExportedFile(
        what=what,
        resource_type=file.type if isinstance(file.type, str) and what == "output" else None,
        url=urljoin(status_url, file.url),
        count=file.count if isinstance(file.count, int) else None,
        authorized=authorized,
    )


def _instant(text: Any) -> dt.datetime | None:
    try:
        return instant(text)
    except (ValueError, TypeError):
        return None


class _Issue(msgspec.Struct):
    severity: Any = None
    code: Any = None
    diagnostics: Any = None
    details: Any = None
    expression: Any = None
    location: Any = None


class _Outcome(msgspec.Struct):
    resourceType: Any = None
    issue: list[_Issue] = []


def remarks(line: bytes, asked: Sequence[str]) -> list[Remark]:
    """What a line of an error file says. What is no OperationOutcome is taken for the worst."""
    try:
        outcome = msgspec.json.decode(line, type=_Outcome)
    except NOT_JSON:
        outcome = _Outcome()
    if outcome.resourceType != "OperationOutcome":
        return [Remark("an error that is no OperationOutcome", True, ())]
    return [_remark(issue, asked) for issue in outcome.issue]


def _remark(issue: _Issue, asked: Sequence[str]) -> Remark:
    """By its codes only: its texts may quote patient data, and are looked at for the names of types alone."""
    severity, code = clean_code(issue.severity), clean_code(issue.code)
    texts = " ".join(str(text) for text in (issue.diagnostics, issue.details, issue.expression, issue.location))
    named = tuple(each for each in asked if re.search(rf"\b{each}\b", texts))
    return Remark(f"{severity} {code}", severity not in ("success", "information", "warning"), named)
