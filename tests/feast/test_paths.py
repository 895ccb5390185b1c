"""A project may lie in a folder whose name is a pattern to those who read files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from feast import FeatureStore as FeastStore
from landing import few_rows_at_once
from project import NOW, Project
from test_online_equals_offline import apply

from fhir_features.feast import materialize
from fhir_features.files import parquet_at, parquet_in

WILD = "a [x] * ? {b} 'q"


def test_a_folder_with_wildcards_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows_at_once(monkeypatch, 10)
    (tmp_path / WILD).mkdir()
    project = Project(tmp_path / WILD)
    project.receive(project.resources)
    apply(project)
    materialize(project.store)
    frame = pl.DataFrame({"site": ["north"], "patient_id": ["patient-001"], "event_timestamp": [NOW]}).to_pandas()
    serving = FeastStore(repo_path=str(project.folder / "feature_repo"))
    feature = ["kidney:creatinine_last"]
    offline = serving.get_historical_features(entity_df=frame, features=feature).to_arrow()
    online = serving.get_online_features(features=feature, entity_rows=[{"site": "north", "patient_id": "patient-001"}])
    assert offline.column("creatinine_last").to_pylist() == online.to_dict()["creatinine_last"] != [None]


def test_a_path_is_a_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "[x]"
    (folder / "rows*").mkdir(parents=True)
    (folder / "rows?.parquet").touch()
    escaped = f"{tmp_path}/[[]x]"
    assert parquet_in(folder) == f"{escaped}/*.parquet"
    assert parquet_at("rows*", folder) == f"{escaped}/rows[*]/**/*.parquet"
    assert parquet_at("rows?.parquet", folder) == f"{escaped}/rows[?].parquet"
    assert parquet_at("rows/*.parquet", folder) == f"{escaped}/rows/*.parquet"
    assert parquet_at("/elsewhere/*.parquet", folder) == "/elsewhere/*.parquet"
