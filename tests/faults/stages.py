"""A process that does one stage of a project after the other, each in a fork of itself, so that one can be killed or
told that the disk failed at any of its writes: `python stages.py`, with `faults.so` preloaded, a JSON request a line.

In: {stage, folder, at, errno, trace}. Out: {exit, calls, says}: how the stage ended (below 0: by which signal), how
many of its calls changed a file in the folder, and what it said: an error of this package as text, or a result.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import resource
import sqlite3
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fhir_features.config import load_config
from fhir_features.errors import FhirFeaturesError
from fhir_features.features.content_hash import table_hash
from fhir_features.files import sha256_of
from fhir_features.lake import connect, reading
from fhir_features.lake.digests import data_files
from fhir_features.lake.schema import TABLES
from fhir_features.normalize import normalize
from fhir_features.ontology.artifacts import found_manifests
from fhir_features.ontology.importers import import_release
from fhir_features.ontology.systems import HOME_VARIABLE
from fhir_features.sources import landed_runs, pull
from fhir_features.store import FeatureStore
from fhir_features.upkeep import compact, gc, rebuild, verify

# What a run was called, and when, is not what it brought.
NAMES = re.compile(r"\d{8}T\d{12}Z|ducklake-[0-9a-f-]{36}")


def build(folder: Path) -> None:
    store = FeatureStore(folder)
    for name in store.views:
        store.build(name)


def apply(folder: Path) -> None:
    """What `feast apply` does."""
    from feast.repo_config import load_repo_config
    from feast.repo_operations import apply_total

    repo = folder / "feature_repo"
    sys.path.insert(0, str(repo))
    apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)


def materialize(folder: Path) -> None:
    from fhir_features import feast

    feast.materialize(FeatureStore(folder))


def ontology_import(folder: Path) -> None:
    import_release("fhir", folder / "release.json", folder / "home")


STAGES = {
    "pull": lambda folder: pull(load_config(folder)),
    "normalize": lambda folder: normalize(load_config(folder)),
    "build": build,
    "apply": apply,
    "materialize": materialize,
    "import": ontology_import,
    "compact": lambda folder: compact(load_config(folder)),
    "rebuild": lambda folder: rebuild(load_config(folder)),
    "gc": lambda folder: gc(load_config(folder)),
    "verify": lambda folder: [found.path for found in verify(load_config(folder)).findings],
    "content": lambda folder: content(folder),
    "lake": lambda folder: lake_content(folder),
}


def recover(folder: Path, stage: str, committed: bool) -> dict[str, Any]:
    """What must be so after a stage was disturbed: what was `committed` is as it was, and done again the stage ends
    well. What then is left over is removed; what the project holds."""
    found = lake_content(folder) if committed else {}
    STAGES[stage](folder)
    # Of all stages only the import is about the folder of ontologies, which for the others is the shipped one.
    os.environ[HOME_VARIABLE] = str(folder / "home")
    gc(load_config(folder))
    del os.environ[HOME_VARIABLE]
    return {"committed": found, "content": content(folder)}


def content(folder: Path) -> dict[str, Any]:
    """What a project holds, but for the names and times of its runs: a hash of each table of each stage; and its files."""
    warehouse = folder / "warehouse"
    held: dict[str, Any] = {
        "files": files(warehouse) + files(folder / "home") + files(folder / "feature_repo" / "data")
    }
    held["landing"] = [
        [
            run.source,
            sorted(run.types),
            [[file.name, file.lines, sha256_of(run.folder / file.name)] for file in run.files],
        ]
        for run in landed_runs(warehouse / "landing")
    ]
    if (warehouse / "lake" / "catalog.sqlite").exists():
        held["lake"] = lake_content(folder)
    held["features"] = {
        NAMES.sub("", str(file.relative_to(warehouse))): table_hash(pq.read_table(file)).sha256
        for file in sorted((warehouse / "features").glob("*/*/*.parquet"))
    }
    held["ontologies"] = [each.content_sha256 for each in found_manifests(folder / "home")]
    held["online"] = online(folder / "feature_repo" / "data" / "online.db")
    return held


def lake_content(folder: Path) -> dict[str, dict[str, str]]:
    """A hash of the rows of each table of the lake, by the commit that brought them."""
    lake = folder / "warehouse" / "lake"
    found: dict[str, dict[str, str]] = {}
    with reading(lake) as con:
        names = [file.name for file in data_files(con)]
        for table in TABLES:
            # Not through DuckLake, which plans for longer than it reads.
            paths = [str(lake / "data" / name) for name in names if name.startswith(f"main/{table.name}/")]
            commit = "store_seq" if "store_seq" in table.names else "0"
            sql = f"SELECT {commit}, sum(md5_number_lower(CAST(r AS VARCHAR)))\nFROM read_parquet(?) r\nGROUP BY ALL"
            if paths:
                found[table.name] = {str(seq): str(digest) for seq, digest in con.execute(sql, [paths]).fetchall()}
    return found


def online(database: Path) -> str | None:
    """A hash of the rows that an online store serves, but for when they were written."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(database)) as rows:
        names = [name for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        columns = "entity_key, feature_name, value, event_ts"
        held = [rows.execute(f'SELECT {columns} FROM "{name}" ORDER BY 1, 2').fetchall() for name in names]
    return hashlib.sha256(repr((names, held)).encode()).hexdigest()


def files(folder: Path) -> list[str]:
    """The files in a folder, by their paths without the names of runs and random parts."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (str(path) for path in paths if path.suffix != ".lock" and not path.name.endswith(("-wal", "-shm")))
    return sorted(NAMES.sub("", path) for path in kept)


def do(request: dict[str, Any]) -> None:
    """One stage, in a process of its own."""
    faults = ctypes.CDLL(None)
    folder = Path(request["folder"])
    arm = faults.fault_arm
    arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_char_p]
    arm(os.fsencode(folder), request.get("at", 0), request.get("errno", 0), os.fsencode(request.get("trace", "")))
    code, says = 0, None
    try:
        recovers = request.get("recovers")
        says = recover(folder, recovers, request["committed"]) if recovers else STAGES[request["stage"]](folder)
    except FhirFeaturesError as error:
        code, says = error.exit_code, str(error)
    except BaseException:
        code, says = 255, traceback.format_exc()
    calls = faults.fault_calls()
    arm(b"", 0, 0, b"")
    answer = {"exit": code, "calls": calls, "says": says}
    os.write(request["answer"], json.dumps(answer, default=str).encode() + b"\n")
    os._exit(0)


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        readable, request["answer"] = os.pipe()
        process = os.fork()
        if not process:
            os.dup2(2, 1)
            do(request)
        os.close(request["answer"])
        with os.fdopen(readable) as answers:
            answered = answers.read()
        _, status = os.waitpid(process, 0)
        answer = (
            json.loads(answered) if answered else {"exit": os.waitstatus_to_exitcode(status), "calls": 0, "says": None}
        )
        print(json.dumps(answer), flush=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"cpu": children.ru_utime + children.ru_stime}), flush=True)


def warm_up() -> None:
    """Import, before there are forks, what each of them would."""
    import feast.repo_operations  # noqa: F401
    import pandas  # noqa: F401  # DuckDB imports it for the first parameter that it is given
    import pyarrow.dataset  # noqa: F401

    import fhir_features.feast.offline_store
    import fhir_features.feast.registry
    import fhir_features.normalize.validation  # noqa: F401
    from fhir_features.ontology.units import Units

    Units().ucum("http://unitsofmeasure.org", "kg.m/s2/K", None)
    connect().close()


if __name__ == "__main__":
    warm_up()
    serve()
