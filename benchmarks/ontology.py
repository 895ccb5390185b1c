"""How fast are the ontologies? One command, one line a step, in seconds of wall clock and of CPU.

    python benchmarks/ontology.py [rows] [release] [lock] [command] [--rows 100000000]

rows     distinct, resolve and join back over coded rows, in two threads and 4 GB (100 million rows take 2 GB of disk)
release  an invented release of the size of SNOMED CT: its import, its closure, the expansion of its widest concepts
lock     a new lock over a lake of 1 and of 10 million events with the same dictionary; no event file may change
command  `fhir-features ontology resolve`, whole process, five times

All four without a name. Nothing else does these with dates and history, so there is no peer to compare with.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from fhir_features.lake import bucket_sql, commit, writing
from fhir_features.normalize.dictionaries import insert_resolution, unresolved
from fhir_features.ontology import concept_set, load_ontologies
from fhir_features.ontology.artifacts import make_lock, write_lock
from fhir_features.ontology.importers import import_release
from fhir_features.ontology.systems import systems

URI = {
    "icd10cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "loinc": "http://loinc.org",
}
CONCEPTS, EXTRA_PARENTS, DESCRIPTIONS = 380_000, 140_000, 3


def main() -> None:
    """Run the measurements that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measurements", nargs="*", choices=[*MEASUREMENTS, []])
    parser.add_argument("--rows", type=int, default=100_000_000)
    arguments = parser.parse_args()
    for name in arguments.measurements or MEASUREMENTS:
        with tempfile.TemporaryDirectory() as folder:
            MEASUREMENTS[name](Path(folder), arguments.rows)
        print(f"peak memory up to here {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB", flush=True)


def measure_rows(folder: Path, rows: int) -> None:
    """Coded rows of eleven years over the codes of the lock: distinct, resolve, join back by code and date."""
    connection = duckdb.connect(config={"threads": 2, "memory_limit": "4GB", "temp_directory": str(folder)})
    known = load_ontologies()
    pool = [
        (URI[system], code)
        for system, code in known._catalog.query("SELECT DISTINCT system, code\nFROM concept\nORDER BY ALL")
        if system in URI
    ][::25]
    connection.register("pool", pa.table({"system": [p[0] for p in pool], "code": [p[1] for p in pool]}))
    connection.execute("CREATE TABLE numbered AS\nSELECT row_number() OVER () - 1 AS number, *\nFROM pool")
    events = folder / "events.parquet"
    connection.execute(
        "COPY (\n"
        f"SELECT system, code, DATE '2016-01-01' + CAST(hash(i, 1) % 4000 AS INTEGER) AS coded_on\n"
        f"FROM range({rows}) AS rows(i)\nJOIN numbered ON number = hash(i) % {len(pool)}\n"
        f") TO '{events}' (FORMAT parquet)"
    )
    with step(f"distinct of {rows:,} rows"):
        codings = connection.execute(
            "SELECT row_number() OVER (ORDER BY system, code) AS code_id, 0::SMALLINT AS ordinal, system, code,\n"
            "  NULL::VARCHAR AS version, NULL::VARCHAR AS display, NULL::BOOLEAN AS user_selected\n"
            f"FROM (SELECT DISTINCT system, code FROM '{events}')\nORDER BY code_id"
        ).to_arrow_table()
    with step(f"resolve {codings.num_rows:,} codings"):
        resolution = known.resolve_dictionary(codings)
    connection.register("codings", codings)
    connection.register("resolution", resolution)
    with step(f"join back {resolution.num_rows:,} rows of resolution, by code and date"):
        counts = connection.execute(
            "WITH meanings AS MATERIALIZED (\n"
            "  SELECT codings.system, codings.code, resolution.code_id, status,\n"
            "    coalesce(valid_from, DATE '0001-01-01') AS first_day,\n"
            "    coalesce(valid_to, DATE '9999-12-31') AS end_day\n"
            "  FROM codings\n  JOIN resolution USING (code_id)\n  WHERE rank = 0\n)\n"
            "SELECT status, count(*)\n"
            f"FROM '{events}' AS events\n"
            "JOIN meanings ON meanings.system = events.system AND meanings.code = events.code\n"
            "  AND coded_on >= first_day AND coded_on < end_day\n"
            "GROUP BY status\nORDER BY status"
        ).fetchall()
    assert sum(count for _, count in counts) == rows
    print("  ", ", ".join(f"{status} {count:,}" for status, count in counts))


def measure_release(folder: Path, _: int) -> None:
    """An invented release in RF2 of the size of SNOMED CT: import, close and expand it."""
    codes = write_release(folder / "release")
    home = folder / "home"
    with step(
        f"import {CONCEPTS:,} concepts, {CONCEPTS - 1 + EXTRA_PARENTS:,} is-a, {CONCEPTS * DESCRIPTIONS:,} names"
    ):
        import_release("rf2", folder / "release", home)
    write_lock(home, make_lock(home))
    known = load_ontologies(home)
    with step("closure: each concept with everything above it, as pairs"):
        ((pairs,),) = known._catalog.query(CLOSURE)
    print(f"   {pairs:,} pairs")
    for code in (codes[0], codes[40]):
        with step(f"expand {code}"):
            found = known.expand(concept_set(f"snomed:{code}", descendants=True))
        print(f"   {len(found):,} concepts")


CLOSURE = """
WITH RECURSIVE hierarchy AS MATERIALIZED (
  SELECT
    child,
    parent
  FROM edge
  WHERE system = 'snomed'
    AND relation = 'is_a'
), above AS (
  SELECT
    child AS lower_code,
    parent AS upper_code
  FROM hierarchy
  UNION
  SELECT
    above.lower_code,
    hierarchy.parent
  FROM above
  JOIN hierarchy ON hierarchy.child = above.upper_code
)
SELECT count(*)
FROM above
"""


def measure_lock(folder: Path, _: int) -> None:
    """Resolve the dictionary of a lake again under a new lock, as `normalize` does: with 1 and with 10 M events."""
    new = load_ontologies()
    old = new.up_to("icd10cm@FY2025")
    sql = "SELECT DISTINCT code\nFROM concept\nWHERE system = 'icd10cm'\nORDER BY code"
    codes = [code for (code,) in new._catalog.query(sql)][::25]
    for events in (1_000_000, 10_000_000):
        with writing(folder / str(events), buckets=32) as con:
            write_events(con, events, codes)
            with commit(con, "old lock") as store_seq:
                insert_resolution(con, old, store_seq)
                con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
            before = event_files(folder / str(events))
            assert unresolved(con, new)
            with step(f"new lock over {events:,} events, {len(codes):,} codings"), commit(con, "new lock") as store_seq:
                insert_resolution(con, new, store_seq)
                con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
            assert event_files(folder / str(events)) == before != {}


def write_events(con: duckdb.DuckDBPyConnection, events: int, codes: list[str]) -> None:
    """Conditions of ten thousand patients, their codes in turn, in one commit."""
    bucket = bucket_sql("'north'", "patient_id", 32)
    with commit(con, "events") as store_seq:
        con.register("codes", pa.table({"code_id": range(len(codes)), "code": codes}))
        con.execute(
            "INSERT INTO lake.codings (code_id, ordinal, system, code, store_seq)\n"
            f"SELECT code_id, 0, '{URI['icd10cm']}', code, {store_seq}\nFROM codes"
        )
        con.execute(
            "INSERT INTO lake.conditions BY NAME\n"
            f"SELECT 'north' AS site, {bucket} AS bucket, *,\n"
            "  '1' AS version, 1 AS state, recorded_at AS known_at, recorded_at AS effective_at\n"
            "FROM (\n"
            "  SELECT 'p' || (n % 10000) AS patient_id, 'c' || n AS resource_id, "
            f"CAST(hash(n) % {len(codes)} AS BIGINT) AS code_id,\n"
            f"    TIMESTAMPTZ '2020-01-01' + to_seconds(n * 7) AS recorded_at, {store_seq} AS store_seq\n"
            f"  FROM range({events}) AS rows(n)\n)"
        )
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])


def event_files(lake: Path) -> dict[str, tuple[int, int]]:
    """The event files of a lake, with size and time of the last change."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in lake.rglob("conditions/**/*.parquet")}


def measure_command(_: Path, __: int) -> None:
    """The command line, from start to end of the process."""
    command = [str(Path(sys.executable).with_name("fhir-features")), "ontology", "resolve", "icd10cm", "G35"]
    for _time in range(5):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run([*command, "--on", "2026-01-15"], check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        print(f"{wall:7.2f} s wall {cpu:7.2f} s CPU  ontology resolve", flush=True)


def write_release(folder: Path) -> list[str]:
    """A tree with further parents, by fixed arithmetic: each concept's parent is an earlier one."""
    snomed = systems()["snomed"]
    codes = [
        next(f"{900000 + n}00{digit}" for digit in range(10) if snomed.is_code(f"{900000 + n}00{digit}"))
        for n in range(CONCEPTS)
    ]
    folder.mkdir()
    with (folder / "sct2_Concept_Snapshot_INT_20260101.txt").open("w") as file:
        file.write("id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n")
        file.writelines(f"{code}\t20260101\t1\t9\t9\n" for code in codes)
    with (folder / "sct2_Description_Snapshot-en_INT_20260101.txt").open("w") as file:
        file.write("id\teffectiveTime\tactive\tmoduleId\tconceptId\tlanguageCode\ttypeId\tterm\tcaseSignificanceId\n")
        for n, code in enumerate(codes):
            for place in range(DESCRIPTIONS):
                kind = "900000000000003001" if place == 0 else "900000000000013009"
                file.write(f"{n * DESCRIPTIONS + place}\t20260101\t1\t9\t{code}\ten\t{kind}\tname {place} of {n}\t9\n")
    parents = [(n, (n - 1) // 2) for n in range(1, CONCEPTS)]
    parents += [(n, n * 7 // 11) for n in range(CONCEPTS - EXTRA_PARENTS, CONCEPTS)]
    with (folder / "sct2_Relationship_Snapshot_INT_20260101.txt").open("w") as file:
        file.write(
            "id\teffectiveTime\tactive\tmoduleId\tsourceId\tdestinationId\trelationshipGroup\ttypeId\t"
            "characteristicTypeId\tmodifierId\n"
        )
        file.writelines(
            f"{n}\t20260101\t1\t9\t{codes[low]}\t{codes[high]}\t0\t116680003\t900000000000011006\t9\n"
            for n, (low, high) in enumerate(parents)
        )
    return codes


class step:
    """Print how long a step took, in seconds of wall clock and of CPU."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(f"{wall:7.2f} s wall {cpu:7.2f} s CPU  {self._name}", flush=True)


MEASUREMENTS = {"rows": measure_rows, "release": measure_release, "lock": measure_lock, "command": measure_command}

main()
