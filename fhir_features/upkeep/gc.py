"""What does a process that was killed leave behind? In: a configuration. Out: the files of the warehouse that belong to
nothing: data files that no commit names, what was written aside, spilled, or copied into a run that has no record.

Nothing is taken from under anyone: what another process is writing or reading is either locked, which is said, or not
an orphan. A pull that can be continued is none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fhir_features.config import Config
from fhir_features.errors import LakeError
from fhir_features.features.table_files import DIGEST
from fhir_features.files import alone, disk_errors, left_aside
from fhir_features.lake import spill_folder, writing
from fhir_features.lake.attach import CATALOG, DATA, SPILL
from fhir_features.lake.compacting import remove_replaced
from fhir_features.lake.doubtful import doubtful
from fhir_features.ontology.systems import ontologies_home, shipped_folder
from fhir_features.sources.checkpoint import CHECKPOINT
from fhir_features.sources.landing import RECORD, RUN_FOLDERS, runs_of_source
from fhir_features.sources.progress import Progress, silent


@dataclass(frozen=True)
class Orphan:
    """A file or folder that belongs to nothing, why, and its size in bytes."""

    path: Path
    why: str
    bytes: int


def gc(config: Config, progress: Progress = silent, *, dry_run: bool = False) -> list[Orphan]:
    """Remove what belongs to nothing, or on a dry run only find it; sorted by path.

    Raises LakeLocked when another process pulls, builds, writes to the lake or reads it, LakeError when the disk
    refuses.
    """
    warehouse = config.warehouse.path
    # One of these folders may lie in another.
    found: dict[Path, Orphan] = {}
    with disk_errors(LakeError, str(warehouse)):
        for orphan in chain(
            _in_landing(warehouse / "landing", dry_run),
            _in_lake(warehouse / "lake", config.warehouse.buckets, dry_run),
            _in_tables(warehouse / "features", dry_run),
            _aside(warehouse, dry_run),
            _aside(config.features.path, dry_run),
            _aside(ontologies_home(), dry_run) if ontologies_home() != shipped_folder() else (),
        ):
            found[orphan.path] = orphan
            progress("warehouse", "what belongs to nothing", len(found), None)
    return sorted(found.values(), key=lambda orphan: orphan.path)


def _aside(folder: Path, dry_run: bool) -> Iterator[Orphan]:
    sizes = {path: _size(path) for path in left_aside(folder, remove=False)}
    for path in left_aside(folder, remove=not dry_run):
        yield Orphan(path, "was being written", sizes.get(path, 0))


def _in_landing(landing: Path, dry_run: bool) -> Iterator[Orphan]:
    for folder in sorted(landing.glob("[!.]*/")):
        with alone(folder / "pull.lock", f"source '{folder.name}' is being read"):
            yield from _removed(_left_of_runs(folder), "belongs to no run", dry_run)
            yield from _removed(landing.glob(f".{folder.name}.reconcile"), "was being compared", dry_run)


def _left_of_runs(folder: Path) -> Iterator[Path]:
    for run in runs_of_source(folder):
        named = {RECORD, *(file.name for file in run.files)}
        yield from (path for path in sorted(run.folder.iterdir()) if path.name not in named)
    for unfinished in sorted(folder.glob(RUN_FOLDERS)):
        if not (unfinished / RECORD).exists() and not (unfinished / CHECKPOINT).exists():
            yield unfinished


def _in_lake(lake: Path, buckets: int, dry_run: bool) -> Iterator[Orphan]:
    if not (lake / CATALOG).exists():
        return
    with writing(lake, buckets=buckets, to_remove=True) as con:
        sizes = {path: _size(path) for path in remove_replaced(con, lake / DATA, dry_run=True)}
        for path in remove_replaced(con, lake / DATA, dry_run=dry_run):
            yield Orphan(path, "is named by no commit", sizes[path])
        own = spill_folder(con)
        left = [path for path in lake.glob(f"{SPILL}-*") if path != own]
        yield from _removed(left, "was spilled", dry_run)
        # As nobody else has the catalog open, what it says of the last commit is final.
        yield from _removed(lake.glob(doubtful(lake / CATALOG).name), "is of a commit that failed", dry_run)


def _in_tables(features: Path, dry_run: bool) -> Iterator[Orphan]:
    for view in sorted(features.glob("*/")):
        with alone(view / ".build.lock", f"the table of view '{view.name}' is being built"):
            alone_there = [
                path for path in view.glob(f"*/.*{DIGEST}") if not (path.parent / f"{path.stem[1:]}.parquet").exists()
            ]
            yield from _removed(alone_there, "is the digest of nothing", dry_run)


def _removed(paths: Iterator[Path] | list[Path], why: str, dry_run: bool) -> Iterator[Orphan]:
    for path in sorted(paths):
        orphan = Orphan(path, why, _size(path))
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield orphan


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())
