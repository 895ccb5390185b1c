"""The staging of one run: batches of the decoder in, temporary DuckDB tables out, with every instant read.

`staged_versions` has a row a resource version that could be named, `staged_<table>` the raw rows of each event table
with their instants, `staged_quarantine` what was rejected, `staged_findings` what is not valid. DuckDB spills to disk
what does not fit into memory. The raw rows of a large run, which are wide, lie in Parquet files from the start, and
their tables are views: a million of them as tables pushed out of memory what the joins need, a tenth of the whole time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.config import Source
from fhir_features.files import parquet_in
from fhir_features.lake import EVENT_TABLES, literal
from fhir_features.lake.schema import MEDICATIONS, PROVENANCES, REPORTED_RESULTS
from fhir_features.normalize.codes import CodingRow, UnitRow
from fhir_features.normalize.decode import Batch
from fhir_features.normalize.instants import plain_instant, read_odd_texts
from fhir_features.normalize.rows import RAW_TABLES, arrow_table

_OTHER_TABLES = {"Medication": MEDICATIONS, "DiagnosticReport": REPORTED_RESULTS, "Provenance": PROVENANCES}


@dataclass(frozen=True)
class Instant:
    """How one text column is read: which columns come of it, and the JSON path to blame when it is no instant.

    `first`, `last`, `precision` and `day` name the columns for what `instants` says of it.
    """

    text: str
    path: str
    first: str
    last: str | None = None
    precision: str | None = None
    day: str | None = None


_BOUNDS = "$.dosageInstruction.timing.repeat.boundsPeriod"
# The path is a SQL expression.
_INSTANTS: dict[str, tuple[Instant, ...]] = {
    "Patient": (
        Instant("birth_text", "'$.birthDate'", "birth_first", day="birth_date"),
        Instant("deceased_text", "'$.deceasedDateTime'", "deceased_at", "deceased_last"),
    ),
    "Encounter": (
        Instant("start_text", "'$.period.start'", "start_first", "start_last", "effective_precision"),
        Instant("end_text", "'$.period.end'", "end_first", "end_last"),
    ),
    "Medication": (),
    "DiagnosticReport": (Instant("issued_text", "'$.issued'", "issued_first", "issued_last"),),
    "Provenance": (Instant("recorded_text", "'$.recorded'", "recorded_first", "recorded_last"),),
    "Observation": (
        Instant("effective_text", "effective_path", "effective_first", "effective_last", "effective_precision"),
        Instant("issued_text", "'$.issued'", "issued_first", "issued_last"),
        Instant("value_start_text", "'$.value[x]'", "value_start"),
        Instant("value_end_text", "'$.value[x]'", "value_end_first", "value_end"),
    ),
    "Condition": (
        Instant("onset_text", "onset_path", "onset_first", None, "onset_precision"),
        Instant("abatement_text", "abatement_path", "abatement_first", "abatement_last"),
        Instant("recorded_text", "'$.recordedDate'", "recorded_first", "recorded_last"),
    ),
    "MedicationRequest": (
        Instant("authored_text", "'$.authoredOn'", "authored_first", "authored_last", "authored_precision"),
        Instant("bounds_start_text", f"'{_BOUNDS}.start'", "bounds_start", None, "bounds_precision"),
        Instant("bounds_end_text", f"'{_BOUNDS}.end'", "bounds_end", "bounds_end_last"),
    ),
}
_VERSION_INSTANTS = (Instant("last_updated_text", "'$.meta.lastUpdated'", "last_updated_first", "last_updated"),)


def staged(resource_type: str) -> str:
    """The name of the staging table of a resource type."""
    table = EVENT_TABLES.get(resource_type) or _OTHER_TABLES[resource_type]
    return f"staged_{table.name}"


_RAW = {staged(resource_type): instants for resource_type, instants in _INSTANTS.items()}
_INSTANTS_OF = {"staged_versions": _VERSION_INSTANTS, "staged_quarantine": (), "staged_findings": (), **_RAW}
# About half a kilobyte each.
_ROWS_TOGETHER = 60_000


def has_rows(con: duckdb.DuckDBPyConnection, resource_type: str) -> bool:
    """Whether anything of a resource type is staged: of what a run has nothing, nothing need be looked for."""
    row = con.execute(f"SELECT EXISTS (FROM {staged(resource_type)})").fetchone()
    return bool(row and row[0])


class Staging:
    """Takes the batches of a run, one after the other, and stages them; with `spill`, raw rows in files there."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: Source, spill: Path | None = None) -> None:
        self._con = con
        self._source = source
        self._spill = spill
        self._made: set[str] = set()
        self._waiting: dict[str, list[pa.Table]] = {}
        self._codings: set[CodingRow] = set()
        self._units: set[UnitRow] = set()
        self.received = 0
        self.validated = 0
        self.ignored: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Take the batch that comes next in the run."""
        self._take("staged_versions", batch.versions)
        self._take("staged_quarantine", batch.quarantine)
        self._take("staged_findings", batch.findings)
        for resource_type, rows in batch.rows.items():
            self._take(staged(resource_type), rows)
        self._codings.update(batch.codings)
        self._units.update(batch.units)
        self.ignored.update(batch.ignored)
        self.validated += batch.validated
        self.received += batch.received

    def finish(self) -> None:
        """Make the tables that got no rows, and move to the quarantine what has an instant that cannot be read."""
        for resource_type, raw in RAW_TABLES.items():
            if staged(resource_type) not in self._waiting:
                self._take(staged(resource_type), arrow_table(raw.columns, []))
        for table, waiting in self._waiting.items():
            if waiting:
                self._insert(table)
        for table in ("staged_versions", *map(staged, RAW_TABLES)):
            self._quarantine_bad_instants(table)

    @property
    def codings(self) -> list[CodingRow]:
        """The codings that the run met, by code_id and ordinal."""
        return sorted(self._codings, key=lambda row: row[:2])

    @property
    def units(self) -> list[UnitRow]:
        """The units that the run met, by unit_id."""
        return sorted(self._units, key=lambda row: row[:1])

    def _take(self, table: str, rows: pa.Table) -> None:
        """Have rows of a batch wait for others: to stage them takes about as long for few as for many."""
        place = rows.column_names.index("row_no")
        rows = rows.set_column(place, rows.field(place), pc.add(rows.column(place), self.received))
        waiting = self._waiting.setdefault(table, [])
        waiting.append(rows)
        if sum(map(len, waiting)) >= _ROWS_TOGETHER:
            self._insert(table)

    def _insert(self, table: str) -> None:
        """Stage the rows of a table that wait."""
        rows, instants = pa.concat_tables(self._waiting[table]), _INSTANTS_OF[table]
        self._waiting[table].clear()
        self._con.register("batch", rows)
        # lastUpdated is a clock's reading, never a date.
        midnight = self._source.midnight_is_date and instants is not _VERSION_INSTANTS
        texts = [instant.text for instant in instants]
        odd = bool(texts) and read_odd_texts(
            self._con, "batch", texts, zone=self._source.timezone, midnight_is_date=midnight
        )
        staged_rows = _with_instants(rows.column_names, instants, odd)
        if self._spill and table in _RAW and rows.num_rows:
            self._write(staged_rows, table, self._spill / table)
        else:
            into = f"INSERT INTO {table}" if table in self._made else f"CREATE TEMP TABLE {table} AS"
            self._con.execute(f"{into}\n{staged_rows}")
        self._made.add(table)
        self._con.unregister("batch")

    def _write(self, rows: str, table: str, folder: Path) -> None:
        """Write what a statement gives to another file of a table that is a view."""
        folder.mkdir(parents=True, exist_ok=True)
        file = literal(str(folder / f"{self.received}.parquet"))
        self._con.execute(f"COPY (\n{rows}\n) TO {file} (FORMAT parquet, COMPRESSION uncompressed)")
        if table not in self._made:
            self._con.execute(f"CREATE TEMP VIEW {table} AS FROM read_parquet({literal(parquet_in(folder))})")

    def _quarantine_bad_instants(self, table: str) -> None:
        if table == "staged_medications" or self._count(f"SELECT count(bad_path) FROM {table}") == 0:
            return
        self._con.execute(f"""
INSERT INTO staged_quarantine
SELECT v.row_no, v.file_no, v.line, v.entry, v.resource_type, v.resource_id, min(s.bad_path), 'instant',
  'it is not a date or time of FHIR'
FROM {table} s
JOIN staged_versions v USING (row_no)
WHERE s.bad_path IS NOT NULL AND v.outcome = 'normalized'
GROUP BY v.row_no, v.file_no, v.line, v.entry, v.resource_type, v.resource_id""")
        self._con.execute(f"""
UPDATE staged_versions
SET outcome = 'quarantined'
WHERE outcome = 'normalized' AND row_no IN (SELECT row_no FROM {table} WHERE bad_path IS NOT NULL)""")

    def _count(self, sql: str) -> int:
        row = self._con.execute(sql).fetchone()
        assert row is not None
        return int(row[0])


def _with_instants(names: list[str], instants: tuple[Instant, ...], odd: bool) -> str:
    """The rows of `batch` with what their texts mean, and the path of the first one that means nothing."""
    columns, joins, bad = [f"b.{name}" for name in names], "", ""
    for number, instant in enumerate(instants):
        means = plain_instant(f"b.{instant.text}")
        if odd:
            read = f"i{number}"
            joins += f"\nLEFT JOIN instants {read} ON {read}.text = b.{instant.text}"
            means = {
                name: f"CASE WHEN {read}.text IS NULL THEN {plain} ELSE {read}.{name} END"
                for name, plain in means.items()
            }
        bad += f"\n    WHEN b.{instant.text} IS NOT NULL AND {instant.first} IS NULL THEN {instant.path}"
        named = {
            "first_at": instant.first,
            "last_at": instant.last,
            "precision": instant.precision,
            "day": instant.day,
        }
        columns += [f"{means[column]} AS {name}" for column, name in named.items() if name]
    if instants:
        columns.append(f"CASE{bad}\n  END AS bad_path")
    selected = ",\n  ".join(columns)
    return f"SELECT\n  {selected}\nFROM batch b{joins}"
