"""Would a pull of this source work, and what should be changed? In: a source. Out: what was tried of it, one after the
other, how that went, and in words what it means: of a server its CapabilityStatement, its SMART configuration and one
small read of each type in the way that a pull would read it (of an export only whether it is offered, since a try would
be an export); of a folder the files in it. Nothing is landed, and nothing of what was read is shown."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from fhir_features.config import Config, ResourceType, Source
from fhir_features.errors import FhirFeaturesError, SourceUnreachable
from fhir_features.sources.client import Client
from fhir_features.sources.files import endings, found_files
from fhir_features.sources.history import is_history
from fhir_features.sources.links import next_page
from fhir_features.sources.patients import landed_patients
from fhir_features.sources.reading import NOT_JSON
from fhir_features.sources.searchset import searchset
from fhir_features.times import UTC

_T = TypeVar("_T")
Verdict = Literal["works", "limited", "fails"]


@dataclass(frozen=True)
class Check:
    """One thing that was tried. `limited` is what a pull can live with; `fails` what it cannot."""

    source: str
    check: str
    verdict: Verdict
    finding: str


def examine(config: Config, name: str) -> Iterator[Check]:
    """Try one source, check by check. Raises UsageError for an unknown one; whatever else is wrong is a finding."""
    source = config.source(name)
    try:
        if source.kind == "files":
            yield _folder(name, source)
            return
        with Client(name, source) as client:
            patient = next(landed_patients(config.warehouse.path / "landing", source.site), None)
            yield from _Examination(name, source, client, patient).checks()
    except FhirFeaturesError as error:
        yield Check(name, "source", "fails", _without_name(name, error))


class _Examination:
    def __init__(self, name: str, source: Source, client: Client, patient: str | None) -> None:
        assert source.base_url is not None
        self._name = name
        self._source = source
        self._base = source.base_url.rstrip("/")
        self._client = client
        self._patient = patient

    def checks(self) -> Iterator[Check]:
        try:
            statement, check = self._capabilities()
            yield check
            yield self._smart()
        except SourceUnreachable as error:
            yield self._check("server", "fails", _without_name(self._name, error))
            return
        if self._source.kind == "bulk":
            yield self._export(statement)
            return
        for resource_type in self._source.resource_types:
            try:
                yield self._type(resource_type)
            except FhirFeaturesError as error:
                yield self._check(resource_type, "fails", _without_name(self._name, error))

    def _capabilities(self) -> tuple[_Capabilities, Check]:
        # https://hl7.org/fhir/R4/http.html#capabilities
        answer = self._client.get(f"{self._base}/metadata")
        statement = _decoded(answer.body, _Capabilities) if answer.status == 200 else None
        if statement is None or statement.resourceType != "CapabilityStatement":
            finding = f"HTTP {answer.status}, and no CapabilityStatement"
            return _Capabilities(), self._check("metadata", "limited", finding)
        version = _plain(statement.fhirVersion)
        if not version.startswith("4.0"):
            finding = f"FHIR {version}; only R4 (4.0) is read: correct 'base_url'"
            return statement, self._check("metadata", "fails", finding)
        listed = {resource.type for rest in statement.rest for resource in rest.resource}
        missing = [each for each in self._source.resource_types if each not in listed]
        finding = f"FHIR {version}, {_plain(statement.software.name)}"
        if missing:
            return statement, self._check("metadata", "limited", f"{finding}; it does not list {', '.join(missing)}")
        return statement, self._check("metadata", "works", finding)

    def _smart(self) -> Check:
        # https://hl7.org/fhir/smart-app-launch/conformance.html
        answer = self._client.get(f"{self._base}/.well-known/smart-configuration")
        found = _decoded(answer.body, _SmartConfiguration) if answer.status == 200 else None
        if found is not None and isinstance(found.token_endpoint, str):
            return self._check("SMART", "works", f"tokens are given at {urlsplit(found.token_endpoint).netloc}")
        if self._source.auth.kind in ("smart", "client-secret") and self._source.auth.token_url is None:
            return self._check("SMART", "fails", "no token endpoint is named: set 'token_url' in its auth")
        return self._check("SMART", "works", "no SMART configuration, and none is needed")

    def _export(self, statement: _Capabilities) -> Check:
        # https://hl7.org/fhir/uv/bulkdata/export.html: of the system, of the type Patient or of the type Group.
        level = (self._source.level or "").partition("/")[0]
        listed = [resource for rest in statement.rest for resource in rest.resource]
        of_types = [each for resource in listed if resource.type == level.capitalize() for each in resource.operation]
        of_system = [each for rest in statement.rest for each in rest.operation]
        offered = [str(each.name) for each in (of_system if level == "system" else of_types)]
        if any("export" in name for name in offered):
            return self._check("export", "works", f"it is offered at level {level}")
        return self._check("export", "limited", f"the CapabilityStatement has none of level {level}: it may be refused")

    def _type(self, resource_type: ResourceType) -> Check:
        only: dict[str, str] = {}
        if resource_type in self._source.per_patient:
            if self._patient is None:
                need = f"no patient of site '{self._source.site}' has landed: pull them first from another source of it"
                return self._check(resource_type, "fails", f"it is searched patient by patient, and {need}")
            only["_id" if resource_type == "Patient" else "patient"] = self._patient
        limits: list[str] = []
        for category in self._source.categories.get(resource_type) or (None,):
            narrowed = only | ({"category": category} if category else {})
            url = self._url(resource_type, narrowed)
            page = searchset(self._name, resource_type, self._client.get(url))
            limits += page.remarks
            if page.next_url:
                next_page(self._name, self._source, resource_type, page.next_url, url)
            if page.next_url and page.total is None and not self._source.accurate_total:
                limits.append("it does not say how many resources there are: try accurate_total = true")
        if not self._source.last_updated:
            limits.append("it is read whole each time (last_updated = false)")
        elif limit := self._limit_of_changes(resource_type, narrowed, split=bool(narrowed)):
            limits.append(limit)
        finding = "; ".join(dict.fromkeys(limits)) or "can be read, and asked for what has changed"
        return self._check(resource_type, "limited" if limits else "works", finding)

    def _limit_of_changes(self, resource_type: str, only: dict[str, str], *, split: bool) -> str | None:
        """What a pull of what has changed cannot have."""
        # Nothing has changed since then, so what comes all the same was not asked for.
        tomorrow = f"{dt.datetime.now(UTC) + dt.timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        if self._source.history and not split:
            if is_history(self._client.get(self._url(f"{resource_type}/_history", {"_since": tomorrow}))):
                return None
            return "it has no history, so deletions and what changed twice are not seen: set history = false"
        answer = self._client.get(self._url(resource_type, {**only, "_lastUpdated": f"ge{tomorrow}"}))
        if answer.status == 400:
            return "it refuses _lastUpdated, so it is read whole each time: set last_updated = false if all types do"
        page = searchset(self._name, resource_type, answer)
        ignored = page.self_url is not None and "_lastUpdated" not in parse_qs(urlsplit(page.self_url).query)
        if page.resources or ignored:
            return "it ignores _lastUpdated, so it is read whole each time: set last_updated = false if all types do"
        return None

    def _url(self, place: str, parameters: dict[str, str]) -> str:
        return f"{self._base}/{place}?{urlencode({**parameters, '_count': '1'}, safe=':')}"

    def _check(self, check: str, verdict: Verdict, finding: str) -> Check:
        return Check(self._name, check, verdict, finding)


def _folder(name: str, source: Source) -> Check:
    assert source.path is not None
    # The endings alone: a file's name may hold a patient's.
    paths, exports = found_files(name, source.path)
    kinds = Counter("".join(endings(path)) for path in paths)
    if not kinds:
        return Check(name, "folder", "limited", "it holds no NDJSON file and no Bundle: check 'path'")
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    by_manifest = f", by {len(exports)} manifests of exports" if exports else ""
    return Check(name, "folder", "works", f"it can be read: {counts}{by_manifest}")


def _without_name(name: str, error: FhirFeaturesError) -> str:
    return str(error).removeprefix(f"source '{name}': ")


class _Software(msgspec.Struct, frozen=True):
    name: Any = None


class _Operation(msgspec.Struct, frozen=True):
    name: Any = None


class _Listed(msgspec.Struct, frozen=True):
    type: Any = None
    operation: list[_Operation] = []


class _Rest(msgspec.Struct, frozen=True):
    resource: list[_Listed] = []
    operation: list[_Operation] = []


class _Capabilities(msgspec.Struct, frozen=True):
    resourceType: Any = None
    fhirVersion: Any = None
    software: _Software = _Software()
    rest: list[_Rest] = []


class _SmartConfiguration(msgspec.Struct, frozen=True):
    token_endpoint: Any = None


def _decoded(body: bytes, as_type: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=as_type)
    except NOT_JSON:
        return None


def _plain(text: Any) -> str:
    """What a server says of itself, fit for a terminal."""
    return re.sub(r"[^ -~]", "?", text)[:60] if isinstance(text, str) and text else "of no name"
