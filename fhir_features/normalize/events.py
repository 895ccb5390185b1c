"""The rows of the event tables: staging, order and clocks in, INSERTs into the lake out.

State 0 of a snapshot shows the elements that are revised in place as they stood first (TIME rule 9): a condition as
present, an order as ordered, an encounter as in progress, a patient as alive.
"""

from __future__ import annotations

import shutil

import duckdb

from fhir_features.files import parquet_in
from fhir_features.lake import EVENT_TABLES, add_measured_units, identifier, literal, spill_folder
from fhir_features.normalize.staging import has_rows, staged
from fhir_features.sources import LandedRun

# Rows of events are wide: a million sorted at once, within the bound of memory, took twice as long as in parts.
ROWS_AT_ONCE = 150_000


def _revised(column: str, first: str = "NULL") -> str:
    return f"CASE WHEN v.state = 0 THEN {first} ELSE s.{column} END"


def _at_age(element: str) -> str:
    age = f"to_months(s.{element}_months::INTEGER) + to_days(s.{element}_days::INTEGER)"
    return f"timezone({{zone}}, b.birth_date + {age})"


# What is not simply the staging's column of the same name.
_EXPRESSIONS: dict[str, dict[str, str]] = {
    "Patient": {
        "effective_at": "v.known_at",
        "effective_text": "s.birth_text",
        "effective_precision": "NULL",
        "encounter_id": "NULL",
        "deceased": _revised("deceased", "false"),
        "deceased_at": _revised("deceased_at"),
        "replaced_by": _revised("replaced_by", "[]"),
        "replaces": _revised("replaces", "[]"),
    },
    "Encounter": {
        "effective_at": "coalesce(s.start_first, v.known_at)",
        "effective_text": "s.start_text",
        "effective_precision": "coalesce(s.effective_precision, 'derived')",
        "encounter_id": "v.resource_id",
        "status": _revised("status", "'in-progress'"),
        "start_at": "s.start_first",
        "end_at": _revised("end_first"),
        "end_latest_at": _revised("end_last"),
        "discharge_disposition": _revised("discharge_disposition"),
        "admission_diagnoses": _revised("admission_diagnoses", "[]"),
    },
    "Observation": {
        "effective_at": "coalesce(s.effective_first, s.issued_first, v.known_at)",
        "effective_precision": "coalesce(s.effective_precision, 'derived')",
    },
    "Condition": {
        "effective_at": f"coalesce(s.onset_first, {_at_age('onset')}, e.start_at, s.recorded_first, v.known_at)",
        "effective_text": "s.onset_text",
        "effective_precision": "coalesce(s.onset_precision, 'derived')",
        # A condition that states its clinical status was active when it was recorded.
        "clinical_status": _revised("clinical_status", "CASE WHEN s.clinical_status IS NOT NULL THEN 'active' END"),
        "verification_status": _revised("verification_status"),
        "severity_code_id": _revised("severity_code_id"),
        "abatement_at": f"CASE WHEN v.state = 1 THEN coalesce(s.abatement_first, {_at_age('abatement')}) END",
        "abatement_text": _revised("abatement_text"),
        "recorded_at": "s.recorded_last",
    },
    "MedicationRequest": {
        "effective_at": "coalesce(s.bounds_start, s.authored_first, v.known_at)",
        "effective_text": "coalesce(s.bounds_start_text, s.authored_text)",
        "effective_precision": "coalesce(s.bounds_precision, s.authored_precision, 'derived')",
        "status": _revised("status", "'active'"),
        "authored_at": "s.authored_first",
        "bounds_end": _revised("bounds_end"),
    },
}

_SHARED = {
    "patient_id": "v.patient_id",
    "resource_id": "v.resource_id",
    "version": "v.version",
    "version_no": "v.version_no",
    "state": "v.state",
    "known_at": "v.known_at",
    "known_at_source": "v.known_at_source",
}

_JOINS = {
    # An Age needs the birth date; an encounter diagnosis without an onset is of its encounter's start.
    "Condition": """
LEFT JOIN patients_of_conditions b ON b.patient_id = v.patient_id
LEFT JOIN encounters_of_conditions e ON e.resource_id = s.encounter_id AND p.encounter_diagnosis
""",
}


def insert_events(con: duckdb.DuckDBPyConnection, run: LandedRun, store_seq: int, zone: str, buckets: int) -> None:
    """Insert the rows of all new versions, their closings and their entries of the index."""
    con.execute("""
CREATE OR REPLACE TEMP TABLE placed AS
SELECT v.row_no, v.bucket, v.patient_id, v.resource_id, v.version, v.version_no, c.state, c.known_at, c.known_at_source
FROM new_versions v
JOIN clocks c USING (row_no)
ORDER BY row_no""")
    for resource_type in EVENT_TABLES:
        if has_rows(con, resource_type):
            _insert_rows(con, resource_type, event_sql(resource_type, run, store_seq, zone), buckets)
    add_measured_units(con, staged("Observation"), store_seq)
    origin = f"{literal(run.source)}, {literal(run.run_id)}, {store_seq}"
    con.execute(f"""
INSERT INTO lake.medications
SELECT {literal(run.site)}, v.resource_id, v.version, s.code_id, s.code_text, {origin}
FROM staged_medications s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized'
ORDER BY ALL""")
    con.execute(f"""
INSERT INTO lake.reported_results
SELECT {literal(run.site)}, s.observation_id, v.resource_id, v.version, s.issued_last, {origin}
FROM staged_reported_results s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized' AND NOT v.withdrawn AND s.issued_last IS NOT NULL
ORDER BY ALL""")
    con.execute(f"""
INSERT INTO lake.provenances
SELECT {literal(run.site)}, s.target_type, s.target_id, v.resource_id, v.version, s.recorded_last, s.transmitted,
  {origin}
FROM staged_provenances s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized'
ORDER BY ALL""")
    con.execute(f"""
INSERT INTO lake.versions
SELECT {literal(run.site)}, v.resource_type, v.resource_id, v.version, v.version_no, v.version_id, v.outcome,
  v.witnessed, v.withdrawn, v.bucket, v.patient_id, k.states, k.known_at, v.last_updated, v.version_number,
  v.history_place, v.received_at, v.content_hash, v.identity, v.row_no, {origin}
FROM new_versions v
JOIN version_clocks k USING (row_no)
ORDER BY v.resource_type, v.resource_id, v.version""")
    con.execute(f"""
INSERT INTO lake.closings
SELECT {literal(run.site)}, bucket, patient_id, resource_type, resource_id, version, version_no, state, closed_at,
  reason, closed_by, {store_seq}
FROM new_closings
ORDER BY bucket, resource_type, patient_id, resource_id, version, state""")


def _insert_rows(con: duckdb.DuckDBPyConnection, resource_type: str, rows: str, buckets: int) -> None:
    """Insert the rows that a statement gives, sorted: all at once, or those of some buckets after the other, each part
    to a file of its own. They are written apart first: to look through all for each part would be without bound."""
    table = EVENT_TABLES[resource_type]
    order = f"ORDER BY {', '.join(identifier(name) for name in table.sort)}"
    ((count, last),) = con.execute(f"SELECT count(*), max(row_no) FROM {staged(resource_type)}").fetchall()
    together = max(1, buckets * ROWS_AT_ONCE // count)
    if together >= buckets:
        con.execute(f"INSERT INTO lake.{table.name}\n{rows}\n{order}")
        return
    spill = spill_folder(con) / table.name
    spill.mkdir(parents=True)
    for first in range(0, last + 1, ROWS_AT_ONCE):
        con.execute(f"""
COPY (
SELECT *, bucket // {together} AS part
FROM ({rows}
WHERE s.row_no BETWEEN {first} AND {first + ROWS_AT_ONCE - 1}
)
) TO {literal(str(spill))}
(FORMAT parquet, COMPRESSION uncompressed, PARTITION_BY (part), OVERWRITE_OR_IGNORE,
FILENAME_PATTERN 'from-{first}-{{i}}')""")
    for part in range(-(-buckets // together)):
        folder = spill / f"part={part}"
        if folder.exists():
            con.execute(f"""
INSERT INTO lake.{table.name}
SELECT *
FROM read_parquet({literal(parquet_in(folder))}, hive_partitioning => false)
{order}""")
            shutil.rmtree(folder)
    spill.rmdir()


def event_sql(resource_type: str, run: LandedRun, store_seq: int, zone: str) -> str:
    """The statement that gives the event rows of one resource type, whose wall-clock times are of `zone`."""
    table = EVENT_TABLES[resource_type]
    expressions = {
        "site": literal(run.site),
        "bucket": "v.bucket",
        "source": literal(run.source),
        "run_id": literal(run.run_id),
        "store_seq": str(store_seq),
        **_SHARED,
        **_EXPRESSIONS[resource_type],
    }
    columns = ",\n  ".join(f"{expressions.get(name, f's.{name}')} AS {identifier(name)}" for name in table.names)
    columns = columns.replace("{zone}", literal(zone))
    joins = _JOINS.get(resource_type, "")
    if joins:
        joins = f"\nJOIN policies p ON p.resource_type = '{resource_type}' AND p.categories = s.categories{joins}"
    return f"""
SELECT
  {columns}
FROM {staged(resource_type)} s
JOIN placed v USING (row_no){joins}"""
