"""Names that are SQL, HTML or a path do no harm: what may have them has them everywhere, and the rest refuses them.

A few thousand pairs of site and patient that are made to meet are read back from an online store, or all of them:
PAIRS=100000 .venv/bin/pytest tests/feast/test_hostile_names.py
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hostile.test_composite_keys import pairs
from project import NOW, Project
from test_online_equals_offline import apply, online

from fhir_features import FeatureService, FeatureView, observation, patient
from fhir_features.config import load_config
from fhir_features.errors import ConfigError, DefinitionError
from fhir_features.feast import materialize
from fhir_features.feast.materializing import write_rows
from fhir_features.feast.online import read_rows
from fhir_features.feast.repository import open_repository, registered
from fhir_features.lake import reading
from fhir_features.normalize import normalize
from fhir_features.sources import pull
from fhir_features.synthetic import TIME_ZONE, population, write_ndjson

PAIRS = int(os.environ.get("PAIRS", "3000"))
SQL = "x'; DROP TABLE lake.patients; DROP TABLE lake.observations; --"
HTML = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'
PATH = "../../../etc/\\..\\x\nsecond"
HOSTILE = [SQL, HTML, PATH, '"; --', "a b", "a\0", "1a", "A", "", "é", "a" * 64, "store_seq", "site"]
CONFIG = """
[sources.ward-{number}]
kind = "files"
site = {site}
timezone = "{zone}"
path = "{number}"
resource_types = ["Patient", "Observation"]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three sites with hostile names, of the same two patients, built and loaded."""
    project = Project(tmp_path_factory.mktemp("hostile"))
    sites = enumerate((SQL, HTML, PATH))
    told = (CONFIG.format(number=number, site=json.dumps(site), zone=TIME_ZONE) for number, site in sites)
    (project.folder / "fhir_features.toml").write_text("".join(told))
    (project.folder / "feature_repo" / "features.py").write_text(
        "from fhir_features.features import FeatureView, observation, patient\n"
        "features = [observation('loinc:2160-0', unit='mg/dL').last().named('creatinine_last')]\n"
        "kidney = FeatureView(name='kidney', entity=patient, features=features)\n"
    )
    resources = population(patients=2, seed=1, now=NOW)
    for number in ("0", "1", "2"):
        (project.folder / number).mkdir()
        write_ndjson(resources, project.folder / number / "0.ndjson")
    pull(project.store.config)
    normalize(project.store.config)
    project.store.build("kidney")
    apply(project)
    materialize(project.store)
    return project


def test_a_site_may_have_any_name_and_is_text_everywhere(project: Project) -> None:
    with reading(project.store.lake) as con:
        counts = dict(con.execute("SELECT site, count(*) FROM lake.observations GROUP BY ALL").fetchall())
    assert set(counts) == {SQL, HTML, PATH}
    assert len(set(counts.values())) == 1
    spine = pl.DataFrame(
        {
            "site": [SQL, HTML, PATH, SQL.upper()],
            "patient_id": ["patient-001"] * 4,
            "event_timestamp": [NOW] * 4,
        },
        schema_overrides={"event_timestamp": pl.Datetime("us", "UTC")},
    )
    answers = project.store.get_historical_features(spine, ["kidney"]).to_polars()
    values = dict(zip(answers["site"], answers["creatinine_last"], strict=True))
    assert values[SQL] == values[HTML] == values[PATH] is not None
    assert values[SQL.upper()] is None
    served = online(project, "kidney")
    assert {key: row["creatinine_last"] for key, row in served.items() if key[1] == "patient-001"} == {
        (site, "patient-001"): values[site] for site in (SQL, HTML, PATH)
    }


def test_a_report_tells_of_sites_as_text(project: Project) -> None:
    page = project.store.report(suppress_below=0).html()
    assert not re.findall("<(?:script|img)", page)
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page


def test_no_path_is_made_of_a_site(project: Project) -> None:
    names = {path.name for path in project.folder.rglob("*")}
    assert not [name for name in names if "DROP" in name or "script" in name or "etc" in name or "\n" in name]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    feature = patient.sex().named("sex")
    refused = []
    for make in (
        lambda: FeatureView(name=name, entity=patient, features=[feature]),
        lambda: FeatureView(name="view", entity=patient, features=[patient.sex().named(name)]),
        lambda: FeatureService(name=name, features=["view"]),
        lambda: observation(name, unit="mg/dL"),
        lambda: observation("loinc:2160-0", unit=name),
        lambda: FeatureView(name="view", entity=patient, features=[feature], cadence=name),
    ):
        try:
            make()
        except DefinitionError as error:
            assert len(str(error).split("\n")) <= 1 + name.count("\n")
            refused.append(True)
        else:
            refused.append(False)
    is_a_column = name in ("store_seq", "site")
    assert refused == [not is_a_column, True, not is_a_column, True, True, True]


@pytest.mark.parametrize("name", [SQL, HTML, PATH, "", "..", ".hidden", "a/b", "a\0"])
def test_a_source_has_a_plain_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "fhir_features.toml").write_text(
        f'[sources.{json.dumps(name)}]\nkind = "files"\nsite = "north"\npath = "north"\ntimezone = "UTC"\n'
    )
    with pytest.raises(ConfigError, match="cannot be the name of a source"):
        load_config(tmp_path)


def test_each_pair_of_site_and_patient_has_its_own_row_online(project: Project) -> None:
    serving = open_repository(project.store)
    view = registered(serving, "kidney")
    made = pairs()
    some = made[:: max(len(made) // PAIRS, 1)]
    instants = pa.array([NOW] * len(some), pa.timestamp("us", "UTC"))
    rows = pa.table(
        {
            "site": [site for site, _ in some],
            "patient_id": [patient_id for _, patient_id in some],
            "answered_at": instants,
            "published_at": instants,
            "creatinine_last": [float(number) for number in range(len(some))],
        }
    )
    write_rows(serving, view, rows)
    found = read_rows(serving, view, [("creatinine_last", "double_val")], some)
    assert [values for _, values in found] == [[float(number)] for number in range(len(some))]
