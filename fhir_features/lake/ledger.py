"""The tables that keep the books of the lake: what each commit brought, what was set aside, how far sources were seen.

Columns are stated as in `schema`, which has the tables of what is known of patients.
"""

from __future__ import annotations

from fhir_features.lake.table import Table

# What could not be normalized, by its place in the landing: `<source>/<run_id>/<file>`. Such a row is open until
# `quarantine_resolved` has a later one of the same number. No value of a resource is in it.
QUARANTINE = Table(
    "quarantine",
    (
        ("source", "VARCHAR"),
        ("site", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("row_no", "BIGINT"),  # its place in the run, as in `versions`
        ("file", "VARCHAR"),
        ("line", "BIGINT"),  # from 1; of a Bundle file the number of the entry
        ("entry", "INTEGER"),  # from 1, of a Bundle that is one line of an NDJSON file; else null
        ("resource_type", "VARCHAR"),
        ("resource_id", "VARCHAR"),
        ("json_path", "VARCHAR"),
        ("rule", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("store_seq", "BIGINT"),
    ),
    ("run_id", "file", "line", "entry"),
)

# Which rows of the quarantine a retry read to another end: as something that passes, or set aside for another reason.
QUARANTINE_RESOLVED = Table(
    "quarantine_resolved",
    (
        ("source", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("row_no", "BIGINT"),
        ("store_seq", "BIGINT"),
    ),
    ("source", "run_id", "row_no"),
)

# What validation found in resources that were normalized all the same (`normalize.validation`). No value is in it.
FINDINGS = Table(
    "findings",
    (
        ("source", "VARCHAR"),
        ("site", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("file", "VARCHAR"),
        ("line", "BIGINT"),
        ("entry", "INTEGER"),
        ("resource_type", "VARCHAR"),
        ("resource_id", "VARCHAR"),
        ("json_path", "VARCHAR"),
        ("rule", "VARCHAR"),
        ("store_seq", "BIGINT"),
    ),
    ("run_id", "file", "line", "entry", "json_path", "rule"),
)

# One row a normalized run and resource type. The newest row of a site and type has its watermark.
WATERMARKS = Table(
    "watermarks",
    (
        ("site", "VARCHAR"),
        ("resource_type", "VARCHAR"),
        ("watermark", "TIMESTAMPTZ"),
        ("kind", "VARCHAR"),  # of the source
        ("source", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("store_seq", "BIGINT"),
    ),
    ("site", "resource_type"),
)

# One row a commit and run that it brought: the store's own clock, and the balance of what the run received. A retry
# adds a row a run, which says by how much its counts change: the sums of a run balance too.
COMMITS = Table(
    "commits",
    (
        ("store_seq", "BIGINT"),
        ("source", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("received", "BIGINT"),
        ("normalized", "BIGINT"),
        ("quarantined", "BIGINT"),
        ("duplicates", "BIGINT"),
        ("ignored", "BIGINT"),
    ),
    ("store_seq",),
)

# What is fixed when a lake is made: format_version, buckets.
META = Table("meta", (("key", "VARCHAR"), ("value", "VARCHAR")), ("key",))
