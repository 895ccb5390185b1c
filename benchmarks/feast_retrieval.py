"""How fast is our Feast offline store, against Feast's own over the same files? Each measurement is a process.

    python benchmarks/feast_retrieval.py            # all cases, ours and Feast's DuckDB store in turn
    python benchmarks/feast_retrieval.py wide deep  # some
    python benchmarks/feast_retrieval.py wide --peer dask

5 million rows of 20 numbers, by patient and time: `wide` and `wide-1m` ask 200,000 and 1,000,000 questions about 50,000
patients of 100 rows, `ttl` the first with a time to live of 30 days, `created` with `filter_by_created_timestamp`, and
`deep` 50,000 questions about 2,500 patients of 2,000 rows. `--scale 0.1` takes a tenth of the patients and questions.
CPU seconds of all threads and the peak of resident memory are those of the retrieval to Arrow, imports not counted in
the seconds; the answers are compared row by row.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEATURES = [f"f{number}" for number in range(20)]
START_US, YEARS_US = 1_514_764_800_000_000, 5 * 365 * 86_400_000_000
OURS = "fhir_features.feast.FhirOfflineStore"


@dataclass(frozen=True)
class Case:
    """What is asked of how many patients with how many rows each."""

    patients: int
    rows: int
    questions: int
    ttl_days: int = 0
    by_created: bool = False


CASES = {
    "wide": Case(50_000, 100, 200_000),
    "ttl": Case(50_000, 100, 200_000, ttl_days=30),
    "created": Case(50_000, 100, 200_000, by_created=True),
    "wide-1m": Case(50_000, 100, 1_000_000),
    "deep": Case(2_500, 2_000, 50_000),
}


def make_source(file: Path, patients: int, rows: int) -> None:
    """Write rows by site, patient and time, each created an hour after it was true."""
    import duckdb

    numbers = ", ".join(f"random() AS {name}" for name in FEATURES)
    with duckdb.connect() as con:
        con.execute(f"""
SELECT setseed(0.42);
COPY (
  SELECT 'north' AS site, patient_id, answered_at, answered_at + INTERVAL 1 HOUR AS published_at, {numbers}
  FROM (
    SELECT
      printf('patient-%06d', patient) AS patient_id,
      make_timestamptz({START_US} + CAST((number + random()) * {YEARS_US // rows} AS BIGINT)) AS answered_at
    FROM range({patients}) AS p(patient), range({rows}) AS n(number)
    ORDER BY patient, number
  )
) TO '{file}' (FORMAT parquet, COMPRESSION zstd)""")


def frame_of(case: Case) -> Any:
    """The questions: patients and instants drawn evenly over the years."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(7)
    patients = np.array([f"patient-{number:06}" for number in range(case.patients)], object)
    at = START_US + random.integers(0, YEARS_US, case.questions)
    return pd.DataFrame(
        {
            "site": "north",
            "patient_id": patients[random.integers(0, case.patients, case.questions)],
            "event_timestamp": pd.to_datetime(at, unit="us", utc=True),
            "question": np.arange(case.questions),
        }
    )


def measure(kind: str, case: Case, source: Path, answer: Path) -> dict[str, float]:
    """One retrieval by one store; its answers are written to a file, by question."""
    import warnings

    warnings.simplefilter("ignore")
    import datetime as dt

    import feast
    import pyarrow.parquet as pq
    from feast.types import Float64, String

    keys = [
        feast.Entity(name=key, join_keys=[key], value_type=feast.ValueType.STRING) for key in ("site", "patient_id")
    ]
    fields = [feast.Field(name=key.name, dtype=String) for key in keys]
    view = feast.FeatureView(
        name="numbers",
        entities=keys,
        ttl=dt.timedelta(days=case.ttl_days),
        schema=[*fields, *(feast.Field(name=name, dtype=Float64) for name in FEATURES)],
        source=feast.FileSource(
            name="rows", path=str(source), timestamp_field="answered_at", created_timestamp_column="published_at"
        ),
    )
    with tempfile.TemporaryDirectory() as repository:
        (Path(repository) / "feature_store.yaml").write_text(
            f"project: bench\nprovider: local\nregistry: registry.db\noffline_store:\n  type: {kind}\n"
            "entity_key_serialization_version: 3\n"
        )
        store = feast.FeatureStore(repo_path=repository)
        store.apply([*keys, view])
        frame = frame_of(case)
        asked: dict[str, Any] = {"filter_by_created_timestamp": True} if case.by_created else {}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        cpu, wall = time.process_time(), time.perf_counter()
        features = [f"numbers:{name}" for name in FEATURES]
        rows = store.get_historical_features(entity_df=frame, features=features, **asked).to_arrow()
        measured = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    pq.write_table(rows.select(["question", *FEATURES]).sort_by("question"), answer)
    return {name: round(value, 2) for name, value in measured.items()} | {"peak_mb": peak, "before_mb": before}


def compare(folder: Path, name: str, case: Case, peer: str) -> None:
    """Ours and a peer, their ratios, and how many rows differ."""
    import pyarrow.parquet as pq

    source = folder / f"{case.patients}x{case.rows}.parquet"
    if not source.exists():
        # A process counts its parent's memory as its own, so what is made is made in another.
        _run("make", "--case", json.dumps([case.patients, case.rows]), "--folder", str(source))
    found = {}
    for kind in (OURS, peer):
        answer = folder / f"{kind}.parquet"
        given = json.dumps([case.patients, case.rows, case.questions, case.ttl_days, case.by_created])
        found[kind] = json.loads(
            _run("measure", "--peer", kind, "--case", given, "--folder", f"{source}:{answer}").splitlines()[-1]
        )
        print(f"{name}, {kind}: {found[kind]}", flush=True)
    ours, theirs = (pq.read_table(folder / f"{kind}.parquet") for kind in (OURS, peer))
    same = ours.num_rows == case.questions and ours.equals(theirs)
    print(
        f"{name}: {peer} takes {found[peer]['cpu_s'] / found[OURS]['cpu_s']:.1f} times the CPU and "
        f"{found[peer]['peak_mb'] / found[OURS]['peak_mb']:.1f} times the memory; of {ours.num_rows:,} rows "
        f"{'all answers are the same' if same else 'SOME ANSWERS DIFFER'}",
        flush=True,
    )


def _run(*words: str) -> str:
    return subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Read the question, make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=list(CASES), choices=[*CASES, "make", "measure"])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--peer", default="duckdb", help="an offline store of Feast: duckdb, or dask, its default")
    parser.add_argument("--keep", type=Path, help="keep the files here, and use them again")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.what == ["make"]:
        make_source(Path(chosen.folder), *json.loads(chosen.case))
    elif chosen.what == ["measure"]:
        source, answer = map(Path, chosen.folder.split(":"))
        print(json.dumps(measure(chosen.peer, Case(*json.loads(chosen.case)), source, answer)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name in chosen.what:
                case = CASES[name]
                patients, questions = int(case.patients * chosen.scale), int(case.questions * chosen.scale)
                scaled = Case(patients, case.rows, questions, case.ttl_days, case.by_created)
                compare(chosen.keep or Path(folder), name, scaled, chosen.peer)


if __name__ == "__main__":
    main()
