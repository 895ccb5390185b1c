"""How fast is the as-of engine, against what else could answer? One command for all questions, each with its peer.

    python benchmarks/engine.py           # all of the following, and a table of medians and ratios in the end
    python benchmarks/engine.py lab       # 20 M results, 50,000 patients, 200,000 questions, 150 features; DuckDB alone
    python benchmarks/engine.py dense     # the same results on 2,000 patients; DuckDB alone
    python benchmarks/engine.py wide      # 1 M questions, 10 features, 50 M versions; DuckDB alone
    python benchmarks/engine.py latest    # one latest value: Feast's own DuckDB store over the same results
    python benchmarks/engine.py long      # 10 M questions of one feature
    python benchmarks/engine.py curves    # against questions, length of the window, history outside of it; DuckDB alone
    python benchmarks/engine.py bytes     # threads, hash seeds, rows in another order: the same bytes?

A lake is made once (`--keep FOLDER` keeps it): results of 10 codes with two clocks, a fifth of them known up to ten
days late, 2 % corrected three days later; for Feast, which has one clock, neither. Each measurement is a process of
its own, from Parquet to an Arrow table through `FeatureStore.get_historical_features`, without imports: CPU seconds of
all threads, and the peak of resident memory.
`--scale 0.1` takes a tenth of the rows and questions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

CODES = ["2345-7", "2951-2", "2823-3", "2160-0", "3094-0", "718-7", "6690-2", "777-3", "4548-4", "1975-2"]
UNITS = ["mg/dL", "mmol/L", "mmol/L", "mg/dL", "mg/dL", "g/dL", "10*3/uL", "10*3/uL", "%", "mg/dL"]
START, YEARS, DAY_S = "2018-01-01", 5, 86_400
BUCKETS = 32

CONFIG = """
[warehouse]
path = "."
buckets = 32

[sources.north]
kind = "files"
path = "in"
site = "north"
timezone = "UTC"
"""


@dataclass(frozen=True)
class Case:
    """What is asked of which lake."""

    events: int
    patients: int
    questions: int
    operators: tuple[str, ...] = ("last", "mean", "min", "max", "count")
    windows: tuple[str | None, ...] = ("24h", "30d", "365d")
    codes: int = 10
    threads: int = 2
    two_clocks: bool = True
    shuffled: bool = False
    since_days: int = 365

    def scaled(self, scale: float) -> Case:
        """A case of fewer rows, patients and questions."""
        events, patients, questions = (
            max(1, int(size * scale)) for size in (self.events, self.patients, self.questions)
        )
        return replace(self, events=events, patients=patients, questions=questions)

    @property
    def lake(self) -> str:
        """The folder of its lake."""
        return f"{self.events}-{self.patients}-{int(self.two_clocks)}{int(self.shuffled)}"


LAB = Case(20_000_000, 50_000, 200_000)
DENSE = replace(LAB, patients=2_000)
WIDE = Case(49_000_000, 120_000, 1_000_000, operators=("last",), windows=("365d",))
LATEST = Case(5_000_000, 50_000, 200_000, operators=("last",), windows=(None,), codes=1, two_clocks=False)
LONG = replace(LATEST, questions=10_000_000, windows=("365d",))

OURS, DUCKDB, FEAST = "fhir_features", "DuckDB alone", "Feast's DuckDB store"
# What is measured, the peer, and how often at most: what takes minutes is measured once.
COMPARED: dict[str, tuple[Case, str | None, int]] = {
    "lab": (LAB, DUCKDB, 3),
    "dense": (DENSE, DUCKDB, 3),
    "wide": (WIDE, DUCKDB, 1),
    "latest": (LATEST, FEAST, 3),
    "long": (LONG, None, 1),
}


def make_lake(folder: Path, case: Case) -> None:
    """Write patients, events, corrections and closings in one commit."""
    from fhir_features.lake import add_measured_units, bucket_sql, commit, writing
    from fhir_features.normalize.dictionaries import insert_resolution
    from fhir_features.ontology import load_ontologies

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fhir_features.toml").write_text(CONFIG)
    bucket = bucket_sql("'north'", "patient_id", BUCKETS)
    order = "hash(n)" if case.shuffled else "bucket, patient_id, code_id, effective_at"
    with writing(folder / "lake", buckets=BUCKETS) as con, commit(con, "benchmark") as seq:
        con.execute("SET memory_limit = '12GB'; SELECT setseed(0.42)")
        con.execute(f"""
CREATE TEMP TABLE drawn AS
SELECT
  range AS n,
  'p' || CAST(floor(random() * {case.patients}) AS INTEGER) AS patient_id,
  CAST(floor(random() * {case.codes}) AS INTEGER) AS code,
  TIMESTAMPTZ '{START}' + to_seconds(CAST(random() * {YEARS * 365 * DAY_S} AS BIGINT)) AS effective_at,
  CASE WHEN random() < {0.2 if case.two_clocks else 0} THEN CAST(random() * 864000 AS BIGINT) ELSE 3600 END AS late,
  round(random() * 100, 1) AS value,
  random() < {0.02 if case.two_clocks else 0} AS is_corrected
FROM range({case.events})""")
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
  'north' AS site, {bucket} AS bucket, patient_id, 'o' || n AS resource_id, version,
  n + {case.events} * (version = '2')::BIGINT AS version_no, 1 AS state, effective_at, known_at,
  'issued' AS known_at_source, 0 AS component, 'final' AS status, code AS code_id, 'Quantity' AS value_type,
  value AS value_number, code AS unit_id, {seq} AS store_seq
FROM (
  SELECT *, '1' AS version, effective_at + to_seconds(late) AS known_at FROM drawn
  UNION ALL
  SELECT * REPLACE (value + 1 AS value), '2', effective_at + to_seconds(late + 259200) FROM drawn WHERE is_corrected
)
ORDER BY {order}""")
        con.execute(f"""
INSERT INTO lake.patients BY NAME
SELECT DISTINCT
  'north' AS site, {bucket} AS bucket, patient_id, patient_id AS resource_id, '1' AS version, 0 AS version_no,
  0 AS state, TIMESTAMPTZ '{START}' AS known_at, {seq} AS store_seq
FROM drawn
ORDER BY bucket, patient_id""")
        con.execute(f"""
INSERT INTO lake.closings
SELECT 'north', {bucket} AS bucket, patient_id, 'Observation', 'o' || n, '1', n, 1,
  effective_at + to_seconds(late + 259200), 'superseded', '2', {seq}
FROM drawn
WHERE is_corrected
ORDER BY bucket""")
        add_measured_units(con, "lake.observations", seq)
        insert_resolution(con, load_ontologies(), seq)
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [seq])


def questions(case: Case) -> Any:
    """The spine: patients and instants drawn evenly over the years but the first."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(7)
    start, day = np.datetime64(START, "us").astype("int64"), DAY_S * 1_000_000
    t = start + random.integers(case.since_days * day, YEARS * 365 * day, case.questions)
    return pa.table(
        {
            "patient_id": [f"p{n}" for n in random.integers(0, case.patients, case.questions)],
            "event_timestamp": pa.array(t).cast(pa.timestamp("us", tz="UTC")),
        }
    )


def names(case: Case) -> list[tuple[str, int, str, str | None]]:
    """The features: name, number of the code, operator, window."""
    return [
        (f"{operator}_{code}_{window or 'ever'}", code, operator, window)
        for code in range(case.codes)
        for operator in case.operators
        for window in case.windows
    ]


def ours(folder: Path, case: Case) -> Callable[[], Any]:
    """The answers of the store."""
    import duckdb

    from fhir_features import FeatureStore, FeatureView, observation, patient

    if case.threads != 2:
        connect = duckdb.connect
        duckdb.connect = lambda *given, **how: connect(*given, **how).execute(f"SET threads = {case.threads}")
    features = []
    for name, code, operator, window in names(case):
        series = observation(f"loinc:{CODES[code]}", unit=UNITS[code])
        features.append(getattr(series, operator)(within=window).named(name))
    view = FeatureView(name="bench", entity=patient, features=features)
    spine, store = questions(case), FeatureStore(folder)
    return lambda: store.get_historical_features(spine, [view]).to_arrow()


def plain_duckdb(folder: Path, case: Case) -> Callable[[], Any]:
    """The answers of one statement over the same tables, as somebody would write it by hand: join, filter, group by
    question and code, and turn the codes into columns."""
    from fhir_features.lake import reading

    spine = questions(case)
    seconds = {"24h": DAY_S, **{f"{days}d": days * DAY_S for days in (30, 365, 1825)}}
    aggregates = {
        "last": "arg_max(value_number, (effective_at, known_at, resource_id)) FILTER (WHERE {}) AS {}",
        "mean": "CAST(sum(CAST(value_number AS DECIMAL(38, 9))) FILTER (WHERE {0}) AS DOUBLE)"
        " / count(*) FILTER (WHERE {0}) AS {1}",
        "min": "min(value_number) FILTER (WHERE {}) AS {}",
        "max": "max(value_number) FILTER (WHERE {}) AS {}",
        "count": "count(*) FILTER (WHERE {}) AS {}",
    }
    longest = max(seconds[window or ""] for window in case.windows)
    by_window = [
        aggregates[operator].format(f"effective_at > t - to_seconds({seconds[window or '']})", f"{operator}_{window}")
        for operator in case.operators
        for window in case.windows
    ]
    columns = [
        f"any_value({operator}_{window}) FILTER (WHERE code_id = {code}) AS {name}"
        for name, code, operator, window in names(case)
    ]

    def run() -> Any:
        with reading(folder / "lake") as con:
            con.register("spine", spine)
            return con.execute(f"""
WITH closed AS (
  SELECT resource_id, version, min(closed_at) AS known_to FROM lake.closings GROUP BY ALL
),
asked AS (
  SELECT row_number() OVER () AS question, patient_id, event_timestamp AS t FROM spine
),
by_code AS (
  SELECT question, code_id, {", ".join(by_window)}
  FROM asked
  JOIN lake.observations USING (patient_id)
  LEFT JOIN closed USING (resource_id, version)
  WHERE effective_at <= t AND effective_at > t - to_seconds({longest})
    AND known_at <= t AND (known_to > t OR known_to IS NULL)
  GROUP BY question, code_id
)
SELECT question, {", ".join(columns)}
FROM by_code
GROUP BY question
ORDER BY question""").to_arrow_table()

    return run


def feast_latest(folder: Path, case: Case) -> Callable[[], Any]:
    """The answers of an unmodified Feast, its DuckDB store over the results in Parquet, stamped with when they were
    known, each an hour after it was drawn."""
    import datetime as dt
    import warnings

    warnings.simplefilter("ignore")
    import feast
    from feast.types import Float64, String

    from fhir_features.lake import reading

    file = folder / "latest.parquet"
    if not file.exists():
        with reading(folder / "lake") as con:
            con.execute(f"""
COPY (
  SELECT patient_id, known_at AS event_timestamp, value_number AS value
  FROM lake.observations ORDER BY patient_id, known_at
) TO '{file}' (FORMAT parquet)""")
    repository = folder / "feast"
    repository.mkdir(exist_ok=True)
    (repository / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\noffline_store:\n  type: duckdb\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    entity = feast.Entity(name="patient_id", join_keys=["patient_id"], value_type=feast.ValueType.STRING)
    fields = [feast.Field(name="patient_id", dtype=String), feast.Field(name="value", dtype=Float64)]
    source = feast.FileSource(name="results", path=str(file.absolute()), timestamp_field="event_timestamp")
    view = feast.FeatureView(name="latest", entities=[entity], ttl=dt.timedelta(0), schema=fields, source=source)
    store = feast.FeatureStore(repo_path=str(repository))
    store.apply([entity, view])
    frame = questions(case).to_pandas()
    return lambda: store.get_historical_features(entity_df=frame, features=["latest:value"]).to_arrow()


WAYS: dict[str, Callable[[Path, Case], Callable[[], Any]]] = {
    OURS: ours,
    DUCKDB: plain_duckdb,
    FEAST: feast_latest,
}


def measure(way: str, folder: Path, case: Case, answer: Path) -> dict[str, Any]:
    """One way to answer, once, in this process; the answer is kept for comparison."""
    import pyarrow.parquet as pq

    from fhir_features.features.content_hash import table_hash

    run = WAYS[way](folder, case)
    cpu, wall = time.process_time(), time.perf_counter()
    table = run()
    measured = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    pq.write_table(table, answer)
    digest = table_hash(table).sha256[:16] if way == OURS else ""
    return {name: round(value, 2) for name, value in measured.items()} | {"peak_mb": peak, "hash": digest}


def in_a_process(way: str, root: Path, case: Case, *, seed: int = 0) -> dict[str, Any]:
    """A measurement in a process of its own, in a lake that is made when it is not there."""
    folder = root / case.lake
    if not (folder / "lake" / "catalog.sqlite").exists():
        # A process counts its parent's memory as its own.
        with ProcessPoolExecutor(1) as pool:
            pool.submit(make_lake, folder, case).result()
    command = [sys.executable, __file__, "measure", "--way", way, "--keep", str(root)]
    command += ["--case", json.dumps(asdict(case))]
    printed = subprocess.check_output(command, text=True, env={**os.environ, "PYTHONHASHSEED": str(seed)})
    return dict(json.loads(printed.splitlines()[-1]))


def compare(root: Path, case: Case, peer: str | None, runs: int) -> str:
    """Ours and a peer in turn; said are the medians, their ratio, and whether the answers are the same."""
    found: dict[str, list[dict[str, Any]]] = {OURS: [], **({peer: []} if peer else {})}
    for _ in range(runs):
        for way, results in found.items():
            results.append(in_a_process(way, root, case))
            print(f"{way}: {results[-1]}", flush=True)
    said = [_medians(way, results) for way, results in found.items()]
    if peer:
        mine, theirs = (statistics.median(run["cpu_s"] for run in found[way]) for way in (OURS, peer))
        said += [f"{theirs / mine:.1f} times ours", f"answers that differ: {differing(root / case.lake, peer)}"]
    print("; ".join(said), flush=True)
    return "; ".join(said)


def _medians(way: str, results: list[dict[str, Any]]) -> str:
    cpu_s, wall_s, peak_mb = (
        statistics.median(run[name] for run in results) for name in ("cpu_s", "wall_s", "peak_mb")
    )
    return f"{way}: {cpu_s:.1f} CPU s, {wall_s:.1f} s, {peak_mb:.0f} MB"


def differing(folder: Path, peer: str) -> str:
    """How many answers of ours and of a peer are not the same; a question without rows is 0 or null with us."""
    import duckdb

    con = duckdb.connect()
    mine = con.execute(f"SELECT * FROM '{answer_file(folder, OURS)}' LIMIT 0").to_arrow_table()
    if peer == FEAST:
        sql = f"""
SELECT count(*), count_if(a.last_0_ever IS DISTINCT FROM b.value)
FROM '{answer_file(folder, OURS)}' a
JOIN '{answer_file(folder, peer)}' b USING (patient_id, event_timestamp)"""
        rows, unequal = con.execute(sql).fetchone() or (0, 0)
        return f"{unequal} of {rows}"
    features = [name for name in mine.column_names if name not in ("site", "patient_id", "event_timestamp")]
    unequal = " + ".join(
        f"count_if(abs(coalesce(a.{name}, 0) - coalesce(b.{name}, 0)) > 1e-9 OR"
        f" (nullif(a.{name}, 0) IS NULL) <> (nullif(b.{name}, 0) IS NULL))"
        for name in features
    )
    sql = f"""
SELECT {unequal}
FROM (SELECT row_number() OVER () AS question, * FROM '{answer_file(folder, OURS)}') a
LEFT JOIN '{answer_file(folder, peer)}' b USING (question)"""
    sql = sql.replace("SELECT ", f"SELECT count(*) * {len(features)}, ", 1)
    total, different = con.execute(sql).fetchone() or (0, 0)
    return f"{different} of {total:,}"


def answer_file(folder: Path, way: str) -> Path:
    return folder / f"answer-{list(WAYS).index(way)}.parquet"


def curves(root: Path, scale: float) -> list[str]:
    """Cost against questions, against the window, and against history that no window reaches, each with its peer's."""
    base = LAB.scaled(0.25 * scale)
    points = {
        f"{factor * base.questions:,} questions": replace(base, questions=factor * base.questions)
        for factor in (1, 2, 4, 8)
    }
    points |= {f"window {window}": replace(base, windows=(window,)) for window in ("24h", "30d", "365d", "1825d")}
    points |= {
        f"window 30d, {days:,} days of history before it": replace(base, windows=("30d",), since_days=days)
        for days in (365, 1095, 1700)
    }
    said = []
    for point, case in points.items():
        mine, theirs = (in_a_process(way, root, case)["cpu_s"] for way in (OURS, DUCKDB))
        said.append(f"{point}: {mine:.1f} CPU s; {DUCKDB} {theirs:.1f}, {theirs / mine:.1f} times ours")
        print(said[-1], flush=True)
    return said


def same_bytes(root: Path, scale: float) -> str:
    """The hash of the answers, with other threads, hash seeds and orders of rows."""
    base = replace(LAB.scaled(0.02 * scale), operators=("last", "mean", "std", "slope", "median"))
    hashes = set()
    for threads, seed, shuffled in ((2, 0, False), (1, 0, False), (2, 1, False), (1, 2, True), (2, 3, True)):
        found = in_a_process(OURS, root, replace(base, threads=threads, shuffled=shuffled), seed=seed)
        hashes.add(found["hash"])
        print(f"threads {threads}, hash seed {seed}, shuffled {shuffled}: {found['hash']}", flush=True)
    return "the same bytes" if len(hashes) == 1 else "DIFFERENT BYTES"


def answered(what: str, root: Path, scale: float, runs: int) -> list[str]:
    """The lines in which one of the questions is answered."""
    print(f"\n{what}", flush=True)
    if what == "curves":
        return curves(root, scale)
    if what == "bytes":
        return [same_bytes(root, scale)]
    case, peer, most = COMPARED[what]
    return [compare(root, case.scaled(scale), peer, min(runs, most))]


def main() -> None:
    """Read the question, make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = (*COMPARED, "curves", "bytes")
    parser.add_argument("what", nargs="?", default="all", choices=(*questions, "all", "measure"))
    parser.add_argument("--runs", type=int, default=3, help="How often each is measured; what takes minutes, once.")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="Keep the lakes here, and use them again.")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = chosen.keep or Path(folder)
        if chosen.what == "measure":
            given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(chosen.case).items()}
            case = Case(**given)
            place = root / case.lake
            print(json.dumps(measure(chosen.way, place, case, answer_file(place, chosen.way))))
            return
        for what in questions if chosen.what == "all" else [chosen.what]:
            said += [f"{what}: {line}" for line in answered(what, root, chosen.scale, chosen.runs)]
    print("\n" + "\n".join(said))


if __name__ == "__main__":
    main()
