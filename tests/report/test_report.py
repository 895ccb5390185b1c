"""The report's figures are right, few of them is told of few patients, and nothing of one."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hospital import CANARY, HOSTILE, LOCAL, NORTH, SOUTH, Hospital
from lake_rows import LakeRows, at, write_commits
from landing import land, observation, patient, warehouse

from fhir_features.cli import cli
from fhir_features.config import Config
from fhir_features.errors import UsageError
from fhir_features.lake import writing
from fhir_features.normalize import normalize
from fhir_features.report import Report
from fhir_features.report.charts import small_columns
from fhir_features.report.facts import Bin
from fhir_features.store import FeatureStore


@pytest.fixture(scope="module")
def exact(hospital: Hospital) -> Report:
    """The report with every count as it is."""
    return hospital.store.report(suppress_below=0)


@pytest.fixture(scope="module")
def told(hospital: Hospital) -> Report:
    """The report as it is by default."""
    return hospital.store.report()


def test_the_counts_are_those_of_what_was_sent(hospital: Hospital, exact: Report):
    facts = exact.facts
    assert facts.patients == {"north": NORTH, HOSTILE: SOUTH}
    assert {each.source: each.received for each in facts.balances} == {
        name: len(sent) for name, sent in hospital.sent.items()
    }
    assert all(
        each.received == each.normalized + each.quarantined + each.duplicates + each.ignored for each in facts.balances
    )
    assert [(each.source, each.resource_type, each.rule, each.versions) for each in facts.quarantined] == [
        ("ward", "Observation", "instant", 11),
        ("ward", "Observation", "modifier-extension", 1),
    ]
    feeds = {(feed.source, feed.resource_type): feed for feed in facts.feeds}
    encounters = [each for each in hospital.sent["ward"] if each["resourceType"] == "Encounter"]
    assert feeds["ward", "Encounter"].versions == len(encounters)
    assert feeds["ward", "Medication"].versions == 1
    assert all(feed.seen_up_to == feed.received == facts.as_of for feed in facts.feeds if feed.source == "clinic")


def test_each_version_is_in_one_column_of_the_volume(exact: Report):
    versions = {(feed.site, feed.resource_type): feed.versions for feed in exact.facts.feeds}
    for volume in exact.facts.volumes:
        assert volume.unit == "month"
        assert volume.earlier + sum(bin_.count for bin_ in volume.bins) == versions[volume.site, volume.resource_type]


def test_the_lag_is_from_effective_to_known(hospital: Hospital, exact: Report):
    lags = []
    for each in hospital.sent["ward"]:
        if each["resourceType"] == "Observation" and "modifierExtension" not in each:
            known = each["issued"] if "issued" in each else each["meta"]["lastUpdated"]
            if each["effectiveDateTime"] != "2025-02-30":
                lags.append(dt.datetime.fromisoformat(known) - dt.datetime.fromisoformat(each["effectiveDateTime"]))
    hour = dt.timedelta(hours=1)
    (late,) = [each for each in exact.facts.late if (each.site, each.resource_type) == ("north", "Observation")]
    counts = {bin_.label: bin_.count for bin_ in late.bins}
    assert late.versions == sum(counts.values()) == len(lags)
    second = dt.timedelta(seconds=1)
    assert counts["at once"] == sum(lag <= second for lag in lags)
    assert counts["1 to 6 hours"] == sum(hour < lag <= 6 * hour for lag in lags)
    assert counts["6 to 24 hours"] == sum(6 * hour < lag <= 24 * hour for lag in lags)
    assert late.late == pytest.approx(sum(lag > second for lag in lags) / len(lags))
    assert late.median_hours == float(f"{sorted(lags)[(len(lags) - 1) // 2] / hour:.3g}")


def test_an_order_that_is_over_now_was_known_as_ordered_when_it_was_written(exact: Report):
    for late in exact.facts.late:
        if late.resource_type in ("MedicationRequest", "Encounter"):
            assert late.late == 0


def test_what_was_withdrawn_and_corrected_is_counted_by_its_reason(exact: Report):
    reasons = {
        (each.site, each.reason): each.versions for each in exact.facts.closed if each.resource_type == "Observation"
    }
    assert reasons["north", "entered-in-error"] == reasons["north", "superseded"] == NORTH // 3


def test_coverage_and_the_codes_that_nobody_maps(exact: Report, told: Report):
    shares = {
        (each.system, each.site): each.share for each in exact.facts.mapped if each.resource_type == "Observation"
    }
    assert shares["loinc", "north"] == 1.0
    assert shares[LOCAL, HOSTILE] == 0.0
    assert {(each.code, each.rows, each.why) for each in exact.facts.unmapped} >= {
        ("GLUC", 3 * SOUTH, "unknown_system"),
        (CANARY, 1, "unknown_system"),
    }
    assert [each.code for each in told.facts.unmapped] == ["", "GLUC"]
    frequent = [each for each in exact.facts.frequent if (each.site, each.resource_type) == ("north", "Observation")]
    assert ("loinc", "4548-4", NORTH) in [(each.system, each.code, each.patients) for each in frequent]
    assert all(each.patients >= 10 for each in told.facts.frequent)
    assert told.facts.unmapped_untold == 1


def test_features_are_answered_as_a_training_set_is(hospital: Hospital, exact: Report):
    instant = exact.facts.asked_at["north"]
    rows = {"patient_id": [f"patient-{number:03d}" for number in range(1, NORTH + 1)], "site": ["north"] * NORTH}
    import polars as pl

    spine = pl.DataFrame({**rows, "event_timestamp": [instant] * NORTH})
    answers = hospital.store.get_historical_features(spine, ["diabetes", "utilization:sex"]).to_polars()
    views = {each.name: each for each in exact.facts.views}
    diabetes, utilization = views["diabetes"], views["utilization"]
    for feature in diabetes.features:
        north = next(each for each in feature.sites if each.site == "north")
        assert north.patients == NORTH
        assert north.missing == answers[feature.name].null_count()
        assert sum(bin_.count for bin_ in north.bins) == NORTH - north.missing
    sex = next(each for each in utilization.features if each.name == "sex")
    north = next(each for each in sex.sites if each.site == "north")
    assert {bin_.label: bin_.count for bin_ in north.bins} == dict(answers["sex"].value_counts().iter_rows())
    hba1c = diabetes.features[0]
    newest = next(each for each in views["vitals"].features if each.name == "systolic_last_1y")
    assert newest.description == "Newest systolic blood pressure of the last year"
    assert (hba1c.definition, hba1c.unit) == ("last, within 365d, of results of loinc:4548-4 in %", "%")


def test_no_small_count_is_told_and_none_is_exact(told: Report):
    facts = json.loads(told.json())
    counts = [*_counts(facts), *facts["patients"].values()]
    assert None in counts
    assert len(counts) > 300
    assert [count for count in counts if count is not None and count % 5] == []


def _counts(facts: Any) -> Iterator[int | None]:
    """Everything in the facts that is a count."""
    names = ("versions", "patients", "received", "normalized", "quarantined", "duplicates", "ignored", "earlier")
    counting = {*names, "count", "rows", "resolved", "missing", "known_before_effective"}
    if isinstance(facts, list):
        for each in facts:
            yield from _counts(each)
    elif isinstance(facts, dict):
        for name, value in facts.items():
            if name in counting and (value is None or isinstance(value, int)):
                yield value
            else:
                yield from _counts(value)


def _without_views(folder: Path) -> Config:
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "features.py").write_text("")
    return warehouse(folder)


def test_how_much_each_rule_set_aside_is_not_told_by_subtraction(tmp_path: Path):
    """Nine and nine of eighteen, told as 20, are each 9: so what is set aside is no more than is told of the rules."""
    config = _without_views(tmp_path)
    spoiled = {
        "instant": [observation(f"i{n}", effectiveDateTime="2025-02-30") for n in range(9)],
        "modifier-extension": [observation(f"m{n}", modifierExtension=[{"url": "urn:x"}]) for n in range(9)],
        "code": [observation(f"c{n}", code=None) for n in range(30)],
    }
    lines = [each for rule in ("instant", "modifier-extension") for each in spoiled[rule]]
    land(config, [*(patient(f"p{n}") for n in range(30)), *lines], at("2026-03-01"))
    normalize(config)
    facts = FeatureStore(tmp_path).report().facts
    assert [(each.rule, each.versions) for each in facts.quarantined] == [
        ("instant", None),
        ("modifier-extension", None),
    ]
    assert (facts.balances[0].received, facts.balances[0].normalized, facts.balances[0].quarantined) == (50, 30, None)
    assert facts.set_aside is None
    land(config, spoiled["code"], at("2026-03-02"))
    normalize(config)
    facts = FeatureStore(tmp_path).report().facts
    assert [each.versions for each in facts.quarantined] == [30, None, None]
    assert facts.balances[0].quarantined == facts.set_aside == 30
    exact = FeatureStore(tmp_path).report(suppress_below=0).facts
    assert exact.balances[0].quarantined == exact.set_aside == 48


def test_the_order_of_rules_says_nothing_of_what_is_not_told(tmp_path: Path):
    config = _without_views(tmp_path)
    fewer = [observation(f"i{n}", effectiveDateTime="2025-02-30") for n in range(2)]
    more = [observation(f"m{n}", modifierExtension=[{"url": "urn:x"}]) for n in range(9)]
    land(config, [*(patient(f"p{n}") for n in range(30)), *fewer, *more], at("2026-03-01"))
    normalize(config)
    store = FeatureStore(tmp_path)
    assert [each.rule for each in store.report().facts.quarantined] == ["instant", "modifier-extension"]
    assert [each.rule for each in store.report(suppress_below=0).facts.quarantined] == ["modifier-extension", "instant"]


def test_no_patient_and_no_free_text_gets_out(hospital: Hospital, told: Report):
    ids = {each["id"] for sent in hospital.sent.values() for each in sent} - {"lisinopril-10"}
    for page in (told.html(), told.json()):
        assert CANARY not in page
        assert [each for each in re.findall(r"[\w.-]+", page) if each in ids] == []
        assert "patient-0" not in page.lower()


def test_no_instant_of_one_patient_is_told(hospital: Hospital, told: Report):
    births = {
        each["birthDate"] for sent in hospital.sent.values() for each in sent if each["resourceType"] == "Patient"
    }
    assert [birth for birth in births if birth in told.html() or birth in told.json()] == []
    ward = [each for each in hospital.sent["ward"] if each["resourceType"] == "Encounter"]
    newest = sorted(
        max(each["meta"]["lastUpdated"] for each in ward if each["subject"]["reference"] == f"Patient/patient-{n:03d}")
        for n in range(1, NORTH + 1)
    )
    (feed,) = [each for each in told.facts.feeds if (each.source, each.resource_type) == ("ward", "Encounter")]
    assert feed.newest_known == dt.date.fromisoformat(newest[-10][:10])
    assert all((instant.minute, instant.second) == (0, 0) for instant in told.facts.asked_at.values())


def test_many_versions_of_few_patients_are_not_told_nor_found_by_subtraction(tmp_path: Path):
    """Twelve patients have two results each, known at once; one has fifty more, known late, of a code of nobody's."""
    rows = LakeRows()
    for number in range(12):
        rows.patient(f"p{number}")
        for place in range(2):
            mine = {
                "patient_id": f"p{number}",
                "resource_id": f"o{number}-{place}",
                "effective_at": at("2025-01-01 08:00"),
                "effective_precision": "second",
            }
            rows.observation("loinc:4548-4", 7.0, "%", source="a", **mine)
    for place in range(50):
        late = {
            "effective_at": at("2025-02-01 08:00"),
            "known_at": at("2025-02-03 08:00"),
            "known_at_source": "received",
            "effective_precision": "second",
        }
        rows.observation("loinc:0-0", 7.0, "%", source="a", patient_id="p0", resource_id=f"late-{place}", **late)
    facts = _report(tmp_path, rows).facts
    (feed,) = [each for each in facts.feeds if each.resource_type == "Observation"]
    assert (feed.versions, feed.patients) == (75, 10)
    (volume,) = facts.volumes
    assert [bin_.count for bin_ in volume.bins if bin_.count != 0] == [None, None]
    (late,) = facts.late
    assert (late.versions, late.late) == (75, None)
    assert [bin_.count for bin_ in late.bins if bin_.count != 0] == [None, None]
    assert [each.versions for each in facts.known_through if each.resource_type == "Observation"] == [None, None]
    (mapped,) = facts.mapped
    assert (mapped.rows, mapped.resolved, mapped.share) == (75, None, None)


def test_hostile_names_are_text(told: Report):
    assert HOSTILE not in told.html()
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in told.html()
    elements = Elements()
    elements.feed(told.html())
    assert {"table", "svg", "details"} < elements.names
    assert elements.names.isdisjoint({"script", "img", "iframe", "object", "embed", "form"})
    assert not [name for name in elements.attributes if name.startswith("on") or name in ("src", "style")]
    assert {address for address in elements.addresses if not address.startswith("#")} == {"data:,"}


class Elements(HTMLParser):
    """The names of a page's elements and of their attributes, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {value or "" for name, value in attrs if name == "href"}


def test_the_ends_of_a_small_chart_are_short():
    bins = (Bin("below -0.002", None, 10), Bin("-0.002 to 0.003", -0.002, 40), Bin("0.003 and above", 0.003, None))
    drawn = small_columns(bins, "Patients by slope", untold="fewer than 10")
    assert re.findall(r">([^<>]+)</text>", drawn) == ["&lt;-0.002", "0.003+"]
    assert 'aria-label="Patients by slope; the most, 40, -0.002 to 0.003"' in drawn
    assert "0.003 and above: fewer than 10" in drawn


def test_a_store_that_knows_nothing_yet_has_a_page(told: Report):
    nothing = dataclasses.replace(told.facts, as_of=None, patients={}, volumes=(), late=(), mapped=(), quarantined=())
    assert "Nothing has become known yet" in Report(nothing).html()


def _report(folder: Path, rows: LakeRows) -> Report:
    """The report of a store over these rows, as it is by default."""
    _project(folder, rows)
    return FeatureStore(folder).report()


def _project(folder: Path, rows: LakeRows) -> None:
    """A project over these rows, with one view."""
    (folder / "fhir_features.toml").write_text(
        '[sources.a]\nkind = "files"\npath = "."\nsite = "a"\ntimezone = "UTC"\n'
    )
    (folder / "feature_repo").mkdir()
    definition = 'FeatureView(name="v", entity=patient, features=[patient.age().named("age")])'
    (folder / "feature_repo" / "features.py").write_text(
        f"from fhir_features import FeatureView, patient\nv = {definition}\n"
    )
    with writing(folder / "warehouse" / "lake", buckets=32) as con:
        write_commits(con, rows, buckets=32)


def test_the_command_prints_the_facts_of_a_store_as_json(tmp_path: Path):
    _project(tmp_path, LakeRows())
    done = CliRunner().invoke(cli, ["--config", str(tmp_path), "report", "--json"], catch_exceptions=False)
    facts = json.loads(done.stdout)
    assert (facts["patients"], facts["feeds"], facts["store_seq"]) == ({}, [], 0)
    assert [feature["name"] for feature in facts["views"][0]["features"]] == ["age"]


def test_the_command_writes_the_page_and_the_same_store_gives_the_same(
    hospital: Hospital, told: Report, tmp_path: Path
):
    file = tmp_path / "page.html"
    words = ["--config", str(hospital.folder), "report", "--output", str(file)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.stdout == f"{file}\n"
    assert file.read_text() == told.html()


def test_a_page_that_cannot_be_written_is_a_line(told: Report, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        told.save(tmp_path / "no" / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written: Not a directory"):
        told.save(tmp_path / "file" / "page.html")
