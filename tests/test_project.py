"""`fhir-features init` makes a project that works as it is, keeps patients' data out of git, and overwrites nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from fhir_features.cli import cli
from fhir_features.config import load_config
from fhir_features.errors import ConfigError, UsageError
from fhir_features.project import create_project
from fhir_features.store import FeatureStore


def test_the_project_works_as_it_is(tmp_path: Path):
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "store"), "--example"])
    assert done.exit_code == 0
    assert [Path(line).exists() for line in done.stdout.splitlines()] == [True] * 8
    store = FeatureStore(tmp_path / "store")
    (pulled,), (run,) = store.pull(), store.normalize()
    assert sum(of.landed for of in pulled.types) == run.normalized == run.received > 900
    assert store.test().failures == ()
    assert store.build("diabetes").rows > 0


def test_a_folder_of_files_a_site_and_a_zone_are_taken_over(tmp_path: Path):
    (tmp_path / 'export "1"').mkdir()
    create_project(tmp_path / "store", files=tmp_path / 'export "1"', site="north", timezone="Europe/Berlin")
    source = load_config(tmp_path / "store").source("files")
    assert (source.path, source.site, source.timezone) == (tmp_path / 'export "1"', "north", "Europe/Berlin")
    assert not (tmp_path / "store" / "received").exists()


def test_the_server_in_the_comments_is_one_that_can_be_used(tmp_path: Path):
    create_project(tmp_path)
    file = tmp_path / "fhir_features.toml"
    marked = re.compile(r"^# (?=\[|\w+ = )", re.MULTILINE)
    assert len(marked.findall(file.read_text())) > 10
    file.write_text(marked.sub("", file.read_text()))
    config = load_config(tmp_path)
    assert config.source("hospital").auth.kind == "smart"
    assert config.source("files").coding_lag == "3d"


def test_what_git_sees_has_no_patient_in_it(tmp_path: Path):
    create_project(tmp_path, example=True)
    kept = "warehouse/lake/data.parquet", "feature_repo/data/online.db", "secrets/key.pem"
    for name in (*kept, "training.parquet", "why.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = ["git", "ls-files", "--others", "--exclude-standard"]
    seen = subprocess.run(listed, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    features = [f"feature_repo/{name}" for name in ("feast_objects.py", "feature_store.yaml", "feature_tests.md")]
    assert seen == [".gitignore", *features, "feature_repo/features.py", "fhir_features.toml"]


def test_a_folder_that_cannot_be_written_is_a_line(tmp_path: Path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "store"
    with pytest.raises(UsageError) as refused:
        create_project(folder)
    said = f"the project at {folder} cannot be written (Not a directory): correct that, then run this again"
    assert str(refused.value) == said


def test_nothing_is_overwritten_and_a_mistake_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(ConfigError, match="Europe/Berln"):
        create_project(tmp_path / "store", timezone="Europe/Berln")
    assert not (tmp_path / "store" / "fhir_features.toml").exists()
    with pytest.raises(UsageError, match="there is no folder"):
        create_project(tmp_path / "store", files=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exclude each other"):
        create_project(tmp_path / "store", files=tmp_path, example=True)
    create_project(tmp_path / "store")
    (tmp_path / "store" / "fhir_features.toml").write_text("# mine")
    with pytest.raises(UsageError, match="is there already"):
        create_project(tmp_path / "store")
    assert (tmp_path / "store" / "fhir_features.toml").read_text() == "# mine"
