"""What unmodified Feast serves online is what the engine answers offline at the instant of materialization."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import feast
import pandas as pd
import pyarrow as pa
import pytest
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total
from project import NOW, Project
from servers import free_port, postgres_server, start_redis

from fhir_features.cli import cli
from fhir_features.errors import FeatureTableError, OnlineStoreError, UsageError
from fhir_features.feast import materialize, materializing
from fhir_features.feast.objects import _feast_type
from fhir_features.features.operators import ARROW_TYPES
from fhir_features.lake import newest_store_seq, reading


def apply(project: Project) -> None:
    """What `feast apply` does, without a process of its own."""
    repo = project.folder / "feature_repo"
    for name in ("features", "feast_objects"):
        sys.modules.pop(name, None)
    sys.path.insert(0, str(repo))
    try:
        apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)
    finally:
        sys.path.remove(str(repo))


def patients(project: Project) -> list[dict[str, str]]:
    with reading(project.store.lake) as con:
        rows = con.execute("SELECT DISTINCT site, patient_id FROM lake.patients ORDER BY ALL").fetchall()
    return [{"site": site, "patient_id": patient_id} for site, patient_id in rows]


def online(project: Project, view: str = "diabetes") -> dict[tuple[str, str], dict[str, Any]]:
    """What Feast serves of a view, by patient."""
    serving = feast.FeatureStore(repo_path=str(project.folder / "feature_repo"))
    names = [feature.name for feature in project.store.view(view).features]
    asked = patients(project)
    served = serving.get_online_features(features=[f"{view}:{name}" for name in names], entity_rows=asked).to_dict()
    return {
        (key["site"], key["patient_id"]): {name: served[name][row] for name in names} for row, key in enumerate(asked)
    }


def offline(
    project: Project, until: dict[str, dt.datetime], view: str = "diabetes"
) -> dict[tuple[str, str], dict[str, Any]]:
    """What the engine answers for a view at an instant for each site, by patient."""
    asked = patients(project)
    spine = pa.table(
        {
            "site": [key["site"] for key in asked],
            "patient_id": [key["patient_id"] for key in asked],
            "event_timestamp": pa.array([until[key["site"]] for key in asked], pa.timestamp("us", "UTC")),
        }
    )
    rows = project.store.get_historical_features(spine, [view]).to_arrow().to_pylist()
    keys = ("site", "patient_id", "event_timestamp")
    return {
        (row["site"], row["patient_id"]): {name: value for name, value in row.items() if name not in keys}
        for row in rows
    }


def watermarks(project: Project) -> dict[str, dt.datetime]:
    with reading(project.store.lake) as con:
        assert newest_store_seq(con) > 0
        return dict(con.execute("SELECT site, max(watermark) FROM lake.watermarks GROUP BY site").fetchall())


def test_it_is_so_at_first_and_after_corrections_withdrawals_and_late_results(project: Project):
    project.receive(project.resources)
    apply(project)
    (first, _) = materialize(project.store)
    assert (first.view, first.since, first.until) == ("diabetes", None, watermarks(project)["north"])
    before = online(project)
    assert before == offline(project, watermarks(project))
    assert len(before) == 7
    assert any(row["hba1c_last"] is not None for row in before.values())
    kidney_before = online(project, "kidney")

    project.receive_later()
    (second, _) = materialize(project.store)
    assert (second.since, second.until) == (first.until, watermarks(project)["north"])
    after = online(project)
    assert after == offline(project, watermarks(project))
    changed = {key[1] for key in after if after[key] != before[key]}
    assert changed == {"patient-001", "patient-004", "patient-007"}
    assert after["north", "patient-001"]["hba1c_last"] == pytest.approx(
        before["north", "patient-001"]["hba1c_last"] + 1.4
    )
    late = online(project, "kidney")
    assert late == offline(project, watermarks(project), "kidney")
    assert late["north", "patient-001"] == {"creatinine_last": 1.8} != kidney_before["north", "patient-001"]


def test_a_value_that_was_withdrawn_is_null_online_when_there_is_no_other(project: Project):
    glucose = [each for each in project.resources if each["id"].endswith("visit-01-glucose")][:1]
    project.receive([each for each in project.resources if each["resourceType"] == "Patient"] + glucose)
    apply(project)
    materialize(project.store)
    assert online(project)["north", "patient-001"]["glucose_last"] is not None
    meta = {"versionId": "2", "lastUpdated": NOW.isoformat()}
    project.receive([{**glucose[0], "status": "entered-in-error", "meta": meta}])
    materialize(project.store)
    assert online(project)["north", "patient-001"]["glucose_last"] is None
    assert online(project) == offline(project, watermarks(project))


def test_the_command_loads_what_is_new_and_says_so(project: Project, capsys: pytest.CaptureFixture[str]):
    project.receive(project.resources)
    apply(project)
    capsys.readouterr()
    arguments = ["--config", str(project.folder), "materialize"]
    cli.main([*arguments, "kidney"], standalone_mode=False)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in printed] == [["view", "patients", "after", "up"], ["kidney", "7", "the", "beginning"]]
    cli.main([*arguments, "--no-pull", "--json"], standalone_mode=False)
    until = watermarks(project)["north"]
    record = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in record["steps"]] == ["normalize", "build", "load"]
    (diabetes, kidney) = record["steps"][-1]["done"]
    assert dt.datetime.fromisoformat(diabetes.pop("until")) == until
    assert diabetes == {"view": "diabetes", "since": None, "patients": 7}
    assert kidney == {"view": "kidney", "since": None, "until": None, "patients": 0}
    cli.main(arguments, standalone_mode=False)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[1:] == [["diabetes", "0", "-", "-"], ["kidney", "0", "-", "-"]]


def test_one_view_can_be_loaded_alone(project: Project):
    project.receive(project.resources)
    apply(project)
    assert [each.view for each in materialize(project.store, ["kidney"])] == ["kidney"]
    assert {row["hba1c_last"] for row in online(project).values()} == {None}


def test_a_site_that_joins_later_is_loaded_whole(project: Project):
    project.receive(project.resources)
    apply(project)
    materialize(project.store)
    project.add_site("south")
    project.receive(
        [{**each, "meta": {"versionId": "1"}} for each in project.resources if "001" in each["id"]], "south"
    )
    project.receive_later()
    materialize(project.store)
    served = online(project)
    assert served == offline(project, watermarks(project))
    assert served["south", "patient-001"]["t2dm_active"] is True


def test_sites_with_watermarks_of_their_own_lose_nothing(project: Project):
    """South is seen last, then north gets news whose rows lie before south's watermark."""
    project.add_site("south")
    project.receive(project.resources)
    project.receive([each for each in project.resources if "002" in each["id"]], "south")
    apply(project)
    materialize(project.store)
    project.receive_later()
    materialize(project.store)
    assert online(project) == offline(project, watermarks(project))


def test_a_changed_definition_is_loaded_whole_once_it_is_applied(project: Project):
    project.receive(project.resources)
    apply(project)
    materialize(project.store)
    definitions = project.folder / "feature_repo" / "features.py"
    definitions.write_text(definitions.read_text().replace('within="730d"', 'within="90d"'))
    project.store.build("diabetes")
    with pytest.raises(FeatureTableError, match="run `feast apply`"):
        materialize(project.store)
    apply(project)
    (changed, _) = materialize(project.store)
    assert changed.since is None
    assert online(project) == offline(project, watermarks(project))


NIGHTLY = """
from fhir_features.features import FeatureView, observation, patient

creatinine = observation("loinc:2160-0", unit="mg/dL")
nightly = FeatureView(
    name="nightly",
    entity=patient,
    features=[creatinine.last().named("creatinine_last"), creatinine.time_since_last().named("creatinine_days")],
    cadence="daily@{time} UTC",
)
"""


def test_a_schedule_is_served_as_it_is_asked_for_in_training_also_when_restated(project: Project):
    # An instant some hours ago, so that the next one does not come while the test runs.
    last = dt.datetime.now(dt.UTC) - dt.timedelta(hours=6)
    (project.folder / "feature_repo" / "features.py").write_text(NIGHTLY.replace("{time}", f"{last:%H:%M}"))
    project.receive(project.resources)
    (until,) = project.store.build("nightly").watermarks.values()
    assert until == last.replace(second=0, microsecond=0)
    apply(project)
    assert [each.until for each in materialize(project.store)] == [until]
    served = online(project, "nightly")
    assert served == offline(project, watermarks(project), "nightly") == offline(project, {"north": until}, "nightly")
    assert any(row["creatinine_days"] for row in served.values())

    project.receive_later()
    assert project.store.restate("nightly").watermarks == {"north": until}
    with pytest.raises(FeatureTableError, match="run `feast apply`"):
        materialize(project.store)
    apply(project)
    materialize(project.store)
    assert online(project, "nightly") == served
    assert materialize(project.store)[0].until is None

    times = [until - dt.timedelta(hours=hours) for hours in (1, 23, 25, 24 * 200 + 7)]
    asked = [{**key, "event_timestamp": t} for key in patients(project) for t in times]
    training = project.store.get_historical_features(pa.Table.from_pylist(asked), ["nightly"]).to_df()
    names = ["nightly:creatinine_last", "nightly:creatinine_days"]
    frame = training[["site", "patient_id", "event_timestamp"]]
    serving = feast.FeatureStore(repo_path=str(project.folder / "feature_repo"))
    plain = serving.get_historical_features(entity_df=frame, features=names).to_df()
    order = ["site", "patient_id", "event_timestamp"]
    columns = [*order, "creatinine_last", "creatinine_days"]
    assert training["creatinine_days"].notna().sum() > 5
    pd.testing.assert_frame_equal(
        plain[columns].sort_values(order, ignore_index=True),
        training[columns].sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_every_kind_of_answer_has_a_type_in_feast():
    assert {str(_feast_type(kind)) for kind in ARROW_TYPES.values()} == {"Float64", "Int64", "Bool", "String"}


def test_what_is_not_there_yet_is_said(project: Project):
    with pytest.raises(FeatureTableError, match="fhir-features build diabetes"):
        materialize(project.store, ["diabetes"])
    with pytest.raises(UsageError, match="did you mean 'diabetes'"):
        materialize(project.store, ["diabetis"])
    project.receive(project.resources)
    with pytest.raises(FeatureTableError, match="run `feast apply`"):
        materialize(project.store)
    (project.folder / "feature_repo" / "feature_store.yaml").unlink()
    with pytest.raises(FeatureTableError, match=r"no feature_store\.yaml"):
        materialize(project.store)


def test_plain_feast_does_it_all_from_its_own_command_line(project: Project, tmp_path_factory: pytest.TempPathFactory):
    project.receive(project.resources)
    until = watermarks(project)["north"].replace(tzinfo=None).isoformat()
    repo = project.folder / "feature_repo"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for command in (["apply"], ["materialize", "0001-01-01T00:00:00", until]):
        words = [sys.executable, "-m", "feast.cli.cli", "-c", str(repo), *command]
        subprocess.run(words, cwd=elsewhere, check=True, capture_output=True)
    assert online(project) == offline(project, watermarks(project))
    project.receive_later()
    serving = feast.FeatureStore(repo_path=str(repo))
    serving.materialize_incremental(end_date=watermarks(project)["north"])
    assert online(project) == offline(project, watermarks(project))
    # Beyond the watermark our offline store refuses; what Feast has loaded our own job loads once more, and goes on.
    with pytest.raises(FeatureTableError, match="answered up to its watermark only"):
        serving.materialize_incremental(end_date=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    assert [each.patients for each in materialize(project.store)] == [7, 7]
    assert [each.patients for each in materialize(project.store)] == [0, 0]
    assert online(project) == offline(project, watermarks(project))


SQLITE = "type: sqlite\n  path: data/online.db"


def into(project: Project, online_store: dict[str, Any]) -> None:
    """Give the repository another online store, and register the views there."""
    text = (Path(__file__).parents[2] / "feature_repo" / "feature_store.yaml").read_text()
    other = "\n  ".join(f"{key}: {value}" for key, value in online_store.items())
    (project.folder / "feature_repo" / "feature_store.yaml").write_text(text.replace(SQLITE, other))
    apply(project)


@contextmanager
def postgres_if_there(folder: Path) -> Iterator[dict[str, Any] | None]:
    try:
        server = postgres_server(folder)
        with server as online_store:
            yield online_store
    except pytest.skip.Exception:
        yield None


def test_other_online_stores_serve_the_same_also_when_one_was_down(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    """Redis, which refuses rows that are not newer than what it has, and PostgreSQL where it is there."""
    monkeypatch.setattr(materializing, "_PATIENTS_A_BATCH", 2)
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    server = start_redis(folder, port)

    def kill(source: str, what: str, done: int, total: int | None) -> None:
        server.kill()
        server.wait()

    redis = {"type": "redis", "connection_string": f"127.0.0.1:{port},socket_timeout=60"}
    project.receive(project.resources)
    try:
        into(project, redis)
        with pytest.raises(OnlineStoreError, match="run this again") as refused:
            materialize(project.store, progress=kill)
        assert "patient-" not in str(refused.value)
        server = start_redis(folder, port)
        with postgres_if_there(tmp_path_factory.mktemp("postgres")) as postgres:
            stores = [redis, postgres] if postgres else [redis]
            for number, later in enumerate((False, True)):
                if later:
                    project.receive_later()
                expected = offline(project, watermarks(project))
                for online_store in stores:
                    into(project, online_store)
                    # With another store in the configuration nothing counts as loaded.
                    assert [each.patients for each in materialize(project.store)] == [7, 7], number
                    assert online(project) == expected
    finally:
        kill("", "", 0, None)
