"""Is the Feast repository set up in a way that answers rightly? In goes its folder; out comes what of its
`feature_store.yaml` is known to be wrong, wasteful or missing, each with what to write instead.

The Feast package is not imported for it. What is said of its offline stores is shown, case by case, in docs/feast.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from fhir_features.sources import Check

OURS = "fhir_features.feast.FhirOfflineStore"

_WRITE_OURS = f"set offline_store.type to {OURS}"
_DASK = (
    f"it drops rows whose value has expired or is not there yet, and makes one of rows that differ only in their "
    f"label: {_WRITE_OURS}"
)
_WRONG = {
    "dask": _DASK,
    "file": _DASK,
    "ray": f"it joins by whole hours, takes any of two rows with one timestamp, and ignores the ttl: {_WRITE_OURS}",
}
_ZONE = "spark.sql.session.timeZone"


def examine_repository(repository: Path) -> Iterator[Check]:
    """What is to be said of a Feast repository, check by check; nothing of a folder that is none."""
    file = repository / "feature_store.yaml"
    if not file.exists():
        return
    try:
        # Feast reads it like this: environment variables first.
        settings = yaml.safe_load(os.path.expandvars(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        settings = None
    if not isinstance(settings, dict):
        yield Check("feast", "repository", "fails", f"{file} cannot be read as YAML: correct it, as the README shows")
        return
    yield _offline_store(settings)
    yield _materialization(settings)
    yield _ui()


def _offline_store(settings: dict[str, Any]) -> Check:
    store = settings.get("offline_store")
    given = store if isinstance(store, dict) else {"type": store}
    kind = str(given.get("type") or "dask")
    if kind == OURS:
        return Check("feast", "offline store", "works", "reads feature tables, and answers views that have none yet")
    if kind in _WRONG:
        default = "" if given.get("type") else ", the default of Feast,"
        return Check("feast", "offline store", "fails", f"'{kind}'{default} is wrong: {_WRONG[kind]}")
    if kind == "spark":
        conf = given.get("spark_conf")
        zone = conf.get(_ZONE) if isinstance(conf, dict) else None
        if zone != "UTC":
            named = f"is {zone}" if zone else "is that of the machine"
            return Check(
                "feast",
                "offline store",
                "fails",
                f"Spark's time zone {named}: set offline_store.spark_conf.{_ZONE}: UTC",
            )
        return Check("feast", "offline store", "limited", "'spark' needs a SparkSource over the feature tables")
    if kind == "duckdb":
        return Check(
            "feast", "offline store", "limited", f"right for feature tables, at many times the memory: {_WRITE_OURS}"
        )
    return Check("feast", "offline store", "limited", f"'{kind}' has not been tried with feature tables: {_WRITE_OURS}")


def _materialization(settings: dict[str, Any]) -> Check:
    given = settings.get("materialization")
    if isinstance(given, dict) and given.get("pull_latest_features") is True:
        return Check("feast", "materialization", "works", "reads the newest row of each patient")
    return Check(
        "feast",
        "materialization",
        "limited",
        "reads every row of the interval, at twice the time and memory: set materialization.pull_latest_features: true",
    )


def _ui() -> Check:
    # feast/registry_server.py, which `feast ui` imports, needs all three.
    if all(find_spec(name) for name in ("grpc", "grpc_health", "grpc_reflection")):
        return Check("feast", "feast ui", "works", "has what it needs")
    return Check(
        "feast",
        "feast ui",
        "limited",
        "its pages, for those who want them, need grpcio: pip install 'fhir-features[ui]'",
    )
