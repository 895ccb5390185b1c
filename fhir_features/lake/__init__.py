"""The store: how to reach it, what its tables are, how to commit to it and how to read it as of a commit."""

from fhir_features.lake.attach import (
    bucket_count,
    bucket_sql,
    commit,
    connect,
    first_version_no,
    identifier,
    in_buckets_sql,
    in_memory,
    literal,
    patient_hash_sql,
    reading,
    spill_folder,
    writing,
)
from fhir_features.lake.evidence import Evidence, create_received_versions, evidence
from fhir_features.lake.measured import add_measured_units
from fhir_features.lake.scan import create_views, newest_store_seq
from fhir_features.lake.schema import EVENT_TABLES
from fhir_features.lake.table import Table
from fhir_features.lake.usage import code_counts, rows_and_patients

__all__ = [
    "EVENT_TABLES",
    "Evidence",
    "Table",
    "add_measured_units",
    "bucket_count",
    "bucket_sql",
    "code_counts",
    "commit",
    "connect",
    "create_received_versions",
    "create_views",
    "evidence",
    "first_version_no",
    "identifier",
    "in_buckets_sql",
    "in_memory",
    "literal",
    "newest_store_seq",
    "patient_hash_sql",
    "reading",
    "rows_and_patients",
    "spill_folder",
    "writing",
]
