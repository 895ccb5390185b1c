"""Which resources does a server hold that changed since the last pull? In: a source of kind `search` and what earlier
runs saw of it. Out: for each resource type every page of what changed, landed page by page: by the history of the type
where the server has one, else by searches on meta.lastUpdated, one for each patient and category where the server wants
that. Paging is not to be trusted (offsets shift when resources change meanwhile), so a search is repeated until it gave
as many different ids as the server says that there are, and cut into windows when it never does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from fhir_features.config import ResourceType, Source
from fhir_features.errors import SourceIncomplete, SourceNotFhir, SourceUnreachable, UsageError
from fhir_features.sources.ahead import Ahead
from fhir_features.sources.asking import bounds, count_url, first_url, in_utc, notice_what_was_ignored, url_of
from fhir_features.sources.checkpoint import OpenRun, TypeState
from fhir_features.sources.client import Client
from fhir_features.sources.history import history_page, is_history
from fhir_features.sources.landing import LandedRun, LandedType
from fhir_features.sources.links import next_page
from fhir_features.sources.patients import site_patients
from fhir_features.sources.progress import Progress
from fhir_features.sources.searchset import Page, searchset
from fhir_features.sources.transport import Answer
from fhir_features.sources.windows import cuts
from fhir_features.times import UTC, duration_us

SCANS = 3
BARREN_PAGES = 100
_OF_PATIENT = {"_id", "patient"}


def land_search(
    name: str,
    source: Source,
    run: OpenRun,
    earlier: Sequence[LandedRun],
    progress: Progress,
    *,
    elements: str | None = None,
) -> dict[str, LandedType]:
    """Land what each of the source's types has had since the `earlier` runs of the same server (in their order), less
    the source's overlap, or all of a type that is in none. Where `elements` are named, no others are asked for.

    Raises SourceUnreachable, SourceRefused, SourceNotFhir, SourceIncomplete, ConfigError for a secret that is not
    there, and UsageError when searches go patient by patient and none is known.
    """
    with Client(name, source) as client, closing(Ahead(client, source.connections)) as ahead:
        search = _Search(name, source, run, earlier, client, ahead, progress, elements)
        # Patients come first: other types may be asked for patient by patient.
        types = sorted(source.resource_types, key=lambda resource_type: resource_type != "Patient")
        landed = {resource_type: search.land(resource_type) for resource_type in types}
        return {resource_type: landed[resource_type] for resource_type in source.resource_types}


class _Search:
    def __init__(
        self,
        name: str,
        source: Source,
        run: OpenRun,
        earlier: Sequence[LandedRun],
        client: Client,
        ahead: Ahead,
        progress: Progress,
        elements: str | None,
    ) -> None:
        assert source.base_url is not None
        self._name = name
        self._source = source
        self._base = source.base_url.rstrip("/")
        self._run = run
        self._last_runs = {
            resource_type: past
            for past in earlier
            for resource_type in source.resource_types
            if resource_type in past.types and self._covers(resource_type, past.types[resource_type])
        }
        self._client = client
        self._ahead = ahead
        self._progress = progress
        self._elements = elements

    def land(self, resource_type: ResourceType) -> LandedType:
        parts = self._parts(resource_type)
        states = [self._read(part) for part in parts]
        return LandedType(
            request=states[0].request | self._split(resource_type),
            since=states[0].since,
            watermark=min(state.watermark for state in states if state.watermark),
            complete=all(state.complete for state in states),
            history=states[0].history,
            entries=sum(state.entries for state in states),
            pages=sum(state.pages for state in states),
            warnings=tuple(dict.fromkeys(warning for state in states for warning in state.warnings)),
        )

    def _split(self, resource_type: ResourceType) -> dict[str, str]:
        """How the searches for a type are narrowed, for the record."""
        categories = ",".join(self._source.categories.get(resource_type, ()))
        of_patients = {"patient": "each"} if resource_type in self._source.per_patient else {}
        return of_patients | ({"category": categories} if categories else {})

    def _covers(self, resource_type: ResourceType, before: LandedType) -> bool:
        """Whether an earlier run asked for all that is asked for now; else only a new reading can be whole."""
        categories = set(self._source.categories.get(resource_type, ()))
        asked = set(before.request["category"].split(",")) if "category" in before.request else None
        of_patients = "patient" not in before.request or resource_type in self._source.per_patient
        return of_patients and (asked is None or (bool(categories) and categories <= asked))

    def _parts(self, resource_type: ResourceType) -> list[_Part]:
        """What is to be read of a type: what has changed, and all of patients who were not asked about before."""
        changed = self._changed(resource_type)
        categories = self._source.categories.get(resource_type) or (None,)
        if resource_type not in self._source.per_patient:
            return [_Part(changed, (None,), categories)]
        count, known = self._patients()
        if changed.since is None:
            return [_Part(changed, range(1, count + 1), categories)]
        backfill = TypeState(resource_type, self._request(), since=None, backfill=True)
        parts = [(changed, range(1, known + 1)), (backfill, range(known + 1, count + 1))]
        return [_Part(new, patients, categories) for new, patients in parts if patients]

    def _changed(self, resource_type: ResourceType) -> TypeState:
        if resource_type not in self._last_runs or not self._source.last_updated:
            return TypeState(resource_type, self._request(), since=None)
        overlap = dt.timedelta(microseconds=duration_us(self._source.overlap))
        seen = self._last_runs[resource_type].types[resource_type].watermark
        since = (seen - overlap).replace(microsecond=0)
        split = resource_type in self._source.per_patient or resource_type in self._source.categories
        if self._source.history and not split:
            return TypeState(resource_type, self._request() | {"_since": in_utc(since)}, since, history=True)
        return TypeState(resource_type, self._request() | {"_lastUpdated": f"ge{in_utc(since)}"}, since)

    def _request(self) -> dict[str, str]:
        request = {"_count": str(self._source.page_size)}
        # https://hl7.org/fhir/R4/search.html#elements: a server may give more than is asked for.
        elements = {"_elements": self._elements} if self._elements else {}
        return request | elements | ({"_total": "accurate"} if self._source.accurate_total else {})

    def _patients(self) -> tuple[int, int]:
        """How many patients there are to ask about, and how many of them, the first ones, were asked about before."""
        if not self._run.count_patients()[0]:
            seen = [self._last_runs[each] for each in self._source.resource_types if each in self._last_runs]
            before = min(seen, key=lambda past: past.run_id, default=None)
            self._run.set_patients(site_patients(self._source.site, self._run, before))
        count, known = self._run.count_patients()
        if not count:
            raise UsageError(
                f"source '{self._name}' is searched patient by patient, and no patient of site '{self._source.site}' "
                "has landed: pull them first from another source of this site (an export, or a file of Patients)"
            )
        return count, known

    def _read(self, part: _Part) -> TypeState:
        state = self._run.type_state(part.new)
        searches = len(part.patients) * len(part.categories)
        while state.done < searches:
            next_ones = range(state.done, min(state.done + self._source.connections, searches))
            narrowed = [self._only(state.resource_type, part, number) for number in next_ones]
            has_begun = state.scan_pages > 0 or bool(state.cuts)
            self._ahead.expect([url_of(self._base, state, each) for each in narrowed[has_begun:]])
            self._read_search(state, narrowed[0], searches)
            self._run.next_search(state)
        if state.unknown == searches:
            raise SourceNotFhir(
                f"source '{self._name}': the server knows none of the {len(part.patients)} patients that it was asked "
                f"about for {state.resource_type}: see that 'base_url' and 'site' belong together"
            )
        if not state.complete:
            self._run.finish_type(state)
        return state

    def _only(self, resource_type: str, part: _Part, number: int) -> dict[str, str]:
        """What narrows one of the searches that a type takes, by its number from 0."""
        of_patients, of_categories = divmod(number, len(part.categories))
        patient, category = part.patients[of_patients], part.categories[of_categories]
        parameter = "_id" if resource_type == "Patient" else "patient"
        of_patient = {parameter: self._run.patient(patient)} if patient else {}
        return of_patient | ({"category": category} if category else {})

    def _read_search(self, state: TypeState, only: Mapping[str, str], searches: int) -> None:
        """Read one search to its end, or, when that cannot be, window by window of meta.lastUpdated."""
        if not state.cuts:
            most = self._scan_until_whole(state, only, searches)
            if most is None:
                return
            if self._source.last_updated and not state.history and state.watermark:
                state.cuts = cuts(partial(self._count, state, only), state.since, state.watermark, most // 2)
            if not state.cuts:
                raise self._incomplete(state)
            self._run.begin_scan(state)
        # A resource that changes meanwhile moves to a later window, the last of which is open, so none is passed by.
        while self._scan_until_whole(state, only, searches) is None:
            if state.window < len(state.cuts):
                self._run.next_window(state)
            elif state.counted + state.ids >= (self._count(state, only, state.since, None) or 0):
                return
            else:
                break
        raise self._incomplete(state)

    def _incomplete(self, state: TypeState) -> SourceIncomplete:
        return SourceIncomplete(
            f"source '{self._name}': {SCANS} searches for {state.resource_type} gave fewer resources than the server "
            "counts, or broke off: pull again when less is written there"
        )

    def _scan_until_whole(self, state: TypeState, only: Mapping[str, str], searches: int) -> int | None:
        """Nothing when a scan gave all; else how many resources the best of several scans gave."""
        most, ids_before = 0, None
        for scan in range(1, SCANS + 1):
            if self._scan(state, only, searches):
                return None
            if state.next_url is None and state.ids == ids_before and self._is_overcounted(state, only):
                state.warn(
                    f"the server says more {state.resource_type} than it has: searches were read twice to be sure"
                )
                return None
            if scan == SCANS and state.total is None and state.next_url is None:
                state.warn(
                    f"the server does not count its {state.resource_type}, and each reading brought others: it was "
                    "written to meanwhile, or passes some by"
                )
                return None
            if scan == SCANS and state.next_url is None and state.history:
                # HAPI, asked for pages of a history, may give the first alone: hapifhir/hapi-fhir#2114.
                self._search_instead(state, f"the history of {state.resource_type} has less than the server counts")
                self._run.begin_scan(state)
                return self._scan_until_whole(state, only, searches)
            most, ids_before = max(most, state.ids), state.ids
            self._run.begin_scan(state)
        return most

    def _scan(self, state: TypeState, only: Mapping[str, str], searches: int) -> bool:
        """Read on to the last page; whether the scan gave every id that the server counted at any time of it, or, where
        it does not count, nothing that earlier scans had not given."""
        while state.next_url is not None or not state.scan_pages:
            if not self._land_page(state, only):
                return False
            done = (state.ids, state.total) if searches == 1 else (state.done, searches)
            self._progress(self._name, state.resource_type, *done)
        # A single page may be cut off; one that is empty is not, nor need a short one be of one patient of many.
        is_all = state.scan_pages == 1 and state.ids < (self._source.page_size if searches > 1 else 1)
        if state.total is None and not state.history and not is_all:
            state.total = self._count(state, only, *bounds(state))
            if state.total is None and state.scan_pages > 1:
                return state.lines == state.lines_before
        return state.total is None or state.ids >= state.total

    def _land_page(self, state: TypeState, only: Mapping[str, str]) -> bool:
        """Land one page; False when the server does not know its link any more."""
        url = state.next_url or first_url(self._base, state, only)
        try:
            asked_at, answer = self._ahead.get(url)
        except SourceUnreachable:
            if state.next_url is None or not self._has_come_whole(state, only):
                raise
            state.warn(f"the last link of a search for {state.resource_type} does not answer")
            state.next_url = None
            self._run.store_page(state, [], dt.datetime.now(UTC))
            return True
        if state.next_url is not None and answer.status in (400, 404, 410):
            return False
        if state.next_url is None and self._asks_for_less(state, answer):
            return self._land_page(state, only)
        if only.keys() & _OF_PATIENT and answer.status in (404, 410):
            self._skip_patient(state, answer)
            return True
        page = self._page(state, answer)
        if state.watermark is None:
            state.watermark = min(asked_at, answer.date or asked_at)
        if not state.scan_pages:
            notice_what_was_ignored(state, page, only)
        for remark in page.remarks:
            state.warn(remark)
        state.last_total = page.total
        if page.beyond:
            state.total = None
        elif page.total is not None and not (state.history and state.scan_pages):
            # What is added to a history while it is read comes before what was there, on pages that are read already.
            state.total = max(page.total, state.total or 0)
        state.next_url = page.next_url and next_page(self._name, self._source, state.resource_type, page.next_url, url)
        self._run.store_page(state, page.resources, answer.received_at)
        if state.barren > BARREN_PAGES:
            self._run.begin_scan(state)
            raise SourceIncomplete(
                f"source '{self._name}': the last {BARREN_PAGES} pages of {state.resource_type} brought nothing new "
                "and link on without end: tell those who run the server"
            )
        return True

    def _has_come_whole(self, state: TypeState, only: Mapping[str, str]) -> bool:
        """Whether a scan gave as many resources as the server counts now."""
        count = None if state.history else self._count(state, only, *bounds(state))
        return count is not None and state.ids >= count

    def _is_overcounted(self, state: TypeState, only: Mapping[str, str]) -> bool:
        """Whether a scan that gave what the one before it gave has all there is, though the server said more: with its
        last page, or when it is asked to count, it says how many there are indeed."""
        if state.total is None or state.lines > state.lines_before:
            return False
        return state.ids >= (state.last_total or state.total) or self._has_come_whole(state, only)

    def _count(
        self, state: TypeState, only: Mapping[str, str], begin: dt.datetime | None, end: dt.datetime | None
    ) -> int | None:
        try:
            answer = self._client.get(count_url(self._base, state, only, begin, end))
            return searchset(self._name, state.resource_type, answer).total if answer.status == 200 else None
        except (SourceUnreachable, SourceNotFhir):
            return None  # Some fail where counting takes too long.

    def _asks_for_less(self, state: TypeState, answer: Answer) -> bool:
        """Whether the server refuses to say what has changed in the way that it was asked, and is now asked another."""
        if state.history and answer.status != 401 and not is_history(answer):
            self._search_instead(state, f"the server gives no history of {state.resource_type}")
            return True
        if "_lastUpdated" in state.request and answer.status == 400:
            state.warn("the server refuses _lastUpdated, so everything was read again")
            del state.request["_lastUpdated"]
            state.since = None
            return True
        if "_elements" in state.request and answer.status == 400:
            del state.request["_elements"]
            return True
        return False

    def _search_instead(self, state: TypeState, why: str) -> None:
        """Ask for what has changed by a search, and no more by the history."""
        state.warn(f"{why}: set history = false to search at once")
        state.history = False
        state.request["_lastUpdated"] = f"ge{state.request.pop('_since')}"

    def _skip_patient(self, state: TypeState, answer: Answer) -> None:
        # Merged or deleted since they landed; versions of their resources that are held stay as they are.
        state.warn("the server does not know every patient that it was asked about")
        state.unknown += 1
        self._run.store_page(state, [], answer.received_at)

    def _page(self, state: TypeState, answer: Answer) -> Page:
        if state.history and state.since:
            return history_page(self._name, state.resource_type, answer, state.since)
        return searchset(self._name, state.resource_type, answer)


@dataclass(frozen=True)
class _Part:
    """What is read of a type: from where on, unless a run that is continued is further; and the numbers of the patients
    and the categories that are searched one by one. None is all of them in one."""

    new: TypeState
    patients: Sequence[int | None]
    categories: Sequence[str | None]
