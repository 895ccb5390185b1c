"""Which rows a concept set and a unit select: from the ontologies in use and the lake's dictionaries to small tables.

In go the selections of a plan and a connection with the views of `lake.create_views`; out come Arrow tables that the
engine joins events with: the code_ids (or encounter classes) of each selection, and the factors that bring the numbers
of each (code_id, unit_id) to the selection's unit. A pair without a row there cannot be converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import duckdb
import pyarrow as pa

from fhir_features.features.compile import Plan
from fhir_features.features.nodes import Encounters, Medications, Observations, Rows
from fhir_features.ontology import Ontologies, load_ontologies

_MEMBERS = pa.schema(
    {"selection": pa.int32(), "code_id": pa.int64(), "needs_number": pa.bool_(), "assume_us": pa.int64()}
)
_CLASSES = pa.schema({"selection": pa.int32(), "class_code": pa.string()})
_CONVERSIONS = pa.schema(
    {
        "selection": pa.int32(),
        "code_id": pa.int64(),
        "unit_id": pa.int64(),
        "factor": pa.float64(),
        "addend": pa.float64(),
    }
)


@cache
def ontologies() -> Ontologies:
    """The ontologies under the lock in use, loaded once."""
    return load_ontologies()


def create_resolved(con: duckdb.DuckDBPyConnection, known: Ontologies) -> None:
    """Create the temporary table `resolved` (code_id, system, code): what each code_id means under the lock.

    Code_ids that the lake has not resolved under this lock are resolved in memory.
    """
    con.execute(
        """
CREATE OR REPLACE TEMP TABLE resolved AS
SELECT DISTINCT code_id, system, code
FROM lake.resolution
WHERE lock_id = ?""",
        [known.lock_id],
    )
    missing = con.execute("""
SELECT code_id, ordinal, system, code, version, display, user_selected
FROM codings
WHERE code_id NOT IN (SELECT code_id FROM resolved)
ORDER BY code_id, ordinal""").to_arrow_table()
    if missing.num_rows:
        con.register("resolved_in_memory", known.resolve_dictionary(missing))
        con.execute("INSERT INTO resolved SELECT DISTINCT code_id, system, code FROM resolved_in_memory")
        con.unregister("resolved_in_memory")


def create_members(con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan) -> None:
    """Create the temporary tables `<table>_members`: the code_ids, or encounter classes, of each selection of a plan.

    A code_id is a member when any of its concepts, mapped ones included, is in the expanded concept set.
    """
    for table, selections in plan.selections.items():
        if table == "encounters":
            _create(con, "encounters_members", _CLASSES, _classes(selections))
        else:
            rows = [row for number, chosen in enumerate(selections) for row in _code_ids(con, known, number, chosen)]
            _create(con, f"{table}_members", _MEMBERS, rows)


def create_conversions(con: duckdb.DuckDBPyConnection, known: Ontologies, selections: Sequence[Rows]) -> None:
    """Create the temporary table `conversions`, for the pairs of code and unit that the patients' buckets hold."""
    rows = []
    for number, chosen in enumerate(selections):
        if isinstance(chosen, Observations) and chosen.unit is not None:
            rows += _conversions(con, known, number, chosen.unit)
    _create(con, "conversions", _CONVERSIONS, rows)


def _classes(selections: Sequence[Rows]) -> list[tuple[object, ...]]:
    return [
        (number, code)
        for number, chosen in enumerate(selections)
        if isinstance(chosen, Encounters)
        for code in (chosen.classes or (None,))
    ]


def _code_ids(con: duckdb.DuckDBPyConnection, known: Ontologies, number: int, chosen: Rows) -> list[tuple[object, ...]]:
    assert not isinstance(chosen, Encounters)
    concepts = known.expand(chosen.concepts)
    wanted = pa.table(
        {"system": [concept.system for concept in concepts], "code": [concept.code for concept in concepts]},
        schema=pa.schema({"system": pa.string(), "code": pa.string()}),
    )
    con.register("wanted", wanted)
    found = con.execute("SELECT DISTINCT code_id FROM resolved JOIN wanted USING (system, code) ORDER BY code_id")
    needs_number = isinstance(chosen, Observations) and chosen.unit is not None
    assume = chosen.assume_us if isinstance(chosen, Medications) else None
    return [(number, code_id, needs_number, assume) for (code_id,) in found.fetchall()]


def _conversions(con: duckdb.DuckDBPyConnection, known: Ontologies, number: int, unit: str) -> list[tuple[object, ...]]:
    pairs = con.execute(
        """
WITH pairs AS (
  SELECT DISTINCT code_id, unit_id
  FROM lake.observations
  WHERE bucket IN (SELECT DISTINCT bucket FROM asked)
    AND code_id IN (SELECT code_id FROM observations_members WHERE selection = $selection)
),
loinc_codes AS (
  SELECT code_id, min(code) AS loinc
  FROM resolved
  WHERE system = 'loinc'
  GROUP BY code_id
)
SELECT pairs.code_id, pairs.unit_id, loinc, ucum, system, units.code, unit
FROM pairs
LEFT JOIN loinc_codes USING (code_id)
LEFT JOIN units ON units.unit_id = pairs.unit_id
LEFT JOIN (SELECT DISTINCT unit_id, ucum FROM lake.unit_resolution WHERE lock_id = $lock_id) r
  ON r.unit_id = pairs.unit_id
ORDER BY pairs.code_id, pairs.unit_id""",
        {"selection": number, "lock_id": known.lock_id},
    ).fetchall()
    rows: list[tuple[object, ...]] = []
    for code_id, unit_id, loinc, ucum, *written in pairs:
        if unit_id is None:
            # A number without a unit is one of dimension 1, and of nothing else: a bare 7.1 is not 710 %.
            if unit == "1":
                rows.append((number, code_id, None, 1.0, 0.0))
            continue
        source_unit = ucum or known.units.ucum(*written)
        conversion = source_unit and known.units.conversion(source_unit, unit, loinc)
        if conversion:
            rows.append((number, code_id, unit_id, conversion.factor, conversion.offset))
    return rows


def _create(con: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: list[tuple[object, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    con.register("rows_of_it", pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM rows_of_it")
    con.unregister("rows_of_it")
