"""Whatever the order in which the same data comes, how often, and on which machine: the same content of every table.

SEEDS=10 .venv/bin/python -m pytest -s tests/upkeep/test_order.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from landing import at, land, warehouse
from project import FEATURES

from fhir_features.config import Config
from fhir_features.features import tables
from fhir_features.features.content_hash import table_hash
from fhir_features.lake import EVENT_TABLES, create_views, newest_store_seq, reading
from fhir_features.normalize import normalize, run
from fhir_features.store import FeatureStore
from fhir_features.synthetic import population

SEEDS = int(os.environ.get("SEEDS", "1"))
ZONES = ("Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "UTC", "Europe/Berlin", "Antarctica/Troll")
NOW = at("2026-03-01 12:00")

# Which run brought a row, when and as which: the only things that may differ.
_ORIGIN = ("run_id", "store_seq", "version_no", "row_no", "received_at", "lock_id")


def content(config: Config) -> dict[str, str]:
    """A hash of each table, but for where its rows came from."""
    names = [*(table.name for table in EVENT_TABLES.values()), "lake.versions", "lake.closings", "lake.medications"]
    names += ["lake.codings", "lake.units", "lake.resolution", "lake.unit_resolution", "lake.reported_results"]
    names += ["lake.measured_units"]
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        found = {}
        for name in names:
            kept = [each for (each, *_) in con.execute(f"DESCRIBE {name}").fetchall() if each not in _ORIGIN]
            rows = con.execute(f"SELECT DISTINCT {', '.join(kept)} FROM {name} ORDER BY ALL").to_arrow_table()
            assert name == "lake.reported_results" or rows.num_rows, name
            found[name] = table_hash(rows).sha256
        return found


def project(folder: Path) -> Config:
    folder.mkdir()
    config = warehouse(folder)
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "features.py").write_text(FEATURES)
    return config


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    return population(patients=3, seed=1, now=NOW)


@pytest.fixture(scope="module")
def expected(resources: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config = project(tmp_path_factory.mktemp("in order") / "project")
    land(config, resources, NOW)
    normalize(config)
    return content(config)


def test_the_order_of_the_lines_does_not_matter_nor_that_some_come_twice(
    resources: list[dict[str, Any]], expected: dict[str, str], tmp_path: Path
):
    config = project(tmp_path / "project")
    dice = random.Random(1)
    land(config, dice.sample([*resources, *dice.sample(resources, 60)], len(resources) + 60), NOW)
    (summary,) = normalize(config)
    assert summary.duplicates == 60
    assert content(config) == expected


def test_the_same_data_three_times_is_the_same_as_once(
    resources: list[dict[str, Any]], expected: dict[str, str], tmp_path: Path
):
    config = project(tmp_path / "project")
    dice = random.Random(2)
    for day in (1, 2, 3):
        land(config, dice.sample(resources, len(resources)), at(f"2026-03-0{day} 12:00"))
    assert [summary.normalized for summary in normalize(config)] == [len(resources), 0, 0]
    assert content(config) == expected


def test_it_does_not_matter_how_many_processes_decode(
    resources: list[dict[str, Any]], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decoded = run.decoded
    monkeypatch.setattr(run, "decoded", lambda *words: decoded(*words, processes=2))
    config = project(tmp_path / "project")
    land(config, resources, NOW)
    normalize(config)
    assert content(config) == expected


IN_A_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from pathlib import Path
from test_order import content, built
from fhir_features.config import load_config
from fhir_features.normalize import normalize
config = load_config(Path(sys.argv[2]))
normalize(config)
print(json.dumps([content(config), built(config)]))
"""


def built(config: Config) -> dict[str, str]:
    """A hash of each feature table as it is built."""
    store = FeatureStore(config.file.parent)
    files = {name: store.build(name).file for name in store.views}
    return {name: table_hash(pq.read_table(file)).sha256 for name, file in files.items() if file}


def test_neither_hash_seeds_nor_the_time_zone_of_the_machine_nor_the_size_of_passes_matter(
    resources: list[dict[str, Any]], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = [str(Path(__file__).parent), *sys.path]
    answers = []
    for seed in range(SEEDS):
        config = project(tmp_path / f"seed-{seed}")
        land(config, resources, NOW)
        env = {**os.environ, "PYTHONHASHSEED": str(seed), "TZ": ZONES[seed % len(ZONES)], "PYTHONPATH": ":".join(here)}
        command = [sys.executable, "-c", IN_A_PROCESS, str(Path(__file__).parent), str(config.file.parent)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert [lake for lake, _ in answers] == [expected] * SEEDS
    # In passes of a bucket each.
    monkeypatch.setattr(tables, "_ROWS_A_PASS", 1)
    config = project(tmp_path / "passes")
    land(config, resources, NOW)
    normalize(config)
    of_passes = built(config)
    assert of_passes
    assert [views for _, views in answers] == [of_passes] * SEEDS
