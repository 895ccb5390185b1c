"""Is this machine, and this project folder, as it must be? In: the configuration. Out: what was looked at, one after
the other, how it is, and what to change. Nothing is asked of a server, and nothing is left behind.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from fhir_features.errors import FhirFeaturesError
from fhir_features.sources import Check
from fhir_features.sources.doctor import Verdict

if TYPE_CHECKING:
    from fhir_features.config import Config

# What a pull of a year and its tables need is not known here; with less than this nothing works for long.
_LITTLE_DISK = 1_000_000_000


def examine_environment(config: Config) -> Iterator[Check]:
    """Look at versions, time zones, the warehouse, secrets, definitions and ontologies, check by check."""
    yield _versions()
    yield _lake()
    yield _time_zones(config)
    yield _warehouse(config.warehouse.path)
    if (ignored := _version_control(config.warehouse.path)) is not None:
        yield ignored
    yield from _secrets(config)
    yield _definitions(config)
    yield _ontologies()


def _check(check: str, verdict: Verdict, finding: str) -> Check:
    return Check("environment", check, verdict, finding)


def _versions() -> Check:
    names = ("fhir-features", "duckdb", "feast", "pyarrow", "polars")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return _check("versions", "works", f"Python {platform.python_version()}, {packages}")


def _lake() -> Check:
    from fhir_features.lake import connect

    try:
        connect().close()
    except FhirFeaturesError as error:
        return _check("lake", "fails", str(error))
    return _check("lake", "works", "DuckDB loads the extensions that the store needs")


def _time_zones(config: Config) -> Check:
    now = dt.datetime.now(dt.UTC)
    zones = {source.site: source.timezone for source in config.sources.values()}
    told = ", ".join(
        f"{site} {zone} (now {now.astimezone(ZoneInfo(zone)).isoformat()[-6:]})" for site, zone in zones.items()
    )
    if utc := [site for site, zone in zones.items() if zone in ("UTC", "Etc/UTC")]:
        finding = (
            f"{told}: if {', '.join(utc)} is not in UTC, set 'timezone', in which dates without an offset are read"
        )
        return _check("time zones", "limited", finding)
    return _check("time zones", "works", told or "no source yet")


def _warehouse(folder: Path) -> Check:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as first, Path(first.name).open() as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return _check("warehouse", "fails", f"{there} has no file locks: put it on a disk of this machine")
            if not _takes_second_names(Path(first.name)):
                return _check("warehouse", "fails", f"{there} has no hard links: put it on a disk of this machine")
    except OSError as error:
        return _check("warehouse", "fails", f"{there} cannot be written ({error.strerror}): correct its permissions")
    free = shutil.disk_usage(there).free
    if free < _LITTLE_DISK:
        return _check("warehouse", "limited", f"{free / 1e9:.1f} GB are free at {there}: make room before a pull")
    if folder.exists() and folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        finding = (
            f"others on this machine may read patients' data there, if no folder above forbids it: chmod 700 {folder}"
        )
        return _check("warehouse", "limited", finding)
    return _check("warehouse", "works", f"{free / 1e9:,.0f} GB are free at {there}")


def _takes_second_names(file: Path) -> bool:
    link = file.with_name(f"{file.name}.link")
    try:
        link.hardlink_to(file)
    except OSError:
        return False
    link.unlink()
    return True


def _version_control(folder: Path) -> Check | None:
    """Whether git would take patients' data; nothing where there is no git."""
    project = folder.parent
    if shutil.which("git") is None or not any((each / ".git").exists() for each in (project, *project.parents)):
        return None
    # https://git-scm.com/docs/git-check-ignore: 0 if ignored, 1 if not. A rule for a folder wants the slash.
    asked = subprocess.run(["git", "check-ignore", "-q", f"{folder}/"], cwd=project, capture_output=True)
    if asked.returncode == 1:
        return _check("git", "fails", f"git would take the warehouse: add /{folder.name}/ to {project}/.gitignore")
    return _check("git", "works", "git leaves the warehouse alone")


def _secrets(config: Config) -> Iterator[Check]:
    for name, source in config.sources.items():
        for file in (source.auth.secret_file, source.auth.key_file):
            if file is not None and file.exists() and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                yield _check("secrets", "limited", f"others may read the secret of '{name}': chmod 600 {file}")
        for variable in (source.auth.secret_env, source.auth.key_env):
            if variable is not None and variable not in os.environ:
                yield _check("secrets", "fails", f"'{name}' needs ${variable}, which is not set here")


def _definitions(config: Config) -> Check:
    from fhir_features.features.repository import load_views

    try:
        views = load_views(config.features.path)
    except FhirFeaturesError as error:
        return _check("definitions", "fails", str(error))
    return _check("definitions", "works", f"feature views: {', '.join(views) or 'none yet'}")


def _ontologies() -> Check:
    from fhir_features.ontology import load_ontologies
    from fhir_features.ontology.systems import HOME_VARIABLE

    try:
        known = load_ontologies()
    except FhirFeaturesError as error:
        return _check("ontologies", "fails", str(error))
    where = f"of ${HOME_VARIABLE}" if os.environ.get(HOME_VARIABLE) else f"as shipped (${HOME_VARIABLE} is not set)"
    return _check("ontologies", "works", f"{len(known.manifests)} artifacts {where}, lock {known.lock_id[:12]}")
