from __future__ import annotations

from pathlib import Path

import pytest
from project import Project

from fhir_features.feast import materialize


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose views have been loaded, for tests that leave it as it is."""
    # Not at the top: what a test module asserts is not shown when it was imported before the tests.
    from test_online_equals_offline import apply

    project = Project(tmp_path_factory.mktemp("loaded"))
    project.receive(project.resources)
    apply(project)
    materialize(project.store)
    return project
