"""Feast's registry is whole whenever the process that writes it is killed, and whatever the disk says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from feast import Entity, FeatureStore, ValueType
from feast.repo_config import load_repo_config
from project import Project

from fhir_features.errors import FeatureTableError
from fhir_features.feast.repository import open_repository

PLAIN = "project: told\nprovider: local\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"


def entity(name: str) -> Entity:
    return Entity(name=name, join_keys=[name], value_type=ValueType.STRING)


def names(folder: Path) -> list[str]:
    store = FeatureStore(repo_path=str(folder))
    return sorted(entity.name for entity in store.list_entities())


@pytest.mark.parametrize("yaml", [None, PLAIN], ids=["shipped", "without a type of its own"])
def test_a_registry_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yaml: str):
    project = Project(tmp_path, yaml)
    serving = open_repository(project.store)
    repository = tmp_path / "feature_repo"
    file = repository / serving.config.registry.path
    serving.apply(entity("first"))
    before = file.read_bytes()

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FeatureTableError, match=r"registry\.db cannot be written \(No space left on device\)"):
            serving.apply(entity("second"))
    assert file.read_bytes() == before
    assert names(repository) == ["first"]
    serving = open_repository(project.store)
    serving.apply(entity("second"))
    assert names(repository) == ["first", "second"]
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_local_file_is_left_to_feast(tmp_path: Path):
    from fhir_features.feast.registry import outliving_kills

    told = tmp_path / "feature_store.yaml"
    for registry in ("s3://bucket/registry.db", "{registry_type: sql, path: 'sqlite:///registry.db'}"):
        told.write_text(f"project: told\nprovider: local\nregistry: {registry}\n")
        assert outliving_kills(load_repo_config(tmp_path, told)).registry.registry_store_type is None
