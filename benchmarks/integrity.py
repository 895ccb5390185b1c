"""What does it cost to notice that a data file of the lake is damaged? The digests that commits keep, with DuckLake's
encrypted tables beside them, which notice it too; and what an unchecked file makes of a flipped bit.

    python benchmarks/integrity.py [--rows N] [--flips N]

A table of N results in DuckLake, plain and encrypted (with DuckDB's own AES, since OpenSSL's needs another extension):
CPU seconds to write and to read all columns, and to hash the files, as ratios to the plain read; and how many of some
flipped bits change an answer in silence.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb

from fhir_features.files import sha256_of
from fhir_features.lake import connect, literal

_ROWS = """
SELECT
  'north' AS site,
  CAST(i % 32 AS USMALLINT) AS bucket,
  concat('patient-', i % 20000) AS patient_id,
  concat('result-', i) AS resource_id,
  TIMESTAMPTZ '2024-01-01 00:00:00Z' + INTERVAL (i % 100000) MINUTE AS effective_at,
  TIMESTAMPTZ '2024-01-01 00:00:00Z' + INTERVAL (i % 110000) MINUTE AS known_at,
  CAST(hash(i % 300) >> 2 AS BIGINT) AS code_id,
  CAST(hash(i) % 10000 AS DOUBLE) / 100 AS value_number
FROM range({rows}) t(i)
ORDER BY bucket, patient_id, effective_at"""
_READ = "SELECT sum(hash(columns(*)))::VARCHAR FROM lake.results"


def main() -> None:
    """Measure, and print a line each."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=3_000_000)
    arguments.add_argument("--flips", type=int, default=200)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, encrypted = (_written(Path(folder), name, chosen.rows) for name in ("plain", "encrypted"))
        read = min(_cpu(lambda: _read(plain)) for _ in range(3))
        print(f"plain: read {read:.3f} CPU s for {chosen.rows:,} rows")
        hashed = min(_cpu(lambda: [sha256_of(file) for file in _files(plain)]) for _ in range(3))
        print(f"SHA-256: {hashed:.3f} CPU s, {hashed / read:.2f} of the read")
        deciphered = min(_cpu(lambda: _read(encrypted)) for _ in range(3)) - read
        print(f"encrypted: {deciphered:.3f} CPU s more, {deciphered / read:.2f} of the read")
        small = [_written(Path(folder), f"small {name}", 20_000, name) for name in ("plain", "encrypted")]
        for lake in small:
            print(f"{lake.name}: of {chosen.flips} flipped bits {dict(sorted(_flips(lake, chosen.flips).items()))}")


def _written(folder: Path, name: str, rows: int, kind: str | None = None) -> Path:
    lake = folder / name
    lake.mkdir()
    with _attached(lake, "ENCRYPTED" if (kind or name) == "encrypted" else "") as con:
        con.execute("CALL lake.set_option('parquet_compression', 'zstd')")
        seconds = _cpu(lambda: con.execute(f"CREATE TABLE lake.results AS {_ROWS.format(rows=rows)}"))
    print(f"{name}: write {seconds:.3f} CPU s, {sum(file.stat().st_size for file in _files(lake)):,} bytes")
    return lake


def _attached(lake: Path, option: str = "") -> duckdb.DuckDBPyConnection:
    con = connect()
    con.execute("SET force_mbedtls_unsafe = true")
    data = f"DATA_PATH {literal(str(lake / 'data'))}, DATA_INLINING_ROW_LIMIT 0"
    con.execute(
        f"ATTACH {literal(f'ducklake:sqlite:{lake}/catalog.sqlite')} AS lake ({data}{option and f', {option}'})"
    )
    return con


def _files(lake: Path) -> list[Path]:
    return sorted(lake.glob("data/*/*/*.parquet"))


def _read(lake: Path) -> list[tuple[str, ...]]:
    with _attached(lake) as con:
        return con.execute(_READ).fetchall()


def _flips(lake: Path, count: int) -> Counter[str]:
    """What came of reading with a bit flipped: an error, the right answer, or a wrong one."""
    dice, came = random.Random(7), Counter[str]()
    (file,), right = _files(lake), _read(lake)
    content = file.read_bytes()
    for _ in range(count):
        damaged, bit = bytearray(content), dice.randrange(len(content) * 8)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            came["right" if _read(lake) == right else "wrong in silence"] += 1
        except duckdb.Error:
            came["refused"] += 1
    file.write_bytes(content)
    return came


def _cpu(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
