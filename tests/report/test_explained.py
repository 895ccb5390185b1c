"""The clinician's page: what counted and what did not, with both clocks drawn."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from browser import Browser
from click.testing import CliRunner
from hospital import CANARY, HOSTILE, NOW, Hospital
from test_in_browser import REACHABLE, check, is_within_a_printed_page

from fhir_features.cli import cli
from fhir_features.features.nodes import Expression, Feature, Number
from fhir_features.features.terms import ontologies
from fhir_features.report import ExplanationPage
from fhir_features.report.timeline import Lane, Question, Span, axis, close_up, whole_span

HBA1C = "diabetes:hba1c_last_1y"
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def page(hospital: Hospital) -> ExplanationPage:
    """Before the newest HbA1c of the first patient was corrected."""
    return hospital.store.explanation_page(HBA1C, "patient-001", NOW, site="north")


@pytest.fixture(scope="module")
def file(page: ExplanationPage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page.save(tmp_path_factory.mktemp("why") / "why.html")


def test_each_version_is_in_the_table_with_its_verdict(page: ExplanationPage):
    (part,) = page.parts()
    explained = page.explained.rows.to_pylist()
    assert [(row.resource_id, row.version, row.verdict) for row in (*part.rest, *part.rows)] == [
        (row["resource_id"], f"version {row['version']}", row["verdict"]) for row in explained
    ]
    assert {row.verdict for row in part.rest} == {"it lies before the window"}
    assert part.verdicts[0] == ("counts", sum(row["verdict"] == "counts" for row in explained))
    corrected, correction = part.rows[-2:]
    assert (corrected.decides, corrected.counts, corrected.closed_at) == (True, True, NOW + DAY)
    assert (correction.counts, correction.verdict, correction.known_at) == (False, "it was not yet known", NOW + DAY)
    assert correction.says == f"{float(corrected.says.removesuffix(' %')) + 1.4:g} %"


def test_the_lag_is_told_in_words(page: ExplanationPage):
    row = page.parts()[0].rows[-2]
    assert row.true_at is not None
    assert row.lag == f"{round((row.known_at - row.true_at) / dt.timedelta(hours=1))} h later"


def test_every_lane_leads_to_its_row(page: ExplanationPage):
    html = page.html()
    rows = set(re.findall(r'<tr id="(row-\d+)"', html))
    lanes = set(re.findall(r'<a href="#(row-\d+)"', html))
    assert lanes == {f"row-{row.number}" for row in page.parts()[0].rows} < rows
    assert len(rows) == page.explained.rows.num_rows


def test_nobody_else_is_on_the_page_and_hostile_names_are_text(hospital: Hospital):
    html = hospital.store.explanation_page(HBA1C, "patient-002", NOW, site=HOSTILE).html()
    assert set(re.findall(r"patient-\d{3}", html)) == {"patient-002"}
    assert HOSTILE not in html
    assert "<script" not in html


def test_a_value_of_an_expression_or_of_the_patient_has_a_part_of_its_own(hospital: Hospital):
    age = hospital.store.explanation_page("diabetes:age", "patient-001", NOW, site="north")
    (part,) = age.parts()
    assert (part.title, part.whole) == ("age of the patient", None)
    assert "patient-001" in age.html()


def test_of_a_patient_who_is_not_known_it_is_said(hospital: Hospital):
    html = hospital.store.explanation_page(HBA1C, "nobody", NOW, site="north").html()
    assert "The store knew no such patient then" in html
    assert "Why has <code>diabetes:hba1c_last_1y</code> no value?" in html
    assert "the store holds nothing of this kind for this patient" in html
    assert "null" not in html


def test_instants_are_those_of_the_clinic_and_dates_as_they_were_written(hospital: Hospital):
    page = hospital.store.explanation_page("diabetes:t2dm_active", "patient-001", NOW, site="north")
    (row,) = page.parts()[0].rows
    (sent,) = [each for each in hospital.sent["ward"] if each["id"] == "patient-001-e11"]
    assert row.true_text == sent["onsetDateTime"]
    assert len(row.true_text) == len("2021-04")
    html = page.html()
    assert "T = <time>2026-03-01 07:00</time>" in html
    assert "Times on this page are those of America/New_York" in html
    recorded = dt.datetime.fromisoformat(sent["recordedDate"])
    assert f"{recorded:%Y-%m-%d %H:%M}" in html


def test_codes_are_named_and_statuses_told(hospital: Hospital):
    page = hospital.store.explanation_page("diabetes:on_metformin", "patient-001", NOW, site="north")
    (part,) = page.parts()
    assert part.title == "active, of orders of metformin [rxnorm:6809] as ingredient"
    assert {(row.says, row.code) for row in part.rows} == {
        ("24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet", "rxnorm:860975")
    }
    assert ("its status is not that of one in force: completed") in dict(part.verdicts)
    assert {row.version for row in part.rows} == {"version 1, as it was at first", "version 1"}
    glucose = hospital.store.explanation_page("labs:glucose_last_1y", "patient-001", NOW + DAY, site="north")
    assert "Newest glucose of the last year" in glucose.html()
    assert dict(glucose.parts()[0].verdicts)["its status does not count: entered-in-error"] == 1
    visits = hospital.store.explanation_page("utilization:ambulatory_visits_1y", "patient-001", NOW, site="north")
    assert {(row.says, row.code) for row in visits.parts()[0].rows} == {("ambulatory", "AMB")}


def test_a_value_of_another_unit_is_told_as_it_was_written(hospital: Hospital):
    page = hospital.store.explanation_page("labs:glucose_last_1y", "patient-010", NOW, site=HOSTILE)
    (part,) = page.parts()
    assert {(row.says, row.written) for row in part.rows if row.counts} == {("99.09 mg/dL", "5.5 mmol/L")}
    assert page.explained.answer == pytest.approx(99.09, abs=0.01)


def test_what_is_no_number_is_told_as_it_was_written(hospital: Hospital):
    at = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    page = hospital.store.explanation_page("vitals:weight_change_180d", "patient-002", at, site="north")
    (part,) = page.parts()
    told = {row.says: row.verdict for row in (*part.rows, *part.rest)}
    assert told[f"{CANARY} was weighed"] == "its result is no number"
    assert "It is made like this" not in page.html()


def test_what_stands_for_a_version_number_is_not_told(page: ExplanationPage):
    rows = page.explained.rows
    for version, told in (("~1700000000000000~42", "no version number"), ("3~1700000000000000~42", "version 3")):
        place = rows.column_names.index("version")
        named = rows.set_column(place, "version", [[version] * rows.num_rows])
        made = dataclasses.replace(page, explained=dataclasses.replace(page.explained, rows=named))
        assert {row.version for row in made.parts()[0].rows} == {told}


def test_a_comparison_is_told_with_its_limit(hospital: Hospital):
    (hba1c, *_) = [each for each in hospital.store.views["diabetes"].features if each.name == "hba1c_last_1y"]
    explained = hospital.store.explain(HBA1C, "patient-001", NOW, site="north")
    high = Feature(name="high", value=Expression(operator="greater", arguments=(hba1c.value, Number(number=6.5))))
    page = ExplanationPage("v:high", high, "north", "patient-001", explained, ontologies(), dt.UTC)
    assert "It is made like this: (last, within 365d, of results of Hemoglobin A1c" in page.html()
    assert "&gt; (6.5)" in page.html()


def test_many_values_are_drawn_as_values_and_the_nearest_as_lanes(hospital: Hospital):
    page = hospital.store.explanation_page("labs:sodium_last_1y", "patient-010", NOW, site=HOSTILE)
    (part,) = page.parts()
    assert (len(part.rows), len(part.rest)) == (40, 63)  # three of a code of the site's own, which might be meant
    assert part.values is not None
    assert "100 between 130 mmol/L and 149 mmol/L, 100 of which count" in part.values
    assert part.values.count("<circle") == 100
    assert page.html().count('<tr id="row-') == 103


@pytest.mark.parametrize(
    ("length", "names"),
    [
        (dt.timedelta(hours=5), ["01 Mar 07:00", "01 Mar 08:00", "01 Mar 09:00", "01 Mar 10:00", "01 Mar 11:00"]),
        (20 * DAY, ["08 Mar 2026", "15 Mar 2026"]),
        (200 * DAY, ["Apr 2026", "May 2026", "Jun 2026", "Jul 2026", "Aug 2026", "Sep 2026"]),
        (4000 * DAY, ["2028", "2030", "2032", "2034", "2036"]),
    ],
)
def test_the_axis_has_even_times_of_the_clinic(length: dt.timedelta, names: list[str]):
    """Mornings are those of New York, before and after its clocks change on 8 March 2026."""
    drawn = axis(
        Span(NOW - dt.timedelta(minutes=30), NOW + length - dt.timedelta(minutes=31)), 100, ZoneInfo("America/New_York")
    )
    assert re.findall(r">([^<>]+)</text>", "".join(drawn)) == names


def lane(true_at: dt.datetime, known_at: dt.datetime, *, decides: bool = False) -> Lane:
    return Lane(1, "7 %", true_at, known_at, None, decides, decides, "counts", "7 %: counts")


def test_the_drawn_time_is_the_window_and_what_comes_soon_after():
    asked = Question(NOW, NOW, NOW - 100 * DAY, NOW)
    lanes = [lane(NOW - 300 * DAY, NOW - 299 * DAY), lane(NOW - 2 * DAY, NOW + 20 * DAY), lane(NOW, NOW + 300 * DAY)]
    span = whole_span(lanes, asked)
    assert NOW - 110 * DAY < span.first < NOW - 100 * DAY
    assert NOW + 20 * DAY < span.last < NOW + 30 * DAY


def test_all_of_the_past_is_drawn_where_the_window_is_open():
    asked = Question(NOW, NOW, None, NOW)
    assert whole_span([lane(NOW - 900 * DAY, NOW - 899 * DAY)], asked).first < NOW - 900 * DAY
    assert whole_span([], asked).length > dt.timedelta(0)


def test_what_is_too_near_to_t_to_be_seen_is_drawn_again():
    asked = Question(NOW, NOW, NOW - 365 * DAY, NOW)
    hour = dt.timedelta(hours=1)
    span = close_up([lane(NOW - 4 * hour, NOW - hour, decides=True), lane(NOW - 3 * hour, NOW + 2 * hour)], asked)
    assert span is not None
    assert span.holds(NOW - 4 * hour)
    assert span.holds(NOW + 2 * hour)
    assert span.length < dt.timedelta(days=1)
    assert close_up([lane(NOW - 300 * DAY, NOW - 299 * DAY, decides=True)], asked) is None
    assert close_up([lane(NOW - 2 * hour, NOW - hour)], asked) is None


def test_what_lies_outside_is_drawn_at_the_edge():
    span = Span(NOW, NOW + DAY)
    assert span.x(NOW - DAY) == span.x(NOW) < span.x(NOW + DAY / 2) < span.x(NOW + DAY) == span.x(NOW + 9 * DAY)


def test_the_command_writes_the_page(hospital: Hospital, page: ExplanationPage, tmp_path: Path):
    question = ["explain", HBA1C, "--patient", "patient-001", "--site", "north", "--at", NOW.isoformat()]
    file = tmp_path / "why.html"
    words = ["--config", str(hospital.folder), *question, "--html", str(file)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.stdout == f"{file}\n"
    assert file.read_text() == page.html()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_quiet_alone_and_readable(browser: Browser, file: Path, dark: bool):
    check(browser, file, dark=dark)


def test_the_page_of_many_values_is_readable(browser: Browser, hospital: Hospital, tmp_path: Path):
    page = hospital.store.explanation_page("labs:sodium_last_1y", "patient-010", NOW, site=HOSTILE)
    check(browser, page.save(tmp_path / "why.html"), dark=False)
    assert is_within_a_printed_page(browser, tmp_path / "why.html")


def test_what_counts_differs_not_by_colour_alone(browser: Browser, file: Path):
    heights = "kind => [...new Set([...document.querySelectorAll(kind)].map(e => e.getAttribute('height')))]"
    found = browser.open(file).evaluate(f"['.counts .believed', '.left-out .believed'].map({heights})")
    assert found == [["8"], ["4"]]


def test_a_lane_is_reached_by_keyboard_and_leads_to_its_row(browser: Browser, file: Path):
    shown = browser.open(file)
    number = shown.evaluate(f"{REACHABLE}.length")
    reached = []
    for _ in range(number):
        shown.press_tab()
        reached.append(shown.evaluate(f"{REACHABLE}.indexOf(document.activeElement)"))
    assert reached == list(range(number))
    shown.evaluate("document.querySelector('.timeline a').dispatchEvent(new MouseEvent('click', {cancelable: true}))")
    first = shown.evaluate("document.querySelector('.timeline a').getAttribute('href')")
    assert "#" + shown.evaluate("document.querySelector('tr:target').id") == first
