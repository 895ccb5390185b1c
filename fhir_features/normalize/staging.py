"""The staging of one run: batches of the decoder in, its tables out, with every instant read.

`staged_versions` has a row a resource version that could be named, `staged_<table>` the raw rows of each event table
with their instants. `staged_quarantine`, what was rejected, and `staged_findings`, what is not valid, are of the run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.config import Source
from fhir_features.lake import EVENT_TABLES
from fhir_features.lake.schema import MEDICATIONS, PROVENANCES, REPORTED_RESULTS
from fhir_features.normalize.codes import CodingRow, UnitRow
from fhir_features.normalize.decode import Batch
from fhir_features.normalize.instants import plain_instant, read_odd_texts
from fhir_features.normalize.rows import RAW_TABLES, arrow_table
from fhir_features.normalize.run_tables import BYTES_AT_ONCE, ROWS_AT_ONCE, RunTables

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
_INSTANTS_OF = {"staged_versions": _VERSION_INSTANTS, **_RAW}
# What stays one table, whatever parts there are.
_OF_THE_RUN = ("staged_quarantine", "staged_findings")

# What is normalized, but has an instant that cannot be read, is set aside.
_VERSIONS = """
SELECT * REPLACE (CASE WHEN bad_path IS NULL THEN outcome ELSE 'quarantined' END AS outcome), {slice} AS slice
FROM (
SELECT v.* REPLACE (CASE WHEN outcome = 'normalized' THEN coalesce(bad_path, path) END AS bad_path)
FROM (
{rows}
) v
LEFT JOIN bad_instants USING (row_no)
)"""


class Staging:
    """Takes the batches of a run, one after the other, and stages them, in slices.

    With a `folder`, the tables of a run that is more than one slice lie there.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, source: Source, folder: Path | None = None) -> None:
        self._con = con
        self._source = source
        self._folder = folder
        self._tables: RunTables | None = None
        self._waiting: dict[str, list[pa.Table]] = {}
        self._waiting_rows: Counter[str] = Counter()
        self._waiting_bytes = 0
        self._codings: set[CodingRow] = set()
        self._units: set[UnitRow] = set()
        self.received = 0
        self.slices = 0
        self.validated = 0
        self.ignored: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()  # by table

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
        if max(self._waiting_rows.values()) >= ROWS_AT_ONCE or self._waiting_bytes >= BYTES_AT_ONCE:
            self._stage()

    def finish(self) -> None:
        """Stage what still waits, and open all of it."""
        if self._tables is None:
            self._folder = None
        if self._waiting:
            self._stage()
        self.open()

    def open(self, slice: int | None = None) -> None:
        """Have the names of the staged tables mean a slice of them, or the whole."""
        self.tables.open(("staged_versions", *_RAW), slice)

    @property
    def tables(self) -> RunTables:
        """The tables of the run, of which the staged ones are some."""
        assert self._tables is not None
        return self._tables

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
        self._waiting.setdefault(table, []).append(rows)
        self._waiting_rows[table] += len(rows)
        self._waiting_bytes += rows.nbytes
        self.rows[table] += len(rows)

    def _stage(self) -> None:
        """Stage all rows that wait, as a slice: those of versions last, since an instant may set one aside."""
        rows = {table: pa.concat_tables(waiting) for table, waiting in self._waiting.items()}
        self._waiting.clear()
        self._waiting_rows.clear()
        self._waiting_bytes = 0
        if self._tables is None:
            self._tables = RunTables(self._con, self._folder)
            self._create_tables_of_the_run(rows)
            nothing = {staged(resource_type): arrow_table(raw.columns, []) for resource_type, raw in RAW_TABLES.items()}
            rows = {**nothing, **rows}
        self._con.execute("CREATE OR REPLACE TEMP TABLE bad_instants (row_no BIGINT, path VARCHAR)")
        for table in (*_OF_THE_RUN, *_RAW, "staged_versions"):
            if table in rows:
                self._con.register("batch", rows[table])
                self._insert(table, rows[table].column_names)
                self._con.unregister("batch")
        self._con.execute(f"""
INSERT INTO staged_quarantine
SELECT row_no, file_no, line, entry, resource_type, resource_id, bad_path, 'instant',
  'it is not a date or time of FHIR'
FROM staged_versions
WHERE slice = {self.slices} AND bad_path IS NOT NULL""")
        self.slices += 1
        # What Arrow keeps for later is as much as a slice.
        del rows
        pa.default_memory_pool().release_unused()

    def _create_tables_of_the_run(self, rows: dict[str, pa.Table]) -> None:
        for table in _OF_THE_RUN:
            self._con.register("batch", rows[table])
            self._con.execute(f"CREATE TEMP TABLE {table} AS FROM batch LIMIT 0")
            self._con.unregister("batch")

    def _insert(self, table: str, names: list[str]) -> None:
        """Stage the rows of `batch` in a table."""
        if table in _OF_THE_RUN:
            self._con.execute(f"INSERT INTO {table} FROM batch")
            return
        instants = _INSTANTS_OF[table]
        # lastUpdated is a clock's reading, never a date.
        midnight = self._source.midnight_is_date and instants is not _VERSION_INSTANTS
        texts = [instant.text for instant in instants]
        odd = read_odd_texts(self._con, "batch", texts, zone=self._source.timezone, midnight_is_date=midnight)
        rows = _with_instants(names, instants, odd)
        if table == "staged_versions":
            rows = _VERSIONS.format(rows=rows, slice=self.slices)
        self.tables.begin(table, rows)
        if self.rows[table] or table == "staged_versions":
            self.tables.add(table, rows, self.slices)
        self.tables.open((table,), self.slices)
        if instants and table != "staged_versions":
            self._con.execute(f"""
INSERT INTO bad_instants
SELECT row_no, min(bad_path)
FROM {table}
WHERE bad_path IS NOT NULL
GROUP BY row_no""")


def _with_instants(names: list[str], instants: tuple[Instant, ...], odd: set[str]) -> str:
    """The rows of `batch` with what their texts mean, and the path of the first one that means nothing. Texts in the
    columns of `odd` are looked up."""
    columns, joins, bad = [f"b.{name}" for name in names], "", ""
    for number, instant in enumerate(instants):
        means = plain_instant(f"b.{instant.text}")
        if instant.text in odd:
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
