"""The Feast repository of a project, and what is in its online store: what was loaded of each view, and how far.

In goes a FeatureStore; out come Feast's own store, its registered views, and of each a `Loaded`. Feast keeps instants
only, and a table's sites come each to their own watermark, so the build that was loaded last is kept as a tag of the
registered view. `feast_objects` hands it on through a `feast apply` that leaves the table as it was.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fhir_features.errors import FeatureTableError
from fhir_features.features.nodes import canonical_json

if TYPE_CHECKING:
    from fhir_features.store import FeatureStore

DEFINITION, LOADED = "definition", "loaded"

_SECRET = re.compile(r"password|secret|token|credential", re.IGNORECASE)
_SECRET_IN_TEXT = re.compile(r"(?:password|secret)=[^,&;\s]*|//[^/@]*@", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """What the online store has of a view: all rows up to a build, which reached these watermarks (UTC) by site.

    `into` tells the online store by a hash of its configuration, without secrets.
    """

    build: str
    into: str
    watermarks: dict[str, dt.datetime]

    def to_tag(self) -> str:
        """The text that is kept in the registry."""
        watermarks = {site: at.isoformat() for site, at in self.watermarks.items()}
        return canonical_json({"build": self.build, "into": self.into, "watermarks": watermarks})


def open_repository(store: FeatureStore) -> Any:
    """Feast's FeatureStore over the folder of the definitions. Raises FeatureTableError when it is no repository."""
    repository = store.config.features.path
    if not (repository / "feature_store.yaml").exists():
        raise FeatureTableError(
            f"{repository} has no feature_store.yaml: make it a Feast repository, as the README says"
        )
    with quiet():
        import feast
        from feast.repo_config import load_repo_config

        from fhir_features.feast.registry import outliving_kills

        config = outliving_kills(load_repo_config(repository, repository / "feature_store.yaml"))
        return feast.FeatureStore(repo_path=str(repository), config=config)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast narrates on stdout, and turns on the warnings of the libraries beneath it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def registered(serving: Any, name: str, *, table: str | None = None) -> Any:
    """A view as Feast has it. Raises FeatureTableError when it was not applied, or for another table than `table`."""
    from feast.errors import FeatureViewNotFoundException

    try:
        found = serving.get_feature_view(name)
    except FeatureViewNotFoundException:
        found = None
    if found is None or (table is not None and found.tags.get(DEFINITION) != table):
        raise FeatureTableError(
            f"feature view '{name}' is not registered with Feast as it is now: run `feast apply` in {serving.repo_path}"
        )
    return found


def loaded(serving: Any, view: Any) -> Loaded | None:
    """What the online store of the repository has of a registered view; None when nothing is known to be there."""
    tag = view.tags.get(LOADED)
    if tag is None:
        return None
    kept = json.loads(tag)
    if kept["into"] != _into(serving):
        return None
    watermarks = {site: dt.datetime.fromisoformat(at) for site, at in kept["watermarks"].items()}
    return Loaded(kept["build"], kept["into"], watermarks)


def keep_loaded(serving: Any, view: Any, build: str, watermarks: Mapping[str, dt.datetime]) -> None:
    """Write down what the online store has of a registered view from now on."""
    kept = Loaded(build, _into(serving), dict(watermarks))
    current = serving.get_feature_view(view.name)
    current.tags = {**current.tags, LOADED: kept.to_tag()}
    serving.registry.apply_feature_view(current, serving.project)


def kept_tags(store: FeatureStore) -> dict[str, dict[str, str]]:
    """By view the tags that `feast apply` is to keep: what was loaded, and of which table."""
    repository = store.config.features.path
    if not (repository / "feature_store.yaml").exists():
        return {}
    serving = open_repository(store)
    if serving.config.registry.registry_type == "file" and not _file_of(serving).exists():
        return {}
    return {
        view.name: {name: view.tags[name] for name in (DEFINITION, LOADED)}
        for view in serving.list_feature_views()
        if loaded(serving, view) is not None and DEFINITION in view.tags
    }


def _file_of(serving: Any) -> Any:
    return serving.repo_path / serving.config.registry.path


def _into(serving: Any) -> str:
    def without_secrets(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_secrets(each) for key, each in value.items() if not _SECRET.search(key)}
        return _SECRET_IN_TEXT.sub("", value) if isinstance(value, str) else value

    configured = without_secrets(serving.config.online_store.model_dump(mode="json"))
    return hashlib.sha256(canonical_json(configured).encode()).hexdigest()[:12]
