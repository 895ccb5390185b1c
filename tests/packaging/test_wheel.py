"""The wheel is whole: it works in an environment of its own, outside the checkout, with its ontologies in it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fhir_features.ontology import load_ontologies

ROOT = Path(__file__).parents[2]
HEAVY = ("feast", "fhir.resources", "ibis", "pandas", "pint", "polars", "requests", "ucumvert")
LOADED = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a new environment that has the wheel, and borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site_packages,) = (folder / "env").glob("lib/python*/site-packages")
    # A line of a .pth adds a folder, and does not follow the .pth files in it: the checkout stays out.
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin"


def run(program: Path, *words: str) -> str:
    return subprocess.run(
        [program, *words], cwd=program.parent, check=True, capture_output=True, text=True, env={"PATH": ""}
    ).stdout


def test_the_package_is_the_wheels_own(installed: Path):
    file = run(installed / "python", "-c", "import fhir_features; print(fhir_features.__file__)")
    assert Path(file.strip()).is_relative_to(installed.parent)


def test_the_program_shows_its_help_and_version(installed: Path):
    assert "normalize" in run(installed / "fhir-features", "--help")
    assert "0.1.0" in run(installed / "fhir-features", "--version")


def test_the_ontologies_are_in_it_and_are_the_checkouts(installed: Path):
    code = """
from fhir_features.ontology import concept_set, load_ontologies
known = load_ontologies()
print(known.lock_id, len(known.expand(concept_set("icd10cm:E11", descendants=True))))
"""
    lock_id, concepts = run(installed / "python", "-c", code).split()
    assert lock_id == load_ontologies().lock_id
    assert int(concepts) > 50


def test_a_project_can_be_begun_with_it(installed: Path, tmp_path: Path):
    run(installed / "fhir-features", "init", str(tmp_path / "store"))
    made = tmp_path / "store" / "feature_repo" / "features.py"
    assert made.read_text() == (ROOT / "feature_repo" / "features.py").read_text()


def test_definitions_can_be_made_with_it(installed: Path):
    code = """
from fhir_features import FeatureView, observation, patient
hba1c = observation("loinc:4548-4", unit="%").last(within="365d").named("hba1c")
print(len(FeatureView(name="v", entity=patient, features=[hba1c]).version))
"""
    assert run(installed / "python", "-c", code) == "64\n"


def test_the_import_loads_nothing_heavy(installed: Path):
    assert json.loads(run(installed / "python", "-c", f"import json, sys, fhir_features; {LOADED}")) == []


def test_the_help_loads_nothing_heavy(installed: Path):
    code = f"import json, sys; from fhir_features.cli import main; sys.argv[1:] = ['--help']; main(); {LOADED}"
    assert json.loads(run(installed / "python", "-c", code).splitlines()[-1]) == []
