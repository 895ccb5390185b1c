"""The tables of the lake: their columns, what a row is, and how rows are ordered in files.

Every table is append-only and carries `store_seq`, the number of the commit that brought the row. All instants are
UTC with microseconds. A version of a resource is one row of `versions` and one row (for Observations one a component,
for snapshots up to two states) of the event table of its type.
"""

from __future__ import annotations

from fhir_features.lake.ledger import COMMITS, FINDINGS, META, QUARANTINE, QUARANTINE_RESOLVED, WATERMARKS
from fhir_features.lake.table import Columns, Table

FORMAT_VERSION = 6

# What every event row has, in this order, before the columns of its type.
_EVENT: Columns = (
    ("site", "VARCHAR"),
    ("bucket", "USMALLINT"),  # bucket_of(site, patient_id)
    ("patient_id", "VARCHAR"),
    ("resource_id", "VARCHAR"),
    ("version", "VARCHAR"),  # versionId, or what stands for it: see normalize.versions
    ("version_no", "BIGINT"),  # the version's number in the lake
    ("state", "UTINYINT"),  # 0: the earlier state that a snapshot implies (TIME rule 9); 1: as received
    ("effective_at", "TIMESTAMPTZ"),
    ("effective_text", "VARCHAR"),  # as written; null when it was derived
    ("effective_precision", "VARCHAR"),  # year, month, day, minute, second, subsecond, or 'derived'
    ("known_at", "TIMESTAMPTZ"),
    ("known_at_source", "VARCHAR"),  # TIME rule 11
    ("encounter_id", "VARCHAR"),
)
_ORIGIN: Columns = (("source", "VARCHAR"), ("run_id", "VARCHAR"), ("store_seq", "BIGINT"))

_CODE: Columns = (("code_id", "BIGINT"), ("code_text", "VARCHAR"), ("categories", "VARCHAR[]"))


OBSERVATIONS = Table(
    "observations",
    (
        *_EVENT,
        ("component", "USMALLINT"),  # 0: the Observation's own value; n: its nth component
        ("status", "VARCHAR"),
        *_CODE,
        ("value_type", "VARCHAR"),  # Quantity, CodeableConcept, string, boolean, integer, Range, Ratio, SampledData, …
        ("value_number", "DOUBLE"),  # of a Quantity or an integer; of a comparator its limit
        ("value_comparator", "VARCHAR"),  # < <= >= >
        ("unit_id", "BIGINT"),  # into `units`
        ("value_code_id", "BIGINT"),  # into `codings`
        ("value_string", "VARCHAR"),  # of a string or a time
        ("value_boolean", "BOOLEAN"),
        ("value_start", "TIMESTAMPTZ"),  # of a dateTime or a Period: its first instant
        ("value_end", "TIMESTAMPTZ"),
        ("value_low", "DOUBLE"),  # of a Range
        ("value_high", "DOUBLE"),
        ("value_json", "VARCHAR"),  # a Ratio or SampledData as it came: never coerced to one number (TIME rule 15)
        ("absent_reason", "VARCHAR"),
        ("interpretations", "VARCHAR[]"),
        ("reference_low", "DOUBLE"),
        ("reference_high", "DOUBLE"),
        ("reference_text", "VARCHAR"),
        ("method_code_id", "BIGINT"),
        ("body_site_code_id", "BIGINT"),
        ("device_id", "VARCHAR"),
        ("derived_from", "VARCHAR[]"),  # hasMember and derivedFrom: `explain` flags them (TIME rule 16)
        *_ORIGIN,
    ),
    (
        "bucket",
        "site",
        "patient_id",
        "code_id",
        "effective_at",
        "known_at",
        "resource_id",
        "version",
        "state",
        "component",
    ),
)

_EVENT_SORT = ("bucket", "site", "patient_id", "effective_at", "known_at", "resource_id", "version", "state")

CONDITIONS = Table(
    "conditions",
    (
        *_EVENT,
        *_CODE,
        ("clinical_status", "VARCHAR"),
        ("verification_status", "VARCHAR"),
        ("severity_code_id", "BIGINT"),
        ("abatement_at", "TIMESTAMPTZ"),  # the first instant at which it may have been over
        ("abatement_text", "VARCHAR"),
        ("recorded_at", "TIMESTAMPTZ"),
        *_ORIGIN,
    ),
    _EVENT_SORT,
)

MEDICATION_REQUESTS = Table(
    "medication_requests",
    (
        *_EVENT,
        ("status", "VARCHAR"),
        *_CODE,
        ("intent", "VARCHAR"),
        ("medication_id", "VARCHAR"),  # of the Medication that it points to, when it points to one
        ("authored_at", "TIMESTAMPTZ"),
        ("bounds_end", "TIMESTAMPTZ"),  # end of dosage boundsPeriod
        ("dosage_days", "DOUBLE"),  # dosage boundsDuration
        ("supply_days", "DOUBLE"),  # dispenseRequest.expectedSupplyDuration
        ("repeats", "INTEGER"),  # dispenseRequest.numberOfRepeatsAllowed
        ("dose", "DOUBLE"),
        ("dose_unit_id", "BIGINT"),
        ("do_not_perform", "BOOLEAN"),
        ("reported", "BOOLEAN"),
        *_ORIGIN,
    ),
    _EVENT_SORT,
)

ENCOUNTERS = Table(
    "encounters",
    (
        *_EVENT,
        ("status", "VARCHAR"),
        ("class_system", "VARCHAR"),
        ("class_code", "VARCHAR"),
        ("type_code_ids", "BIGINT[]"),
        ("start_at", "TIMESTAMPTZ"),
        ("end_at", "TIMESTAMPTZ"),
        ("end_latest_at", "TIMESTAMPTZ"),  # the last instant at which it may have ended: diagnoses are coded after it
        ("discharge_disposition", "VARCHAR"),
        (
            "admission_diagnoses",
            "VARCHAR[]",
        ),  # ids of the Conditions that it names as such (Encounter.diagnosis.use AD)
        *_ORIGIN,
    ),
    _EVENT_SORT,
)

PATIENTS = Table(
    "patients",
    (
        *_EVENT,
        ("birth_date", "DATE"),  # the first day that it may be
        ("birth_text", "VARCHAR"),
        ("sex", "VARCHAR"),  # Patient.gender
        ("deceased", "BOOLEAN"),
        ("deceased_at", "TIMESTAMPTZ"),
        ("replaced_by", "VARCHAR[]"),
        ("replaces", "VARCHAR[]"),
        *_ORIGIN,
    ),
    _EVENT_SORT,
)

# One row a resource version that was received and whose id could be read: the index that orders versions, finds
# duplicates, and says in which bucket the one before a version lies (TIME rules 7 and 13). What is stated anew
# (normalize.restating) or passes a retry gets a second row, the newer of which counts.
VERSIONS = Table(
    "versions",
    (
        ("site", "VARCHAR"),
        ("resource_type", "VARCHAR"),
        ("resource_id", "VARCHAR"),
        ("version", "VARCHAR"),
        ("version_no", "BIGINT"),  # names it in the event table and the closings: below 0 for such a second row
        ("version_id", "VARCHAR"),
        ("outcome", "VARCHAR"),  # normalized, quarantined, deleted
        ("witnessed", "BOOLEAN"),  # whether its beginning was seen (TIME rule 6)
        ("withdrawn", "BOOLEAN"),  # entered-in-error
        ("bucket", "USMALLINT"),
        ("patient_id", "VARCHAR"),
        ("states", "UTINYINT"),  # how many states of it the event table has: 0, 1 or 2
        ("known_at", "TIMESTAMPTZ"),  # of the version as received
        ("last_updated", "TIMESTAMPTZ"),
        ("version_number", "BIGINT"),  # versionId, where it is an integer
        ("history_place", "BIGINT"),  # orders the versions of one instant that a history brought; else null
        ("received_at", "TIMESTAMPTZ"),
        ("content_hash", "BIGINT"),  # null where versionId and lastUpdated are stated
        ("identity", "BIGINT"),  # the hash of an identifier that the source declares to be that of one result
        ("row_no", "BIGINT"),  # its place in the run
        *_ORIGIN,
    ),
    ("resource_type", "site", "resource_id", "version"),
)

# Which state of which version was closed, when and by what. known_to is the earliest closed_at of its rows here.
CLOSINGS = Table(
    "closings",
    (
        ("site", "VARCHAR"),
        ("bucket", "USMALLINT"),
        ("patient_id", "VARCHAR"),
        ("resource_type", "VARCHAR"),
        ("resource_id", "VARCHAR"),
        ("version", "VARCHAR"),
        ("version_no", "BIGINT"),
        ("state", "UTINYINT"),
        ("closed_at", "TIMESTAMPTZ"),
        (
            "reason",
            "VARCHAR",
        ),  # superseded, entered-in-error, deleted, subject-changed, quarantined, revised, witnessed, reopened
        ("closed_by", "VARCHAR"),  # the version that closed it
        ("store_seq", "BIGINT"),
    ),
    ("bucket", "resource_type", "site", "patient_id", "resource_id", "version", "state"),
)

# The codings dictionary: one row a coding of a distinct CodeableConcept.
CODINGS = Table(
    "codings",
    (
        ("code_id", "BIGINT"),
        ("ordinal", "SMALLINT"),
        ("system", "VARCHAR"),
        ("code", "VARCHAR"),
        ("version", "VARCHAR"),
        ("display", "VARCHAR"),
        ("user_selected", "BOOLEAN"),
        ("store_seq", "BIGINT"),
    ),
    ("code_id", "ordinal"),
)

UNITS = Table(
    "units",
    (
        ("unit_id", "BIGINT"),
        ("system", "VARCHAR"),
        ("code", "VARCHAR"),
        ("unit", "VARCHAR"),
        ("store_seq", "BIGINT"),
    ),
    ("unit_id",),
)

# In which units the numbers of each code came, null for none: what a feature may have to convert.
MEASURED_UNITS = Table(
    "measured_units",
    (("code_id", "BIGINT"), ("unit_id", "BIGINT"), ("store_seq", "BIGINT")),
    ("code_id", "unit_id"),
)

# What each code_id means under a lock: ranked concepts, rank 0 the canonical one (fhir_features.ontology).
RESOLUTION = Table(
    "resolution",
    (
        ("lock_id", "VARCHAR"),
        ("code_id", "BIGINT"),
        ("valid_from", "DATE"),
        ("valid_to", "DATE"),
        ("rank", "SMALLINT"),
        ("system", "VARCHAR"),
        ("code", "VARCHAR"),
        ("display", "VARCHAR"),
        ("status", "VARCHAR"),
        ("via", "VARCHAR"),
        ("flags", "VARCHAR[]"),
        ("store_seq", "BIGINT"),
    ),
    ("lock_id", "code_id", "valid_from", "rank"),
)

UNIT_RESOLUTION = Table(
    "unit_resolution",
    (("lock_id", "VARCHAR"), ("unit_id", "BIGINT"), ("ucum", "VARCHAR"), ("store_seq", "BIGINT")),
    ("lock_id", "unit_id"),
)

# The Medications that orders point to.
MEDICATIONS = Table(
    "medications",
    (
        ("site", "VARCHAR"),
        ("resource_id", "VARCHAR"),
        ("version", "VARCHAR"),
        ("code_id", "BIGINT"),
        ("code_text", "VARCHAR"),
        *_ORIGIN,
    ),
    ("site", "resource_id", "version"),
)

# When a DiagnosticReport that names an Observation was issued: an author time for results that have none of their own.
REPORTED_RESULTS = Table(
    "reported_results",
    (
        ("site", "VARCHAR"),
        ("observation_id", "VARCHAR"),
        ("resource_id", "VARCHAR"),  # of the DiagnosticReport
        ("version", "VARCHAR"),
        ("issued_at", "TIMESTAMPTZ"),
        *_ORIGIN,
    ),
    ("site", "observation_id", "issued_at", "resource_id", "version"),
)

# When a Provenance of a resource was recorded, and whether it came from another system (TIME rule 10).
PROVENANCES = Table(
    "provenances",
    (
        ("site", "VARCHAR"),
        ("target_type", "VARCHAR"),
        ("target_id", "VARCHAR"),
        ("resource_id", "VARCHAR"),  # of the Provenance
        ("version", "VARCHAR"),
        ("recorded_at", "TIMESTAMPTZ"),
        ("transmitted", "BOOLEAN"),
        *_ORIGIN,
    ),
    ("site", "target_type", "target_id", "recorded_at", "resource_id", "version"),
)

EVENT_TABLES: dict[str, Table] = {
    "Patient": PATIENTS,
    "Encounter": ENCOUNTERS,
    "Observation": OBSERVATIONS,
    "Condition": CONDITIONS,
    "MedicationRequest": MEDICATION_REQUESTS,
}

TABLES: tuple[Table, ...] = (
    *EVENT_TABLES.values(),
    VERSIONS,
    CLOSINGS,
    CODINGS,
    UNITS,
    MEASURED_UNITS,
    RESOLUTION,
    UNIT_RESOLUTION,
    MEDICATIONS,
    REPORTED_RESULTS,
    PROVENANCES,
    QUARANTINE,
    QUARANTINE_RESOLVED,
    FINDINGS,
    WATERMARKS,
    COMMITS,
    META,
)
