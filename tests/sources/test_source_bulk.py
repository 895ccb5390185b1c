"""An export brings everything that the server has, verbatim and once, or says in one line why it could not."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from bulk_server import BulkServer, Job, ndjson
from fhir_server import FhirServer, Reply, Request, resource
from landing import observation, rows

from fhir_features.config import Config
from fhir_features.errors import SourceIncomplete, SourceNotFhir, SourceRefused, SourceUnreachable
from fhir_features.normalize import normalize
from fhir_features.sources import LandedRun, landed_runs, pull, read_lines, transport, verify_run

RESOURCES = [resource("Patient", number) for number in range(3)] + [
    {**resource("Observation", number), "status": "final", "text": "Grüße\n"} for number in range(25)
]


def runs(config: Config) -> list[LandedRun]:
    return landed_runs(config.warehouse.path / "landing")


def pulled(config: Config) -> LandedRun:
    pull(config)
    verify_run(runs(config)[-1])
    return runs(config)[-1]


def landed(run: LandedRun) -> list[dict]:
    return [json.loads(line) for file in run.files for _, _, line in read_lines(run.folder, file)]


def outcome(severity: str, code: str = "processing", **more: Any) -> dict:
    issue = {"severity": severity, "code": code, "diagnostics": "Jane Doe", **more}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


@pytest.fixture
def held(exports: BulkServer) -> BulkServer:
    """The server, with 3 Patients in one file and 25 Observations in three."""
    exports.server.resources = list(RESOURCES)
    return exports


# What is landed


def test_all_files_of_all_types_are_landed_in_the_order_of_the_manifest(held, exporting):
    run = pulled(exporting())
    assert run.kind == "bulk"
    assert landed(run) == RESOURCES
    assert [(file.name, file.resource_type, file.lines) for file in run.files] == [
        ("Patient-0001.ndjson.zst", "Patient", 3),
        ("Observation-0002.ndjson.zst", "Observation", 10),
        ("Observation-0003.ndjson.zst", "Observation", 10),
        ("Observation-0004.ndjson.zst", "Observation", 5),
    ]
    assert [(of.entries, of.pages, of.since, of.complete, of.warnings) for of in run.types.values()] == [
        (3, 1, None, True, ()),
        (25, 3, None, True, ()),
    ]
    assert {path.name for path in run.folder.iterdir()} == {"run.json", *(file.name for file in run.files)}


def test_an_export_is_asked_for_in_the_forms_that_servers_understand_and_removed_in_the_end(held, exporting):
    pull(exporting())
    kick_off = held.server.requests[0]
    assert kick_off.target == "/fhir/r4/$export?_type=Patient,Observation"
    assert (kick_off.headers["Accept"], kick_off.headers["Prefer"]) == ("application/fhir+json", "respond-async")
    assert held.asked("DELETE") == ["/status/0"]


@pytest.mark.parametrize(
    ("level", "path"),
    [
        ("system", "/fhir/r4/$export"),
        ("patient", "/fhir/r4/Patient/$export"),
        ("group/a-1", "/fhir/r4/Group/a-1/$export"),
    ],
)
def test_each_level_has_its_address(held, exporting, level, path):
    run = pulled(exporting(level=level))
    assert held.asked()[0] == path
    assert run.origin == f"{held.server.root}{path}"


def test_the_next_pull_asks_for_what_changed_since_the_watermark_less_the_overlap(held, exporting):
    held.server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    config = exporting()
    first = pulled(config)
    assert {of.watermark for of in first.types.values()} == {dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)}
    held.server.update(changed := resource("Observation", 1, version=2, updated="2026-03-02T10:30:00.000Z"))
    second = pulled(config)
    assert held.jobs[1].parameters == {"_type": "Patient,Observation", "_since": "2026-03-02T09:50:00Z"}
    assert landed(second) == [changed]
    assert second.types["Patient"].since == dt.datetime(2026, 3, 2, 9, 50, tzinfo=dt.UTC)
    assert second.types["Patient"].warnings == ()


@pytest.mark.parametrize(
    ("told", "watermark"),
    [
        ("2026-03-02T11:00:00+02:00", "2026-03-02T09:00:00+00:00"),
        ("2026-03-02T12:00:00Z", "2026-03-02T10:00:00+00:00"),
        ("yesterday", "2026-03-02T10:00:00+00:00"),
        (None, "2026-03-02T10:00:00+00:00"),
        (1772000000, "2026-03-02T10:00:00+00:00"),
    ],
)
def test_the_watermark_is_the_earlier_of_the_kick_off_and_the_transaction_time(held, exporting, told, watermark):
    held.server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    held.change = lambda job: job.manifest.update(transactionTime=told)
    assert pulled(exporting()).types["Patient"].watermark.isoformat() == watermark


def test_a_type_that_is_new_in_the_configuration_is_exported_whole_by_itself(held, exporting):
    pull(exporting(types='"Patient"'))
    run = pulled(exporting())
    assert [job.parameters["_type"] for job in held.jobs] == ["Patient", "Observation", "Patient"]
    assert ("_since" in held.jobs[1].parameters, "_since" in held.jobs[2].parameters) == (False, True)
    assert [run.types[each].since is None for each in ("Patient", "Observation")] == [False, True]


def test_a_type_of_which_nothing_comes_is_a_warning_that_names_the_scope_and_asked_for_whole_again(held, exporting):
    config = exporting(types='"Patient", "Observation", "Condition"')
    run = pulled(config)
    assert "system/Condition.read" in run.types["Condition"].warnings[0]
    assert run.types["Observation"].warnings == ()
    held.server.resources = [resource("Condition", 1)]
    assert landed(pulled(config)) == [resource("Condition", 1)]
    assert held.jobs[1].parameters == {"_type": "Condition"}


@pytest.mark.parametrize("level", ["system", "group/other"])
def test_what_was_seen_of_another_export_does_not_count(held, exporting, level):
    pull(exporting(level="group/one"))
    pull(exporting(level=level))
    assert held.jobs[1].parameters == {"_type": "Patient,Observation"}


# The manifest


def test_a_manifest_in_parts_is_followed_part_by_part(held, exporting):
    later: dict[str, Any] = {}

    def divide(job: Job) -> None:
        later.update(job.manifest, output=job.manifest["output"][2:], transactionTime="2026-03-02T09:00:00Z")
        job.manifest.update(output=job.manifest["output"][:2], link=[{"relation": "next", "url": "/more"}])
        job.manifest.update(transactionTime="2026-03-02T08:00:00Z")

    waits = iter([Reply(status=202, headers={"Retry-After": "0"})])
    held.change = divide
    held.before = lambda request: (
        next(waits, Reply(body=json.dumps(later).encode())) if request.path == "/more" else None
    )
    run = pulled(exporting())
    assert landed(run) == RESOURCES
    assert {of.watermark for of in run.types.values()} == {dt.datetime(2026, 3, 2, 8, tzinfo=dt.UTC)}


def test_manifests_that_link_on_in_a_circle_come_to_an_end(held, exporting):
    held.change = lambda job: job.manifest.update(link=[{"relation": "next", "url": f"/status/{job.number}"}])
    with pytest.raises(SourceNotFhir, match="in a circle"):
        pull(exporting())
    assert held.asked("DELETE") == ["/status/0"]


def test_what_was_not_asked_for_is_left_out_and_this_is_said(held, exporting):
    held.change = lambda job: job.manifest["output"].append({"type": "Claim", "url": "/claims"})
    (summary,) = pull(exporting())
    assert summary.warnings == ("types were exported that were not asked for, and are left out: Claim",)
    assert "/claims" not in held.asked()


def test_files_that_say_no_type_are_read_for_whatever_is_in_them(held, exporting):
    def organize(job: Job) -> None:
        job.files["all"] = ndjson(RESOURCES)
        job.manifest["output"] = [{"url": f"/files/{job.number}/all"}]

    held.change = organize
    run = pulled(exporting())
    assert [(file.name, file.resource_type, file.resources) for file in run.files] == [
        ("mixed-0001.ndjson.zst", None, {"Observation": 25, "Patient": 3})
    ]
    assert [(of.entries, of.warnings) for of in run.types.values()] == [(3, ()), (25, ())]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"output":[{"type":"Patient"}]}', b'{"output":{}}'])
def test_what_is_no_manifest_is_one_line(held, exporting, body):
    held.before = lambda request: Reply(body=body) if request.path == "/status/0" and request.method == "GET" else None
    with pytest.raises(SourceNotFhir, match=r"^source 'ward': what came from http://127.0.0.1:\d+/status/0 at the end"):
        pull(exporting())


@pytest.mark.parametrize("count", [11, 9, 0, "x", None, -1])
def test_a_count_is_not_trusted(held, exporting, count):
    held.change = lambda job: job.manifest["output"][1].update(count=count)
    run = pulled(exporting())
    assert landed(run) == RESOURCES
    warnings = run.types["Observation"].warnings
    assert warnings == (
        () if count in ("x", None) else ("1 of 3 files do not have as many lines as the server counts",)
    )
    assert held.asked().count("/files/0/Observation-0") == (2 if count == 11 else 1)


# Errors that the server tells of


@pytest.mark.parametrize("severity", ["warning", "information"])
def test_a_remark_is_a_warning_without_its_text(held, exporting, severity):
    held.errors = [outcome(severity, "not-supported")]
    (summary,) = pull(exporting())
    assert summary.warnings == (f"the server remarked on the export: {severity} not-supported",)


@pytest.mark.parametrize(
    ("errors", "lacking"),
    [
        ([outcome("error")], {"Patient", "Observation"}),
        ([outcome("fatal", expression=["Observation.value"])], {"Observation"}),
        ([outcome("warning"), outcome("error", diagnostics="cannot read Patient/1 of Jane")], {"Patient"}),
        (["nonsense"], {"Patient", "Observation"}),
    ],
)
def test_an_error_keeps_the_watermark_of_what_it_concerns(held, exporting, errors, lacking):
    held.errors = errors
    config = exporting()
    with pytest.raises(SourceIncomplete) as raised:
        pull(config)
    assert str(raised.value).startswith("source 'ward': not all of ")
    assert "Jane" not in str(raised.value)
    (run,) = runs(config)
    assert {resource_type for resource_type, of in run.types.items() if not of.complete} == lacking
    assert landed(run) == RESOURCES
    held.errors = []
    pull(config)
    in_full = {
        kind for job in held.jobs[1:] if "_since" not in job.parameters for kind in job.parameters["_type"].split(",")
    }
    assert in_full == lacking


# Files


def zipped(job: Job) -> None:
    job.files = {name: gzip.compress(body) for name, body in job.files.items()}


def unzipped(job: Job) -> dict[str, bytes]:
    return {name: gzip.decompress(gzip.decompress(body)) for name, body in job.files.items()}


@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("times", [1, 2])
def test_gzip_is_known_by_its_content_whatever_the_headers_say(held, exporting, encoding, times):
    held.change = lambda job: [zipped(job) for _ in range(times)]

    def with_header(request: Request) -> Reply | None:
        if request.path.startswith("/files") and encoding:
            return Reply(
                body=held.jobs[0].files[request.path.rpartition("/")[2]], headers={"Content-Encoding": encoding}
            )
        return None

    held.before = with_header
    assert landed(pulled(exporting())) == RESOURCES


@pytest.mark.parametrize("times", [3, 400])
def test_a_gzip_in_a_gzip_in_a_gzip_is_no_resources(held, exporting, times):
    def end_like_json(job: Job) -> None:
        for _ in range(times):
            zipped(job)
        # By chance compressed bytes end like this, as if the last line had been received whole.
        twice = {name: body + b"\n7\n" for name, body in unzipped(job).items()}
        job.files = {name: gzip.compress(gzip.compress(body)) for name, body in twice.items()}

    held.change = end_like_json
    config = exporting()
    with pytest.raises(SourceIncomplete):
        pull(config)
    (run,) = runs(config)
    assert not any(of.complete for of in run.types.values())


def test_plain_text_that_is_called_gzip_is_read(held, exporting):
    held.before = lambda request: (
        Reply(body=held.jobs[0].files[request.path.rpartition("/")[2]], headers={"Content-Encoding": "gzip"})
        if request.path.startswith("/files")
        else None
    )
    assert landed(pulled(exporting())) == RESOURCES


def test_lines_are_landed_as_they_are_and_odd_ones_do_no_harm(held, exporting):
    odd = [b'{"resourceType":"Patient", "id":"p\\u00e91","x":1.50,"x":1e2}', b"7", b"nonsense", b"\xff", b'"text"']

    def change(job: Job) -> None:
        job.files["Patient-0"] = b"\xef\xbb\xbf" + b"\r\n".join([*odd[:2], b"", *odd[2:]])
        job.manifest["output"] = job.manifest["output"][:1]

    held.change = change
    run = pulled(exporting())
    assert [line for _, _, line in read_lines(run.folder, run.files[0])] == odd
    assert run.types["Patient"].complete


def cut_line(body: bytes) -> Reply:
    return Reply(body=body[:-9])


def cut_connection(body: bytes) -> Reply:
    return Reply(body=body[: len(body) // 2], length=len(body))


def cut_gzip(body: bytes) -> Reply:
    return Reply(body=gzip.compress(body)[:-5])


def broken_gzip(body: bytes) -> Reply:
    zipped = bytearray(gzip.compress(body))
    zipped[-6] ^= 1
    return Reply(body=bytes(zipped))


def cut_between_lines(body: bytes) -> Reply:
    return Reply(body=body[: body.rindex(b"\n", 0, -1) + 1])


FAULTS: list[Callable[[bytes], Reply]] = [
    cut_line,
    cut_connection,
    cut_gzip,
    broken_gzip,
    cut_between_lines,
    *(lambda _, status=status: Reply(status=status) for status in (408, 429, 500, 503)),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_did_not_come_whole_is_asked_for_again(held, exporting, fault):
    """Each file of the export meets the fault once."""
    met = set()

    def once(request: Request) -> Reply | None:
        if not request.path.startswith("/files") or request.path in met:
            return None
        met.add(request.path)
        return fault(held.jobs[0].files[request.path.rpartition("/")[2]])

    held.before = once
    run = pulled(exporting())
    assert landed(run) == RESOURCES
    assert len(met) == 4
    assert all(of.complete and not of.warnings for of in run.types.values())


def test_a_connection_that_broke_off_at_the_end_of_a_line_is_noticed_without_a_count(held, exporting):
    def uncounted(job: Job) -> None:
        for file in job.manifest["output"]:
            del file["count"]

    def once(request: Request) -> Reply | None:
        if request.path != "/files/0/Observation-0" or held.asked().count(request.path) > 1:
            return None
        whole = held.jobs[0].files["Observation-0"]
        return Reply(body=cut_between_lines(whole).body, length=len(whole))

    held.change, held.before = uncounted, once
    assert landed(pulled(exporting())) == RESOURCES
    assert held.asked().count("/files/0/Observation-0") == 2


@pytest.mark.parametrize(("fault", "rest"), [(cut_line, 24), (cut_gzip, 15), (broken_gzip, 15)])
def test_a_file_that_never_comes_whole_is_landed_as_far_as_it_goes_and_keeps_the_watermark(
    held, exporting, fault, rest
):
    held.before = lambda request: (
        fault(held.jobs[0].files["Observation-0"]) if request.path.endswith("Observation-0") else None
    )
    config = exporting()
    with pytest.raises(SourceIncomplete, match="not all of Observation came"):
        pull(config)
    (run,) = runs(config)
    verify_run(run)
    assert [of.complete for of in run.types.values()] == [True, False]
    assert run.types["Observation"].entries >= rest
    assert held.asked().count("/files/0/Observation-0") == transport.TRIES
    assert held.asked("DELETE") == ["/status/0"]


def test_no_more_than_five_files_are_asked_for_at_once(held, exporting):
    held.server.resources = [resource("Patient", number) for number in range(200)]
    asked: set[str] = set()
    most: list[int] = []
    too_many = threading.Event()

    def hold(request: Request) -> None:
        """Until one more comes than may, or for long enough that it would have come."""
        if request.path.startswith("/files"):
            asked.add(request.path)
            most.append(len(asked))
            if len(asked) > 5:
                too_many.set()
            too_many.wait(0.1)
            asked.remove(request.path)

    held.before = hold
    assert len(landed(pulled(exporting()))) == 200
    # Epic lets a client have no more.
    assert len(most) == 20 and max(most) <= 5


def test_a_file_that_cannot_be_had_now_leaves_the_export_to_the_next_pull(held, exporting):
    def sign(job: Job) -> None:
        for file in job.manifest["output"]:
            file["url"] += "?signature=canary"

    held.change = sign
    held.before = lambda request: Reply(status=503) if request.path.endswith("Observation-20") else None
    config = exporting()
    with pytest.raises(SourceUnreachable, match="HTTP 503 at") as raised:
        pull(config)
    written = [path.read_bytes() for path in config.warehouse.path.rglob("*") if path.is_file()]
    assert not [text for text in [*written, str(raised.value).encode()] if b"canary" in text]
    assert (runs(config), held.asked("DELETE")) == ([], [])
    held.before = lambda request: None
    before = len(held.server.requests)
    assert landed(pulled(config)) == RESOURCES
    asked = held.asked()[before:]
    assert len(held.jobs) == 1
    assert asked[0] == "/status/0"
    assert "/files/0/Observation-20" in asked
    assert len(asked) < 7


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_has_expired_leads_to_a_new_export(held, exporting, status):
    held.before = lambda request: Reply(status=status) if request.path == "/files/0/Observation-10" else None
    run = pulled(exporting())
    assert {each["id"] for each in landed(run)} == {each["id"] for each in RESOURCES}
    assert len(held.jobs) == 2
    assert run.types["Observation"].complete
    assert held.asked("DELETE") == ["/status/0", "/status/1"]


@pytest.mark.parametrize("status", [400, 403])
def test_a_signed_address_in_a_store_that_has_expired_leads_to_a_new_export(held, exporting, status):
    # S3 says 403, or 400 (ExpiredToken) where the session that signed has ended first; Google's store 400, Azure's 403.
    store = FhirServer()
    try:

        def elsewhere(job: Job) -> None:
            for file in job.manifest["output"]:
                file["url"] = file["url"].replace(held.server.root, store.root)

        def stored(request: Request) -> Reply:
            _, _, number, name = request.path.split("/")
            is_expired = number == "0" and name == "Observation-10"
            return Reply(status=status) if is_expired else Reply(body=held.jobs[int(number)].files[name])

        held.change, store.scripted = elsewhere, stored
        run = pulled(exporting())
        assert {each["id"] for each in landed(run)} == {each["id"] for each in RESOURCES}
        assert (len(held.jobs), run.types["Observation"].complete) == (2, True)
    finally:
        store.stop()


def test_a_file_that_always_has_expired_keeps_the_watermark(held, exporting):
    held.before = lambda request: Reply(status=404) if request.path.endswith("Observation-10") else None
    config = exporting()
    with pytest.raises(SourceIncomplete, match=r"not all of Observation came .*does not have it any more"):
        pull(config)
    assert len(held.jobs) == 3
    assert [of.complete for of in runs(config)[0].types.values()] == [True, False]


def test_an_export_that_always_has_expired_is_given_up_and_begun_again_by_the_next_pull(held, exporting):
    held.before = lambda request: Reply(status=404) if request.path.startswith("/status") else None
    config = exporting()
    with pytest.raises(SourceIncomplete, match="3 exports expired"):
        pull(config)
    held.before = lambda request: None
    assert landed(pulled(config)) == RESOURCES


def test_a_web_page_in_place_of_a_file_is_one_line(held, exporting):
    held.before = lambda request: Reply(body=b"<html>Log in, Jane") if request.path.startswith("/files") else None
    with pytest.raises(SourceNotFhir, match=r"^source 'ward': a web page or XML came from .*/files/0/"):
        pull(exporting())
    assert held.asked("DELETE") == ["/status/0"]


# Waiting


@pytest.mark.parametrize("path", ["/fhir/r4/$export", "/status/0"])
@pytest.mark.parametrize(
    "fault",
    [Reply(status=429), Reply(status=503, headers={"Retry-After": "0"}), Reply(status=500), Reply(status=504)],
    ids=lambda reply: str(reply.status),
)
def test_a_fault_while_an_export_is_begun_or_waited_for_is_outlasted(held, exporting, path, fault):
    faults = iter([fault, fault])
    held.before = lambda request: next(faults, None) if request.path == path else None
    assert landed(pulled(exporting())) == RESOURCES


def test_a_server_that_is_busy_is_waited_for_until_the_deadline_and_not_only_some_times(held, exporting):
    busy = iter([Reply(status=429, headers={"Retry-After": "0"})] * 20)
    held.before = lambda request: next(busy, None)
    held.polls = 20
    assert landed(pulled(exporting())) == RESOURCES
    assert len(held.jobs) == 1


def test_an_export_that_is_not_done_in_time_is_cancelled(held, exporting):
    held.polls = 1000
    with pytest.raises(SourceIncomplete, match=r"was not done in 1s, and was cancelled: set 'export_deadline' higher"):
        pull(exporting('export_deadline = "1s"'))
    assert held.asked("DELETE") == ["/status/0"]


REFUSED = [
    ("/status/0", Reply(status=500, body=json.dumps(outcome("error", "exception")).encode()), SourceNotFhir, "gave the export up"),
    ("/status/0", Reply(status=500, body=json.dumps(outcome("error", "transient")).encode()), SourceUnreachable, "HTTP 500"),
    ("/status/0", Reply(status=413), SourceNotFhir, "too large"),
    ("/status/0", Reply(status=403), SourceRefused, "HTTP 403"),
    ("/status/0", Reply(status=504), SourceUnreachable, "HTTP 504"),
    ("/fhir/r4/$export", Reply(status=404), SourceNotFhir, "does not begin the export"),
    ("/fhir/r4/$export", Reply(status=413), SourceNotFhir, "too large"),
    ("/fhir/r4/$export", Reply(status=202), SourceNotFhir, "does not begin the export"),
    ("/fhir/r4/$export", Reply(status=202, headers={"Content-Location": "http://[bad"}), SourceNotFhir, "does not begin the export"),
    ("/fhir/r4/$export", Reply(body=b"{}"), SourceNotFhir, "does not begin the export"),
    ("/fhir/r4/$export", Reply(status=401), SourceRefused, "HTTP 401"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "reply", "error", "said"), REFUSED)
def test_a_refusal_is_one_line_that_says_what_to_do_and_an_export_that_failed_is_removed(
    held, exporting, path, reply, error, said
):
    held.before = lambda request: reply if request.path == path and request.method != "DELETE" else None
    config = exporting()
    with pytest.raises(error) as raised:
        pull(config)
    message = str(raised.value)
    assert type(raised.value) is error and message.startswith("source 'ward': ") and said in message
    assert not {part for part in ("\n", "?", "Jane") if part in message}
    is_over = path == "/status/0" and error is SourceNotFhir
    assert held.asked("DELETE") == (["/status/0"] if is_over else [])
    assert runs(config) == []
    held.before = lambda request: None
    assert landed(pulled(config)) == RESOURCES
    assert len(held.jobs) == (2 if is_over else 1)


def test_an_export_that_was_begun_and_is_not_wanted_any_more_is_removed(held, exporting):
    """Epic lets a client have one of a group until it is removed."""
    held.before = lambda request: Reply(status=503) if request.path.startswith("/files") else None
    with pytest.raises(SourceUnreachable):
        pull(exporting())
    held.server.requests.clear()
    held.before = lambda request: None
    assert landed(pulled(exporting(types='"Patient"'))) == RESOURCES[:3]
    # Downloads of the pull that failed may still arrive.
    asked = [(r.method, r.path) for r in held.server.requests if not r.path.startswith("/files/0")]
    assert asked[:2] == [("DELETE", "/status/0"), ("GET", "/fhir/r4/$export")]


def test_a_server_that_does_not_remove_exports_does_no_harm(held, exporting):
    held.before = lambda request: Reply(status=404) if request.method == "DELETE" else None
    assert landed(pulled(exporting())) == RESOURCES


def test_progress_is_told_while_the_server_works_and_for_each_file(held, exporting):
    held.polls = 2
    told: list[tuple] = []
    pull(exporting(), progress=lambda *what: told.append(what))
    assert told == [("ward", "export", 10, 100), ("ward", "export", 20, 100)] + [
        ("ward", "files", number, 4) for number in range(1, 5)
    ]


# Where credentials go


def bearer(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WARD_TOKEN", "s3cret")
    return 'auth = { kind = "bearer", secret_env = "WARD_TOKEN" }'


@pytest.mark.parametrize("way", ["redirect", "file elsewhere", "no token required"])
def test_a_token_goes_to_no_file_that_is_elsewhere_or_needs_none(held, exporting, monkeypatch, way):
    store = FhirServer()
    try:
        store.scripted = lambda request: Reply(body=held.jobs[0].files[request.path.rpartition("/")[2]])

        def change(job: Job) -> None:
            if way == "no token required":
                job.manifest["requiresAccessToken"] = False
            elif way == "file elsewhere":
                for file in job.manifest["output"]:
                    file["url"] = file["url"].replace(held.server.root, store.root)

        held.change = change
        if way == "redirect":
            held.before = lambda request: (
                Reply(status=307, headers={"Location": f"{store.root}{request.path}"})
                if request.path.startswith("/files")
                else None
            )
        run = pulled(exporting(bearer(monkeypatch)))
        assert landed(run) == RESOURCES
        asked = [*store.requests, *held.server.requests]
        with_token = {each.path for each in asked if "Authorization" in each.headers}
        assert with_token == {"/fhir/r4/$export", "/status/0"} | (
            {path for path in held.asked() if path.startswith("/files")} if way == "redirect" else set()
        )
        assert not [each for each in store.requests if "Authorization" in each.headers]
    finally:
        store.stop()


@pytest.mark.parametrize("settings", ["", 'next_hosts = ["fhir.internal:8443"]'])
def test_an_export_that_the_server_calls_by_another_name_is_asked_for_at_the_base_url(
    held, exporting, monkeypatch, settings
):
    """As behind a proxy that ends TLS, or has another host: its status, the parts of its manifest and its files."""
    root = held.server.root
    known_as = "https://fhir.internal:8443" if settings else root.replace("http:", "https:")

    def rename(job: Job) -> None:
        for file in job.manifest["output"]:
            file["url"] = file["url"].replace(root, known_as)

    def renamed(request: Request) -> Reply | None:
        if not request.path.endswith("$export"):
            return None
        reply = held._kick_off(request)
        return Reply(
            reply.status, headers={"Content-Location": reply.headers["Content-Location"].replace(root, known_as)}
        )

    held.change, held.before = rename, renamed
    run = pulled(exporting(bearer(monkeypatch), settings))
    assert landed(run) == RESOURCES
    assert {each.headers.get("Authorization") for each in held.server.requests} == {"Bearer s3cret"}


# Deletions, new patients, filters


def deletion(id: str, at: str | None = None) -> dict:
    entry = {"request": {"method": "DELETE", "url": f"Observation/{id}"}}
    return entry | ({"response": {"status": "204", "lastModified": at}} if at else {})


def test_deletions_close_what_they_name_unless_the_same_export_has_something_newer(held, exporting):
    def result(id: str, hour: int) -> dict:
        meta = {"versionId": str(hour), "lastUpdated": f"2026-03-02T{hour}:00:00Z"}
        return observation(id, subject={"reference": "Patient/patient-0"}, meta=meta)

    held.server.date = "Mon, 02 Mar 2026 11:00:00 GMT"
    ids = ("undated", "dated", "undated-again", "older", "newer", "held")
    held.server.resources = [resource("Patient", 0), *(result(id, 10) for id in ids)]
    config = exporting()
    pull(config)
    for id in ("undated-again", "older", "newer"):
        held.server.update(result(id, 12))
    entries = [
        *(deletion("undated"), deletion("dated", "2026-03-02T11:30:00Z"), deletion("undated-again")),
        *(deletion("older", "2026-03-02T11:30:00Z"), deletion("newer", "2026-03-02T12:30:00Z"), deletion("held")),
    ]
    held.deleted = [
        {"resourceType": "Bundle", "type": "transaction", "entry": part} for part in (entries[:4], entries[4:])
    ]
    # Within the overlap, the export has what it had before, though that is gone.
    held.change = lambda job: job.files.update(
        {"Observation-0": job.files["Observation-0"] + ndjson([result("held", 10)])}
    )
    run = pulled(config)
    assert [(file.name, file.resources) for file in run.files] == [
        ("deleted-0001.ndjson.zst", {"Bundle": 2}),
        ("Observation-0002.ndjson.zst", {"Observation": 4}),
    ]
    assert all(summary.quarantined == 0 for summary in normalize(config))
    living = rows(config, "SELECT resource_id FROM observations WHERE known_to IS NULL ORDER BY 1")
    assert living == [("older",), ("undated-again",)]


def test_a_resource_that_comes_twice_in_an_export_is_one(held, exporting):
    twice = observation("o1", meta={"versionId": "1", "lastUpdated": "2026-03-02T10:00:00Z"})

    def change(job: Job) -> None:
        job.files = {"a": ndjson([twice, twice]), "b": ndjson([twice])}
        job.manifest["output"] = [{"type": "Observation", "url": f"/files/{job.number}/{name}"} for name in "ab"]

    held.change = change
    config = exporting()
    assert pulled(config).types["Observation"].entries == 3
    (summary,) = normalize(config)
    assert (summary.received, summary.normalized, summary.duplicates) == (3, 1, 2)


def test_patients_who_are_new_in_a_group_get_their_whole_history_before_what_changed(held, exporting):
    of = {f"patient-{number}": {"reference": f"Patient/patient-{number}"} for number in range(3)}
    results = [{**resource("Observation", number), "subject": of[f"patient-{number}"]} for number in range(3)]
    held.server.resources = [*RESOURCES[:3], *results]
    held.members = {"patient-0", "patient-1"}
    config = exporting(level="group/g")
    assert len(landed(pulled(config))) == 4
    held.members = {"patient-0", "patient-1", "patient-2"}
    run = pulled(config)
    assert [(job.parameters["_type"], "_since" in job.parameters, job.patients) for job in held.jobs[1:]] == [
        ("Patient", False, None),
        ("Observation", False, {"patient-2"}),
        ("Observation", True, None),
    ]
    assert landed(run) == [*RESOURCES[:3], results[2]]
    assert [(file.resource_type, file.backfill) for file in run.files] == [("Patient", False), ("Observation", True)]
    assert run.types["Observation"].since is not None
    pull(config)
    assert [job.parameters["_type"] for job in held.jobs[4:]] == ["Patient", "Observation"]


def test_whoever_in_a_group_a_patient_was_merged_into_gets_their_whole_history(held, exporting):
    moved = {**resource("Observation", 1), "subject": {"reference": "Patient/patient-0"}}
    other = {**resource("Observation", 2), "subject": {"reference": "Patient/patient-1"}}
    held.server.resources = [*RESOURCES[:2], other]
    config = exporting(level="group/g")
    pull(config)
    link = [{"type": "replaces", "other": {"reference": "Patient/patient-9"}}]
    held.server.resources = [RESOURCES[0] | {"link": link}, RESOURCES[1], moved, other]
    assert moved in landed(pulled(config))
    assert [job.patients for job in held.jobs[1:]] == [None, {"patient-0"}, None]
    pull(config)
    assert [job.patients for job in held.jobs[4:]] == [None, None]


def test_a_server_that_takes_no_list_of_patients_is_asked_for_all(held, exporting):
    held.takes_patients = False
    results = [
        {**resource("Observation", number), "subject": {"reference": f"{base}Patient/patient-{number}"}}
        for number, base in enumerate(("", "http://h/fhir/"))
    ]
    held.server.resources = [*RESOURCES[:2], *results]
    held.members = {"patient-0"}
    config = exporting(level="group/g")
    pull(config)
    held.members = None
    run = pulled(config)
    assert held.asked("POST") == ["/fhir/r4/Group/g/$export"]
    assert held.jobs[2].parameters == {"_type": "Observation"}
    assert [(file.lines, file.backfill) for file in run.files[1:]] == [(1, True)]
    assert landed(run)[2:] == results[1:]
    assert run.types["Observation"].complete and not run.types["Observation"].warnings


def test_filters_are_asked_for_and_what_a_server_sends_against_them_is_left_out(held, exporting):
    laboratory = [{"coding": [{"system": "urn:c", "code": "laboratory"}]}]
    held.server.resources = [
        {**resource("Observation", 1), "category": laboratory, "status": "final"},
        {**resource("Observation", 2), "category": laboratory, "status": "amended"},
        {**resource("Observation", 3), "category": [{"text": "other"}], "status": "final"},
        resource("Patient", 1),
    ]
    filters = 'type_filters = { Observation = ["category=urn:c|laboratory&status=final", "status=corrected"] }'
    run = pulled(exporting(filters))
    assert held.jobs[0].parameters["_typeFilter"] == (
        "Observation?category=urn:c|laboratory&status=final,Observation?status=corrected"
    )
    assert [each["id"] for each in landed(run)] == ["patient-1", "observation-1"]
    assert run.types["Observation"].warnings == ("the server did not heed _typeFilter: 2 of 3 resources were left out",)
    assert run.warnings == ()


def test_what_came_through_other_filters_does_not_count(held, exporting):
    pull(exporting('type_filters = { Observation = ["status=final"] }'))
    run = pulled(exporting())
    assert [(job.parameters["_type"], "_since" in job.parameters) for job in held.jobs[1:]] == [
        ("Observation", False),
        ("Patient", True),
    ]
    assert run.types["Observation"].entries == 25


def test_a_filter_that_cannot_be_checked_here_is_said(held, exporting):
    run = pulled(exporting('type_filters = { Observation = ["date=ge2020-01-01"] }'))
    assert landed(run) == RESOURCES
    assert run.warnings == ("whether the server heeds type_filters cannot be seen here, of Observation",)
