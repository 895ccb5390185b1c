"""Which rows a concept set and a unit select: from the ontologies in use and the lake's dictionaries to small tables.

In go the selections of a plan and a connection with the views of `lake.create_views`; out come Arrow tables that the
engine joins events with: the code_ids (or encounter classes) of each selection, and the factors that bring the numbers
of each (code_id, unit_id) to the selection's unit. A pair without a row there cannot be converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.features.compile import Plan
from fhir_features.features.counting import VERIFICATION_STATUSES, default_statuses
from fhir_features.features.nodes import Conditions, Encounters, Observations, Rows
from fhir_features.ontology import ConceptSet, Ontologies, load_ontologies

_TEXTS = pa.list_(pa.string())
_ASKED = {
    "needs_number": pa.bool_(),
    "assume_us": pa.int64(),
    "classes": _TEXTS,
    "sites": _TEXTS,
    "statuses": _TEXTS,
    "categories": _TEXTS,
    "interpretations": _TEXTS,
    "clinical_statuses": _TEXTS,
    "verification_statuses": _TEXTS,
    "asks_verification": pa.bool_(),
    "methods": pa.list_(pa.int64()),
    "coded": pa.list_(pa.int64()),
    "low": pa.float64(),
    "high": pa.float64(),
    "without_comparator": pa.bool_(),
}
_MEMBERS = pa.schema({"selection": pa.int32(), "code_id": pa.int64(), "start_us": pa.int64(), **_ASKED})
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
    """Create the temporary tables `resolved` (code_id, system, code): what each code_id means under the lock, and
    `canonical` (code_id, concept): the first of those as text, such as `snomed:266919005`.

    Code_ids that the lake has not resolved under this lock are resolved in memory. A candidate, one of several targets
    of a map of which only some are right, is no meaning.
    """
    con.execute(
        """
CREATE OR REPLACE TEMP TABLE resolution AS
SELECT DISTINCT code_id, valid_from, rank, system, code, status
FROM lake.resolution
WHERE lock_id = ?""",
        [known.lock_id],
    )
    missing = con.execute("""
SELECT code_id, ordinal, system, code, version, display, user_selected
FROM codings
WHERE code_id NOT IN (SELECT code_id FROM resolution)
ORDER BY code_id, ordinal""").to_arrow_table()
    if missing.num_rows:
        con.register("in_memory", known.resolve_dictionary(missing))
        con.execute("INSERT INTO resolution SELECT code_id, valid_from, rank, system, code, status FROM in_memory")
        con.unregister("in_memory")
    con.execute("""
CREATE OR REPLACE TEMP TABLE resolved AS
SELECT DISTINCT code_id, system, code
FROM resolution
WHERE status <> 'candidate'
  AND code IS NOT NULL""")
    con.execute("""
CREATE OR REPLACE TEMP TABLE canonical AS
SELECT code_id, arg_min(concat(system, ':', code), ROW(rank, valid_from, system, code)) AS concept
FROM resolution
WHERE status <> 'candidate'
  AND code IS NOT NULL
GROUP BY code_id""")


def create_members(con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan) -> None:
    """Create the temporary tables `<table>_members`: for each selection its code_ids, and what else it asks of a row;
    and of results `conversions`, for the pairs of code and unit that the lake holds.

    `start_us` is how far its windows reach back from T, null for ever. A code_id is a member when any of its concepts,
    mapped ones included, is in the expanded concept set.
    """
    for table, selections in plan.asked.items():
        rows = []
        for number, selection in enumerate(selections):
            chosen = selection.rows
            asked = (selection.reach.start_us, *_asked(con, known, chosen))
            code_ids = [None] if isinstance(chosen, Encounters) else _code_ids(con, known, chosen.concepts)
            rows += [(number, code_id, *asked) for code_id in code_ids]
        _create(con, f"{table}_members", _MEMBERS, rows)
    if "observations" in plan.asked:
        _create_conversions(con, known, plan.selections["observations"])
    if "ingredients i" in plan.sql:
        _create_ingredients(con, known)


def _create_conversions(con: duckdb.DuckDBPyConnection, known: Ontologies, selections: Sequence[Rows]) -> None:
    units = {
        number: chosen.unit
        for number, chosen in enumerate(selections)
        if isinstance(chosen, Observations) and chosen.unit is not None
    }
    rows: list[tuple[object, ...]] = []
    for number, code_id, unit_id, loinc, ucum, *written in _pairs(con, known) if units else []:
        unit = units.get(number)
        if unit_id is None:
            # A number without a unit is one of dimension 1, and of nothing else: a bare 7.1 is not 710 %.
            if unit == "1":
                rows.append((number, code_id, None, 1.0, 0.0))
            continue
        source_unit = ucum or known.units.ucum(*written)
        conversion = source_unit and unit and known.units.conversion(source_unit, unit, loinc)
        if conversion:
            rows.append((number, code_id, unit_id, conversion.factor, conversion.offset))
    _create(con, "conversions", _CONVERSIONS, rows)


def _asked(con: duckdb.DuckDBPyConnection, known: Ontologies, chosen: Rows) -> list[object]:
    """What a selection asks beside its codes, in the order of the columns; None where it asks nothing."""
    asked: dict[str, object] = {name: getattr(chosen, name, None) or None for name in _ASKED}
    if isinstance(chosen, Conditions):
        asked["asks_verification"] = bool(chosen.verification_statuses)
        asked["verification_statuses"] = chosen.verification_statuses or VERIFICATION_STATUSES
    asked["needs_number"] = isinstance(chosen, Observations) and chosen.unit is not None
    asked["without_comparator"] = bool(asked["without_comparator"])
    asked["statuses"] = asked["statuses"] or default_statuses(chosen)
    if isinstance(chosen, Observations):
        asked |= {"low": chosen.low, "high": chosen.high}
        asked["methods"] = _code_ids(con, known, chosen.method) if chosen.method else None
        asked["coded"] = _code_ids(con, known, chosen.coded) if chosen.coded else None
    return list(asked.values())


def _code_ids(con: duckdb.DuckDBPyConnection, known: Ontologies, concepts: ConceptSet) -> list[int]:
    expanded = known.expand(concepts)
    wanted = pa.table(
        {"system": [concept.system for concept in expanded], "code": [concept.code for concept in expanded]},
        schema=pa.schema({"system": pa.string(), "code": pa.string()}),
    )
    con.register("wanted", wanted)
    found = con.execute("SELECT DISTINCT code_id FROM resolved JOIN wanted USING (system, code) ORDER BY code_id")
    return [code_id for (code_id,) in found.fetchall()]


def _pairs(con: duckdb.DuckDBPyConnection, known: Ontologies) -> list[tuple[Any, ...]]:
    """Of each selection the pairs of code and unit, with the code's LOINC code, and the unit as UCUM and as written."""
    return con.execute(
        """
WITH loinc_codes AS (
  SELECT code_id, min(code) AS loinc
  FROM resolved
  WHERE system = 'loinc'
  GROUP BY code_id
)
SELECT m.selection, code_id, unit_id, loinc, ucum, units.system, units.code, unit
FROM measured_units
JOIN observations_members m USING (code_id)
LEFT JOIN loinc_codes USING (code_id)
LEFT JOIN units USING (unit_id)
LEFT JOIN (SELECT DISTINCT unit_id, ucum FROM lake.unit_resolution WHERE lock_id = ?) USING (unit_id)
ORDER BY m.selection, code_id, unit_id""",
        [known.lock_id],
    ).fetchall()


def _create_ingredients(con: duckdb.DuckDBPyConnection, known: Ontologies) -> None:
    """Create the temporary table `ingredients` (code_id, ingredients: RxCUIs) for the codes of all orders."""
    drugs = con.execute("""
SELECT DISTINCT code_id, code
FROM resolved
WHERE system = 'rxnorm'
  AND code_id IN (SELECT code_id FROM medication_requests_members)
ORDER BY code_id, code""").fetchall()
    contained = known.ingredients(sorted({code for _, code in drugs}))
    listed: dict[int, set[int]] = {}
    for code_id, code in drugs:
        listed.setdefault(code_id, set()).update(int(ingredient) for ingredient in contained[code])
    schema = pa.schema({"code_id": pa.int64(), "ingredients": pa.list_(pa.int64())})
    _create(con, "ingredients", schema, [(code_id, sorted(codes)) for code_id, codes in listed.items()])


def _create(con: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, rows: list[tuple[object, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    con.register("rows_of_it", pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM rows_of_it")
    con.unregister("rows_of_it")
