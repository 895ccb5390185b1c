"""What does it cost to build a feature table? One command a question.

    python benchmarks/build.py on_change   # last values and states over 5 M versions of 50,000 patients
    python benchmarks/build.py daily       # 30 window features at 02:00 of every day of five years, over 20 M results
    python benchmarks/build.py increment   # the same table once more, when something has come for 500 patients

The lakes are those of `engine.py` (`--keep FOLDER` keeps them). The peer of `on_change` is one hand-written DuckDB
statement over the same lake: it emits a row whenever one of the last values changes, for one clock, so without what a
correction or a late result makes of it. `daily` has no peer that ends: a plain join of days and results is estimated.
Each measurement is a process of its own: CPU seconds of all threads, seconds, and the peak of resident memory.
`--scale 0.1` takes a tenth of results and patients.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine import BUCKETS, CODES, UNITS, Case, make_lake

ON_CHANGE = Case(4_900_000, 50_000, 0)
DAILY = Case(20_000_000, 50_000, 0)
WATERMARK = "2023-01-15"
MORE_PATIENTS = 500


def view_of(what: str) -> Any:
    """The feature view that is built."""
    from fhir_features import FeatureView, observation, patient

    features = []
    for code, unit in zip(CODES, UNITS, strict=True):
        series, name = observation(f"loinc:{code}", unit=unit), code.replace("-", "_")
        if what == "on_change":
            features.append(series.last().named(f"last_{name}"))
        else:
            features.append(series.mean(within="24h").named(f"mean_1d_{name}"))
            features.append(series.max(within="30d").named(f"max_30d_{name}"))
            features.append(series.count(within="365d").named(f"count_1y_{name}"))
    if what == "on_change":
        features.append(observation("loinc:4548-4").exists(within="365d").named("hba1c_in_year"))
        features.append(patient.deceased().named("deceased"))
    cadence = "on_change" if what == "on_change" else "daily@02:00 UTC"
    return FeatureView(name=what, entity=patient, features=features, cadence=cadence)


def see_up_to(folder: Path, watermark: str) -> None:
    """Let the lake say that it has seen all of the site up to an instant."""
    from fhir_features.lake import commit, writing

    with writing(folder / "lake", buckets=BUCKETS) as con, commit(con, "benchmark") as seq:
        for resource_type in ("Observation", "Patient"):
            con.execute(
                "INSERT INTO lake.watermarks BY NAME SELECT 'north' AS site, ? AS resource_type,"
                " ?::TIMESTAMPTZ AS watermark, 'north' AS source, 'search' AS kind, ? AS store_seq",
                [resource_type, watermark, seq],
            )
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [seq])


def add_results(folder: Path, case: Case, day: str) -> None:
    """One more result of each code for some patients, in one commit."""
    from fhir_features.lake import bucket_sql, commit, writing

    bucket = bucket_sql("'north'", "patient_id", BUCKETS)
    with writing(folder / "lake", buckets=BUCKETS) as con, commit(con, "benchmark") as seq:
        con.execute(f"""
INSERT INTO lake.observations BY NAME
SELECT
  'north' AS site, {bucket} AS bucket, patient_id, 'more' || code || patient_id || '{day}' AS resource_id,
  '1' AS version, {seq << 32} + row_number() OVER () AS version_no, 1 AS state, TIMESTAMPTZ '{day}' AS effective_at,
  TIMESTAMPTZ '{day}' AS known_at, 'issued' AS known_at_source, 0 AS component, 'final' AS status, code AS code_id,
  'Quantity' AS value_type, 50.0 AS value_number, code AS unit_id, {seq} AS store_seq
FROM (SELECT 'p' || p AS patient_id FROM range({min(MORE_PATIENTS, case.patients)}) t(p))
CROSS JOIN (SELECT code FROM range({case.codes}) t(code))
ORDER BY bucket, patient_id""")
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [seq])


def by_hand(folder: Path, case: Case) -> int:
    """The peer of `on_change`: the rows of one statement, for one clock."""
    from fhir_features.lake import reading

    last = ",\n  ".join(
        f"last_value(CASE WHEN code_id = {code} THEN value_number END IGNORE NULLS) OVER in_time AS last_{code}"
        for code in range(case.codes)
    )
    target = folder / "by_hand.parquet"
    with reading(folder / "lake") as con:
        con.execute(f"""
COPY (
  SELECT patient_id, known_at, {last}
  FROM lake.observations
  WINDOW in_time AS (PARTITION BY patient_id ORDER BY known_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
  ORDER BY patient_id, known_at
) TO '{target}' (FORMAT parquet, COMPRESSION zstd)""")
        row = con.execute(f"SELECT count(*) FROM '{target}'").fetchone()
    assert row is not None
    return int(row[0])


def measure(what: str, folder: Path, case: Case) -> dict[str, Any]:
    """One build, once, in this process."""
    from fhir_features import FeatureStore

    store = FeatureStore(folder)
    view = None if what == "by_hand" else view_of("daily" if what == "increment" else what)
    cpu, wall = time.process_time(), time.perf_counter()
    rows = by_hand(folder, case) if view is None else store.build(view).rows
    found = {"rows": rows, "cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - wall, 1)}
    return {**found, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def in_a_process(what: str, root: Path, case: Case) -> None:
    """A measurement in a process of its own, printed."""
    command = [sys.executable, __file__, "measure", "--way", what, "--keep", str(root)]
    printed = subprocess.check_output([*command, "--case", json.dumps(asdict(case))], text=True)
    print(f"{what}: {printed.splitlines()[-1]}", flush=True)


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("on_change", "daily", "increment", "measure"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="Keep the lakes here, and use them again.")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.keep or Path(temporary)
        if chosen.what == "measure":
            given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(chosen.case).items()}
            case = Case(**given)
            print(json.dumps(measure(chosen.way, root / f"build-{case.lake}", case)))
            return
        case = (ON_CHANGE if chosen.what == "on_change" else DAILY).scaled(chosen.scale)
        folder = root / f"build-{case.lake}"
        if not (folder / "lake" / "catalog.sqlite").exists():
            # A process counts its parent's memory as its own.
            with ProcessPoolExecutor(1) as pool:
                pool.submit(make_lake, folder, case).result()
                pool.submit(see_up_to, folder, WATERMARK).result()
        if chosen.what == "increment":
            increments(root, folder, case)
            return
        shutil.rmtree(folder / "features" / chosen.what, ignore_errors=True)
        in_a_process(chosen.what, root, case)
        if chosen.what == "on_change":
            in_a_process("by_hand", root, case)


def increments(root: Path, folder: Path, case: Case) -> None:
    """A day without news, then a day with some, after the table has been built as far as the lake has been seen."""
    in_a_process("increment", root, case)
    for day in ("2023-01-16", "2023-01-17"):
        with ProcessPoolExecutor(1) as pool:
            if day == "2023-01-17":
                pool.submit(add_results, folder, case, day).result()
            pool.submit(see_up_to, folder, f"{day} 12:00").result()
        in_a_process("increment", root, case)


if __name__ == "__main__":
    main()
