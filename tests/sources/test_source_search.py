"""A search brings everything that the server has, verbatim and once, or says in one line why it could not."""

from __future__ import annotations

import datetime as dt
import fcntl
import gzip
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from email.utils import format_datetime

import pytest
from fhir_server import Reply, Request, resource

from fhir_features.config import Config
from fhir_features.errors import (
    ConfigError,
    LakeLocked,
    SourceIncomplete,
    SourceNotFhir,
    SourceRefused,
    SourceUnreachable,
)
from fhir_features.sources import LandedRun, checkpoint, landed_runs, pull, read_lines, search, transport, verify_run


def runs(config: Config) -> list[LandedRun]:
    return landed_runs(config.warehouse.path / "landing")


def pulled(config: Config) -> LandedRun:
    pull(config)
    verify_run(runs(config)[-1])
    return runs(config)[-1]


def landed(run: LandedRun) -> list[dict]:
    return [json.loads(line) for file in run.files for _, _, line in read_lines(run.folder, file)]


def by_id(resources: list[dict]) -> list[dict]:
    return sorted(resources, key=lambda each: each["id"])


def patients(count: int) -> list[dict]:
    return [resource("Patient", number) for number in range(count)]


def outcome(severity: str, code: str) -> dict:
    issue = {"severity": severity, "code": code, "diagnostics": "Jane Doe"}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def body(**fields: object) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": "searchset", **fields}).encode()


# What is landed


def test_all_pages_of_all_types_are_landed_in_the_order_received(server, searching):
    server.resources = patients(35) + [resource("Condition", number) for number in range(5)]
    run = pulled(searching(types='"Patient", "Condition", "Encounter"'))
    assert landed(run) == server.resources
    assert [(of.entries, of.pages, of.since, of.complete) for of in run.types.values()] == [
        (35, 4, None, True),
        (5, 1, None, True),
        (0, 1, None, True),
    ]
    assert run.types["Patient"].request == {"_count": "10"}
    assert [(file.name, file.resource_type, file.lines) for file in run.files] == [
        ("Patient-0001.ndjson.zst", "Patient", 35),
        ("Condition-0001.ndjson.zst", "Condition", 5),
    ]


def test_a_line_holds_the_bytes_received_with_newlines_between_tokens_as_spaces(server, searching):
    received = b'{ "resourceType":"Patient",\r\n\t"id": "p\\u00e91",\n "x": 1.50, "x": 1e2, "y": "\xc3\xa9\\n" }'
    server.scripted = lambda _: Reply(body=b'{"resourceType":"Bundle","entry":[{"resource":\n' + received + b"}]}")
    run = pulled(searching())
    ((number, _, line),) = read_lines(run.folder, run.files[0])
    assert (number, line) == (1, received.replace(b"\r", b" ").replace(b"\n", b" "))


def test_each_page_keeps_its_time_of_receipt(server, searching, monkeypatch):
    monkeypatch.setattr(checkpoint, "RECEIPT_LASTS", dt.timedelta(0))
    server.resources = patients(25)
    run = pulled(searching())
    receipts = run.files[0].receipts
    assert [receipt.first_line for receipt in receipts] == [1, 11, 21]
    times = [receipt.received_at for receipt in receipts]
    assert sorted(set(times)) == times
    assert run.started_at < times[0] and times[-1] < run.finished_at
    assert [at for _, at, _ in read_lines(run.folder, run.files[0])] == [times[0]] * 10 + [times[1]] * 10 + [
        times[2]
    ] * 5


def test_pages_that_come_within_a_second_share_the_receipt_of_the_last(server, searching, monkeypatch):
    monkeypatch.setattr(checkpoint, "RECEIPT_LASTS", dt.timedelta(hours=1))
    server.resources = patients(45)
    came: list[dt.datetime] = []
    server.after_page = lambda count: came.append(dt.datetime.now(dt.UTC))
    (receipt,) = pulled(searching()).files[0].receipts
    assert receipt.first_line == 1
    assert came[3] < receipt.received_at


def test_included_resources_are_left_out_and_remarks_are_warnings_without_their_text(server, searching):
    server.scripted = lambda _: Reply(
        body=body(
            total=2,
            entry=[
                {"resource": resource("Patient", 1), "search": {"mode": "match"}},
                {"resource": resource("Patient", 2)},
                {"resource": resource("Organization", 1), "search": {"mode": "include"}},
                {"resource": outcome("warning", "suppressed"), "search": {"mode": "outcome"}},
                {"fullUrl": "urn:nothing"},
            ],
        )
    )
    run = pulled(searching())
    assert landed(run) == [resource("Patient", 1), resource("Patient", 2)]
    (warning,) = run.types["Patient"].warnings
    assert "warning suppressed" in warning
    assert "Jane" not in warning


def test_a_resource_without_an_id_or_with_a_wrong_one_is_landed_too(server, searching):
    odd = [{"resourceType": "Patient"}, {"resourceType": "Patient", "id": 7}, {"id": "a"}, [1], "text", 5]
    server.scripted = lambda _: Reply(body=body(entry=[{"resource": each} for each in odd]))
    assert landed(pulled(searching())) == odd


NOT_QUITE_JSON = {
    "a raw tab in a string": b'{"resourceType":"Patient","id":"odd","gender":"fe\tmale"}',
    "not a number": b'{"resourceType":"Patient","id":"odd","value":NaN}',
    "no escape of JSON": rb'{"resourceType":"Patient","id":"odd","text":"C:\x, [\" {"}',
    "nested beyond reading": b'{"resourceType":"Patient","id":"odd","text":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("odd", NOT_QUITE_JSON.values(), ids=NOT_QUITE_JSON)
def test_a_resource_that_is_no_json_does_not_take_its_page_with_it(server, searching, odd, history):
    server.history = []
    config = searching()
    if history:
        server.resources = [resource("Patient", 1)]
        server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
        pull(config)
    good = resource("Patient", 2, updated="2026-03-02T11:00:00Z")
    page = body(type="history" if history else "searchset", total="2", entry=[{"resource": good}, {"resource": "ODD"}])
    server.scripted = lambda _: Reply(body=page.replace(b'"ODD"', odd))
    run = pulled(config)
    (file,) = run.files
    assert [line for _, _, line in read_lines(run.folder, file)] == [json.dumps(good).encode(), odd]


@pytest.mark.parametrize(
    "oddity",
    [{"total": "1"}, {"total": [1]}, {"link": [{"relation": 7}]}, {"entry": [None]}, {"entry": [{"search": 1}]}],
    ids=str,
)
def test_what_servers_get_wrong_around_resources_does_no_harm(server, searching, oddity):
    entry = [{"resource": resource("Patient", 1)}, *oddity.pop("entry", [])]
    server.scripted = lambda _: Reply(body=body(entry=entry, **oddity))
    assert landed(pulled(searching())) == [resource("Patient", 1)]


def test_two_contents_under_one_version_are_both_kept_and_the_same_one_once(server, searching):
    first, second = resource("Patient", 1), resource("Patient", 1) | {"active": True}
    server.scripted = lambda _: Reply(body=body(entry=[{"resource": each} for each in (first, second, first)]))
    run = pulled(searching())
    assert landed(run) == [first, second]
    assert run.types["Patient"].entries == 3


# Incremental


def test_the_next_pull_asks_for_what_changed_since_the_watermark_less_the_overlap(server, searching):
    server.resources = patients(3)
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    config = searching('overlap = "10min"')
    first = pulled(config)
    assert first.types["Patient"].watermark == dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)

    server.update(changed := resource("Patient", 1, version=2, updated="2026-03-02T10:30:00.000Z"))
    second = pulled(config)

    assert server.requests[-1].parameters == {"_count": "10", "_lastUpdated": "ge2026-03-02T09:50:00Z"}
    assert landed(second) == [changed]
    assert second.types["Patient"].since == dt.datetime(2026, 3, 2, 9, 50, tzinfo=dt.UTC)


@pytest.mark.parametrize("date", ["Fri, 01 Jan 2100 00:00:00 GMT", "no date"])
def test_the_watermark_is_never_later_than_our_own_kick_off(server, searching, date):
    server.date = date
    server.resources = [resource("Patient", 1, updated="2100-01-01T00:00:00.000Z")]
    before = dt.datetime.now(dt.UTC)
    run = pulled(searching())
    assert before <= run.types["Patient"].watermark <= run.finished_at


@pytest.mark.parametrize("settings", [(), ('per_patient = ["Patient"]', "connections = 1")])
def test_the_watermark_is_that_of_the_first_page_of_the_first_search(server, searching, settings):
    server.resources = patients(35)
    if settings:
        pulled(searching())
    server.requests.clear()
    server.scripted = lambda _: setattr(server, "date", f"Mon, 02 Mar 2026 10:{len(server.requests):02}:00 GMT")
    run = pulled(searching("history = false", *settings))
    assert len(server.requests) > 3
    assert run.types["Patient"].watermark == dt.datetime(2026, 3, 2, 10, 1, tzinfo=dt.UTC)


def test_a_server_that_ignores_last_updated_is_read_fully_and_this_is_said(server, searching):
    server.resources = patients(12)
    server.kept_parameters = lambda parameters: {k: v for k, v in parameters.items() if k != "_lastUpdated"}
    config = searching()
    pulled(config)
    run = pulled(config)
    assert run.types["Patient"].entries == 12
    assert run.types["Patient"].since is None
    assert "ignored _lastUpdated" in run.types["Patient"].warnings[-1]


def test_what_was_seen_at_another_address_does_not_count(server, searching):
    server.resources = patients(3)
    pulled(searching())
    run = pulled(searching(base_url=f"{server.root}/other"))
    assert run.types["Patient"].since is None
    assert len(landed(run)) == 3


def test_no_patient_at_all_in_a_first_pull_is_said_and_in_a_later_one_it_is_not(server, searching):
    config = searching()
    (first,) = pull(config)
    (second,) = pull(config)
    assert "no Patient" in first.warnings[0]
    assert second.warnings == ()


# Paging


@pytest.mark.parametrize(
    "link",
    [
        lambda server: lambda target: f"{server.root}{target}",
        lambda server: lambda target: target,
        lambda server: lambda target: target.removeprefix("/fhir/r4/"),
        lambda server: lambda target: target.removeprefix("/fhir/r4"),
        lambda server: lambda target: "?" + target.partition("?")[2],
    ],
    ids=["absolute", "from the host", "from the base", "from the base with a slash", "query only"],
)
def test_next_links_of_every_form_are_followed(server, searching, link):
    server.resources = patients(25)
    server.link = link(server)
    assert landed(pulled(searching())) == server.resources


def test_a_next_link_is_asked_for_as_it_came(server, searching):
    opaque = f"/fhir/r4?_getpages=a%2Cb+c~d/e%7Cf&x={'y' * 3000}&_lastUpdated=ge2026-01-01T00:00:00+01:00"
    first = body(entry=[{"resource": resource("Patient", 1)}], link=[{"relation": "next", "url": opaque}])
    replies = iter([Reply(body=first), Reply(body=body(total=1))])
    server.scripted = lambda _: next(replies)
    pulled(searching())
    assert server.requests[1].target == opaque


def test_resources_that_move_while_they_are_paged_are_not_missed(server, searching):
    """With paging by offset, 10 updates of what was read already push 10 unread ones onto pages already read."""
    server.resources = patients(60)

    def update_ten_once(count: int) -> None:
        if count == 2:
            for number in range(10):
                server.update(resource("Patient", number, version=2))

    server.after_page = update_ten_once
    run = pulled(searching())
    assert {each["id"] for each in landed(run)} == {each["id"] for each in patients(60)}
    assert len(landed(run)) == 70
    assert run.types["Patient"].entries > 70


def test_resources_that_are_deleted_while_they_are_paged_hide_no_living_one(server, searching):
    server.resources = patients(60)

    def delete_ten_once(count: int) -> None:
        if count == 2:
            server.resources = server.resources[10:]

    server.after_page = delete_ten_once
    assert {each["id"] for each in landed(pulled(searching()))} == {each["id"] for each in patients(60)}


def test_resources_that_are_deleted_in_one_search_after_the_other_hide_no_living_one(server, searching):
    """The same ten are passed by twice, and the last page counts no more than came."""
    server.resources = patients(60)

    def delete_ten_twice(count: int) -> None:
        if count in (2, 6):
            server.resources = server.resources[10:]

    server.after_page = delete_ten_twice
    ids = {each["id"] for each in landed(pulled(searching()))}
    assert len(server.resources) == 40
    assert ids >= {each["id"] for each in server.resources}


def test_resources_that_are_added_while_they_are_paged_need_no_second_search(server, searching):
    server.resources = patients(30)
    server.after_page = lambda count: server.update(resource("Patient", 100 + count)) if count < 3 else None
    run = pulled(searching())
    assert len(landed(run)) == 32
    assert len(server.requests) == 4


def test_a_server_that_is_never_still_is_said_to_be_incomplete(server, searching):
    server.resources = patients(30)
    server.after_page = lambda count: server.update(server.resources[0] | {"active": count % 2 == 0})
    config = searching()
    with pytest.raises(SourceIncomplete, match="source 'ward': 3 searches for Patient"):
        pull(config)
    assert runs(config) == []
    server.after_page = lambda count: None
    assert {each["id"] for each in landed(pulled(config))} == {each["id"] for each in patients(30)}


def test_a_server_that_does_not_count_by_itself_is_asked_to(server, searching):
    server.resources = patients(25)
    server.total = False
    assert landed(pulled(searching())) == server.resources
    assert [request.parameters.get("_summary") for request in server.requests] == [None, None, None, "count"]


@pytest.mark.parametrize(("written_meanwhile", "warned"), [(1, 0), (5, 1)])
def test_where_a_server_cannot_count_it_is_read_again_until_nothing_new_comes(
    server, searching, written_meanwhile, warned
):
    server.resources = patients(25)
    server.total = False
    counting = (Reply(status=400), Reply(body=body()))[written_meanwhile == 1]
    server.scripted = lambda request: counting if "_summary" in request.parameters else None

    def write(requests: int) -> None:
        """Each scan, a resource moves to the end of the order, so that another one is passed by."""
        if requests % 4 == 1 and requests < 4 * written_meanwhile:
            server.update(resource("Patient", requests % 10, version=requests + 1))

    server.after_page = write
    run = pulled(searching())
    assert {each["id"] for each in landed(run)} >= {each["id"] for each in patients(25)}
    assert len(run.types["Patient"].warnings) == warned
    assert run.types["Patient"].pages <= 9


@pytest.mark.parametrize("exact", ["last page", "count"])
def test_a_total_that_is_an_estimate_keeps_nothing_from_being_whole(server, searching, exact):
    """As of a server whose total is one until the last page."""
    # https://cloud.google.com/healthcare-api/docs/how-tos/best-practices-fhir-search
    server.resources = patients(25)

    def estimated(request: Request) -> Reply | None:
        bundle = json.loads(server.bundle(request))
        is_exact = "_summary" in request.parameters if exact == "count" else "_offset=20" in request.target
        return None if is_exact else Reply(body=json.dumps(bundle | {"total": 40}).encode())

    server.scripted = estimated
    run = pulled(searching())
    assert landed(run) == server.resources
    assert run.types["Patient"].warnings == (
        "the server says more Patient than it has: searches were read twice to be sure",
    )
    assert run.types["Patient"].pages == 6


def test_an_estimate_is_not_contradicted_by_a_reading_that_brings_others(server, searching):
    held = patients(25)
    # Three readings of two pages, each of which passes one by: not the same one.
    readings = iter([held[:12], held[12:24], *[held[1:13], held[13:]] * 2])

    def answer(request: Request) -> Reply:
        entry = [{"resource": each} for each in next(readings)]
        if "page" in request.parameters:
            return Reply(body=body(total=24, entry=entry))
        return Reply(body=body(total=26, entry=entry, link=[{"relation": "next", "url": "Patient?page=2"}]))

    server.scripted = answer
    assert by_id(landed(pulled(searching()))) == by_id(held)
    assert len(server.requests) == 6


@pytest.mark.parametrize("counted", [26, None])
def test_a_total_that_nothing_contradicts_is_believed(server, searching, counted):
    server.resources = patients(25)

    def estimated(request: Request) -> Reply | None:
        if "_summary" in request.parameters:
            return Reply(body=body(total=counted)) if counted else Reply(status=400)
        return Reply(body=json.dumps(json.loads(server.bundle(request)) | {"total": 26}).encode())

    server.scripted = estimated
    with pytest.raises(SourceIncomplete, match="gave fewer resources than the server counts"):
        pull(searching())


def without_links(server) -> Callable[[Request], Reply | None]:
    """A server that neither links on nor counts unasked."""
    # https://github.com/hapifhir/hapi-fhir/issues/4027, https://github.com/hapifhir/hapi-fhir/issues/6549

    def answer(request: Request) -> Reply | None:
        if "_summary" in request.parameters:
            return None
        bundle = json.loads(server.bundle(request))
        return Reply(body=json.dumps({**bundle, "link": bundle["link"][:1], "total": None}).encode())

    return answer


@pytest.mark.parametrize("page_size", [10, 25])
def test_one_page_without_a_link_is_all_only_if_the_server_counts_no_more(server, searching, page_size):
    """Also where the server gives smaller pages than were asked for."""
    server.resources = [
        resource("Patient", number, updated=f"2026-01-{number + 1:02}T00:00:00.000Z") for number in range(25)
    ]
    server.kept_parameters = lambda parameters: parameters | {"_count": "10"}
    server.scripted = without_links(server)
    assert by_id(landed(pulled(searching(page_size=page_size)))) == by_id(server.resources)


def test_one_page_is_taken_for_all_where_the_server_cannot_count(server, searching):
    server.resources = patients(10)
    server.total = False
    server.scripted = lambda request: Reply(status=400) if "_summary" in request.parameters else None
    assert landed(pulled(searching())) == server.resources
    assert len(server.requests) == 2


def test_where_nothing_is_one_request_is_enough_though_the_server_does_not_count(server, searching):
    server.resources = []
    server.total = False
    assert landed(pulled(searching())) == []
    assert len(server.requests) == 1


def test_of_many_small_searches_only_those_that_fill_a_page_are_counted(server, searching):
    server.resources = [*patients(2)] + [
        resource("Observation", n) | {"subject": {"reference": f"Patient/patient-{n // 10}"}} for n in range(19)
    ]
    server.total = False
    pulled(searching('per_patient = ["Observation"]', "connections = 1", types='"Patient", "Observation"'))
    counted = [request.parameters.get("patient") for request in server.requests if "_summary" in request.parameters]
    assert counted == [None, "patient-0"]


def test_smaller_pages_than_asked_for_are_read_to_the_end(server, searching):
    server.resources = patients(25)
    server.kept_parameters = lambda parameters: parameters | {"_count": "4"}
    run = pulled(searching())
    assert (landed(run), run.types["Patient"].pages) == (server.resources, 7)


def test_empty_pages_that_link_on_are_followed(server, searching):
    server.resources = patients(5)
    empty = Reply(body=body(link=[{"relation": "next", "url": f"{server.base}/Patient?_count=10"}]))
    replies = iter([empty])
    server.scripted = lambda _: next(replies, None)
    assert landed(pulled(searching())) == server.resources


def test_links_that_go_in_a_circle_come_to_an_end(server, searching, monkeypatch):
    monkeypatch.setattr(search, "BARREN_PAGES", 5)
    link = [{"relation": "next", "url": f"{server.base}/Patient?page=1"}]
    server.scripted = lambda _: Reply(body=body(entry=[{"resource": resource("Patient", 1)}], link=link))
    config = searching()
    with pytest.raises(SourceIncomplete, match="link on without end"):
        pull(config)
    assert len(server.requests) == 7
    server.scripted = lambda _: None
    server.resources = patients(2)
    assert {each["id"] for each in landed(pulled(config))} == {"patient-0", "patient-1"}


@pytest.mark.parametrize(("written_meanwhile", "whole"), [(0, True), (1, False)])
def test_a_link_that_never_answers_is_the_end_only_if_the_server_counts_no_more(
    server, searching, written_meanwhile, whole
):
    server.resources = patients(25)
    beyond = {"relation": "next", "url": f"{server.base}/Patient?_count=10&_offset=30"}

    def answer(request: Request) -> Reply | None:
        offset = request.parameters.get("_offset")
        if offset == "20":
            bundle = json.loads(server.bundle(request))
            server.resources = patients(25 + written_meanwhile)
            return Reply(body=json.dumps(bundle | {"link": [beyond]}).encode())
        return Reply(length=10) if offset == "30" else None

    server.scripted = answer
    if whole:
        run = pulled(searching())
        assert landed(run) == patients(25)
        assert run.types["Patient"].warnings == ("the last link of a search for Patient does not answer",)
    else:
        with pytest.raises(SourceUnreachable):
            pull(searching())


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_link_that_has_expired_starts_the_type_again(server, searching, status):
    server.resources = patients(35)
    replies = iter([None, None, Reply(status=status)])
    server.scripted = lambda _: next(replies, None)
    run = pulled(searching())
    assert landed(run) == server.resources
    assert [request.parameters.get("_offset") for request in server.requests] == [
        None, "10", "20", None, "10", "20", "30",
    ]  # fmt: skip


def test_a_link_that_always_has_expired_is_not_the_end_though_the_server_does_not_count(server, searching):
    server.resources = patients(35)
    server.total = False
    server.scripted = lambda request: (
        Reply(status=410) if request.parameters.get("_offset") == "20" or "_summary" in request.parameters else None
    )
    config = searching()
    with pytest.raises(SourceIncomplete, match=r"3 searches for Patient gave fewer .* or broke off"):
        pull(config)
    assert runs(config) == []


# Faults of transport


@pytest.mark.parametrize(
    "fault",
    [
        *(Reply(status=status) for status in (408, 429, 500, 502, 503, 504)),
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(
            status=503, headers={"Retry-After": format_datetime(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), usegmt=True)}
        ),
        Reply(status=503, headers={"Retry-After": "soon"}),
        Reply(body=b'{"resourceType":"Bundle","entry":[', length=5000),
    ],
    ids=lambda reply: f"{reply.status} {reply.headers.get('Retry-After', '')}",
)
def test_a_passing_fault_is_outlasted(server, searching, fault):
    server.resources = patients(15)
    replies = iter([fault, None, fault, fault])
    server.scripted = lambda _: next(replies, None)
    assert landed(pulled(searching())) == server.resources
    assert len(server.requests) == 5


@pytest.mark.parametrize("asked", ["18000", format_datetime(dt.datetime(2100, 1, 1, tzinfo=dt.UTC), usegmt=True)])
def test_a_pause_that_a_server_asks_for_is_capped(server, searching, asked, monkeypatch):
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.01)
    server.scripted = lambda _: Reply(status=429, headers={"Retry-After": asked})
    with pytest.raises(SourceUnreachable):
        pull(searching())
    assert len(server.requests) == transport.TRIES


def test_a_pause_is_at_least_as_long_as_the_server_asks(monkeypatch):
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 100.0)
    assert 7 <= transport.pause_s(1, {"Retry-After": "7"}) < 100
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=40), usegmt=True)
    assert 35 < transport.pause_s(1, {"Retry-After": soon}) < 60


@pytest.mark.parametrize(
    "asked", ["0", format_datetime(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), usegmt=True), "", "soon"]
)
def test_a_pause_is_long_enough_to_do_no_harm_and_longer_from_try_to_try(asked):
    assert transport.pause_s(1, {"Retry-After": asked}) >= transport.FIRST_PAUSE_S >= 1
    if asked in ("", "soon"):
        assert [transport.pause_s(tries, {"Retry-After": asked}) >= 2 ** (tries - 1) for tries in range(1, 8)] == [
            True
        ] * 7


def test_no_server_at_all_is_one_line(server, searching):
    config = searching()
    server.stop()
    with pytest.raises(SourceUnreachable, match=r"^source 'ward': no connection"):
        pull(config)


# Refusals, and answers that are no FHIR

HTML = Reply(body=b"<!DOCTYPE html><html>Log in</html>", headers={"Content-Type": "text/html"})
REFUSED = [
    (Reply(status=404, body=json.dumps(outcome("error", "not-found")).encode()), SourceNotFhir, "(error not-found)"),
    (Reply(status=401), SourceRefused, "HTTP 401"),
    (Reply(status=403, body=HTML.body), SourceRefused, "HTTP 403"),
    (Reply(status=400, body=json.dumps(outcome("fatal", "required")).encode()), SourceNotFhir, "fatal required"),
    (Reply(status=204), SourceNotFhir, "HTTP 204"),
    (Reply(status=500), SourceUnreachable, "HTTP 500"),
    (HTML, SourceNotFhir, "a web page"),
    (Reply(body=b"<Bundle xmlns='http://hl7.org/fhir'/>"), SourceNotFhir, "XML"),
    (Reply(body=b""), SourceNotFhir, "an empty answer"),
    (Reply(body=b" \n"), SourceNotFhir, "an empty answer"),
    (Reply(body=b"null"), SourceNotFhir, "JSON that is not a Bundle"),
    (Reply(body=b'{"total": 3}'), SourceNotFhir, "JSON that is not a Bundle"),
    (Reply(body=b'{"resourceType":"Bundle","entry":{}}'), SourceNotFhir, "JSON that is not a Bundle"),
    (Reply(body=b'{"resourceType":"Bundle","entry":[{"res'), SourceNotFhir, "cut off"),
    (Reply(body=b"\xff\xfe"), SourceNotFhir, "no JSON"),
    (Reply(body=json.dumps(resource("Patient", 1)).encode()), SourceNotFhir, "Patient and not a Bundle"),
    (Reply(body=json.dumps(outcome("error", "exception")).encode()), SourceNotFhir, "Outcome (error exception)"),
    (Reply(body=body(entry=[{"resource": outcome("error", "processing")}])), SourceIncomplete, "error processing"),
    (Reply(body=body(entry=[{"resource": outcome("information", "incomplete")}])), SourceIncomplete, "not whole"),
    (Reply(status=302, headers={"Location": "/again"}), SourceNotFhir, "redirects"),
    (Reply(status=302, headers={"Location": "nonsense://x"}), SourceNotFhir, "no address"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "error", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
def test_what_is_no_answer_is_one_line_that_names_the_source_and_says_what_to_do(server, searching, reply, error, said):
    server.resources = patients(2)
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    config = searching()
    pull(config)
    server.scripted = lambda _: reply
    with pytest.raises(error) as raised:
        pull(config)
    message = str(raised.value)
    assert type(raised.value) is error
    assert message.startswith("source 'ward': ")
    assert said in message
    assert ": " in message.removeprefix("source 'ward': ")
    assert not {"\n", "?", "_lastUpdated", "Jane"} & {
        part for part in ("\n", "?", "_lastUpdated", "Jane") if part in message
    }
    assert len(runs(config)) == 1


# Credentials


def bearer(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WARD_TOKEN", "s3cret\n")
    return 'auth = { kind = "bearer", secret_env = "WARD_TOKEN" }'


def test_a_bearer_token_is_sent_to_the_server(server, searching, monkeypatch):
    pull(searching(bearer(monkeypatch)))
    assert server.requests[0].headers["Authorization"] == "Bearer s3cret"


def test_user_and_password_are_sent_to_the_server(server, searching, tmp_path):
    (tmp_path / "secret").write_text("pässword\n")
    pull(searching('auth = { kind = "basic", user = "jane", secret_file = "secret" }'))
    assert server.requests[0].headers["Authorization"] == "Basic amFuZTpww6Rzc3dvcmQ="


@pytest.mark.parametrize("auth", ['secret_env = "NOT_SET"', 'secret_file = "not_there"', 'secret_file = "two_lines"'])
def test_a_secret_that_is_not_there_is_one_line(server, searching, auth, tmp_path):
    (tmp_path / "two_lines").write_text("s3\ncret")
    with pytest.raises(
        ConfigError, match=r"^source 'ward': the (environment variable|file) .* (holds no secret|cannot be read)"
    ):
        pull(searching(f'auth = {{ kind = "bearer", {auth} }}'))
    assert server.requests == []


def test_credentials_never_leave_the_origin(server, searching, monkeypatch):
    from fhir_server import FhirServer

    other = FhirServer()
    try:
        other.resources = patients(3)
        target = f"{other.base}/Patient?_count=10"
        server.scripted = lambda _: Reply(status=307, headers={"Location": target})
        run = pulled(searching(bearer(monkeypatch)))
        assert len(landed(run)) == 3
        assert "Authorization" in server.requests[0].headers
        assert [request.headers.get("Authorization") for request in other.requests] == [None]

        other.scripted = lambda _: Reply(status=401)
        with pytest.raises(SourceRefused, match="where credentials are not sent"):
            pull(searching(bearer(monkeypatch)))
    finally:
        other.stop()


def test_a_redirect_within_the_origin_keeps_the_credentials(server, searching, monkeypatch):
    def moved(request: Request) -> Reply | None:
        return Reply(status=308, headers={"Location": f"/new{request.target}"}) if request.path[:5] == "/fhir" else None

    server.scripted = moved
    pull(searching(bearer(monkeypatch)))
    assert server.requests[1].headers["Authorization"] == "Bearer s3cret"


def test_credentials_of_a_netrc_file_are_not_sent(server, searching, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login jane password doe\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    pull(searching())
    assert "Authorization" not in server.requests[0].headers


# Interrupted, and at the same time


def test_a_pull_that_failed_goes_on_from_its_last_page_and_keeps_what_is_complete(server, searching, monkeypatch):
    monkeypatch.setattr(checkpoint, "RECEIPT_LASTS", dt.timedelta(0))
    server.resources = patients(15) + [resource("Condition", number) for number in range(35)]
    server.scripted = lambda request: Reply(status=500) if request.parameters.get("_offset") == "20" else None
    config = searching(types='"Patient", "Condition"')
    with pytest.raises(SourceUnreachable):
        pull(config)
    assert runs(config) == []

    server.scripted = lambda _: None
    asked_before = len(server.requests)
    run = pulled(config)

    assert landed(run) == server.resources
    assert [request.parameters["_offset"] for request in server.requests[asked_before:]] == ["20", "30"]
    assert (run.types["Condition"].entries, run.types["Condition"].pages) == (35, 4)
    receipts = {file.resource_type: [receipt.first_line for receipt in file.receipts] for file in run.files}
    assert receipts == {"Patient": [1, 11], "Condition": [1, 11, 21, 31]}
    assert run.types["Condition"].watermark < run.files[1].receipts[-1].received_at


def test_a_run_that_was_asked_something_else_is_not_continued(server, searching):
    server.resources = patients(35)
    server.scripted = lambda request: Reply(status=500) if request.parameters.get("_offset") == "20" else None
    with pytest.raises(SourceUnreachable):
        pull(searching())
    server.scripted = lambda _: None
    run = pulled(searching(types='"Patient", "Condition"'))
    assert landed(run) == server.resources
    assert server.requests[-2].parameters["_offset"] == "30"
    assert [path.name for path in run.folder.parent.iterdir() if path.is_dir()] == [run.run_id]


def killed_at(server, config: Config, request_number: int) -> None:
    """Start a pull in a process of its own and kill it while it waits for the answer to its n-th request."""
    waiting, go_on = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if len(server.requests) == request_number:
            waiting.set()
            go_on.wait(20)

    server.scripted = hold
    command = [sys.executable, "-c", "from fhir_features.cli import main; main()", "--config", str(config.file), "pull"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert waiting.wait(20)
    finally:
        child.send_signal(signal.SIGKILL)
        go_on.set()
    assert child.wait() == -signal.SIGKILL
    server.scripted = lambda _: None


def test_a_pull_that_is_killed_leaves_nothing_that_is_believed_and_is_continued(server, searching):
    server.resources = patients(55)
    config = searching()
    killed_at(server, config, 4)
    assert runs(config) == []

    # What the process may have written after its last commit, or had only begun to write.
    (landed_file,) = (config.warehouse.path / "landing").glob("ward/*/Patient-0001.ndjson.zst")
    with landed_file.open("ab") as file:
        file.write(b"half a page")

    run = pulled(config)
    assert landed(run) == server.resources
    assert [request.parameters.get("_offset") for request in server.requests] == [
        None, "10", "20", "30", "30", "40", "50",
    ]  # fmt: skip


def test_a_link_that_expired_after_a_pull_was_killed_starts_the_type_again(server, searching):
    server.resources = patients(55)
    config = searching()
    killed_at(server, config, 4)
    replies = iter([Reply(status=410)])
    server.scripted = lambda _: next(replies, None)
    assert landed(pulled(config)) == server.resources


def test_two_pulls_of_one_source_at_once_are_refused(server, searching):
    config = searching()
    folder = config.warehouse.path / "landing" / "ward"
    folder.mkdir(parents=True)
    with (folder / "pull.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LakeLocked, match=r"^source 'ward' is being read by another process"):
            pull(config)
    assert server.requests == []
    pull(config)


def test_progress_is_told_for_each_page(server, searching):
    server.resources = patients(25)
    told: list[tuple] = []
    pull(searching(), progress=lambda *what: told.append(what))
    assert told == [("ward", "Patient", 10, 25), ("ward", "Patient", 20, 25), ("ward", "Patient", 25, 25)]


@pytest.mark.parametrize("url", ["http://[bad", "http://h:port/x", "http://127.0.0.1:99999/x", "ftp://h/x"])
@pytest.mark.parametrize("way", ["redirect", "next link"])
def test_a_link_that_makes_no_sense_is_one_line(server, searching, url, way):
    if way == "redirect":
        server.scripted = lambda _: Reply(status=302, headers={"Location": url})
    else:
        server.scripted = lambda _: Reply(body=body(link=[{"relation": "next", "url": url}]))
    with pytest.raises(SourceNotFhir, match=r"^source 'ward': "):
        pull(searching())


def test_of_an_answer_no_more_is_taken_than_any_page_has(server, searching, monkeypatch):
    monkeypatch.setattr(transport, "LARGEST_BODY", 1 << 20)
    bomb = gzip.compress(b" " * (4 << 20))
    server.scripted = lambda _: Reply(body=bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(SourceNotFhir, match=r"/Patient sent more than 1 MiB at once: set a smaller 'page_size'"):
        pull(searching())


@pytest.mark.parametrize("header", ["²", "9" * 400, "Fri, 31 Dec 9999 23:59:59 -1200", "-5"])
def test_headers_that_make_no_sense_do_no_harm(server, searching, monkeypatch, header):
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.01)
    server.resources = patients(3)
    server.date = header
    replies = iter([Reply(status=429, headers={"Retry-After": header})])
    server.scripted = lambda _: next(replies, None)
    assert landed(pulled(searching())) == server.resources


def test_hostile_json_does_no_harm(server, searching):
    odd = [b'{"resourceType":"Patient","id":"\xff"}', b'{"resourceType":"Patient","id":1e999}', b"{}"]
    server.scripted = lambda _: Reply(
        body=b'{"resourceType":"Bundle","entry":[' + b",".join(b'{"resource":' + each + b"}" for each in odd) + b"]}"
    )
    config = searching()
    run = pulled(config)
    assert [line for _, _, line in read_lines(run.folder, run.files[0])] == odd
    for hostile in (b"[" * 200_000, b'{"resourceType":"Bundle","entry":[{"resource":' + b"[" * 200_000):
        server.scripted = lambda _, hostile=hostile: Reply(body=hostile)
        with pytest.raises(SourceNotFhir):
            pull(config)
