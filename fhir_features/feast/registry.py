"""How does Feast's registry outlive a process that is killed while it is written? Feast rewrites its file in place, so
that half of one is left, which nothing can read; here the new one is written aside and takes its place whole.
"""

from __future__ import annotations

import uuid
from typing import Any

from feast.infra.registry.file import FileRegistryStore
from feast.repo_config import RepoConfig
from feast.utils import _utc_now

from fhir_features.errors import FeatureTableError
from fhir_features.files import disk_errors, written_aside


class WholeFileRegistryStore(FileRegistryStore):
    """A registry in a file, as Feast's own, that is there as it was or as it is to be.

    To be named in `feature_store.yaml` as the `registry_store_type` of the registry, for `feast apply`.
    """

    def _write_registry(self, registry_proto: Any) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(_utc_now())
        with disk_errors(FeatureTableError, str(self._filepath)), written_aside(self._filepath) as aside:
            aside.write_bytes(registry_proto.SerializeToString())


def outliving_kills(config: RepoConfig) -> RepoConfig:
    """The configuration of a Feast repository, its registry being written whole where it is a local file."""
    registry = config.registry
    if registry.registry_type == "file" and registry.registry_store_type is None and "://" not in registry.path:
        registry.registry_store_type = f"{__name__}.{WholeFileRegistryStore.__name__}"
    return config
