"""Which resources does a server hold that changed since the last pull? In: a source of kind `search` and the instants
up to which it has been seen. Out: every page of a search on meta.lastUpdated for each resource type, landed page by
page. Paging is not to be trusted (offsets shift when resources change meanwhile), so a search is repeated until it
gave as many different ids as the server says that there are."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from fhir_features.config import Source
from fhir_features.errors import SourceIncomplete, SourceNotFhir
from fhir_features.sources.checkpoint import OpenRun, TypeState
from fhir_features.sources.client import Client
from fhir_features.sources.landing import LandedType
from fhir_features.sources.progress import Progress
from fhir_features.sources.searchset import Searchset, searchset
from fhir_features.times import UTC, duration_us

SCANS = 3
BARREN_PAGES = 100


def land_search(
    name: str, source: Source, run: OpenRun, seen: Mapping[str, dt.datetime], progress: Progress
) -> dict[str, LandedType]:
    """Land what each of the source's types has had since `seen` (UTC), less the source's overlap, or all of a type
    without.

    Raises SourceUnreachable, SourceRefused, SourceNotFhir, SourceIncomplete, and ConfigError for a secret that is not
    there.
    """
    with Client(name, source) as client:
        search = _Search(name, source, run, client, progress)
        return {
            resource_type: search.land(resource_type, seen.get(resource_type))
            for resource_type in source.resource_types
        }


class _Search:
    def __init__(self, name: str, source: Source, run: OpenRun, client: Client, progress: Progress) -> None:
        assert source.base_url is not None
        self._name = name
        self._source = source
        self._base = source.base_url.rstrip("/")
        self._run = run
        self._client = client
        self._progress = progress

    def land(self, resource_type: str, seen: dt.datetime | None) -> LandedType:
        state = self._run.type_state(resource_type) or self._asked(seen)
        if not state.complete:
            self._scan_until_whole(resource_type, state)
        assert state.watermark is not None
        return LandedType(
            request=state.request,
            since=state.since,
            watermark=state.watermark,
            complete=state.complete,
            entries=state.entries,
            pages=state.pages,
            warnings=tuple(state.warnings),
        )

    def _asked(self, seen: dt.datetime | None) -> TypeState:
        request = {"_count": str(self._source.page_size)}
        if seen is None:
            return TypeState(request, since=None)
        since = (seen - dt.timedelta(microseconds=duration_us(self._source.overlap))).replace(microsecond=0)
        # As Z, because servers have been seen that compare instants as text.
        request["_lastUpdated"] = f"ge{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return TypeState(request, since)

    def _scan_until_whole(self, resource_type: str, state: TypeState) -> None:
        for _ in range(SCANS):
            if self._scan(resource_type, state):
                self._run.finish_type(resource_type, state)
                return
            self._run.begin_scan(resource_type, state)
        raise SourceIncomplete(
            f"source '{self._name}': {SCANS} searches for {resource_type} gave fewer resources than the server counts, "
            "or broke off: pull again when less is written there"
        )

    def _scan(self, resource_type: str, state: TypeState) -> bool:
        """Read on to the last page; whether the scan gave every id that the server counted at any time of it."""
        while state.next_url is not None or not state.scan_pages:
            if not self._land_page(resource_type, state):
                return False
            self._progress(self._name, resource_type, state.ids, state.total)
        return state.total is None or state.ids >= state.total

    def _land_page(self, resource_type: str, state: TypeState) -> bool:
        """Land one page; False when the server does not know its link any more."""
        asked_at = dt.datetime.now(UTC)
        url = state.next_url or f"{self._base}/{resource_type}?{urlencode(state.request, safe=':')}"
        answer = self._client.get(url)
        if state.next_url is not None and answer.status in (400, 404, 410):
            return False
        page = searchset(self._name, resource_type, answer)
        if state.watermark is None:
            state.watermark = min(asked_at, answer.date or asked_at)
        if not state.scan_pages:
            _notice_full_read(state, page)
        for remark in page.remarks:
            state.warn(remark)
        if page.total is not None:
            state.total = max(page.total, state.total or 0)
        state.next_url = page.next_url and self._absolute(page.next_url, url, resource_type)
        self._run.store_page(resource_type, state, page.resources, answer.received_at)
        if state.barren > BARREN_PAGES:
            self._run.begin_scan(resource_type, state)
            raise SourceIncomplete(
                f"source '{self._name}': the last {BARREN_PAGES} pages of {resource_type} brought nothing new and "
                "link on without end: tell those who run the server"
            )
        return True

    def _absolute(self, link: str, page_url: str, resource_type: str) -> str:
        """A link as it came, made absolute: servers give it whole, from the root of the host, or from the base URL."""
        if re.match(rf"/?{resource_type}([/?]|$)", link):
            return f"{self._base}/{link.lstrip('/')}"
        try:
            return urljoin(page_url, link)
        except ValueError:
            raise SourceNotFhir(
                f"source '{self._name}': a page of {resource_type} links on to what is no address: "
                "tell those who run the server"
            ) from None


def _notice_full_read(state: TypeState, page: Searchset) -> None:
    # A server says in the self link which parameters it honoured: https://hl7.org/fhir/R4/search.html#conformance
    if "_lastUpdated" not in state.request or page.self_url is None:
        return
    if "_lastUpdated" not in parse_qs(urlsplit(page.self_url).query):
        state.warn("the server ignored _lastUpdated, so everything was read again")
        state.since = None
