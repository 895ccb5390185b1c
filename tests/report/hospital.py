"""A store that has something to show: two sites, one with a hostile name; results that came late, were corrected and
withdrawn; resources that cannot be read; codes that nobody maps; and words that must not get out.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

from fhir_features.normalize import normalize
from fhir_features.sources import pull
from fhir_features.store import FeatureStore
from fhir_features.synthetic import TIME_ZONE, Resource, later, population, write_ndjson
from fhir_features.synthetic.resources import Code, Measure, laboratory

ROOT = Path(__file__).parents[2]
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOSTILE = "south</title><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>"
LOCAL = "urn:oid:1.2.3.4.99"
CANARY = "Quetzalcoatl"
NORTH, SOUTH = 12, 10

_SOURCE = """
[sources.{name}]
kind = "files"
site = {site}
timezone = "{time_zone}"
path = "{name}"
resource_types = ["Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "Medication"]
"""


class Hospital:
    """The project's folder, and what its sources sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = {
            "ward": population(patients=NORTH, seed=1, now=NOW),
            "clinic": population(patients=SOUTH, seed=2, now=NOW),
        }
        news = {name: later(sent, now=NOW + dt.timedelta(days=1)) for name, sent in self.sent.items()}
        _local_codes(self.sent["clinic"])
        _other_units(self.sent["clinic"])
        self.sent["clinic"] += _hundred_results(self.sent["clinic"])
        _spoil(self.sent["ward"], number=11)
        _whisper(self.sent["ward"])
        config = ""
        for name, site in {"ward": "'north'", "clinic": f"'''{HOSTILE}'''"}.items():
            (folder / name).mkdir()
            config += _SOURCE.format(name=name, site=site, time_zone=TIME_ZONE)
            self.sent[name] += news[name]
            write_ndjson(self.sent[name], folder / name / "0.ndjson")
        (folder / "fhir_features.toml").write_text(config)
        shutil.copytree(ROOT / "feature_repo", folder / "feature_repo", ignore=shutil.ignore_patterns("data", "__*"))
        pull(self.store.config)
        normalize(self.store.config)

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.folder)


def _local_codes(sent: list[Resource]) -> None:
    """Give some glucoses a code of the site's own, with a hostile name, and weights but a text."""
    for each in sent:
        if each["id"].endswith(("01-glucose", "02-glucose", "03-glucose")):
            each["code"] = {"coding": [{"system": LOCAL, "code": "GLUC", "display": HOSTILE}], "text": CANARY}
        if each["id"].endswith("-weight"):
            each["code"] = {"text": f"weight of {CANARY}"}


def _other_units(sent: list[Resource]) -> None:
    """Let the last patient's glucoses be in mmol/L."""
    for each in sent:
        if each["id"].startswith(f"patient-{SOUTH:03d}-") and each["id"].endswith("-glucose"):
            each["valueQuantity"] |= {"value": 5.5, "unit": "mmol/L", "code": "mmol/L"}


def _hundred_results(sent: list[Resource]) -> list[Resource]:
    """A hundred sodiums of the last patient, one every three hours."""
    (visit, *_) = [each for each in sent if each["id"].startswith(f"patient-{SOUTH:03d}-visit-")]
    sodium = Measure(Code("loinc", "2951-2", "Sodium [Moles/volume] in Serum or Plasma"), "mmol/L", 0)
    drawn = [NOW - (number + 1) * dt.timedelta(hours=3) for number in range(100)]
    issued = [at + dt.timedelta(hours=1) for at in drawn]
    return [
        laboratory(f"sodium-{number:03d}", visit, sodium, 130 + number % 20, drawn[number], issued[number])
        for number in range(100)
    ]


def _spoil(sent: list[Resource], number: int) -> None:
    """Give some results a day that does not exist, and one a modifier extension that nobody understands."""
    results = [each for each in sent if each["id"].endswith("-visit-02-hr")]
    for each in results[:number]:
        each["effectiveDateTime"] = "2025-02-30"
    results[number]["modifierExtension"] = [{"url": "http://example.org/not", "valueBoolean": True}]


def _whisper(sent: list[Resource]) -> None:
    """Let one patient's resources say what must not get out: notes, a text as value, a code that names somebody."""
    mine = [each for each in sent if each["id"].startswith("patient-002-visit-03-")]
    for each in mine:
        each["note"] = [{"text": f"note of {CANARY}"}]
    heart, weight = (next(each for each in mine if each["id"].endswith(name)) for name in ("-hr", "-weight"))
    heart["code"] = {"coding": [{"system": LOCAL, "code": CANARY, "display": f"rate of {CANARY}"}], "text": CANARY}
    del weight["valueQuantity"]
    weight["valueString"] = f"{CANARY} was weighed"
