"""The dictionaries of the store and what they mean: new codings and units in, their rows and resolutions out.

Only what the store does not have yet is written. Under a new ontology lock the dictionaries, which have thousands of
rows, are resolved again; the event tables, which have millions, are not touched.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from fhir_features.errors import LakeError
from fhir_features.lake import add_measured_units
from fhir_features.normalize.rows import arrow_table
from fhir_features.normalize.run_tables import RunTables
from fhir_features.normalize.staging import Staging, staged
from fhir_features.ontology import Ontologies

_CODINGS = (
    ("code_id", pa.int64()),
    ("ordinal", pa.int16()),
    ("system", pa.string()),
    ("code", pa.string()),
    ("version", pa.string()),
    ("display", pa.string()),
    ("user_selected", pa.bool_()),
)
_UNITS = (("unit_id", pa.int64()), ("system", pa.string()), ("code", pa.string()), ("unit", pa.string()))


def _left(table: str, key: str, resolution: str) -> str:
    resolved = f"SELECT {key} FROM lake.{resolution} WHERE lock_id = ?"
    return f"SELECT *\nFROM lake.{table}\nANTI JOIN ({resolved}) r USING ({key})"


# What was not resolved under a lock.
_CODINGS_LEFT = _left("codings", "code_id", "resolution")
_UNITS_LEFT = _left("units", "unit_id", "unit_resolution")


def find_measured(tables: RunTables) -> None:
    """Make `measured`: a number of each code and unit in which results of the run came."""
    tables.keep(
        "measured",
        f"""
SELECT code_id, unit_id, min(value_number) AS value_number
FROM {staged("Observation")}
WHERE value_number IS NOT NULL
GROUP BY ALL""",
    )


def insert_dictionary(con: duckdb.DuckDBPyConnection, staging: Staging, store_seq: int) -> None:
    """Insert the codings and units that the lake lacks. Raises LakeError when an id already means something else."""
    add_measured_units(con, "measured", store_seq)
    for name, key, columns, rows in (
        ("codings", ("code_id", "ordinal"), _CODINGS, staging.codings),
        ("units", ("unit_id",), _UNITS, staging.units),
    ):
        con.register("met", arrow_table(columns, rows))
        content = [column for column, _ in columns if column not in key]
        differs = " OR ".join(f"m.{column} IS DISTINCT FROM h.{column}" for column in content)
        clash = con.execute(
            f"SELECT any_value({key[0]}) FROM met m JOIN lake.{name} h USING ({', '.join(key)}) WHERE {differs}"
        )
        if (found := clash.fetchone()) and found[0] is not None:
            raise LakeError(f"two different {name} have the id {found[0]}: report this, nothing was written")
        con.execute(f"INSERT INTO lake.{name}\nSELECT *, {store_seq}\nFROM met\nANTI JOIN lake.{name} USING ({key[0]})")
        con.unregister("met")


def unresolved(con: duckdb.DuckDBPyConnection, ontologies: Ontologies) -> bool:
    """Whether the lake holds codings or units that were not resolved under the lock."""
    row = con.execute(f"SELECT EXISTS ({_CODINGS_LEFT}) OR EXISTS ({_UNITS_LEFT})", [ontologies.lock_id] * 2)
    found = row.fetchone()
    return bool(found and found[0])


def insert_resolution(con: duckdb.DuckDBPyConnection, ontologies: Ontologies, store_seq: int) -> None:
    """Resolve under the lock what of the dictionaries was not resolved under it, and insert the answers."""
    codings = con.execute(f"{_CODINGS_LEFT}\nORDER BY code_id, ordinal", [ontologies.lock_id])
    resolved = ontologies.resolve_dictionary(codings.to_arrow_table().drop_columns(["store_seq"]))
    con.register("resolved", resolved)
    con.execute(
        f"""
INSERT INTO lake.resolution
SELECT ?, code_id, valid_from, valid_to, rank, system, code, display, status, via, flags, {store_seq}
FROM resolved
ORDER BY code_id, valid_from, rank""",
        [ontologies.lock_id],
    )
    con.unregister("resolved")
    units = con.execute(f"{_UNITS_LEFT}\nORDER BY unit_id", [ontologies.lock_id]).fetchall()
    if units:
        con.execute(
            """
INSERT INTO lake.unit_resolution
SELECT ?, unnest(?::BIGINT[]), unnest(?::VARCHAR[]), ?""",
            [
                ontologies.lock_id,
                [unit_id for unit_id, *_ in units],
                [ontologies.units.ucum(system, code, unit) for _, system, code, unit, _ in units],
                store_seq,
            ],
        )
