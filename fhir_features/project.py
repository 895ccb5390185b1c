"""A project to begin with: a configuration with comments, the shipped feature views, and what git is to leave alone.

In goes a folder that has none of it; out come the files, which work as they are. What is received there is put into the
folder `received`, unless another one is named.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from string import Template

from fhir_features.config import FILE_NAME, load_config
from fhir_features.errors import UsageError
from fhir_features.files import disk_errors

FEATURE_FILES = ("features.py", "feature_tests.md", "feature_store.yaml", "feast_objects.py")
# What the invented patients are written as of, so that they are the same each time.
EXAMPLE_NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
_STARTER = Path(__file__).parent / "starter"


def create_project(
    folder: Path, *, files: Path | None = None, site: str = "my-site", timezone: str = "UTC", example: bool = False
) -> list[Path]:
    """Write the files of a new project into a folder, and say which. Its feature repository is the shipped one.

    `files` is the folder of FHIR files to read; without it `received` in the project, in which `example` puts ten
    invented patients and what arrived a day later. `timezone` is the IANA zone of the site. Raises UsageError, and
    writes nothing, when one of the files is there already, and when the folder cannot be written; ConfigError for an
    unknown zone.
    """
    if example and files is not None:
        raise UsageError("--example and --files exclude each other: invented patients do not go where others are")
    if files is not None and not files.is_dir():
        raise UsageError(f"there is no folder {files}: name one that has NDJSON or Bundles")
    with disk_errors(UsageError, f"the project at {folder}"):
        received = "received" if files is None else str(files.resolve())
        return _write(folder, _configuration(received, site, timezone), receives=files is None, example=example)


def _write(folder: Path, configuration: str, *, receives: bool, example: bool) -> list[Path]:
    repository = folder / "feature_repo"
    made = [folder / FILE_NAME, folder / ".gitignore", *(repository / name for name in FEATURE_FILES)]
    if there := [path for path in made if path.exists()]:
        raise UsageError(f"{there[0]} is there already: choose a new folder, or remove it")
    repository.mkdir(parents=True, exist_ok=True)
    made[0].write_text(configuration)
    try:
        load_config(folder)
    except Exception:
        made[0].unlink()
        raise
    shutil.copyfile(_STARTER / "gitignore", made[1])
    shipped = _shipped_repository()
    for path in made[2:]:
        shutil.copyfile(shipped / path.name, path)
    if receives:
        (folder / "received").mkdir(exist_ok=True)
    return [*made, *(_write_example(folder / "received") if example else ())]


def _shipped_repository() -> Path:
    """The shipped feature views, their tests and the Feast repository over them: in a package, else the checkout's."""
    package = Path(__file__).parent
    packed = package / "_feature_repo"
    return packed if packed.is_dir() else package.parent / "feature_repo"


def _configuration(path: str, site: str, timezone: str) -> str:
    template = Template((_STARTER / FILE_NAME).read_text(encoding="utf-8"))
    # A text of JSON is one of TOML.
    return template.substitute(path=json.dumps(path), site=json.dumps(site), timezone=json.dumps(timezone))


def _write_example(folder: Path) -> list[Path]:
    from fhir_features.synthetic import later, population, write_ndjson

    patients = population(patients=10, seed=1, now=EXAMPLE_NOW)
    first, second = folder / "first.ndjson", folder / "later.ndjson"
    write_ndjson(patients, first)
    write_ndjson(later(patients, now=EXAMPLE_NOW + dt.timedelta(days=1)), second)
    return [first, second]
