"""In which words is a server asked for what it has? In: how far a type has been read, and what narrows its search. Out:
the addresses to ask at, and from the first answer which of the words the server did not heed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from urllib.parse import parse_qs, urlencode, urlsplit

from fhir_features.sources.checkpoint import TypeState
from fhir_features.sources.searchset import Page
from fhir_features.times import UTC


def first_url(base: str, state: TypeState, only: Mapping[str, str]) -> str:
    """The first page of the search, or of the window of it, that is being read."""
    if not state.cuts:
        return url_of(base, state, only)
    asked = {**only, **state.request}
    asked.pop("_lastUpdated", None)
    return f"{base}/{state.resource_type}?{urlencode([*asked.items(), *_updated(*bounds(state))], safe=':')}"


def url_of(base: str, state: TypeState, only: Mapping[str, str]) -> str:
    """The first page of a search that is not read in windows."""
    place = f"{state.resource_type}/_history" if state.history else state.resource_type
    return f"{base}/{place}?{urlencode({**only, **state.request}, safe=':')}"


def count_url(
    base: str, state: TypeState, only: Mapping[str, str], begin: dt.datetime | None, end: dt.datetime | None
) -> str:
    """Where a server says how many resources of a search were last updated in [begin, end)."""
    # https://hl7.org/fhir/R4/search.html#summary: the total alone.
    asked = [*only.items(), ("_summary", "count"), *_updated(begin, end)]
    return f"{base}/{state.resource_type}?{urlencode(asked, safe=':')}"


def bounds(state: TypeState) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Between which instants the resources were last updated that a scan reads."""
    instants = [state.since, *state.cuts, None]
    return instants[state.window], instants[state.window + 1]


def in_utc(instant: dt.datetime) -> str:
    """An instant as a parameter."""
    # As Z, because servers have been seen that compare instants as text.
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def notice_what_was_ignored(state: TypeState, page: Page, only: Mapping[str, str]) -> None:
    """Keep a warning for each parameter that the server ignored."""
    # A server says in the self link which parameters it honoured: https://hl7.org/fhir/R4/search.html#conformance
    if page.self_url is None:
        return
    honoured = parse_qs(urlsplit(page.self_url).query)
    if "_lastUpdated" in state.request and "_lastUpdated" not in honoured:
        state.warn("the server ignored _lastUpdated, so everything was read again")
        state.since = None
    for parameter in sorted(only.keys() - honoured.keys()):
        state.warn(f"the server ignored {parameter}, so each search for it gave everything")


def _updated(begin: dt.datetime | None, end: dt.datetime | None) -> list[tuple[str, str]]:
    parts = [("ge", begin), ("lt", end)]
    return [("_lastUpdated", f"{prefix}{in_utc(bound)}") for prefix, bound in parts if bound]
