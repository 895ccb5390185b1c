"""Every snippet of the README and of the pages does what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from snippets import FENCED, ROOT, Reader

from fhir_features.project import create_project
from fhir_features.store import FeatureStore

PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "docs").rglob("*.md")
    if FENCED.search(page.read_text(encoding="utf-8"))
    # The examples of commands have a test of their own; signatures and the tables of the operators are no snippets.
    and page.name not in {"cli.md", "python.md", "operators.md"}
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that pages go on from: the example, received and normalized."""
    folder = tmp_path_factory.mktemp("pages") / "my-store"
    create_project(folder, example=True)
    project = FeatureStore(folder)
    project.pull()
    project.normalize()
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back what a snippet does to the environment and to the modules that can be imported."""
    monkeypatch.setenv("FHIR_FEATURES_ONTOLOGIES", "")
    monkeypatch.delenv("FHIR_FEATURES_ONTOLOGIES")
    paths, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = paths
    for name in {"features", "feast_objects"} & (set(sys.modules) - modules):
        del sys.modules[name]


def test_the_readme_does_what_it_says(tmp_path: Path, store: Path):
    shutil.copytree(store / "received", tmp_path / "exports")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = readme.split("\n## From a folder of NDJSON\n")
    (tmp_path / "second").mkdir()
    (tmp_path / "exports").rename(tmp_path / "second" / "exports")
    readers = Reader(tmp_path), Reader(tmp_path / "second")
    readers[0].follow(first)
    readers[1].follow(second)
    assert [reader.compared for reader in readers] == [1, 1]


def test_what_the_readme_defines_is_what_a_project_begins_with():
    (snippet,) = [block[2] for block in FENCED.finditer((ROOT / "README.md").read_text()) if "FeatureView(" in block[2]]
    definition = snippet[snippet.index("diabetes = ") :]
    assert definition in (ROOT / "feature_repo" / "features.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, tmp_path: Path, store: Path):
    text = (ROOT / page).read_text(encoding="utf-8")
    folder = tmp_path / "my-store"
    if "fhir-features init" in text:
        folder = tmp_path
    else:
        shutil.copytree(store, folder)
    Reader(folder).follow(text)
