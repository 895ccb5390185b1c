"""How is one export asked for and waited for? In: which types, since when, of which patients. Out: the address of its
status, and in the end its manifests (https://hl7.org/fhir/uv/bulkdata/export.html). A server is asked as often as it
wants to be, until a deadline."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode, urljoin

import msgspec

from fhir_features.config import Source
from fhir_features.errors import FhirFeaturesError, SourceIncomplete, SourceNotFhir, SourceRefused
from fhir_features.sources.bulk_manifest import Manifest, manifest
from fhir_features.sources.client import Client
from fhir_features.sources.links import at_base
from fhir_features.sources.outcomes import in_brackets, issues_in
from fhir_features.sources.progress import Progress
from fhir_features.sources.transport import PASSING, Answer
from fhir_features.times import UTC, duration_us

_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")


class Expired(Exception):
    """The server does not know an export, or a file of one, any more."""


@dataclass(frozen=True)
class Plan:
    """What one export asks for: `since` is a lower bound on meta.lastUpdated (UTC), `patients` are ids, null for all
    of the source's level."""

    types: tuple[str, ...]
    since: dt.datetime | None = None
    patients: frozenset[str] | None = None

    def parameters(self, source: Source) -> dict[str, str]:
        """The parameters of the kick-off, but for `patient`."""
        asked = {"_type": ",".join(self.types)}
        if self.since is not None:
            # As Z, because servers have been seen that compare instants as text.
            asked["_since"] = f"{self.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        filters = [f"{each}?{one}" for each in self.types for one in source.filters(each)]
        return asked | ({"_typeFilter": ",".join(filters)} if filters else {})


class KickOff(msgspec.Struct, frozen=True):
    """An export that has begun. Instants are UTC: `at` by the server's clock or ours, whichever is earlier, and
    `until` the end of our patience."""

    status_url: str
    at: dt.datetime
    until: dt.datetime


class Exporter:
    """Asks one source for exports."""

    def __init__(self, name: str, source: Source, client: Client, progress: Progress) -> None:
        assert source.base_url is not None
        self._name = name
        self._source = source
        self._client = client
        self._progress = progress
        self._url = export_url(source)

    def kick_off(self, plan: Plan) -> KickOff:
        """Begin an export, as soon as the server takes one more.

        A server that does not take a list of patients is asked for all. Raises the Source errors.
        """
        asked_at = dt.datetime.now(UTC)
        until = asked_at + dt.timedelta(microseconds=duration_us(self._source.export_deadline))
        answer = self._asked_for(plan, until)
        status_url = self._status_url(answer.headers.get("Content-Location"))
        if answer.status != 202 or status_url is None:
            raise self._refusal(answer, "does not begin the export that was asked for")
        return KickOff(status_url, min(asked_at, answer.date or asked_at), until)

    def manifests(self, kick_off: KickOff) -> Iterator[Manifest]:
        """Wait for an export; its manifest, or its manifests one after the other if the server divides it.

        Raises Expired, SourceUnreachable when the server does not answer, SourceIncomplete when it is not done in
        time, SourceNotFhir when it gave up or answers otherwise, SourceRefused.
        """
        url: str | None = kick_off.status_url
        seen = set[str]()
        while url is not None:
            if url in seen:
                raise SourceNotFhir(
                    f"source '{self._name}': the manifests of the export link on in a circle: "
                    "tell those who run the server"
                )
            seen.add(url)
            part = manifest(self._name, self._done(url, kick_off.until), url)
            yield replace(part, files=tuple(replace(file, url=self._at_base(file.url)) for file in part.files))
            url = part.next_url and self._at_base(part.next_url)

    def _status_url(self, where: str | None) -> str | None:
        try:
            return self._at_base(urljoin(self._url, where)) if where else None
        except ValueError:
            return None

    def _at_base(self, url: str) -> str:
        """An address that the server gave; what is in a store elsewhere stays where it is."""
        return at_base(self._source, url) or url

    def _asked_for(self, plan: Plan, until: dt.datetime) -> Answer:
        parameters = plan.parameters(self._source)
        if plan.patients is not None:
            headers = {"Prefer": "respond-async", "Content-Type": "application/fhir+json"}
            answer = self._client.ask("POST", self._url, headers=headers, body=_body(plan, parameters), until=until)
            if answer.status == 202:
                return answer
        url = f"{self._url}?{urlencode(parameters, safe=':,')}"
        return self._client.ask("GET", url, headers={"Prefer": "respond-async"}, until=until)

    def _done(self, url: str, until: dt.datetime) -> Answer:
        polls = 0
        while True:
            answer = self._client.ask("GET", url, until=until)
            if answer.status == 200:
                return answer
            if answer.status in (404, 410):
                raise Expired
            if answer.status != 202:
                raise self._refusal(answer, "gave the export up")
            if dt.datetime.now(UTC) >= until:
                raise SourceIncomplete(
                    f"source '{self._name}': the export was not done in {self._source.export_deadline}, and was "
                    "cancelled: set 'export_deadline' higher, or ask for less"
                )
            polls += 1
            percent = _PERCENT.search(answer.headers.get("X-Progress", ""))
            self._progress(self._name, "export", min(int(percent[1]), 100) if percent else 0, 100 if percent else None)
            self._client.pause(polls, answer)

    def _refusal(self, answer: Answer, what: str) -> FhirFeaturesError:
        issues = issues_in(answer.body)
        told = f"source '{self._name}': HTTP {answer.status}{in_brackets(issues)} at {answer.place}"
        if answer.status in (401, 403):
            if not answer.own:
                return SourceRefused(
                    f"{told}, where credentials are not sent: let 'base_url' be the address that links have"
                )
            return SourceRefused(f"{told}: set 'auth' and its secret, and have it allowed to export")
        # https://hl7.org/fhir/uv/bulkdata/export.html: a server error with an OperationOutcome ends an export, unless
        # it is called transient.
        if answer.status in PASSING and (answer.status != 500 or not issues or ("error", "transient") in issues):
            return self._client.unreachable(answer.fault, answer.place)
        if answer.status == 413:
            return SourceNotFhir(
                f"{told}: the export is too large for the server; ask for fewer 'resource_types', set 'type_filters', "
                "or take a smaller group"
            )
        return SourceNotFhir(f"{told}: the server {what}; correct 'base_url' and 'level', or see its documentation")


def forget(client: Client, status_url: str) -> None:
    """Let the server remove an export, or what it has done of it. That it does not is no harm."""
    try:
        client.ask("DELETE", status_url)
    except FhirFeaturesError:
        return


def filters_in(parameters: Mapping[str, str], resource_type: str) -> tuple[str, ...]:
    """The filters of one type among the parameters of a kick-off."""
    named = (each.partition("?") for each in parameters.get("_typeFilter", "").split(","))
    return tuple(one for name, _, one in named if name == resource_type)


def export_url(source: Source) -> str:
    """The address at which a source's exports are asked for."""
    assert source.base_url is not None and source.level is not None
    path = {"system": "", "patient": "Patient/"}.get(source.level, source.level.replace("group/", "Group/") + "/")
    return f"{source.base_url.rstrip('/')}/{path}$export"


def _body(plan: Plan, parameters: dict[str, str]) -> bytes:
    """https://hl7.org/fhir/R4/parameters.html"""
    kinds = {"_since": "valueInstant"}
    named = [{"name": name, kinds.get(name, "valueString"): value} for name, value in parameters.items()]
    patients = [
        {"name": "patient", "valueReference": {"reference": f"Patient/{id}"}} for id in sorted(plan.patients or ())
    ]
    return msgspec.json.encode({"resourceType": "Parameters", "parameter": named + patients})
