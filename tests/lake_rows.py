"""Event rows for tests, written straight into a lake: what normalize would have written, without the FHIR.

A `LakeRows` collects plain dictionaries, one an event row, in the columns of `fhir_features.lake.schema`; columns that
a test does not name get an ordinary value. `fill` writes them through a connection; `memory_lake` makes a lake that
lives in memory, for tests that need many.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.lake import EVENT_TABLES, add_measured_units, bucket_sql, commit, connect, identifier
from fhir_features.lake.schema import TABLES
from fhir_features.ontology import load_ontologies

UTC = dt.UTC
URIS = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "icd10cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}
TABLES_BY_NAME = {table.name: table for table in TABLES}


def at(text: str) -> dt.datetime:
    """An instant as `2024-03-05 14:00` in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


class LakeRows:
    """Rows of a lake to be. Each method adds a row and gives it back as a dictionary."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
        self._codes: dict[tuple[str, ...], int] = {}
        self._units: dict[str | None, int] = {}
        self.store_seq = 1

    def code(self, *texts: str) -> int:
        """The code_id of a CodeableConcept with these codings, each as `loinc:4548-4`."""
        if texts not in self._codes:
            self._codes[texts] = len(self._codes) + 1
            for coding in _codings(self._codes[texts], texts):
                self._add("codings", coding)
        return self._codes[texts]

    def resolve(self) -> None:
        """Write down what each code_id means under the shipped lock, as normalize does."""
        for row in _resolved(tuple(self._codes)):
            self._add("resolution", dict(row))

    def unit(self, ucum: str | None) -> int | None:
        """The unit_id of a UCUM unit; None for no unit."""
        if ucum is None:
            return None
        if ucum not in self._units:
            unit_id = self._units[ucum] = len(self._units) + 1
            self._add("units", {"unit_id": unit_id, "system": "http://unitsofmeasure.org", "code": ucum, "unit": ucum})
        return self._units[ucum]

    def observation(self, code: str, value: float | None, unit: str | None = None, **more: Any) -> dict[str, Any]:
        """A result with a number."""
        own = {
            "component": 0,
            "status": "final",
            "code_id": self.code(code),
            "value_type": None if value is None else "Quantity",
            "value_number": value,
            "unit_id": self.unit(unit),
        }
        return self._event("observations", own, more)

    def condition(self, code: str, **more: Any) -> dict[str, Any]:
        """A confirmed, active diagnosis on the problem list."""
        own = {
            "code_id": self.code(code),
            "categories": ["problem-list-item"],
            "clinical_status": "active",
            "verification_status": "confirmed",
        }
        return self._event("conditions", own, more)

    def medication(self, code: str, **more: Any) -> dict[str, Any]:
        """An active order."""
        own = {"code_id": self.code(code), "status": "active", "intent": "order"}
        row = self._event("medication_requests", own, more)
        row.setdefault("authored_at", row["effective_at"])
        return row

    def encounter(self, class_code: str = "IMP", **more: Any) -> dict[str, Any]:
        """A finished encounter."""
        row = self._event("encounters", {"status": "finished", "class_code": class_code}, more)
        row.setdefault("start_at", row["effective_at"])
        return row

    def patient(self, patient_id: str = "p1", site: str = "north", **more: Any) -> dict[str, Any]:
        """A patient's record, known since long ago."""
        own = {"birth_date": dt.date(1970, 5, 17), "sex": "female"}
        born = dt.datetime(1900, 1, 1, tzinfo=UTC)
        times = {"effective_at": born, "known_at": born, "resource_id": patient_id}
        return self._event("patients", own, {**times, "patient_id": patient_id, "site": site, **more})

    def close(self, row: dict[str, Any], closed_at: dt.datetime, reason: str = "superseded", **more: Any) -> None:
        """Close a row's version at an instant."""
        table = next(name for name, rows in self.tables.items() if any(each is row for each in rows))
        keys = {key: row[key] for key in ("site", "patient_id", "resource_id", "version", "state")}
        closing = {"resource_type": _TYPE_OF[table], "closed_at": closed_at, "reason": reason}
        self._add("closings", {**keys, **closing, **more})

    def watermark(self, instant: dt.datetime, site: str = "north", types: Any = tuple(EVENT_TABLES)) -> None:
        """Say that the store has seen all of a site up to an instant."""
        for resource_type in types:
            self._add("watermarks", {"site": site, "resource_type": resource_type, "watermark": instant})

    def _event(self, table: str, own: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        row = {
            "site": "north",
            "patient_id": "p1",
            "resource_id": f"{table}-{len(self.tables[table]) + 1}",
            "version": "1",
            "state": 1,
            "known_at_source": "issued",
            **own,
            **more,
        }
        row.setdefault("known_at", row["effective_at"])
        return self._add(table, row)

    def _add(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        row.setdefault("store_seq", self.store_seq)
        self.tables[table].append(row)
        return row


def _version_no(row: dict[str, Any]) -> int:
    """A number that two versions do not share."""
    key = [row.get(name) for name in ("site", "patient_id", "resource_id", "version")]
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest())


def _codings(code_id: int, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    parts = [text.split(":", 1) for text in texts]
    return [
        {"code_id": code_id, "ordinal": ordinal, "system": URIS.get(system, system), "code": code}
        for ordinal, (system, code) in enumerate(parts)
    ]


@cache
def _resolved(concepts: tuple[tuple[str, ...], ...]) -> list[dict[str, Any]]:
    known = load_ontologies()
    columns = dict(TABLES_BY_NAME["codings"].columns)
    types = {"BIGINT": pa.int64(), "SMALLINT": pa.int16(), "VARCHAR": pa.string(), "BOOLEAN": pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items() if name != "store_seq"])
    rows = [coding for number, texts in enumerate(concepts, start=1) for coding in _codings(number, texts)]
    found = known.resolve_dictionary(pa.Table.from_pylist(rows, schema=schema)).to_pylist()
    return [{**row, "lock_id": known.lock_id} for row in found]


def fill(con: duckdb.DuckDBPyConnection, rows: LakeRows, *, buckets: int, store_seq: int | None = None) -> None:
    """Write the rows into the attached lake: all, in the order that they have, or those of one commit, in a commit's."""
    for name, table in TABLES_BY_NAME.items():
        chosen = [row for row in rows.tables[name] if store_seq is None or row["store_seq"] == store_seq]
        if not chosen:
            continue
        schema = con.execute(f"SELECT * FROM lake.{name} LIMIT 0").to_arrow_table().schema
        numbered = [{**row, "version_no": _version_no(row)} for row in chosen]
        con.register("rows_in", pa.Table.from_pylist(numbered, schema=schema))
        columns = [
            bucket_sql("site", "patient_id", buckets) if column == "bucket" else identifier(column)
            for column in table.names
        ]
        order = f" ORDER BY {', '.join(identifier(column) for column in table.sort)}" if store_seq is not None else ""
        con.execute(f"INSERT INTO lake.{name} SELECT {', '.join(columns)} FROM rows_in{order}")
        con.unregister("rows_in")
    add_measured_units(con, "lake.observations", store_seq or rows.store_seq)


def write_commits(con: duckdb.DuckDBPyConnection, rows: LakeRows, *, buckets: int) -> None:
    """Write the rows into a lake opened for writing, one commit a store_seq that is not there yet."""
    have = {seq for (seq,) in con.execute("SELECT store_seq FROM lake.commits").fetchall()}
    wanted = {row["store_seq"] for table in rows.tables.values() for row in table}
    for store_seq in sorted(wanted - have):
        with commit(con, f"test commit {store_seq}") as given:
            assert given == store_seq
            fill(con, rows, buckets=buckets, store_seq=store_seq)
            con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])


def memory_lake(*, buckets: int = 4) -> duckdb.DuckDBPyConnection:
    """A connection with a lake in memory: the same tables, without the files."""
    con = connect()
    con.execute("ATTACH ':memory:' AS lake")
    for table in TABLES:
        columns = ", ".join(f"{identifier(name)} {kind}" for name, kind in table.columns)
        con.execute(f"CREATE TABLE lake.{table.name} ({columns})")
    con.execute("INSERT INTO lake.meta VALUES ('format_version', '6'), ('buckets', ?)", [str(buckets)])
    con.execute(f"SET VARIABLE lake_buckets = {buckets}")
    return con


def refill(con: duckdb.DuckDBPyConnection, rows: LakeRows, *, buckets: int = 4) -> None:
    """Let a lake in memory hold these rows and no others."""
    for name in TABLES_BY_NAME:
        if name != "meta":
            con.execute(f"TRUNCATE lake.{name}")
    con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [rows.store_seq])
    fill(con, rows, buckets=buckets)
