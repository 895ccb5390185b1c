"""A project folder with a configuration, definitions and a lake on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lake_rows import LakeRows, write_commits

from fhir_features.lake import writing
from fhir_features.store import FeatureStore

CONFIG = """
[warehouse]
path = "warehouse"
buckets = 4

[sources.{site}]
kind = "files"
path = "in"
site = "{site}"
timezone = "UTC"
"""

DEFINITIONS = """
from fhir_features import FeatureView, condition, medication, observation, patient

hba1c = observation("loinc:4548-4", unit="%")
diabetes = FeatureView(
    name="diabetes",
    entity=patient,
    features=[
        hba1c.last(within="365d").named("hba1c_last_1y"),
        hba1c.mean(within="730d").named("hba1c_mean_2y"),
        condition("icd10cm:E11", descendants=True).active().named("t2dm_active"),
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("on_metformin"),
        patient.age().named("age"),
    ],
)
"""


class Project:
    """A project folder; `write` brings its lake up to the rows given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "feature_repo").mkdir()
        self.define(DEFINITIONS)
        (folder / "fhir_features.toml").write_text(CONFIG.format(site="north"))

    def define(self, text: str) -> None:
        (self.folder / "feature_repo" / "features.py").write_text(text)

    def write(self, rows: LakeRows) -> None:
        with writing(self.folder / "warehouse" / "lake", buckets=4) as con:
            write_commits(con, rows, buckets=4)

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def lake_of(project: Project) -> Callable[[LakeRows], FeatureStore]:
    """The store of the project over these rows."""

    def make(rows: LakeRows) -> FeatureStore:
        project.write(rows)
        return project.store

    return make
