"""What is online after each of three builds, with patients refreshed in between, is what the engine answers then.

By hand more replays, in the online stores that are named (10,000 of them are about GENERATED_CASES=7000):

GENERATED_CASES=7000 ONLINE_STORES=sqlite,redis,postgres .venv/bin/pytest tests/generative/test_online_equals_engine.py -s
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_rows import LakeRows
from servers import postgres_server, redis_server
from strategies import PATIENTS, lake_rows, views
from test_tables_equal_engine import (
    REACH,
    answered_at,
    cadences,
    engine_at,
    everyone,
    lake,
    tables_of,
    three_commits,
    write_at,
)

from fhir_features.feast.materializing import _materialize
from fhir_features.feast.objects import _feature_view
from fhir_features.feast.online import field_of, read_rows
from fhir_features.features import FeatureView
from fhir_features.features.cadence import ON_CHANGE
from fhir_features.features.engine import stand_at
from fhir_features.features.table_log import table_folder
from fhir_features.features.tables import build, refresh
from fhir_features.features.terms import ontologies
from fhir_features.features.view import LockedView
from fhir_features.sources.progress import silent

STORES = os.environ.get("ONLINE_STORES", "sqlite").split(",")
replays: Counter[str] = Counter()


@pytest.fixture(scope="module")
def online_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    servers = {"redis": redis_server, "postgres": postgres_server}
    with ExitStack() as running:
        found: dict[str, dict[str, Any]] = {}
        for name in STORES:
            folder = tmp_path_factory.mktemp(name)
            sqlite = {"type": "sqlite", "path": str(folder / "online.db")}
            found[name] = running.enter_context(servers[name](folder)) if name in servers else sqlite
        yield found
    print(dict(replays))


def opened(folder: Path, view: FeatureView, online_store: dict[str, Any], project: str) -> Any:
    """A Feast store with the view registered."""
    import feast
    from feast.repo_config import RepoConfig

    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / f"{project}.db"),
        offline_store={"type": "duckdb"},
        online_store=online_store,
        entity_key_serialization_version=3,
    )
    serving = feast.FeatureStore(config=config)
    project_of = SimpleNamespace(
        tables=folder,
        config=SimpleNamespace(file=folder / "fhir_features.toml"),
        locked=lambda name: LockedView(view, ontologies()),
    )
    entities = [feast.Entity(name=key, value_type=feast.ValueType.STRING) for key in ("site", "patient_id")]
    serving.apply([*entities, _feature_view(project_of, view, entities, {})])
    return serving


def served(serving: Any, view: FeatureView) -> list[dict[str, Any]]:
    feast_view = serving.get_feature_view(view.name)
    names = [feature.name for feature in view.features]
    fields = [field_of(feast_view, name) for name in names]
    return [dict(zip(names, values, strict=True)) for _, values in read_rows(serving, feast_view, fields, PATIENTS)]


def refreshed(view: FeatureView, folder: Path, patients: list[tuple[str, str]], store_seq: int) -> None:
    con = lake()
    stand_at(con, ontologies(), store_seq)
    refresh(con, ontologies(), view, folder, patients, store_seq=store_seq)


@pytest.mark.parametrize("name", STORES)
@settings(max_examples=settings().max_examples // 10)
@given(lake_rows(), views(), cadences(), st.sets(st.sampled_from(PATIENTS), min_size=1), st.data())
def test_what_is_online_is_what_the_engine_answers(
    online_stores: dict[str, dict[str, Any]],
    name: str,
    rows: LakeRows,
    view: FeatureView,
    cadence: str,
    patients: set[tuple[str, str]],
    data: st.DataObject,
) -> None:
    view = tables_of(view, cadence)
    three_commits(rows, data)
    # One of each site, as the other sites would be built.
    patients = patients | set(PATIENTS[:3])
    names = [feature.name for feature in view.features]
    nothing = dict.fromkeys(names)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # A project of its own, so that what other cases have put online is not seen.
        serving = opened(folder, view, online_stores[name], f"{name}{replays['cases']}")
        replays["cases"] += 1
        table = table_folder(folder, view)
        expected: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            for seq, reach in enumerate(REACH, start=1):
                # The second reach is that of a refresh alone: the build waits for a later one.
                whole = not (seq == 2 and view.cadence == ON_CHANGE)
                if whole:
                    write_at(build, view, folder, seq)
                else:
                    refreshed(view, folder, sorted(patients), seq)
                    assert write_at(build, view, folder, seq).file is None
                _materialize(serving, view, table, False, silent)
                asked = everyone([reach]) if whole else [(*patient, reach) for patient in sorted(patients)]
                asked = answered_at(view, asked)
                for (site, patient, _), answer in zip(asked, engine_at(view, asked, seq), strict=True):
                    expected[site, patient] = answer
                now = served(serving, view)
                assert now == [expected.get(patient, nothing) for patient in PATIENTS]
                replays[name] += len(PATIENTS)
        finally:
            serving.teardown()
