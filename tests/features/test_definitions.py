"""Definitions are values, and a mistake in one is refused in one line where it is made."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fhir_features import (
    FeatureService,
    FeatureView,
    between,
    coalesce,
    concept_set,
    condition,
    encounter,
    medication,
    observation,
    patient,
)
from fhir_features.errors import DefinitionError
from fhir_features.features import load_views
from fhir_features.features.compile import compile_features
from fhir_features.features.repository import load_services
from fhir_features.features.wording import unit_of


def view(*features: Any, **more: Any) -> FeatureView:
    return FeatureView(**{"name": "v", "entity": patient, "features": list(features), **more})


HBA1C = observation("loinc:4548-4", unit="%")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: condition("icd10cm:E11.99"), "E11.9"),
        (lambda: condition("E11"), "E11"),
        (lambda: observation("loinc:4548-5"), "4548"),
        (lambda: observation("icd10cm:E11"), "observation() takes codes of loinc, snomed, not of icd10cm"),
        (lambda: condition("loinc:4548-4"), "condition() takes codes of icd10cm"),
        (lambda: medication("icd10cm:E11"), "medication() takes codes of rxnorm"),
        (lambda: observation("loinc:4548-4", unit="kg"), "measured in %, which cannot be converted to 'kg'"),
        (lambda: observation("loinc:4548-4", unit="bananas"), "'bananas'"),
        (lambda: observation("loinc:4548-4").mean(), "mean() needs a unit"),
        (lambda: observation(["loinc:4548-4"]), "observation() takes a code such as"),
        (lambda: HBA1C.last(within="365"), "within: '365' is not a duration"),
        (lambda: medication("rxnorm:6809").active(assume="1y"), "assume: '1y' is not a duration"),
        (lambda: HBA1C.last(within=between("1d", "7d")), "between('1d', '7d') is empty"),
        (lambda: HBA1C.last(within=between("7d", "1")), "between: '1' is not a duration"),
        (lambda: observation("loinc:4548-4").where(low=4), "a range of values needs a unit"),
        (lambda: HBA1C.last() / patient.sex(), "a ratio is of numbers"),
        (lambda: coalesce(HBA1C.exists(), 1), "a coalesce is of numbers"),
        (lambda: HBA1C.last(within=365), "within: '365' is not a duration"),
        (lambda: HBA1C.last(within=dt.timedelta(days=365)), "within: '365 days, 0:00:00' is not a duration"),
        (lambda: medication("rxnorm:6809").proportion_covered(within=None, assume="30d"), "a window with a beginning"),
        (lambda: HBA1C.where(status="finall"), "status: 'finall' is none that FHIR has: did you mean 'final'?"),
        (lambda: medication("rxnorm:6809").where(status=["active", "stoped"]), "did you mean 'stopped'?"),
        (lambda: condition("icd10cm:E11").where(clinical_status="actve"), "did you mean 'active'?"),
        (lambda: condition("icd10cm:E11").where(verification_status="confirm"), "did you mean 'confirmed'?"),
        (lambda: HBA1C.where(coded="snomed:1"), "no code of SNOMED CT"),
        (lambda: HBA1C.where(method=["snomed:8517006"]), "method: it is a code such as"),
        (lambda: HBA1C.last() == "high", "equal: 'high' is no finite number"),
        (lambda: encounter().where(status="final"), "status: 'final' is none that FHIR has"),
        (lambda: HBA1C.where(low=9, high=4), "where(low=9, high=4) is empty"),
        (lambda: HBA1C.where(high=float("nan")), "where: 'nan' is no finite number"),
        (lambda: HBA1C.where(low="4"), "where: '4' is no finite number"),
        (lambda: HBA1C.last() > float("inf"), "greater: 'inf' is no finite number"),
        (lambda: HBA1C.last() / HBA1C.first().named("a"), "ratio: 'Feature' is no finite number"),
        (lambda: HBA1C.last() > 1 and HBA1C.last() < 2, "has no truth before it is asked"),
        (lambda: 1 < HBA1C.last() < 2, "has no truth before it is asked"),
        (lambda: view(features=None), "features: Input should be"),
        (lambda: encounter("hospital"), "'hospital' is not an encounter class"),
        (lambda: condition(concept_set("icd10cm:E11"), descendants=True), "takes no descendants="),
        (lambda: view(HBA1C.last()), "feature 1 of the view has no name"),
        (lambda: view(), "has no features"),
        (lambda: view(HBA1C.last().named("a"), HBA1C.min().named("a")), "two features 'a'"),
        (lambda: view(HBA1C.last().named("HbA1c")), "'HbA1c' needs another name"),
        (lambda: view(HBA1C.last().named("site")), "name of a key column"),
        (lambda: view(HBA1C.last().named("a"), name="my view"), "'my view' needs another name"),
        (lambda: view(HBA1C.last().named("a"), entity="encounter"), "entity"),
        (lambda: view(HBA1C.last().named("a"), cadence="hourly"), "cadence"),
        (lambda: view(HBA1C.last().named("a"), ttl="1d"), "ttl"),
        (lambda: view(HBA1C.last().named("a"), max_age="soon"), "'v', max_age: 'soon' is not a duration"),
        (lambda: FeatureService(name="s", features=[]), "feature service 's' has no features"),
    ],
)
def test_a_mistake_is_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        make()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("labz", "takes 'labz', but there is no such feature view: did you mean 'labs'"),
        ("labs:hba1", "takes 'labs:hba1', which the view does not have: did you mean 'hba1c'"),
    ],
)
def test_a_service_takes_what_there_is(item: str, says: str) -> None:
    known = {"labs": view(HBA1C.last().named("hba1c"))}
    with pytest.raises(DefinitionError, match=says):
        FeatureService(name="s", features=[item]).chosen(known)


@pytest.mark.parametrize(
    ("asked", "unit"),
    [
        (HBA1C.last(), "%"),
        (HBA1C.slope(), "%/d"),
        (HBA1C.last() / HBA1C.first(), "1"),
        (HBA1C.last() / 2, "%"),
        (2 / HBA1C.last(), "1/%"),
        (HBA1C.last() / observation("loinc:2345-7", unit="mg/dL").last(), "%/mg/dL"),
        (coalesce(HBA1C.last(), 5), "%"),
        (HBA1C.last() > 6, None),
        (patient.sex(), None),
    ],
)
def test_an_answer_has_the_unit_of_what_it_is_made_of(asked: Any, unit: str | None) -> None:
    assert unit_of(asked.named("a").value) == unit


def test_a_view_is_a_value() -> None:
    one, other = view(HBA1C.last(within="7d").named("a")), view(HBA1C.last(within="7d").named("a"))
    assert one == other
    assert one.version == other.version
    assert FeatureView(**json.loads(json.dumps(one.definition()))) == one


def test_a_constant_may_stand_first() -> None:
    ratio, difference = 1 / HBA1C.last(), 1 - HBA1C.last()
    assert [type(each).__name__ for each in ratio.value.arguments] == ["Number", "Aggregate"]
    assert (ratio.value.operator, difference.value.operator) == ("ratio", "difference")
    assert difference.value.arguments == ratio.value.arguments


def test_the_version_changes_with_what_changes_an_answer() -> None:
    versions = [
        view(HBA1C.last(within="7d").named("a")).version,
        view(HBA1C.last(within="8d").named("a")).version,
        view(HBA1C.first(within="7d").named("a")).version,
        view(observation("loinc:4548-4", unit="1").last(within="7d").named("a")).version,
        view(condition("icd10cm:E11").ever().named("a")).version,
        view(condition("icd10cm:E11", descendants=True).ever().named("a")).version,
        view(medication("rxnorm:6809").active(assume="30d").named("a")).version,
        view(medication("rxnorm:6809").active(assume="31d").named("a")).version,
    ]
    assert len(set(versions)) == len(versions)


T2DM, METFORMIN, STAY = condition("icd10cm:E11"), medication("rxnorm:6809"), encounter("inpatient")
SMOKER = "snomed:8517006"
CHANGES: dict[str, list[Any]] = {
    "site": [series.where(site="north").count() for series in (HBA1C, T2DM, METFORMIN, STAY)],
    "status": [series.where(status="unknown").count() for series in (HBA1C, METFORMIN, STAY)],
    "conditions": [T2DM.where(clinical_status="active").count(), T2DM.where(verification_status="confirmed").count()],
    "category": [series.where(category="laboratory").count() for series in (HBA1C, T2DM, METFORMIN)],
    "class": [series.where(encounter_class="inpatient").count() for series in (HBA1C, T2DM, METFORMIN)],
    "interpretation": [HBA1C.where(interpretation="H").count()],
    "codes": [HBA1C.where(method=SMOKER).count(), HBA1C.where(coded=SMOKER).count()],
    "range": [HBA1C.where(low=0).count(), HBA1C.where(high=0).count(), HBA1C.where(low=0, high=0).count()],
    "comparators": [HBA1C.where(comparators=False).count()],
    "nothing": [series.count() for series in (HBA1C, T2DM, METFORMIN, STAY, encounter())],
    "windows": [HBA1C.count(within=window) for window in ("7d", between("7d", "1d"), between(None, "1d"))],
    "expressions": [HBA1C.last() > 7, HBA1C.last() >= 7, HBA1C.last() == 7, HBA1C.last() != 7, HBA1C.last() > 8],
    "sets": [condition(concept_set("icd10cm:E11", "icd10cm:I10")).count()],
}


def test_each_thing_that_can_be_asked_for_changes_the_version() -> None:
    asked = [each for values in CHANGES.values() for each in values]
    assert len({view(each.named("a")).version for each in asked}) == len(asked)
    one = view(HBA1C.count().named("a"))
    assert view(HBA1C.count().named("a"), cadence="daily@02:00 UTC").version != one.version
    assert view(HBA1C.count().named("b")).version != one.version


def test_the_version_changes_with_the_semantics_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = view(HBA1C.count().named("a")).version
    monkeypatch.setattr("fhir_features.features.view.SEMANTICS_VERSION", 0)
    assert view(HBA1C.count().named("a")).version != before


def test_a_window_is_its_length_however_it_is_said() -> None:
    assert view(HBA1C.last(within="1d").named("a")).version == view(HBA1C.last(within="24h").named("a")).version


def test_the_statement_binds_no_concepts_and_no_instants() -> None:
    sql = compile_features(view(condition("icd10cm:E11", descendants=True).active().named("a")).features).sql
    assert "E11" not in sql
    assert "$first_bucket" in sql


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("from fhir_features import patient\nx = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("x = (\n", "line 1: SyntaxError"),
        ("x: nothing_of_this_name = 1\n", "line 1: NameError"),
        ("from fhir_features import condition\n\ncondition('icd10cm:E1199')\n", "line 3: "),
        ("from fhir_features import patient\npatient.agee()\n", "line 2: <patient> has no 'agee': did you mean 'age'?"),
    ],
)
def test_a_mistake_in_the_file_names_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "features.py").write_text(text)
    with pytest.raises(DefinitionError, match=re.escape(says)) as refused:
        load_views(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_file_that_was_changed_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it keeps its size and time, as when it is deployed with a time that is always the same."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    text = "from fhir_features import FeatureView, patient\nfeature = patient.age().named('a')\n"
    for name in ("v", "w"):
        (tmp_path / "features.py").write_text(
            f"{text}x = FeatureView(name='{name}', entity=patient, features=[feature])\n"
        )
        os.utime(tmp_path / "features.py", (0, 0))
        assert list(load_views(tmp_path)) == [name]
    assert [file.name for file in tmp_path.iterdir()] == ["features.py"]


def test_two_views_of_one_name_are_refused(tmp_path: Path) -> None:
    head = "from fhir_features import FeatureView, patient\n"
    one = "a = FeatureView(name='v', entity=patient, features=[patient.age().named('age')])\n"
    other = "b = FeatureView(name='v', entity=patient, features=[patient.sex().named('sex')])\n"
    (tmp_path / "features.py").write_text(head + one + other)
    with pytest.raises(DefinitionError, match="two feature views are named 'v'"):
        load_views(tmp_path)


def test_no_definitions_is_said(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"there are no feature definitions at .*features\.py"):
        load_views(tmp_path)


def test_the_shipped_views_load() -> None:
    views = load_views(Path(__file__).parents[2] / "feature_repo")
    assert list(views) == [
        "vitals",
        "labs",
        "diabetes",
        "chronic_conditions",
        "medications",
        "utilization",
    ]
    (service,) = load_services(Path(__file__).parents[2] / "feature_repo").values()
    assert list(service.chosen(views)) == ["vitals", "labs", "chronic_conditions", "medications", "utilization"]
    assert service.chosen(views)["labs"] == ("ldl_last_5y", "hba1c_last_1y")
