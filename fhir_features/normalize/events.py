"""The rows of the lake: staging, order and clocks of each slice in, INSERTs into the lake out.

State 0 of a snapshot shows the elements that are revised in place as they stood first (TIME rule 9): a condition as
present, an order as ordered, an encounter as in progress, a patient as alive.
"""

from __future__ import annotations

import duckdb

from fhir_features.lake import EVENT_TABLES, bucket_count, identifier, literal
from fhir_features.lake.schema import CLOSINGS, MEDICATIONS, PROVENANCES, REPORTED_RESULTS, VERSIONS
from fhir_features.normalize.run_tables import PARTS_AT_ONCE, ROWS_AT_ONCE, Given, RunTables
from fhir_features.normalize.staging import Staging, staged
from fhir_features.sources import LandedRun


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
LEFT JOIN encounters_of_conditions e ON e.encounter_id = CASE WHEN p.encounter_diagnosis THEN s.encounter_id END
""",
}


_INDEX = """
SELECT v.resource_type, v.resource_id, v.version, v.version_no, v.version_id, v.outcome, v.witnessed, v.withdrawn,
  v.bucket, v.patient_id, k.states, k.known_at, v.last_updated, v.version_number, v.history_place, v.received_at,
  v.content_hash, v.identity, v.row_no
FROM new_versions v
JOIN version_clocks k USING (row_no)"""

# What else is kept of resources, by their types.
_SUPPORTING = {
    "Medication": (
        MEDICATIONS,
        """
SELECT v.resource_id, v.version, s.code_id, s.code_text
FROM staged_medications s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized'""",
    ),
    "DiagnosticReport": (
        REPORTED_RESULTS,
        """
SELECT s.observation_id, v.resource_id, v.version, s.issued_last AS issued_at
FROM staged_reported_results s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized' AND NOT v.withdrawn AND s.issued_last IS NOT NULL""",
    ),
    "Provenance": (
        PROVENANCES,
        """
SELECT s.target_type, s.target_id, v.resource_id, v.version, s.recorded_last AS recorded_at, s.transmitted
FROM staged_provenances s
JOIN new_versions v USING (row_no)
WHERE v.outcome = 'normalized'""",
    ),
}


def put_rows(con: duckdb.DuckDBPyConnection, staging: Staging, run: LandedRun, zone: str) -> None:
    """Put aside the rows of all new versions of the open slice, and their entries of the index.

    Rows of events are wide: they are put aside by buckets, as many together as are sorted at once.
    """
    con.execute("""
CREATE OR REPLACE TEMP TABLE placed AS
SELECT v.row_no, v.bucket, v.patient_id, v.resource_id, v.version, v.version_no, c.state, c.known_at, c.known_at_source
FROM new_versions v
JOIN clocks c USING (row_no)""")
    for resource_type, table in EVENT_TABLES.items():
        if staging.tables.has_rows(staged(resource_type)):
            rows = event_sql(resource_type, zone)
            buckets, count = bucket_count(con), staging.rows[staged(resource_type)]
            together = max(-(-buckets // PARTS_AT_ONCE), buckets * ROWS_AT_ONCE // count)
            parts = -(-buckets // together)
            staging.tables.put(table.name, rows, _given(run), by=f"bucket // {together}", parts=parts)
    for resource_type, (table, rows) in _SUPPORTING.items():
        if staging.tables.has_rows(staged(resource_type)):
            staging.tables.put(table.name, rows, _given(run))
    staging.tables.put(VERSIONS.name, _INDEX, _given(run))


def insert_rows(con: duckdb.DuckDBPyConnection, tables: RunTables, store_seq: int) -> None:
    """Insert what was put aside, each part or group of it sorted, to a file of its own."""
    for table in (*EVENT_TABLES.values(), MEDICATIONS, REPORTED_RESULTS, PROVENANCES, VERSIONS, CLOSINGS):
        # A run is of one site.
        order = ", ".join(identifier(name) for name in table.sort if name != "site")
        for rows, given in tables.taken(table.name):
            con.execute(f"""
INSERT INTO lake.{table.name} BY NAME
SELECT {", ".join(("*", *given, f"{store_seq} AS store_seq"))}
FROM (
  FROM {rows}
  ORDER BY {order}
)""")


def _given(run: LandedRun) -> Given:
    return f"{literal(run.site)} AS site", f"{literal(run.source)} AS source", f"{literal(run.run_id)} AS run_id"


def event_sql(resource_type: str, zone: str) -> str:
    """The statement that gives the event rows of one resource type, whose wall-clock times are of `zone`; without what
    all rows of a run share."""
    table = EVENT_TABLES[resource_type]
    expressions = {"bucket": "v.bucket", **_SHARED, **_EXPRESSIONS[resource_type]}
    names = [name for name in table.names if name not in ("site", "source", "run_id", "store_seq")]
    columns = ",\n  ".join(f"{expressions.get(name, f's.{name}')} AS {identifier(name)}" for name in names)
    columns = columns.replace("{zone}", literal(zone))
    joins = _JOINS.get(resource_type, "")
    if joins:
        joins = f"\nJOIN policies p ON p.resource_type = '{resource_type}' AND p.categories = s.categories{joins}"
    return f"""
SELECT
  {columns}
FROM {staged(resource_type)} s
JOIN placed v USING (row_no){joins}"""
