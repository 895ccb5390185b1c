"""Servers that want to be asked in their own way, patient by patient, by category or by history, are read as wholly as
others; and what a profile says of a server can be overridden."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fhir_server import FhirServer, Reply, Request, resource

from fhir_features.config import Config, load_config
from fhir_features.errors import SourceIncomplete, SourceNotFhir, SourceUnreachable, UsageError
from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.normalize import normalize
from fhir_features.sources import LandedRun, landed_runs, pull, read_lines

SINCE = "2026-03-02T09:55:00Z"


def runs(config: Config) -> list[LandedRun]:
    return landed_runs(config.warehouse.path / "landing")


def pulled(config: Config) -> LandedRun:
    pull(config, ["ward"])
    return [run for run in runs(config) if run.source == "ward"][-1]


def landed(run: LandedRun) -> list[dict[str, Any]]:
    return [json.loads(line) for file in run.files for _, _, line in read_lines(run.folder, file)]


def asked(server: FhirServer, kind: str) -> list[dict[str, str]]:
    """The parameters of the searches for a type, without the size of pages."""
    place = f"/{kind}"
    return [
        {k: v for k, v in request.parameters.items() if k != "_count"}
        for request in server.requests
        if request.path.endswith(place)
    ]


def result(number: int, patient: int, category: str = "laboratory", updated: str = "2026-01-01T00:00:00.000Z") -> dict:
    return {
        **resource("Observation", number, updated=updated),
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
        "category": [{"coding": [{"code": category}]}],
        "subject": {"reference": f"Patient/patient-{patient}"},
        "effectiveDateTime": "2026-01-01",
    }


def refusing(parameter: str) -> Callable[[Request], Reply | None]:
    """A server that answers searches for Observation only with a parameter."""

    def answer(request: Request) -> Reply | None:
        wanted = not request.path.endswith("/Observation") or parameter in request.parameters
        return None if wanted else Reply(status=400)

    return answer


@pytest.fixture
def ward(server: FhirServer, searching: Callable[..., Config]) -> Callable[..., Config]:
    """A source of Patient and Observation on a server that was last seen on 2 March at 10:00."""
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    # One request at a time, so that their order is the same each time.
    return lambda *lines: searching("connections = 1", *lines, types='"Patient", "Observation"')


PER_PATIENT = 'per_patient = ["Observation"]'

# Patient by patient


def test_a_server_that_only_answers_patient_by_patient_is_read_whole(server, ward):
    server.resources = [resource("Patient", n) for n in range(3)] + [result(n, n % 3) for n in range(40)]
    server.scripted = refusing("patient")
    run = pulled(ward(PER_PATIENT))
    assert sorted(map(str, landed(run))) == sorted(map(str, server.resources))
    assert [each["patient"] for each in asked(server, "Observation")] == [
        *["patient-0"] * 2, *["patient-1"] * 2, *["patient-2"] * 2,
    ]  # fmt: skip
    assert (run.types["Observation"].entries, run.types["Observation"].pages) == (40, 6)


def test_patients_who_are_new_get_their_whole_history_and_the_others_what_changed(server, ward):
    server.resources = [resource("Patient", 0), result(0, 0)]
    config = ward(PER_PATIENT, "history = false")
    pulled(config)
    server.resources += [
        resource("Patient", 1, updated="2026-03-03T00:00:00.000Z"),
        result(1, 1),
        result(2, 0, updated="2026-03-03T00:00:00.000Z"),
    ]
    server.requests.clear()
    run = pulled(config)
    assert asked(server, "Observation") == [
        {"patient": "patient-0", "_lastUpdated": f"ge{SINCE}"},
        {"patient": "patient-1"},
    ]
    assert [(file.name, file.resources, file.backfill) for file in run.files] == [
        ("Patient-0001.ndjson.zst", {"Patient": 1}, False),
        ("Observation-0001.ndjson.zst", {"Observation": 1}, False),
        ("Observation-backfill-0001.ndjson.zst", {"Observation": 1}, True),
    ]
    assert run.types["Observation"].since is not None
    assert run.types["Observation"].entries == 2

    server.requests.clear()
    assert landed(pulled(config)) == server.resources[2::2]
    assert [each["_lastUpdated"] for each in asked(server, "Observation")] == [f"ge{SINCE}"] * 2


@pytest.mark.parametrize(("who", "kind", "other"), [(1, "replaces", 0), (0, "replaced-by", 1)])
def test_whoever_a_patient_was_merged_into_gets_their_whole_history(server, ward, who, kind, other):
    server.resources = [resource("Patient", 0), resource("Patient", 1), result(0, 0), result(1, 1)]
    config = ward(PER_PATIENT, "history = false")
    pulled(config)
    link = [{"type": kind, "other": {"reference": f"Patient/patient-{other}"}}]
    merged = resource("Patient", who, 2, updated="2026-03-03T00:00:00.000Z") | {"link": link}
    # As some servers do, whose resources do not say that they were moved.
    server.resources = [*(each for each in server.resources if each["id"] != merged["id"]), merged, result(2, 1)]
    server.requests.clear()
    assert result(2, 1) in landed(pulled(config))
    everything = {"patient": "patient-1"}
    assert asked(server, "Observation") == [{"patient": "patient-0", "_lastUpdated": f"ge{SINCE}"}, everything]
    server.requests.clear()
    pulled(config)
    assert everything not in asked(server, "Observation")


def test_each_patient_is_a_place_to_go_on_from(server, ward):
    server.resources = [resource("Patient", n) for n in range(4)] + [result(n, n % 4) for n in range(60)]
    server.scripted = lambda request: (
        Reply(status=500)
        if request.parameters.get("patient") == "patient-2" and "_offset" in request.parameters
        else None
    )
    config = ward(PER_PATIENT)
    with pytest.raises(SourceUnreachable):
        pulled(config)
    server.scripted = lambda _: None
    server.requests.clear()
    assert len(landed(pulled(config))) == 64
    assert [(each["patient"], each.get("_offset")) for each in asked(server, "Observation")] == [
        ("patient-2", "10"), ("patient-3", None), ("patient-3", "10"),
    ]  # fmt: skip
    assert asked(server, "Patient") == []


def test_the_watermark_is_of_what_was_asked_for_first_of_known_patients_and_new_ones(server, ward):
    server.resources = [resource("Patient", 0), result(0, 0)]
    config = ward(PER_PATIENT, "history = false")
    pulled(config)
    server.resources += [resource("Patient", 1, updated="2026-03-03T00:00:00.000Z"), result(1, 1)]
    server.requests.clear()
    server.scripted = lambda _: setattr(server, "date", f"Mon, 02 Mar 2026 11:{len(server.requests):02}:00 GMT")
    of = pulled(config).types["Observation"]
    assert [each.get("patient") for each in asked(server, "Observation")] == ["patient-0", "patient-1"]
    assert of.watermark == dt.datetime(2026, 3, 2, 11, 2, tzinfo=dt.UTC)


def test_patients_may_come_from_another_source_of_the_site(server, tmp_path):
    """As with a server that shows no Patient without its id, and nothing without a patient and a category."""
    (tmp_path / "in").mkdir()
    lines = [resource("Patient", 1), resource("Patient", 2), {"resourceType": "Patient"}, {"resourceType": "Group"}]
    (tmp_path / "in" / "group.ndjson").write_text("\n".join(json.dumps(line) for line in lines) + "\n{broken\n")
    (tmp_path / "in" / "more.json").write_text(
        json.dumps({"resourceType": "Bundle", "entry": [{"resource": resource("Patient", 3)}, {"fullUrl": "urn:x"}]})
    )
    common = 'site = "north"\ntimezone = "UTC"\nresource_types = ["Patient", "Observation"]\n'
    (tmp_path / "fhir_features.toml").write_text(
        f'[sources.group]\nkind = "files"\npath = "in"\n{common}'
        f'[sources.ward]\nkind = "search"\nprofile = "epic"\nbase_url = "{server.base}"\nconnections = 1\n{common}'
    )
    config = load_config(tmp_path)
    with pytest.raises(UsageError, match="patient by patient, and no patient of site 'north' has landed"):
        pull(config, ["ward"])
    server.resources = [resource("Patient", n) for n in range(9)] + [result(n, 2) for n in range(5)]
    pull(config, ["group"])
    for _ in range(2):
        server.requests.clear()
        run = pulled(config)
        assert [each["id"] for each in landed(run)] == [
            "patient-1", "patient-2", "patient-3", *(f"observation-{n}" for n in range(5)),
        ]  # fmt: skip
        assert [each.pop("_id") for each in asked(server, "Patient")] == ["patient-1", "patient-2", "patient-3"]
        assert len(asked(server, "Observation")) == 3 * 6
        assert all(set(each) == {"patient", "category"} for each in asked(server, "Observation"))
        assert run.types["Observation"].since is None


def test_a_patient_whom_the_server_does_not_know_any_more_stops_nobody_else(server, ward):
    server.resources = [resource("Patient", n) for n in range(3)] + [result(n, n % 3) for n in range(6)]
    gone = {"patient-1"}
    server.scripted = lambda request: Reply(status=404) if request.parameters.get("patient") in gone else None
    run = pulled(ward(PER_PATIENT))
    assert run.types["Observation"].entries == 4
    assert "does not know every patient" in run.types["Observation"].warnings[0]
    gone |= {"patient-0", "patient-2"}
    with pytest.raises(SourceNotFhir, match="knows none of the 3 patients"):
        pulled(ward(PER_PATIENT))


# By category, and without _lastUpdated


def test_each_category_is_searched_and_what_is_in_two_is_landed_once(server, ward):
    both = result(0, 0) | {"category": [{"coding": [{"code": "exam"}]}]}
    server.resources = [resource("Patient", 0), result(1, 0), both]
    server.scripted = refusing("category")
    config = ward('categories = { Observation = ["laboratory", "exam", "survey"] }')
    assert landed(pulled(config)) == server.resources
    assert [each["category"] for each in asked(server, "Observation")] == ["laboratory", "exam", "survey"]
    server.requests.clear()
    pulled(config)
    assert {each["_lastUpdated"] for each in asked(server, "Observation")} == {f"ge{SINCE}"}


@pytest.mark.parametrize(
    ("before", "after", "asked_for_changes"),
    [
        (
            'categories = { Observation = ["laboratory"] }',
            'categories = { Observation = ["laboratory", "exam"] }',
            False,
        ),
        ('categories = { Observation = ["laboratory"] }', "", False),
        ('categories = { Observation = ["laboratory", "exam"] }', 'categories = { Observation = ["exam"] }', True),
        ("", 'categories = { Observation = ["exam"] }', True),
        (PER_PATIENT, "", False),
        ("", PER_PATIENT, True),
    ],
)
def test_what_was_not_asked_for_before_is_read_whole(server, ward, before, after, asked_for_changes):
    server.resources = [resource("Patient", 0), result(0, 0)]
    pulled(ward("history = false", before))
    server.requests.clear()
    pulled(ward("history = false", after))
    assert {"_lastUpdated" in each for each in asked(server, "Observation")} == {asked_for_changes}


def test_a_server_that_ignores_how_a_search_is_narrowed_is_told_of(server, ward):
    server.resources = [resource("Patient", 0), result(0, 0), result(1, 1)]
    server.kept_parameters = lambda parameters: {k: v for k, v in parameters.items() if k != "patient"}
    run = pulled(ward(PER_PATIENT))
    assert landed(run) == server.resources
    assert run.types["Observation"].warnings == ("the server ignored patient, so each search for it gave everything",)


def test_a_server_that_refuses_last_updated_is_read_whole(server, ward):
    server.resources = [resource("Patient", 0), result(0, 0)]
    config = ward("history = false")
    pulled(config)
    server.scripted = lambda request: Reply(status=400) if "_lastUpdated" in request.parameters else None
    run = pulled(config)
    assert landed(run) == server.resources
    assert run.types["Observation"].since is None
    assert run.types["Observation"].warnings == ("the server refuses _lastUpdated, so everything was read again",)


# By history


def changed_later(number: int, version: int, minute: int) -> dict:
    return resource("Patient", number, version, f"2026-03-02T10:{minute:02}:00.000Z")


@pytest.fixture
def with_history(server: FhirServer, searching: Callable[..., Config]) -> Config:
    """A source of Patient that was pulled when the server, which keeps a history, had patients 0 to 4."""
    server.date = "Mon, 02 Mar 2026 10:00:00 GMT"
    server.history = []
    for number in range(5):
        server.update(resource("Patient", number))
    config = searching()
    pulled(config)
    server.requests.clear()
    return config


def test_versions_between_two_pulls_and_deletions_are_landed(server, with_history):
    for version, minute in ((2, 10), (3, 20), (4, 30)):
        server.update(changed_later(1, version, minute))
    server.delete(resource("Patient", 2), at="2026-03-02T10:40:00Z")
    run = pulled(with_history)
    of = run.types["Patient"]
    assert (of.history, of.since is not None, of.entries, of.warnings) == (True, True, 4, ())
    assert [(r.path, r.parameters) for r in server.requests] == [
        ("/fhir/r4/Patient/_history", {"_count": "10", "_since": SINCE})
    ]
    deletion, *versions = landed(run)
    assert [each["meta"]["versionId"] for each in versions] == ["4", "3", "2"]
    assert deletion["entry"][0]["request"] == {"method": "DELETE", "url": "Patient/patient-2"}

    summaries = normalize(with_history)
    assert [summary.quarantined for summary in summaries] == [0, 0]
    with reading(with_history.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        closed = con.execute(
            "SELECT resource_id, version, reason, strftime(closed_at, '%H:%M') FROM lake.closings ORDER BY ALL"
        ).fetchall()
    assert [row for row in closed if row[2] != "revised"] == [
        ("patient-1", "1", "superseded", "10:10"),
        ("patient-1", "2", "superseded", "10:20"),
        ("patient-1", "3", "superseded", "10:30"),
        ("patient-2", "1", "deleted", "10:40"),
    ]


def test_nothing_new_is_one_request(server, with_history):
    run = pulled(with_history)
    assert (len(server.requests), run.files, run.types["Patient"].history) == (1, (), True)


@pytest.mark.parametrize("keeps_since", [True, False])
def test_a_history_is_read_to_its_end_while_more_happens(server, with_history, keeps_since):
    server.history[:0] = server.history * 10
    for version in range(2, 37):
        server.update(changed_later(1, version, version))
    server.keeps_since_in_links = keeps_since
    server.after_page = lambda count: server.update(changed_later(4, 1 + count, 50 + count)) if count < 3 else None
    run = pulled(with_history)
    versions = [each["meta"]["versionId"] for each in landed(run) if each["id"] == "patient-1"]
    assert versions == [str(version) for version in range(36, 1, -1)]
    assert all(each["meta"]["lastUpdated"] >= SINCE for each in landed(run))
    assert len(server.requests) == (4 if keeps_since else 5)


@pytest.mark.parametrize("changes", [2, 12, 20])
def test_of_a_server_that_heeds_no_since_the_history_is_read_as_far_back_as_was_asked(server, with_history, changes):
    for version in range(2, changes + 2):
        server.update(changed_later(1, version, version))

    def whole(request: Request) -> Reply | None:
        request.parameters.pop("_since", None)
        return Reply(body=server.history_bundle(request)) if request.path.endswith("_history") else None

    server.scripted = whole
    run = pulled(with_history)
    assert [each["meta"]["versionId"] for each in landed(run)] == [str(n) for n in range(changes + 1, 1, -1)]
    assert run.types["Patient"].history
    assert len(server.requests) == changes // 10 + 1


@pytest.mark.parametrize(
    "answer",
    [Reply(status=404), Reply(status=403), Reply(status=501), Reply(body=b'{"resourceType":"Bundle","entry":[]}')],
    ids=lambda answer: str(answer.status),
)
def test_a_server_that_has_no_history_is_searched(server, with_history, answer):
    server.update(changed := changed_later(1, 2, 10))
    server.scripted = lambda request: answer if request.path.endswith("_history") else None
    run = pulled(with_history)
    assert landed(run) == [changed]
    assert run.types["Patient"].history is False
    assert run.types["Patient"].request == {"_count": "10", "_lastUpdated": f"ge{SINCE}"}
    assert "history = false" in run.types["Patient"].warnings[0]


def test_a_history_that_cannot_be_read_to_its_end_is_left_for_searches(server, with_history):
    # https://github.com/hapifhir/hapi-fhir/issues/2114: with _count, no link to the next page of a history.
    for number in range(100, 125):
        server.update(resource("Patient", number, updated="2026-03-02T10:30:00.000Z"))

    def cut(request: Request) -> Reply | None:
        if not request.path.endswith("_history"):
            return None
        bundle = json.loads(server.history_bundle(request))
        return Reply(body=json.dumps({**bundle, "link": bundle["link"][:1]}).encode())

    server.scripted = cut
    run = pulled(with_history)
    assert {each["id"] for each in landed(run)} == {f"patient-{number}" for number in range(100, 125)}
    of = run.types["Patient"]
    assert (of.history, of.since is not None, of.request) == (
        False,
        True,
        {"_count": "10", "_lastUpdated": f"ge{SINCE}"},
    )
    why = "the history of Patient has less than the server counts"
    assert of.warnings == (f"{why}: set history = false to search at once",)


def test_a_history_whose_links_expire_is_not_given_up_for_a_search_that_shows_no_deletions(server, with_history):
    for number in range(100, 125):
        server.update(resource("Patient", number, updated="2026-03-02T10:30:00.000Z"))
    server.delete(resource("Patient", 2), at="2026-03-02T10:20:00Z")
    server.scripted = lambda request: Reply(status=410) if "_offset" in request.parameters else None
    with pytest.raises(SourceIncomplete):
        pulled(with_history)
    server.scripted = lambda _: None
    run = pulled(with_history)
    assert run.types["Patient"].history
    assert [each["entry"][0]["request"]["url"] for each in landed(run) if "entry" in each] == ["Patient/patient-2"]


def test_odd_entries_of_a_history_are_landed_for_normalize_to_judge(server, with_history):
    odd = [
        {"resource": {"resourceType": "Patient", "id": 7}, "request": {"method": "PUT"}},
        {"fullUrl": "urn:nothing"},
        {"resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "suppressed"}]}},
        {"resource": resource("Patient", 3), "request": {"method": "DELETE", "url": "Patient/patient-3"}},
    ]
    server.scripted = lambda _: Reply(
        body=json.dumps({"resourceType": "Bundle", "type": "history", "entry": odd}).encode()
    )
    run = pulled(with_history)
    assert [line.get("entry", [line])[0] for line in landed(run)] == [odd[0]["resource"], odd[1]]
    assert "warning suppressed" in run.types["Patient"].warnings[0]


# Links to other hosts


def elsewhere(server: FhirServer, where: str) -> Callable[[str], str]:
    return lambda target: f"{where}{target}"


def test_a_link_to_another_host_is_refused_unless_it_is_said_to_be_the_same_server(server, searching, monkeypatch):
    server.resources = [resource("Patient", n) for n in range(25)]
    server.link = elsewhere(server, "https://u:p@fhir.internal:8443")
    monkeypatch.setenv("WARD_TOKEN", "s3cret")
    auth = 'auth = { kind = "bearer", secret_env = "WARD_TOKEN" }'
    with pytest.raises(SourceNotFhir, match=r'another host, fhir.internal:8443: .* add "fhir.internal:8443" to next_h'):
        pulled(searching(auth))
    server.link = elsewhere(server, "https://fhir.internal:8443")
    run = pulled(searching(auth, 'next_hosts = ["fhir.internal:8443"]'))
    assert landed(run) == server.resources
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer s3cret"}


def test_a_link_by_another_scheme_is_followed_by_that_of_the_base_url(server, searching):
    server.resources = [resource("Patient", n) for n in range(25)]
    server.link = elsewhere(server, server.root.replace("http:", "https:"))
    assert landed(pulled(searching())) == server.resources


@pytest.mark.parametrize(
    "named", ["http://FHIR.hospital.example", "http://fhir.hospital.example:80", "https://fhir.hospital.example:443"]
)
def test_a_link_that_names_the_port_of_a_scheme_is_to_the_same_server(server, searching, monkeypatch, named):
    # https://github.com/opensrp/fhircore/issues/1714. Of a proxy the server is asked for whatever host.
    monkeypatch.setenv("http_proxy", server.root)
    monkeypatch.setenv("WARD_TOKEN", "s3cret")
    server.resources = [resource("Patient", n) for n in range(25)]
    server.link = elsewhere(server, named)
    auth = 'auth = { kind = "bearer", secret_env = "WARD_TOKEN" }'
    assert landed(pulled(searching(auth, base_url="http://fhir.hospital.example/fhir/r4"))) == server.resources
    assert {request.headers["Host"] for request in server.requests} == {"fhir.hospital.example"}
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer s3cret"}


def test_a_link_by_another_path_is_followed_where_that_is_said_to_be_the_servers(server, searching):
    # As behind a proxy that takes a part of the path away: https://github.com/microsoft/fhir-server/issues/1317.
    server.resources = [resource("Patient", n) for n in range(25)]
    inside = "http://fhir.internal:8080/r4"
    server.link = lambda target: inside + target.removeprefix("/fhir/r4")
    with pytest.raises(SourceNotFhir, match=r"or, where its paths differ too, the base URL .* to other_base_urls"):
        pulled(searching())
    run = pulled(searching(f'other_base_urls = ["http://fhir.internal:8080", "{inside}/"]'))
    assert landed(run) == server.resources
    assert {request.path for request in server.requests} == {"/fhir/r4/Patient"}


# Profiles


@pytest.mark.parametrize("profile", sorted(path.stem for path in Path(__file__).parents[2].glob("**/profiles/*.toml")))
def test_a_profile_says_what_the_source_does_not(profile, tmp_path):
    common = '[sources.a]\nkind = "search"\nsite = "n"\ntimezone = "UTC"\nbase_url = "https://a.example"\n'
    (tmp_path / "fhir_features.toml").write_text(f'{common}profile = "{profile}"\noverlap = "7min"\n')
    source = load_config(tmp_path).source("a")
    assert (source.overlap, source.profile) == ("7min", profile)
    assert (bool(source.per_patient), source.history) == {
        "generic": (False, True),
        "hapi": (False, True),
        "epic": (True, False),
        "oracle": (True, False),
    }[profile]


def test_epic_is_asked_for_no_category_that_it_answers_with_an_error(tmp_path):
    # smart-on-fhir/smart-fetch, smart_fetch/filtering.py
    common = '[sources.a]\nkind = "search"\nsite = "n"\ntimezone = "UTC"\nbase_url = "https://a.example"\n'
    (tmp_path / "fhir_features.toml").write_text(f'{common}profile = "epic"\n')
    categories = set(load_config(tmp_path).source("a").categories["Observation"])
    assert {"laboratory", "vital-signs"} <= categories
    assert not categories & {"procedure", "therapy", "activity"}


def test_a_server_that_may_end_its_pages_early_is_asked_to_count(server, searching):
    server.resources = [resource("Patient", 0)]
    pulled(searching('profile = "hapi"'))
    assert server.requests[0].parameters == {"_count": "10", "_total": "accurate"}


# Windows


def spread(number: int) -> dict[str, Any]:
    """One of many patients who were updated in bursts over years."""
    updated = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number // 10 * 97, seconds=number)
    return resource("Patient", number, updated=updated.strftime("%Y-%m-%dT%H:%M:%S.000Z"))


def test_a_server_that_ends_every_search_early_is_read_in_windows(server, searching):
    server.resources = [spread(number) for number in range(90)]
    server.fetch_size = 20
    run = pulled(searching())
    assert sorted(each["id"] for each in landed(run)) == sorted(each["id"] for each in server.resources)
    assert (run.types["Patient"].since, run.types["Patient"].request) == (None, {"_count": "10"})


def test_a_search_whose_links_expire_is_read_in_windows_and_each_is_a_place_to_go_on_from(server, searching):
    server.resources = [spread(number) for number in range(60)]
    broken: list[Request] = []

    def expiring(request: Request) -> Reply | None:
        if int(request.parameters.get("_offset", 0)) >= 20:
            return Reply(status=410)
        if "_lastUpdated" in request.parameters and "_count" in request.parameters:
            broken.append(request)
            return Reply(status=500) if len(broken) in range(4, 9) else None
        return None

    server.scripted = expiring
    config = searching()
    with pytest.raises(SourceUnreachable):
        pulled(config)
    server.requests.clear()
    assert len(landed(pulled(config))) == 60
    assert not any("_summary" in request.parameters for request in server.requests[:-1])


def test_a_search_that_cannot_be_cut_small_enough_is_incomplete(server, searching):
    server.resources = [resource("Patient", number) for number in range(60)]
    server.fetch_size = 20
    with pytest.raises(SourceIncomplete, match="gave fewer resources than the server counts"):
        pulled(searching())


def test_a_resource_that_changes_while_windows_are_read_is_not_passed_by(server, searching):
    server.resources = [spread(number) for number in range(60)]
    server.fetch_size = 20
    changed = [
        spread(number) | {"meta": {"versionId": "2", "lastUpdated": "2099-03-02T10:00:00Z"}} for number in (1, 59)
    ]

    def change(count: int) -> None:
        windows = [request for request in server.requests if "lt20" in request.target and "_count" in request.target]
        if len(windows) == 2:
            for each in changed:
                server.update(each)

    server.after_page = change
    ids_and_versions = {(each["id"], each["meta"]["versionId"]) for each in landed(pulled(searching()))}
    assert {(each["id"], each["meta"]["versionId"]) for each in server.resources} <= ids_and_versions
