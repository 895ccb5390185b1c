"""A training set is made again from its receipt, whatever came later; and what is gone is named."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from landing import at, land, observation, patient, warehouse

from fhir_features import FeatureStore
from fhir_features.cli import cli
from fhir_features.config import Config, load_config
from fhir_features.errors import DefinitionError, LakeError, ReproductionError, UsageError
from fhir_features.features.history import find_version, record_of, restore
from fhir_features.features.terms import ontologies
from fhir_features.features.view_diff import diff_views
from fhir_features.normalize import normalize
from fhir_features.ontology.artifacts import LOCK_FILE, Lock, make_lock
from fhir_features.ontology.systems import HOME_VARIABLE, shipped_folder
from fhir_features.upkeep import compact

DEFINITIONS = """
from fhir_features import FeatureView, condition, observation, patient

hba1c = observation("loinc:4548-4", unit="%")
diabetes = FeatureView(
    name="diabetes",
    entity=patient,
    features=[
        hba1c.last().named("hba1c_last"),
        hba1c.mean(within="365d").named("hba1c_mean_1y"),
        condition("icd10cm:E11", descendants=True).ever().named("t2dm_ever"),
        patient.age().named("age"),
    ],
)
nightly = FeatureView(
    name="nightly", entity=patient, cadence="daily@02:00 UTC", features=[hba1c.last().named("hba1c_nightly")]
)
"""
FEATURES = ["diabetes", "nightly"]


class Home:
    """An ontologies folder of a site: its lock has the few artifacts that are needed here, one release at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self, *names: str) -> None:
        self.folder.mkdir(exist_ok=True)
        made = make_lock(shipped_folder())
        kept = tuple(artifact for artifact in made.artifacts if artifact.id.startswith(("loinc@", *names)))
        lock = Lock(rules=made.rules, facts_sha256=made.facts_sha256, artifacts=kept)
        (self.folder / LOCK_FILE).write_text(lock.text())
        ontologies.cache_clear()


def diagnosis(id: str, code: str) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": id,
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}]},
        "subject": {"reference": f"Patient/{id}"},
        "recordedDate": "2024-02-01T00:00:00Z",
    }


def measured(id: str, value: float, **more: Any) -> dict[str, Any]:
    quantity = {"value": value, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}
    return observation(id, valueQuantity=quantity, **more)


def spine(**columns: Any) -> pa.Table:
    times = [at(text) for text in ("2024-03-05 15:00", "2024-03-06 12:00", "2024-03-09", "2024-03-09")]
    instants = pa.array(times, pa.timestamp("us", "UTC"))
    return pa.table(
        {"patient_id": ["p1", "p1", "p1", "p2"], "event_timestamp": instants, "label": [1, 0, 1, 0], **columns}
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one pull, and a training set of it with its receipt: copied for each test."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder / "ontologies"))
        Home(folder / "ontologies").lock("icd10cm@FY2025")
        made = warehouse(folder)
        (folder / "feature_repo").mkdir()
        (folder / "feature_repo" / "features.py").write_text(DEFINITIONS)
        people = [patient("p1"), patient("p2"), diagnosis("p1", "E11.9"), diagnosis("p2", "E11.A")]
        land(made, [*people, measured("o1", 7.5), measured("o2", 6.5, issued="2024-03-06T10:00:00Z")], at("2024-03-10"))
        normalize(made)
        FeatureStore(folder).get_historical_features(spine(), FEATURES).save(folder / "set.parquet")
    ontologies.cache_clear()
    return folder


@pytest.fixture
def config(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "ontologies"))
    ontologies.cache_clear()
    yield load_config(tmp_path)
    ontologies.cache_clear()


@pytest.fixture
def home(config: Config, tmp_path: Path) -> Home:
    return Home(tmp_path / "ontologies")


@pytest.fixture
def receipt(config: Config, tmp_path: Path) -> Path:
    return tmp_path / "set.parquet.receipt.json"


def later_pulls(config: Config) -> None:
    """Ten more: late results (one back-dated to before the questions), corrections, withdrawals, more patients."""
    for number in range(10):
        o1 = measured("o1", 8.0 + number / 10, status="corrected", meta={"versionId": str(number + 2)})
        late = measured(f"late{number}", 9.0, issued="2024-03-05T14:30:00Z")
        o2 = measured("o2", 6.5, status="entered-in-error", meta={"versionId": "9"})
        lines = [o1, late, patient(f"new{number}"), diagnosis(f"new{number}", "E11.A"), *([o2] if number == 4 else [])]
        land(config, lines, at("2024-04-01") + dt.timedelta(days=number), since=at("2024-03-10"))
    normalize(config)


def test_a_training_set_is_made_again_after_pulls_a_compaction_and_an_ontology_upgrade(
    config: Config, receipt: Path, home: Home, tmp_path: Path
) -> None:
    later_pulls(config)
    assert "observations" in {each.table for each in compact(config)}
    home.lock("icd10cm@FY2025", "icd10cm@FY2026")
    normalize(config)
    store = FeatureStore(tmp_path)
    now = store.get_historical_features(spine(), FEATURES)
    made = store.reproduce(receipt)
    assert (made.same, made.differing) == (True, ())
    assert made.training.to_arrow().equals(pq.read_table(tmp_path / "set.parquet"))
    assert made.training.to_arrow()["t2dm_ever"].to_pylist() == [True, True, True, False]
    assert made.training.to_arrow()["hba1c_nightly"].to_pylist() == [None, 7.5, 6.5, None]
    assert now.to_arrow()["t2dm_ever"].to_pylist() == [True, True, True, True]
    assert now.receipt.output != made.receipt.output
    assert now.receipt.locks != made.receipt.locks
    assert now.receipt.views[0].version != made.receipt.views[0].version


def test_an_earlier_version_of_a_view_is_answered_under_its_own_lock(
    config: Config, receipt: Path, home: Home, tmp_path: Path
) -> None:
    version = json.loads(receipt.read_text())["views"][0]["version"]
    home.lock("icd10cm@FY2025", "icd10cm@FY2026")
    (tmp_path / "feature_repo" / "features.py").write_text(DEFINITIONS.replace("E11", "I10"))
    store = FeatureStore(tmp_path)
    both = store.get_historical_features(spine(), [f"diabetes@{version[:8]}:t2dm_ever", "diabetes:age"])
    assert both.to_arrow()["t2dm_ever"].to_pylist() == [True, True, True, False]
    assert (
        store.get_historical_features(spine(), ["diabetes:t2dm_ever"]).to_arrow()["t2dm_ever"].to_pylist()
        == [False] * 4
    )
    assert len(both.receipt.locks) == 2
    again = store.reproduce(both.save(tmp_path / "both.parquet"))
    assert again.same
    with pytest.raises(UsageError, match="no version of feature view 'diabetes' begin with 'ffff'"):
        store.get_historical_features(spine(), ["diabetes@ffff"])
    with pytest.raises(UsageError, match="'diabetes@a' is too short"):
        store.get_historical_features(spine(), ["diabetes@a"])


def test_a_receipt_says_what_was_read_and_nothing_of_the_patients(config: Config, receipt: Path) -> None:
    text = receipt.read_text()
    told = json.loads(text)
    assert not re.search(r'"p[12]"|2024-03-0[569]', text)
    assert (told["store_seq"], told["spine"]["rows"], told["output"]["rows"]) == (1, 4, 4)
    assert [column["name"] for column in told["output"]["columns"]][-2:] == ["age", "hba1c_nightly"]
    assert [view["name"] for view in told["views"]] == ["diabetes", "nightly"]
    assert told["views"][0]["definition"]["features"][0]["name"] == "hba1c_last"
    assert {row["resource_type"] for row in told["watermarks"]} >= {"Patient", "Observation"}
    assert sum(told["summary"]["shares"].values()) == pytest.approx(1)
    assert told["summary"]["known_at_source"] == {"issued": 4, "recorded_date": 1}
    assert "icd10cm@FY2025" in {artifact["id"] for artifact in told["locks"][0]["artifacts"]}


def test_a_receipt_shows_its_hashes_and_nothing_of_the_patients(config: Config, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert repr(store) == f"<FeatureStore {tmp_path}, sites: north>"
    made = store.get_historical_features(spine(), FEATURES).receipt
    views = ", ".join(f"{view.name}@{view.version[:12]}" for view in made.views)
    assert repr(made) == f"<Receipt of 4 rows: {views}; store_seq 1, {made.output.sha256[:12]}>"
    assert str(made) == repr(made)
    shown = made._repr_html_()
    for said in (made.output.sha256, made.spine.sha256, made.views[0].lock, made.commits):
        assert said[:12] in shown
    assert not re.search(r"p[12]\b|2024-03-0[569]", shown)


def test_the_same_question_has_the_same_receipt(config: Config, receipt: Path, tmp_path: Path) -> None:
    again = FeatureStore(tmp_path).get_historical_features(spine().to_pandas(), FEATURES)
    assert again.receipt.to_json() == receipt.read_text()


def test_the_spine_is_asked_for_when_the_warehouse_does_not_keep_it(
    config: Config, receipt: Path, tmp_path: Path
) -> None:
    (kept,) = (config.warehouse.path / "spines").iterdir()
    kept.unlink()
    store = FeatureStore(tmp_path)
    with pytest.raises(ReproductionError, match="the spine of the receipt"):
        store.reproduce(receipt)
    csv.write_csv(spine(), tmp_path / "spine.csv")
    assert store.reproduce(receipt, spine=tmp_path / "spine.csv").same
    with pytest.raises(ReproductionError, match="column label differs"):
        store.reproduce(receipt, spine=spine(label=[1, 1, 1, 1]))


def changed(receipt: Path, **fields: Any) -> Path:
    told = {**json.loads(receipt.read_text()), **fields}
    receipt.write_text(json.dumps(told))
    return receipt


def test_every_input_that_is_gone_is_named(config: Config, receipt: Path, home: Home, tmp_path: Path) -> None:
    told = json.loads(receipt.read_text())
    told["engine"]["semantics"] = 0
    told["locks"][0]["artifacts"][0] |= {"id": "icd10cm@FY1999", "folder": "codesystem/icd10cm/FY1999"}
    told |= {"views": [], "store_seq": 7}
    with pytest.raises(ReproductionError) as gone:
        FeatureStore(tmp_path).reproduce(changed(receipt, **told))
    assert "semantics 0 of the engine (fhir-features" in str(gone.value)
    assert "the lake has 1 commits, the receipt rests on commit 7" in str(gone.value)
    assert "needs icd10cm@FY1999 with the hash" in str(gone.value)
    assert "\n" not in str(gone.value)


def test_a_lake_that_was_made_anew_is_told_from_the_one_that_was_read(
    config: Config, receipt: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReproductionError, match="the lake was made anew: its commits up to 1"):
        FeatureStore(tmp_path).reproduce(changed(receipt, commits="0" * 64))


def test_a_definition_that_was_changed_in_the_receipt_is_found_out(
    config: Config, receipt: Path, tmp_path: Path
) -> None:
    views = json.loads(receipt.read_text())["views"]
    views[0]["definition"]["features"][0]["value"]["window"]["end_us"] = 1
    with pytest.raises(ReproductionError, match="the definition of view 'diabetes' is not that of version"):
        FeatureStore(tmp_path).reproduce(changed(receipt, views=views))
    views[0]["definition"]["features"][0]["name"] = "HbA1c"
    with pytest.raises(ReproductionError, match="the definition of view 'diabetes' is not one of this version"):
        FeatureStore(tmp_path).reproduce(changed(receipt, views=views))


def test_a_data_file_that_is_gone_is_named(config: Config, receipt: Path, tmp_path: Path) -> None:
    gone, *_ = (config.warehouse.path / "lake" / "data" / "main" / "observations").glob("*.parquet")
    gone.unlink()
    with pytest.raises(LakeError, match=f"{gone.name} is missing"):
        FeatureStore(tmp_path).reproduce(receipt)


def test_a_recorded_version_that_is_not_as_it_was_is_not_answered(
    config: Config, receipt: Path, tmp_path: Path
) -> None:
    version = json.loads(receipt.read_text())["views"][0]["version"]
    recorded = find_version(FeatureStore(tmp_path).history, "diabetes", version)
    assert restore(recorded).version == version
    with pytest.raises(DefinitionError, match="was made for semantics 0 of the engine"):
        restore(recorded.model_copy(update={"semantics": 0}))
    other = {**recorded.definition, "features": recorded.definition["features"][:1]}
    with pytest.raises(DefinitionError, match="its record was changed"):
        restore(recorded.model_copy(update={"definition": other}))


def run(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["--config", str(folder), *words], catch_exceptions=True)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_the_commands_write_a_receipt_and_make_it_again(config: Config, tmp_path: Path) -> None:
    csv.write_csv(spine(), tmp_path / "spine.csv")
    output = tmp_path / "out.parquet"
    asked = ("get", str(tmp_path / "spine.csv"), "--features", "diabetes", "--output", str(output))
    assert run(tmp_path, *asked)[0] == 0
    again = tmp_path / "again.parquet"
    asked = ("reproduce", str(tmp_path / "out.parquet.receipt.json"), "--output", str(again))
    exit_code, said = run(tmp_path, *asked)
    assert (exit_code, said.splitlines()[1].split()[:2]) == (0, ["yes", "4"])
    told = json.loads(run(tmp_path, *asked, "--json")[1])
    assert (told["same"], told["rows"], told["differing"], told["made_with"] == told["engine"]) == (True, 4, [], True)
    assert pq.read_table(again).equals(pq.read_table(output))


def test_values_that_differ_although_nothing_is_gone_are_told_by_column(
    config: Config, receipt: Path, tmp_path: Path
) -> None:
    output = json.loads(receipt.read_text())["output"]
    output["columns"][-1]["sha256"] = "0" * 64
    exit_code, said = run(tmp_path, "reproduce", str(changed(receipt, output=output)))
    told = said.splitlines()[1].split()
    assert (exit_code, told[0], told[-1]) == (1, "no", "hba1c_nightly")


def test_what_is_no_receipt_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 2}')
    with pytest.raises(UsageError, match=r"x\.json is no receipt of this version: "):
        FeatureStore(tmp_path).reproduce(tmp_path / "x.json")
    with pytest.raises(UsageError, match="cannot be read"):
        FeatureStore(tmp_path).reproduce(tmp_path / "y.json")


def test_diff_shows_codes_and_fields_and_list_the_earlier_versions(
    config: Config, receipt: Path, home: Home, tmp_path: Path
) -> None:
    version = json.loads(receipt.read_text())["views"][0]["version"]
    home.lock("icd10cm@FY2025", "icd10cm@FY2026")
    later = DEFINITIONS.replace('hba1c.mean(within="365d")', 'hba1c.mean(within="52w")')
    (tmp_path / "feature_repo" / "features.py").write_text(later.replace('"age"', '"years"'))
    exit_code, text = run(tmp_path, "features", "diff", f"diabetes@{version[:8]}", "diabetes", "--json")
    told = json.loads(text)
    assert (exit_code, told["before"]) == (1, version)
    changed = {feature["feature"]: feature for feature in told["features"]}
    assert {name: feature["change"] for name, feature in changed.items()} == {
        "hba1c_mean_1y": "changed",
        "t2dm_ever": "changed",
        "age": "removed",
        "years": "added",
    }
    assert changed["hba1c_mean_1y"]["fields"] == [{"path": "window.start", "before": "365d", "after": "52w"}]
    assert (changed["t2dm_ever"]["codes_gained"], changed["t2dm_ever"]["codes_lost"]) == (["icd10cm:E11.A"], [])
    _, text = run(tmp_path, "features", "diff", f"diabetes@{version[:8]}", "diabetes")
    rows = [line.split() for line in text.splitlines()]
    assert ["t2dm_ever", "code", "-", "icd10cm:E11.A"] in rows
    assert ["hba1c_mean_1y", "window.start", "365d", "52w"] in rows
    assert run(tmp_path, "features", "diff", "diabetes", "diabetes")[0] == 0
    listed = json.loads(run(tmp_path, "features", "list", "--all", "--json")[1])
    assert [(row["view"], row["version"] == version, row["in_use"]) for row in listed] == [
        ("diabetes", False, True),
        ("nightly", False, True),
        ("diabetes", True, False),
    ]


def test_the_cadence_and_the_semantics_are_among_what_differs(config: Config, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    nightly = record_of(store.locked("nightly"))
    definition = {**nightly.definition, "cadence": "on_change"}
    fields = diff_views(nightly, nightly.model_copy(update={"definition": definition, "semantics": 0})).fields
    assert [(field.path, field.after) for field in fields] == [("cadence", "on_change"), ("semantics", "0")]


def test_each_of_several_statuses_is_told(config: Config, tmp_path: Path) -> None:
    define = DEFINITIONS.replace("hba1c.last()", "hba1c.where(status={}).last()", 1)
    file = tmp_path / "feature_repo" / "features.py"
    file.write_text(define.format(["final", "amended"]))
    before = record_of(FeatureStore(tmp_path).locked("diabetes"))
    file.write_text(define.format(["final", "corrected"]))
    (changed, *others) = diff_views(before, record_of(FeatureStore(tmp_path).locked("diabetes"))).features
    assert others == []
    assert [(field.path, field.before, field.after) for field in changed.fields] == [
        ("rows.statuses.0", "amended", "corrected")
    ]
