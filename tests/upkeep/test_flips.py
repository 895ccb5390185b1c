"""No bit that flips in a file of the warehouse goes unnoticed by whoever reads it next.

FLIPS=1000 .venv/bin/python -m pytest -s tests/upkeep/test_flips.py
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fhir_features import files
from fhir_features.config import load_config
from fhir_features.errors import FhirFeaturesError
from fhir_features.features.history import find_version, restore
from fhir_features.features.table_files import checked_files
from fhir_features.lake import reading
from fhir_features.sources import landed_runs, verify_run
from fhir_features.store import FeatureStore

FLIPS = int(os.environ.get("FLIPS", "40"))


def read_lake(project: Path) -> None:
    with reading(project / "warehouse" / "lake"):
        pass


def read_landing(project: Path) -> None:
    for run in landed_runs(project / "warehouse" / "landing"):
        verify_run(run)


def read_tables(project: Path) -> None:
    for folder in sorted((project / "warehouse" / "features").glob("*/*/")):
        checked_files(folder)


def read_views(project: Path) -> None:
    views = project / "warehouse" / "views"
    for file in sorted(views.glob("*/*.json")):
        restore(find_version(views, file.parent.name, file.stem))


def read_spine(project: Path) -> str:
    """Known by what is answered to it: a flip that leaves that as it is, as in a statistic, does nothing."""
    made = FeatureStore(project).reproduce(project / "training.parquet.receipt.json")
    return made.training.receipt.output.sha256


# What reads a part of the warehouse, and the files that it reads.
READERS: dict[str, tuple[Callable[[Path], str | None], str]] = {
    "lake": (read_lake, "lake/data/**/*.parquet"),
    "landing": (read_landing, "landing/ward/*/*"),
    "feature tables": (read_tables, "features/*/*/*"),
    "recorded views": (read_views, "views/*/*.json"),
    "spines": (read_spine, "spines/*.parquet"),
}
# The last two are small, or slow to read, and few.
SHARES = {"lake": 16, "landing": 12, "feature tables": 10, "recorded views": 1, "spines": 1}


def test_no_flipped_bit_goes_unnoticed(project: Path):
    load_config(project)
    dice = random.Random(FLIPS)
    flipped, unnoticed = Counter[str](), []
    for part, (read, pattern) in READERS.items():
        before = read(project)
        paths = sorted(path for path in (project / "warehouse").glob(pattern) if path.is_file())
        for _ in range(FLIPS * SHARES[part] // sum(SHARES.values())):
            path = dice.choice(paths)
            content = path.read_bytes()
            bit = dice.randrange(len(content) * 8)
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            files._intact.clear()
            try:
                now = read(project)
                if before is None or now != before:
                    unnoticed.append((part, path.name, bit))
                else:
                    flipped[f"{part}, without effect"] += 1
            except FhirFeaturesError:
                flipped[part] += 1
            path.write_bytes(content)
    assert unnoticed == []
    assert flipped.total() == FLIPS
    print(f"\n{flipped.total()} flips, none unnoticed: {dict(flipped)}")
