"""How fast is the as-of engine? One command, one table; issue 3 names the data.

    python benchmarks/engine.py [--events 20000000] [--patients 50000] [--spine 200000] [--threads 2]

Made once, in a lake in a temporary folder: results of 10 codes with two clocks, a fifth of them known up to ten days
late, 2 % corrected three days later. Measured are CPU seconds and peak memory from the lake's Parquet to Arrow, of 10
codes x (last, mean, min, max, count) x (24 h, 30 d, 365 d) = 150 features, in a process of its own, three times.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODES = ["2345-7", "2951-2", "2823-3", "2160-0", "3094-0", "718-7", "6690-2", "777-3", "4548-4", "1975-2"]
UNITS = ["mg/dL", "mmol/L", "mmol/L", "mg/dL", "mg/dL", "g/dL", "10*3/uL", "10*3/uL", "%", "mg/dL"]
START, YEARS = "2018-01-01", 5


def make_lake(folder: Path, events: int, patients: int) -> None:
    """Write the events, their corrections and closings in one commit."""
    from fhir_features.lake import bucket_sql, commit, writing

    with writing(folder, buckets=32) as con, commit(con, "benchmark") as seq:
        con.execute("SELECT setseed(0.42)")
        con.execute(f"""
CREATE TEMP TABLE drawn AS
SELECT
  range AS n,
  'p' || CAST(floor(random() * {patients}) AS INTEGER) AS patient_id,
  CAST(floor(random() * {len(CODES)}) AS INTEGER) AS code,
  TIMESTAMPTZ '{START}' + to_seconds(CAST(random() * {YEARS * 365 * 86400} AS BIGINT)) AS effective_at,
  CASE WHEN random() < 0.2 THEN CAST(random() * 864000 AS BIGINT) ELSE 3600 END AS late,
  round(random() * 100, 1) AS value,
  random() < 0.02 AS is_corrected
FROM range({events})""")
        for index, (code, unit) in enumerate(zip(CODES, UNITS, strict=True)):
            con.execute(
                "INSERT INTO lake.codings (code_id, ordinal, system, code, store_seq) VALUES (?, 0, ?, ?, ?)",
                [index, "http://loinc.org", code, seq],
            )
            con.execute(
                "INSERT INTO lake.units VALUES (?, 'http://unitsofmeasure.org', ?, ?, ?)", [index, unit, unit, seq]
            )
        con.execute(f"""
INSERT INTO lake.observations BY NAME
SELECT
  'north' AS site, {bucket_sql("'north'", "patient_id", 32)} AS bucket, patient_id, 'o' || n AS resource_id, version,
  1 AS state, effective_at, known_at, 'issued' AS known_at_source, 0 AS component, 'final' AS status, code AS code_id,
  'Quantity' AS value_type, value AS value_number, code AS unit_id, {seq} AS store_seq
FROM (
  SELECT *, '1' AS version, effective_at + to_seconds(late) AS known_at FROM drawn
  UNION ALL
  SELECT * REPLACE (value + 1 AS value), '2', effective_at + to_seconds(late + 259200) FROM drawn WHERE is_corrected
)
ORDER BY bucket, patient_id, code_id, effective_at""")
        con.execute(f"""
INSERT INTO lake.closings
SELECT 'north', {bucket_sql("'north'", "patient_id", 32)} AS bucket, patient_id, 'Observation', 'o' || n, '1', 1,
  effective_at + to_seconds(late + 259200), 'superseded', '2', {seq}
FROM drawn
WHERE is_corrected
ORDER BY bucket""")
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [seq])


def measure(folder: Path, rows: int, patients: int, threads: int) -> dict[str, float]:
    """Answer the spine once, in this process."""
    import numpy as np
    import pyarrow as pa

    from fhir_features import FeatureView, observation, patient
    from fhir_features.features.compile import compile_features
    from fhir_features.features.engine import answers, ask, stand_at
    from fhir_features.features.terms import create_members, ontologies
    from fhir_features.lake import reading

    features = []
    for code, unit in zip(CODES, UNITS, strict=True):
        series = observation(f"loinc:{code}", unit=unit)
        for operator in ("last", "mean", "min", "max", "count"):
            for within in ("24h", "30d", "365d"):
                value = getattr(series, operator)(within=within)
                features.append(value.named(f"{operator}_{code.replace('-', '_')}_{within}"))
    view = FeatureView(name="bench", entity=patient, features=features)
    random = np.random.default_rng(7)
    start = np.datetime64(START, "us").astype("int64")
    t = start + random.integers(365 * 86_400_000_000, YEARS * 365 * 86_400_000_000, rows)
    instants = pa.array(t).cast(pa.timestamp("us", tz="UTC"))
    spine = pa.table(
        {
            "question": pa.array(range(rows), pa.int64()),
            "site": ["north"] * rows,
            "patient_id": [f"p{n}" for n in random.integers(0, patients, rows)],
            "t": instants,
            "k": instants,
        }
    )
    before, begun = time.process_time(), time.perf_counter()
    cells = 0
    with reading(folder) as con:
        con.execute(f"SET threads = {threads}")
        stand_at(con, ontologies(), 1)
        ask(con, spine)
        plan = compile_features(view.features)
        create_members(con, ontologies(), plan)
        for answered in answers(con, ontologies(), plan):
            cells += answered.num_rows * len(plan.features)
    return {
        "cpu_s": round(time.process_time() - before, 2),
        "wall_s": round(time.perf_counter() - begun, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cells": cells,
    }


def main() -> None:
    """Make the lake, measure in processes of their own, print each run and the median."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=20_000_000)
    arguments.add_argument("--patients", type=int, default=50_000)
    arguments.add_argument("--spine", type=int, default=200_000)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--lake", type=Path, help="Keep the lake here, and use it again.")
    arguments.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.lake, chosen.spine, chosen.patients, chosen.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        lake = chosen.lake or Path(folder)
        if not (lake / "catalog.sqlite").exists():
            make_lake(lake, chosen.events, chosen.patients)
        command = [sys.executable, __file__, "--measure", "--lake", str(lake)]
        command += ["--spine", str(chosen.spine), "--patients", str(chosen.patients), "--threads", str(chosen.threads)]
        runs = [json.loads(subprocess.check_output(command, text=True)) for _ in range(chosen.runs)]
        for run in runs:
            print(run)
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        print(f"median of {len(runs)}: {medians}")


if __name__ == "__main__":
    main()
