"""User tests: invented patients on a page, asked through the engine, and what is said where an answer differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_feature_commands import run

from fhir_features import FeatureView, medication, observation, patient
from fhir_features.errors import DefinitionError
from fhir_features.features import load_views
from fhir_features.features.assurance import Assurance, assure
from fhir_features.features.invented import KINDS, read_patients
from fhir_features.features.terms import ontologies

REPO = Path(__file__).parents[2] / "feature_repo"
PAGE = """# Tests

Prose is for people.

## A correction

| born | sex | deceased |
|------|:---:|---|
| 1960-05-04 | female | |

| observation | drawn | known | until | value | unit |
| --- | --- | --- | --- | --- | --- |
| loinc:4548-4 | 2024-03-05 09:00+01:00 | 2024-03-05 14:00 | 2024-03-07 10:00 | 7.5 | % |
| loinc:4548-4 | 2024-03-05 08:00 | 2024-03-07 10:00 | | 6.4 | % |

| asked at | known as of | labs:hba1c_last_1y | chronic_conditions:t2dm_active |
| --- | --- | --- | --- |
| 2024-03-05 13:59 | | | false |
| 2024-03-05 14:00 | | 7.5 | false |
| 2024-03-07 10:00 | | 6.4 | false |
| 2024-03-09 | 2024-03-06 00:00 | 7.5 | false |
"""


MEDICATION = """| medication | ordered | repeats |
| --- | --- | --- |
| rxnorm:6809 | 2024-03-05 | often |

"""
STAY = """| encounter | start |
| --- | --- |
| inpatient | 2024-03-05 |

"""


def outcome(tmp_path: Path, page: str) -> Assurance:
    file = tmp_path / "feature_tests.md"
    file.write_text(page)
    return assure(ontologies(), load_views(REPO), read_patients(file))


def test_the_shipped_features_say_what_their_page_says() -> None:
    found = assure(ontologies(), load_views(REPO), read_patients(REPO / "feature_tests.md"))
    assert found.failures == ()
    views = load_views(REPO)
    asked = {
        name for patient in read_patients(REPO / "feature_tests.md") for each in patient.asked for name in each.expected
    }
    defined = {f"{view.name}:{feature.name}" for view in views.values() for feature in view.features}
    assert defined == asked, "a shipped feature without a test"


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_is_on_the_page_of_the_documentation(kind: str) -> None:
    tables = (REPO.parent / "docs" / "asking.md").read_text().split("## Feature tests")[1].splitlines()
    (row,) = [line for line in tables if line.startswith(f"| `{kind}`")]
    (shared,) = [line for line in tables if line.startswith("| each of these")]
    assert set(KINDS[kind].columns) == set(re.findall(r"`(\w+)`", row + shared))


def test_answers_as_expected_are_counted(tmp_path: Path) -> None:
    assert outcome(tmp_path, PAGE) == Assurance(patients=1, answers=8, failures=())


FILTERS = """## What belongs to a stay

| born |
| --- |
| 1960-05-04 |

| encounter | start | id |
| --- | --- | --- |
| IMP | 2024-03-05 08:00 | stay |

| observation | drawn | value | unit | method | encounter | absent |
| --- | --- | --- | --- | --- | --- | --- |
| loinc:4548-4 | 2024-03-05 09:00 | 7.5 | % | snomed:8517006 | | |
| loinc:4548-4 | 2024-03-05 10:00 | 6.5 | % | | stay | |
| loinc:4548-4 | 2024-03-05 11:00 | | % | | stay | unknown |

| medication | ordered | ends | repeats | category | intent | reported | forbidden | encounter |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| rxnorm:6809 | 2024-03-05 09:00 | 2024-03-05 12:00 | 0 | inpatient | order | | | stay |
| rxnorm:6809 | 2024-03-05 09:00 | | | community | plan | yes | | |
| rxnorm:6809 | 2024-03-05 09:00 | | | community | order | | yes | |

| asked at | stay:by_method | stay:drawn_in_it | stay:ordered_in_it | stay:in_the_community | stay:on_metformin |
| --- | --- | --- | --- | --- | --- |
| 2024-03-05 11:30 | 7.5 | 6.5 | 1 | 1 | true |
| 2024-03-05 12:00 | 7.5 | 6.5 | 1 | 1 | false |
"""


def test_a_page_can_state_what_filters_ask_for(tmp_path: Path) -> None:
    hba1c, metformin = observation("loinc:4548-4", unit="%"), medication("rxnorm:6809")
    features = [
        hba1c.where(method="snomed:8517006").last().named("by_method"),
        hba1c.where(encounter_class="inpatient").last().named("drawn_in_it"),
        metformin.where(encounter_class="inpatient").count().named("ordered_in_it"),
        metformin.where(category="community").count().named("in_the_community"),
        metformin.where(category="inpatient").active(assume="30d").named("on_metformin"),
    ]
    (tmp_path / "feature_tests.md").write_text(FILTERS)
    views = {"stay": FeatureView(name="stay", entity=patient, features=features)}
    found = assure(ontologies(), views, read_patients(tmp_path / "feature_tests.md"))
    assert (found.answers, found.failures) == (10, ())


@pytest.mark.parametrize(
    ("written", "instead", "expected", "got"),
    [
        ("14:00 | | 7.5 | false", "14:00 | | 7.4 | false", "7.4", "7.5"),
        ("14:00 | | 7.5 | false", "14:00 | | | false", "nothing", "7.5"),
        ("14:00 | | 7.5 | false", "14:00 | | 7.5 | true", "true", "false"),
        ("13:59 | | | false", "13:59 | | 7.5 | false", "7.5", "nothing"),
    ],
)
def test_another_answer_fails(tmp_path: Path, written: str, instead: str, expected: str, got: str) -> None:
    assert written in PAGE
    (failure,) = outcome(tmp_path, PAGE.replace(written, instead)).failures
    assert (failure.patient, failure.expected, failure.got) == ("A correction", expected, got)


def test_a_failure_says_why_the_answer_is_what_it_is(tmp_path: Path) -> None:
    (failure,) = outcome(tmp_path, PAGE.replace("| 6.4 | false", "| 7.5 | false")).failures
    line = PAGE.splitlines().index("| 2024-03-07 10:00 | | 6.4 | false |") + 1
    assert (failure.line, failure.feature) == (line, "labs:hba1c_last_1y")
    assert any("superseded" in verdict for verdict in failure.why)
    assert any(verdict.endswith("counts") for verdict in failure.why)


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        (
            "| observation | drawn |",
            "| observation | drwan |",
            "'drwan' is no column of observation: did you mean 'drawn'",
        ),
        ("| observation |", "| observations |", "'observations' is no kind of table: did you mean 'observation'"),
        ("loinc:4548-4 | 2024-03-05 08:00", "loinc:4548-4 | ", "line 14: the line says no 'drawn'"),
        ("loinc:4548-4 | 2024-03-05 08:00", "loinc:4548-4 | the 5th", "'the 5th' is not an instant"),
        ("loinc:4548-4 | 2024-03-05 08:00", "4548-4 | 2024-03-05 08:00", "'4548-4' is not a concept"),
        ("| 6.4 | % |", "| low | % |", "'low' is not a number"),
        ("| 6.4 | % |", "| 6.4 | percents |", "'percents' is not a UCUM unit"),
        ("| 6.4 | % |", "| 6.4 |", "the table has 6 columns, and this line 5"),
        ("1960-05-04", "May 1960", "'May 1960' is not a date"),
        ("female | |", "female | maybe |", "'maybe' is neither 'yes' nor 'no'"),
        (
            "chronic_conditions:t2dm_active",
            "chronic_conditions:t2dm_actve",
            "ask for 'chronic_conditions:t2dm_actve': did you mean",
        ),
        ("| asked at |", MEDICATION + "| asked at |", "'often' is not a whole number"),
        ("| asked at |", STAY + "| asked at |", "'inpatient' is several classes: write the one of this stay, of "),
        ("14:00 | | 7.5 |", "14:00 | | high |", "line 19: labs:hba1c_last_1y is a number, not 'high'"),
        ("7.5 | false |", "7.5 | no |", "line 19: chronic_conditions:t2dm_active is true or false, not 'no'"),
        ("## A correction", "A correction", "before the first '## heading'"),
        ("| asked at | known as of | labs:hba1c_last_1y | chronic_conditions:t2dm_active |", "", "is no kind of table"),
    ],
)
def test_a_mistake_on_the_page_is_one_line_that_names_it(tmp_path: Path, written: str, instead: str, says: str) -> None:
    assert written in PAGE
    with pytest.raises(DefinitionError) as refused:
        outcome(tmp_path, PAGE.replace(written, instead))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_page_that_expects_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="expect nothing"):
        outcome(tmp_path, "# Tests\n\n## A patient\n")
    with pytest.raises(DefinitionError, match="there are no feature tests at"):
        read_patients(tmp_path / "nowhere.md")


def test_the_command_needs_no_warehouse_and_ends_with_1_where_an_answer_differs(project: Any) -> None:
    file = project.folder / "feature_repo" / "feature_tests.md"
    page = PAGE.replace("labs:", "diabetes:").replace("chronic_conditions:", "diabetes:")
    file.write_text(page)
    good = run(project, "features", "test")
    assert (good.returncode, [line.split() for line in good.stdout.splitlines()][1:]) == (0, [["1", "8", "0"]])
    file.write_text(page.replace("| 6.4 | false", "| 7.5 | false"))
    bad = run(project, "features", "test")
    assert bad.returncode == 1
    assert re.search(r"diabetes:hba1c_last_1y +2024-03-07 10:00:00Z +7\.5 +6\.4\n", bad.stdout)
    as_json = run(project, "features", "test", "--json")
    assert as_json.returncode == 1
    assert [each["got"] for each in json.loads(as_json.stdout)["failures"]] == ["6.4"]
