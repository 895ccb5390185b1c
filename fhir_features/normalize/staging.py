"""The staging of one run: outcomes of the decoder in, temporary DuckDB tables out, with every instant read.

`staged_versions` has a row a resource version that could be named, `staged_<table>` the raw rows of each event table
with their instants, `staged_quarantine` what was rejected. Rows travel in Arrow batches; DuckDB spills to disk what
does not fit into memory.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.config import Source
from fhir_features.lake import EVENT_TABLES
from fhir_features.lake.schema import MEDICATIONS, REPORTED_RESULTS
from fhir_features.normalize.codes import Dictionary
from fhir_features.normalize.decode import Deleted, Ignored, Name, Normalized, Outcome, Rejected
from fhir_features.normalize.instants import read_instants
from fhir_features.normalize.rows import RAW_TABLES, Row

BATCH = 20_000

_OTHER_TABLES = {"Medication": MEDICATIONS, "DiagnosticReport": REPORTED_RESULTS}

Place = tuple[int, dt.datetime, int, int]  # number in the run, received at, file number, line

_INSTANT = pa.timestamp("us", tz="UTC")
_VERSION_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("row_no", pa.int64()),
    ("resource_type", pa.string()),
    ("resource_id", pa.string()),
    ("version_id", pa.string()),
    ("last_updated_text", pa.string()),
    ("received_at", _INSTANT),
    ("content_hash", pa.int64()),
    ("patient_id", pa.string()),
    ("outcome", pa.string()),
    ("withdrawn", pa.bool_()),
    ("file_no", pa.int32()),
    ("line", pa.int64()),
)
_QUARANTINE_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("file_no", pa.int32()),
    ("line", pa.int64()),
    ("resource_type", pa.string()),
    ("resource_id", pa.string()),
    ("json_path", pa.string()),
    ("rule", pa.string()),
    ("reason", pa.string()),
)


@dataclass(frozen=True)
class Instant:
    """How one text column is read: which columns come of it, and the JSON path to blame when it is no instant.

    `first`, `last`, `precision` and `day` name the columns for what `read_instants` says of it.
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


class Staging:
    """Collects the outcomes of one run. `received` and `ignored` count them; call `finish` after the last."""

    def __init__(self, con: duckdb.DuckDBPyConnection, source: Source, dictionary: Dictionary) -> None:
        self._con = con
        self._source = source
        self._dictionary = dictionary
        self._versions: list[Row] = []
        self._quarantine: list[Row] = []
        self._rows: dict[str, list[Row]] = {resource_type: [] for resource_type in RAW_TABLES}
        self._made: set[str] = set()
        self.received = 0
        self.ignored: Counter[str] = Counter()

    def add(self, row_no: int, outcome: Outcome, received_at: dt.datetime, file_no: int, line: int) -> None:
        """Take one outcome and its number in the run, from line `line` of the run's file number `file_no`."""
        self.received += 1
        if isinstance(outcome, Ignored):
            self.ignored[outcome.resource_type] += 1
            return
        place = (row_no, received_at, file_no, line)
        if isinstance(outcome, Normalized):
            name = outcome.name
            self._rows[str(name.resource_type)].extend(outcome.rows)
            self._version(name, place, "normalized", outcome.patient_id, outcome.withdrawn, outcome.content_hash)
        elif isinstance(outcome, Deleted):
            # Two deletions have the same content: a repeated word of a deletion is a duplicate.
            self._version(outcome.name, place, "deleted", None, False, 0)
        else:
            self._reject(outcome, place)
        if len(self._versions) + len(self._quarantine) >= BATCH:
            self._flush()

    def finish(self) -> None:
        """Stage the rest, and move to the quarantine what has an instant that cannot be read."""
        self._flush()
        for resource_type in RAW_TABLES:
            self._quarantine_bad_instants(staged(resource_type))
        self._quarantine_bad_instants("staged_versions")

    def _version(self, name: Name, place: Place, outcome: str, *content: Any) -> None:
        """`content` is (patient_id, withdrawn, content_hash), of a resource that can be normalized or was deleted."""
        row_no, received_at, file_no, line = place
        patient_id, withdrawn, content_hash = content or (None, False, None)
        named = (name.resource_type, name.resource_id, name.version_id, name.last_updated)
        self._versions.append(
            (row_no, *named, received_at, content_hash, patient_id, outcome, withdrawn, file_no, line)
        )

    def _reject(self, rejected: Rejected, place: Place) -> None:
        name = rejected.name
        *_, file_no, line = place
        self._quarantine.append(
            (file_no, line, name.resource_type, name.resource_id, rejected.json_path, rejected.rule, rejected.reason)
        )
        says_status = name.status is not None or name.resource_type in ("Patient", "Condition", "Medication")
        if (
            name.resource_type in RAW_TABLES
            and name.resource_id
            and (name.version_id or name.last_updated)
            and says_status
        ):
            self._version(name, place, "quarantined", None, False, None)

    def _flush(self) -> None:
        self._insert("staged_versions", _VERSION_COLUMNS, _VERSION_INSTANTS, self._versions)
        self._insert("staged_quarantine", _QUARANTINE_COLUMNS, (), self._quarantine)
        for resource_type, raw in RAW_TABLES.items():
            self._insert(staged(resource_type), raw.columns, _INSTANTS[resource_type], self._rows[resource_type])

    def _insert(
        self, table: str, columns: tuple[tuple[str, pa.DataType], ...], instants: tuple[Instant, ...], rows: list[Row]
    ) -> None:
        self._con.register("batch", arrow_table(columns, rows))
        rows.clear()
        if instants:
            texts = [instant.text for instant in instants]
            # lastUpdated is a clock's reading, never a date.
            midnight = self._source.midnight_is_date and instants is not _VERSION_INSTANTS
            read_instants(self._con, "batch", texts, zone=self._source.timezone, midnight_is_date=midnight)
        into = f"INSERT INTO {table}" if table in self._made else f"CREATE TEMP TABLE {table} AS"
        self._con.execute(f"{into}\n{_with_instants(instants)}")
        self._made.add(table)
        self._con.unregister("batch")

    def _quarantine_bad_instants(self, table: str) -> None:
        if table == "staged_medications":
            return
        self._con.execute(f"""
INSERT INTO staged_quarantine
SELECT v.file_no, v.line, v.resource_type, v.resource_id, min(s.bad_path), 'instant', 'it is not a date or time of FHIR'
FROM {table} s
JOIN staged_versions v USING (row_no)
WHERE s.bad_path IS NOT NULL AND v.outcome = 'normalized'
GROUP BY v.row_no, v.file_no, v.line, v.resource_type, v.resource_id""")
        self._con.execute(f"""
UPDATE staged_versions
SET outcome = 'quarantined'
WHERE outcome = 'normalized' AND row_no IN (SELECT row_no FROM {table} WHERE bad_path IS NOT NULL)""")


def _with_instants(instants: tuple[Instant, ...]) -> str:
    """The rows of `batch` with what their texts mean, and the path of the first one that means nothing."""
    columns, joins, bad = ["b.*"], "", ""
    for number, instant in enumerate(instants):
        read = f"i{number}"
        joins += f"\nLEFT JOIN instants {read} ON {read}.text = b.{instant.text}"
        bad += f"\n    WHEN b.{instant.text} IS NOT NULL AND {read}.first_at IS NULL THEN {instant.path}"
        named = {
            "first_at": instant.first,
            "last_at": instant.last,
            "precision": instant.precision,
            "day": instant.day,
        }
        columns += [f"{read}.{column} AS {name}" for column, name in named.items() if name]
    if instants:
        columns.append(f"CASE{bad}\n  END AS bad_path")
    selected = ",\n  ".join(columns)
    return f"SELECT\n  {selected}\nFROM batch b{joins}"


def arrow_table(columns: tuple[tuple[str, Any], ...], rows: list[Row]) -> pa.Table:
    """Tuples as an Arrow table."""
    by_column: list[Any] = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [pa.array(values, type=kind) for values, (_, kind) in zip(by_column, columns, strict=True)]
    return pa.table(arrays, names=[name for name, _ in columns])
