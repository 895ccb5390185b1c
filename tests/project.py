"""A project folder for tests: the shipped Feast repository over invented patients, received from files."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from functools import cache
from pathlib import Path

from fhir_features.normalize import normalize
from fhir_features.sources import pull
from fhir_features.store import FeatureStore
from fhir_features.synthetic import TIME_ZONE, later, population, write_ndjson

ROOT = Path(__file__).parents[1]
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FEATURES = """
from fhir_features.features import FeatureService, FeatureView, condition, medication, observation, patient

hba1c = observation("loinc:4548-4", unit="%")
glucose = observation("loinc:2339-0", unit="mg/dL")
creatinine = observation("loinc:2160-0", unit="mg/dL")

diabetes = FeatureView(
    name="diabetes",
    entity=patient,
    features=[
        hba1c.last().named("hba1c_last"),
        hba1c.mean(within="730d").named("hba1c_mean_2y"),
        glucose.last().named("glucose_last"),
        glucose.count(within="365d").named("glucose_count_1y"),
        condition("icd10cm:E11", descendants=True).active().named("t2dm_active"),
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("on_metformin"),
        patient.sex().named("sex"),
        patient.age().named("age"),
    ],
    description="Diabetes and what it is treated with.",
    owner="diabetologists",
    max_age="26h",
)
kidney = FeatureView(
    name="kidney",
    entity=patient,
    features=[creatinine.last().named("creatinine_last", "Newest creatinine")],
    max_age="1s",
)
model = FeatureService(name="model", features=["kidney", "diabetes:age", "diabetes:hba1c_last"])
"""


class Project:
    """A project folder with the shipped Feast repository, whose one source is a folder of files."""

    def __init__(self, folder: Path, feature_store_yaml: str | None = None) -> None:
        self.folder = folder
        (folder / "north").mkdir()
        (folder / "fhir_features.toml").write_text(_source("ward", "north"))
        shutil.copytree(ROOT / "feature_repo", folder / "feature_repo", ignore=shutil.ignore_patterns("data", "__*"))
        (folder / "feature_repo" / "features.py").write_text(FEATURES)
        if feature_store_yaml:
            (folder / "feature_repo" / "feature_store.yaml").write_text(feature_store_yaml)
        self.resources = _population()

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.folder)

    def receive(self, resources: list[dict], site: str = "north") -> None:
        """Let a site send resources, and build all tables from what is then known."""
        if resources is _population() and self._is_as_made():
            # What most tests begin with is made once a process.
            for name in ("north", "warehouse"):
                shutil.copytree(_received_first() / name, self.folder / name, dirs_exist_ok=True)
            return
        self._receive(resources, site)

    def _is_as_made(self) -> bool:
        files = {"fhir_features.toml": _source("ward", "north"), "feature_repo/features.py": FEATURES}
        as_made = all((self.folder / name).read_text() == text for name, text in files.items())
        return as_made and not (self.folder / "warehouse").exists()

    def _receive(self, resources: list[dict], site: str) -> None:
        write_ndjson(resources, self.folder / site / f"{len(list((self.folder / site).iterdir()))}.ndjson")
        store = self.store
        pull(store.config)
        normalize(store.config)
        for view in store.views.values():
            store.build(view)

    def receive_later(self) -> None:
        self.receive(later(self.resources, now=NOW + dt.timedelta(days=1)))

    def add_site(self, site: str) -> None:
        (self.folder / site).mkdir()
        with (self.folder / "fhir_features.toml").open("a") as config:
            config.write(_source(f"ward-{site}", site))


@cache
def _population() -> list[dict]:
    return population(patients=7, seed=1, now=NOW)


@cache
def _received_first() -> Path:
    """A project that has received all of the invented patients."""
    project = Project(Path(tempfile.mkdtemp(prefix="received-")))
    project._receive(project.resources, "north")
    return project.folder


def _source(name: str, site: str) -> str:
    return f"""
[sources.{name}]
kind = "files"
site = "{site}"
timezone = "{TIME_ZONE}"
path = "{site}"
resource_types = ["Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "Medication"]
"""
