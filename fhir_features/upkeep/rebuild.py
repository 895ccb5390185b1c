"""The lake follows from the landing: how is it made anew? In: a configuration. Out: a lake with the same content, from
the landed runs in the order in which they were normalized before, in the place of the one that was there.

It is written beside the old one, over the same folder of data, and takes its place by the rename of one file, its
catalog, when it is whole. Whoever reads has the old lake until then. `gc` removes what the old one leaves.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from fhir_features.config import Config
from fhir_features.errors import FhirFeaturesError, LakeError
from fhir_features.files import disk_errors, folder_aside, make_folder, sync
from fhir_features.lake import reading, writing
from fhir_features.lake.attach import CATALOG, being_rebuilt, in_use
from fhir_features.normalize import normalize_runs
from fhir_features.sources import LandedRun, Progress, landed_runs
from fhir_features.sources.progress import silent


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: the runs that it normalized, and the resource versions in them as received."""

    runs: int
    received: int


def rebuild(config: Config, progress: Progress = silent) -> Rebuilt:
    """Make the lake anew from the landing. Killed in the middle, it has changed nothing.

    The order of the commits is that of the old lake, where that can be read, so that receipts still name the same
    commits; retries of the quarantine and earlier ontology locks leave no commit of their own. Waits for readers to end
    before the new lake takes its place. Raises LakeLocked while another process writes, LandingError for a landed file
    that is gone, LakeError when the disk refuses.
    """
    lake = config.warehouse.path / "lake"
    runs = _in_former_order(landed_runs(config.warehouse.path / "landing"), lake)
    with disk_errors(LakeError, f"the lake at {lake}"):
        make_folder(lake)
        with being_rebuilt(lake), folder_aside(lake) as aside:
            new = aside / CATALOG
            with writing(lake, buckets=config.warehouse.buckets, catalog=new) as con:
                summaries = normalize_runs(con, config, runs, progress)
            _settle(new)
            with in_use(lake, to_remove=True, wait=True):
                _take_place(new, lake / CATALOG)
    return Rebuilt(len(summaries), sum(each.received for each in summaries))


def _in_former_order(runs: list[LandedRun], lake: Path) -> list[LandedRun]:
    try:
        with reading(lake) as con:
            commits = con.execute("SELECT source, run_id, min(store_seq) FROM lake.commits GROUP BY ALL").fetchall()
    except FhirFeaturesError:
        return runs
    places = {(source, run_id): store_seq for source, run_id, store_seq in commits}
    return sorted(runs, key=lambda run: places.get((run.source, run.run_id), max(places.values(), default=0) + 1))


def _settle(catalog: Path) -> None:
    """Bring all of a catalog into its one file."""
    with closing(sqlite3.connect(catalog)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    sync(catalog)


def _take_place(new: Path, old: Path) -> None:
    # What the old one has in its log must not be taken for the new one's.
    with suppress(sqlite3.Error, LakeError):
        _settle(old)
    for ending in ("-wal", "-shm", "-journal"):
        old.with_name(f"{old.name}{ending}").unlink(missing_ok=True)
    new.replace(old)
    sync(old.parent)
