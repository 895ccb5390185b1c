"""How does a lake of many small files become one of few? In: a configuration. Out: the tables that were written anew;
what they say, and every answer, stays as it was."""

from __future__ import annotations

from contextlib import suppress

from fhir_features.config import Config
from fhir_features.errors import LakeLocked
from fhir_features.lake import writing
from fhir_features.lake.attach import DATA
from fhir_features.lake.compacting import Compacted, compact_tables, remove_replaced
from fhir_features.sources.progress import Progress, silent


def compact(config: Config, progress: Progress = silent) -> list[Compacted]:
    """Write each table of the lake that has several files into one, in the order of its rows, as one commit.

    Whoever reads meanwhile goes on with what it has; the files that were replaced are removed when nobody reads, if not
    now then by `gc`. Raises LakeLocked while another process writes, LakeError when the disk refuses.
    """
    lake, buckets = config.warehouse.path / "lake", config.warehouse.buckets
    with writing(lake, buckets=buckets) as con:
        compacted = compact_tables(con, lake, lambda table, rows, total: progress(table, "rows", rows, total))
    with suppress(LakeLocked), writing(lake, buckets=buckets, to_remove=True) as con:
        remove_replaced(con, lake / DATA, dry_run=False)
    return compacted
