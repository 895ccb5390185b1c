"""The job, what the SDK answers online and how old it says that is, refreshes, and the parity of online and offline."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import feast
import pytest
from project import NOW, Project
from test_online_equals_offline import apply, offline, online, watermarks

from fhir_features.cli import cli
from fhir_features.errors import (
    FeatureTableError,
    GateRefused,
    LakeLocked,
    OnlineStoreError,
    UsageError,
)
from fhir_features.feast import materialize, materializing
from fhir_features.feast.online import _AskedView
from fhir_features.features import FeatureView
from fhir_features.features.tables import refresh
from fhir_features.features.terms import ontologies
from fhir_features.files import alone
from fhir_features.job import RunRecord
from fhir_features.lake import reading
from fhir_features.normalize import normalize
from fhir_features.sources import pull
from fhir_features.synthetic import later, write_ndjson

ROWS = [{"patient_id": f"patient-00{number}"} for number in (3, 1, 7)]
NAMES = [row["patient_id"] for row in ROWS]


def run(project: Project, *words: str) -> int:
    """A command, and its exit code."""
    try:
        cli.main(["--config", str(project.folder), *words], standalone_mode=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def database(project: Project) -> sqlite3.Connection:
    return sqlite3.connect(project.folder / "feature_repo" / "data" / "online.db")


def test_what_is_registered_says_what_the_definitions_say(loaded: Project):
    serving = feast.FeatureStore(repo_path=str(loaded.folder / "feature_repo"))
    view = serving.get_feature_view("diabetes")
    locked = loaded.store.locked("diabetes")
    assert (view.description, view.owner) == ("Diabetes and what it is treated with.", "diabetologists")
    assert (view.tags["version"], view.tags["lock"]) == (locked.version, locked.known.lock_id)
    assert view.tags["units"] == "%, a, mg/dL, {count}"
    fields = {field.name: field for field in view.features}
    assert fields["hba1c_mean_2y"].tags == {"unit": "%", "concept_sets": "loinc:4548-4"}
    assert fields["hba1c_mean_2y"].description == "mean, within 730d, of results of loinc:4548-4 in %"
    assert fields["t2dm_active"].tags == {"concept_sets": "icd10cm:E11 and below"}
    assert all(field.description for field in view.features)
    (kidney,) = serving.get_feature_view("kidney").features
    assert kidney.description == "Newest creatinine"
    service = serving.get_feature_service("model")
    assert [(each.name, [one.name for one in each.features]) for each in service.feature_view_projections] == [
        ("kidney", ["creatinine_last"]),
        ("diabetes", ["age", "hba1c_last"]),
    ]


def test_answers_come_in_the_order_of_the_request(loaded: Project):
    store = loaded.store
    expected = offline(loaded, watermarks(loaded))
    for features in (["diabetes:sex", "diabetes:age", "diabetes:hba1c_last"], ["diabetes:hba1c_last", "diabetes:sex"]):
        names = [feature.split(":")[1] for feature in features]
        answered = store.get_online_features(features, ROWS).to_dict()
        assert list(answered) == ["site", "patient_id", *names, "answered_at", "answer_age", "is_stale"]
        assert answered["patient_id"] == NAMES
        for name in names:
            assert answered[name] == [expected["north", patient][name] for patient in NAMES]
    service = store.get_online_features(store.services["model"], ROWS)
    assert list(service.columns) == ["creatinine_last", "age", "hba1c_last"]
    assert list(store.get_online_features("diabetes", ROWS).columns) == [
        feature.name for feature in store.view("diabetes").features
    ]


def test_an_answer_says_how_old_it_is(loaded: Project):
    answered = loaded.store.get_online_features(["diabetes:age", "kidney"], [*ROWS, {"patient_id": "nobody"}])
    (answered_at,) = watermarks(loaded).values()
    fresh = answered.freshness["diabetes"]
    assert {each.answered_at for each in fresh} == {answered_at}
    assert {each.age for each in fresh} == {answered.asked_at - answered_at}
    assert [each.stale for each in fresh] == [False] * 4
    # It may be a second old, and the watermark is older than that.
    assert [each.stale for each in answered.freshness["kidney"]] == [True] * 4
    assert answered.stale == [True] * 4
    # SQLite keeps whole seconds.
    assert fresh[0].since is not None
    assert answered_at - fresh[0].since < dt.timedelta(seconds=1)
    assert (answered.columns["age"][3], fresh[3].since) == (None, None)
    elsewhere = loaded.store.get_online_features("diabetes:sex", [{"site": "south", "patient_id": "patient-001"}])
    assert elsewhere.to_dict() == {
        "site": ["south"],
        "patient_id": ["patient-001"],
        "sex": [None],
        "answered_at": [None],
        "answer_age": [None],
        "is_stale": [True],
    }


def test_a_clock_that_is_wrong_makes_no_answer_fresh():
    hour, answered_at = dt.timedelta(hours=1), NOW
    view = _AskedView(None, (), {"north": answered_at}, hour)
    stale = {
        ago: view.freshness("north", None, answered_at + ago).stale
        for ago in (-hour, -hour / 60, 0 * hour, hour, 2 * hour)
    }
    assert list(stale.values()) == [True, False, False, False, True]
    assert view.freshness("north", None, answered_at - hour / 60).age == dt.timedelta(0)
    assert (
        _AskedView(None, (), {"north": answered_at}, None).freshness("north", None, answered_at + 1000 * hour).stale
        is False
    )
    assert (
        view.freshness("north", answered_at + hour, answered_at + 2 * hour).answered_at == answered_at + hour
    )  # refreshed since


@pytest.mark.parametrize(
    ("features", "rows", "says"),
    [
        (["diabetes:hba1c_lst"], ROWS, "did you mean 'hba1c_last'"),
        (["diabetis"], ROWS, "'diabetis' is not registered"),
        ([], ROWS, "name at least one"),
        (["diabetes"], [{"site": "north"}], "no 'patient_id'"),
        (["diabetes"], [{"patient": "patient-001"}], "not 'patient'"),
    ],
)
def test_what_cannot_be_answered_is_said(loaded: Project, features: list[str], rows: list[dict[str, str]], says: str):
    with pytest.raises((UsageError, FeatureTableError), match=says):
        loaded.store.get_online_features(features, rows)


def test_parity_finds_what_is_not_the_same(loaded: Project, capsys: pytest.CaptureFixture[str]):
    assert run(loaded, "parity", "diabetes") == 0
    capsys.readouterr()
    # One value is gone, one is another's, and one patient has a value who should have none.
    table = "fhir_features_diabetes"
    with database(loaded) as con:
        kept = con.execute(f"SELECT * FROM {table}").fetchall()
        keys = [
            key
            for (key,) in con.execute(f"SELECT entity_key FROM {table} WHERE feature_name = 'age' ORDER BY entity_key")
        ]
        con.execute(f"DELETE FROM {table} WHERE feature_name = 'age' AND entity_key = ?", keys[:1])
        con.execute(
            f"UPDATE {table} SET value = (SELECT value FROM {table} WHERE feature_name = 'glucose_count_1y' LIMIT 1) "
            "WHERE feature_name = 'age' AND entity_key = ?",
            keys[1:2],
        )
    assert run(loaded, "parity", "diabetes") == 1
    shown = capsys.readouterr()
    heads, *lines = [line.split() for line in shown.out.splitlines()]
    assert heads == ["view", "feature", "patients", "equal", "mismatch", "missing", "extra"]
    assert ["diabetes", "age", "7", "5", "1", "1", "0"] in lines
    assert "patient-" not in shown.out + shown.err
    assert run(loaded, "parity", "diabetes", "--examples", "1", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["patients"] == 7
    assert [each["feature"] for each in found["examples"]] == ["age"]
    assert found["examples"][0]["patient_id"].startswith("patient-")
    # What was lost online is loaded again when that is asked for, and not otherwise.
    assert [each.patients for each in materialize(loaded.store, ["diabetes"])] == [0]
    assert [each.patients for each in materialize(loaded.store, ["diabetes"], anew=True)] == [7]
    with database(loaded) as con:
        assert sorted(con.execute(f"SELECT * FROM {table}").fetchall()) == sorted(kept)


def test_the_sample_of_parity_is_that_of_its_seed(loaded: Project):
    with database(loaded) as con:
        kept = con.execute("SELECT * FROM fhir_features_kidney").fetchall()
        con.execute("DELETE FROM fhir_features_kidney")
    found = [loaded.store.parity(["kidney"], patients=3, seed=seed)[0] for seed in (0, 0, 1)]
    sampled = [{each.patient_id for each in of.differences} for of in found]
    assert {of.patients for of in found} == {3}
    assert sampled[0] == sampled[1]
    assert sampled[0] != sampled[2]
    with database(loaded) as con:
        con.executemany(f"INSERT INTO fhir_features_kidney VALUES ({','.join('?' * len(kept[0]))})", kept)


def test_a_second_apply_loads_nothing_again(loaded: Project):
    apply(loaded)
    assert [each.patients for each in materialize(loaded.store)] == [0, 0]


def test_an_online_store_without_its_table_is_said_in_one_line(loaded: Project):
    with database(loaded) as con:
        con.execute("ALTER TABLE fhir_features_kidney RENAME TO elsewhere")
    try:
        with pytest.raises(OnlineStoreError, match=r"\(sqlite\) did not answer for 'kidney'"):
            loaded.store.get_online_features("kidney", ROWS)
        with pytest.raises(OnlineStoreError, match="did not take the rows of 'kidney'"):
            materialize(loaded.store, ["kidney"], anew=True)
    finally:
        with database(loaded) as con:
            con.execute("ALTER TABLE elsewhere RENAME TO fhir_features_kidney")


def test_one_run_at_a_time_and_none_before_the_last(loaded: Project):
    runs = loaded.folder / "warehouse" / "runs"
    with alone(runs / "run.lock", "it is run"), pytest.raises(LakeLocked, match=r"is being run on .* by process"):
        loaded.store.materialize()
    with (
        alone(loaded.folder / "warehouse" / "online.lock", "it is loaded"),
        pytest.raises(LakeLocked, match="is being loaded by process"),
    ):
        materialize(loaded.store)
    assert LakeLocked.exit_code == 20
    future = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    wrong = RunRecord(run_id="99990101T000000000000Z", package="0", started_at=future)
    (runs / "99990101T000000000000Z.json").write_text(wrong.to_json())
    with pytest.raises(GateRefused, match="by this machine's clock, before the last run"):
        loaded.store.materialize()
    (runs / "99990101T000000000000Z.json").unlink()


def test_a_table_that_reaches_into_the_future_is_not_loaded(loaded: Project, monkeypatch: pytest.MonkeyPatch):
    before = online(loaded)
    monkeypatch.setattr(materializing, "CLOCK_SKEW", dt.timedelta(days=-10_000))
    with pytest.raises(FeatureTableError, match="which is in the future"):
        materialize(loaded.store, anew=True)
    assert online(loaded) == before


def test_from_a_first_load_by_plain_feast_over_a_refresh_to_the_job(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    project.add_site("south")
    project.receive(project.resources)
    apply(project)
    # Feast begins 52 weeks ago when it was told no beginning: the first build answers everyone at its end.
    serving = feast.FeatureStore(repo_path=str(project.folder / "feature_repo"))
    serving.materialize_incremental(end_date=watermarks(project)["north"])
    before = online(project)
    assert before == offline(project, watermarks(project))
    store = project.store
    with pytest.raises(FeatureTableError, match="run `fhir-features materialize diabetes`"):
        store.get_online_features("diabetes:hba1c_last", [{**row, "site": "north"} for row in ROWS])
    assert [each.patients for each in materialize(store)] == [7, 7]
    rows = [{**row, "site": "north"} for row in ROWS]
    asked = store.get_online_features("diabetes:hba1c_last", rows)

    # A refresh answers some patients ahead of the build.
    news = later(project.resources, now=NOW + dt.timedelta(days=1))
    write_ndjson(news, project.folder / "north" / "9.ndjson")
    pull(store.config)
    normalize(store.config)
    everyone = offline(project, watermarks(project))
    changed = {key[1] for key in everyone if everyone[key] != before[key]}
    assert {"patient-001", "patient-004"} <= changed
    refreshed = [("north", "patient-001"), ("north", "patient-003")]
    assert [each.patients for each in store.refresh(refreshed)] == [2, 2]
    now = online(project)
    assert now == {**before, ("north", "patient-001"): everyone["north", "patient-001"]}
    again = store.get_online_features("diabetes:hba1c_last", rows)
    both = zip(again.freshness["diabetes"], asked.freshness["diabetes"], strict=True)
    assert [one.answered_at != other.answered_at for one, other in both] == [True, True, False]
    assert all(of.same for of in store.parity())
    assert [each.patients for each in store.refresh(refreshed[:1], ["kidney"])] == [0]
    # The next build goes beyond what was answered, so it waits until it can.
    assert store.build("diabetes").file is None
    with pytest.raises(FeatureTableError, match="refreshed since its last build"):
        store.restate("diabetes")

    # Of two sources one is gone: the other one's news comes through, and the exit code tells of the first.
    write_ndjson(news[:1], project.folder / "north" / "10.ndjson")
    (project.folder / "south").rmdir()
    capsys.readouterr()
    code = run(project, "materialize", "--json")
    shown = capsys.readouterr()
    record = RunRecord.model_validate_json(shown.out)
    assert [step.name for step in record.steps] == ["pull", "normalize", "build", "load"]
    assert (record.state, record.exit_code) == ("failed", code)
    (failure,) = record.failures
    assert (failure.of, failure.exit_code) == ("ward-south", code)
    assert f"error: {failure.message}" in shown.err
    assert [each["source"] for each in record.steps[0].done] == ["ward"]
    assert all(each["patients"] > 0 for each in record.steps[-1].done)
    assert online(project) == offline(project, watermarks(project))
    newest = max((project.folder / "warehouse" / "runs").glob("*.json"))
    assert newest.read_text() == record.to_json()
    assert "patient-" not in newest.read_text()


def test_a_refresh_of_what_cannot_be_is_refused(loaded: Project, tmp_path: Path):
    with pytest.raises(UsageError, match="name at least one"):
        loaded.store.refresh([])
    with pytest.raises(FeatureTableError, match="has no answers for site 'south' yet"):
        loaded.store.refresh([("south", "patient-001")], ["kidney"])
    nightly = FeatureView(**{**loaded.store.view("kidney").definition(), "cadence": "daily@02:00 UTC"})
    with (
        reading(loaded.store.lake) as con,
        pytest.raises(FeatureTableError, match="refresh views of cadence on_change"),
    ):
        refresh(con, ontologies(), nightly, tmp_path, [("north", "patient-001")], store_seq=1)


def test_the_columns_do_not_depend_on_the_hash_seed(loaded: Project):
    """Feast's own reply has its columns in another order with each seed."""
    code = (
        "import sys; from fhir_features import FeatureStore; "
        "answered = FeatureStore(sys.argv[1]).get_online_features(['kidney', 'diabetes'], [{'patient_id': 'patient-001'}]); "
        "print(list(answered.to_dict()), list(answered.columns.values()))"
    )
    words = [sys.executable, "-O", "-c", code, str(loaded.folder)]
    env = {"PYTHONHASHSEED": "1", "PATH": "", "HOME": str(Path.home())}
    shown = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    answered = loaded.store.get_online_features(["kidney", "diabetes"], ROWS[1:2])
    assert shown == f"{list(answered.to_dict())} {list(answered.columns.values())}\n"
