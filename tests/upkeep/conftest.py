from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import NOW, Project

from fhir_features import files
from fhir_features.synthetic import population


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two patients, two runs and a receipt; tests take copies of it."""
    folder = tmp_path_factory.mktemp("built") / "project"
    folder.mkdir()
    project = Project(folder)
    project.resources = population(patients=2, seed=1, now=NOW)
    project.receive(project.resources)
    project.receive_later()
    rows = {"patient_id": ["patient-001", "patient-002"], "event_timestamp": [NOW, NOW]}
    import polars as pl

    frame = pl.DataFrame(rows, schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")})
    project.store.get_historical_features(frame, ["diabetes"]).save(folder / "training.parquet")
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of the project, of which nothing has been read yet."""
    files._intact.clear()
    return Path(shutil.copytree(built, tmp_path / "project"))
