"""How fast are the ontologies? `python benchmarks/ontology.py [ROWS]` (default: 100 million rows, 2 GB of disk).

Measured: distinct, resolve and join back over coded rows, in two threads and 4 GB; the import of an invented release of
the size of SNOMED CT, and the expansion of its widest concepts. Nothing else does these with dates and history.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from fhir_features.ontology import concept_set, load_ontologies
from fhir_features.ontology.artifacts import LOCK_FILE, make_lock
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
    """Run both measurements and print a line for each step."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000
    with tempfile.TemporaryDirectory() as folder:
        measure_rows(Path(folder), rows)
        measure_release(Path(folder))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


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
            "SELECT status, count(*)\n"
            f"FROM '{events}' AS events\n"
            "JOIN codings USING (system, code)\n"
            "JOIN resolution ON resolution.code_id = codings.code_id AND resolution.rank = 0\n"
            "  AND coded_on >= coalesce(valid_from, DATE '0001-01-01')\n"
            "  AND coded_on < coalesce(valid_to, DATE '9999-12-31')\n"
            "GROUP BY status\nORDER BY status"
        ).fetchall()
    assert sum(count for _, count in counts) == rows
    print("  ", ", ".join(f"{status} {count:,}" for status, count in counts))


def measure_release(folder: Path) -> None:
    """An invented release in RF2 of the size of SNOMED CT: import it, then expand its root and a middle concept."""
    codes = write_release(folder / "release")
    home = folder / "home"
    with step(
        f"import {CONCEPTS:,} concepts, {CONCEPTS - 1 + EXTRA_PARENTS:,} is-a, {CONCEPTS * DESCRIPTIONS:,} names"
    ):
        import_release("rf2", folder / "release", home)
    (home / LOCK_FILE).write_text(make_lock(home).text(), encoding="utf-8")
    known = load_ontologies(home)
    for code in (codes[0], codes[40]):
        with step(f"expand {code}"):
            found = known.expand(concept_set(f"snomed:{code}", descendants=True))
        print(f"   {len(found):,} concepts")


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
    parents = [(n, (n - 1) // 4) for n in range(1, CONCEPTS)]
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


main()
