"""How are the clocks of a source read, for one resource type and its categories (TIME rule 11)?

In go the source's configuration and the combinations of categories that occur; out comes the temporary table
`policies` (resource_type, categories, policy, tolerance, trusted, migrated_before, bedside, encounter_diagnosis), a row
a combination. What has no categories, or cannot be read, is of the empty combination.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from fhir_features.config import Source
from fhir_features.normalize.rows import RAW_TABLES
from fhir_features.normalize.staging import staged
from fhir_features.times import duration_us

HAVE_CATEGORIES = ("Observation", "Condition", "MedicationRequest")

# meta.lastUpdated where it is the server's own clock, of a version `v` under a policy `p`.
SERVER_AT = "CASE WHEN p.trusted AND (v.last_updated >= p.migrated_before) IS NOT FALSE THEN v.last_updated END"


def create_policies(con: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Make `policies` for all combinations of categories in the staging."""
    con.execute("""
CREATE TEMP TABLE policies (
  resource_type VARCHAR, categories VARCHAR[], policy VARCHAR, tolerance BIGINT, trusted BOOLEAN,
  migrated_before TIMESTAMPTZ, bedside BOOLEAN, encounter_diagnosis BOOLEAN)""")
    for resource_type in RAW_TABLES:
        combinations: list[list[str]] = [[]]
        if resource_type in HAVE_CATEGORIES:
            sql = f"SELECT DISTINCT categories FROM {staged(resource_type)} WHERE len(categories) > 0"
            combinations += [categories for (categories,) in con.execute(sql).fetchall()]
        add_policies(con, source, resource_type, combinations)


def add_policies(
    con: duckdb.DuckDBPyConnection, source: Source, resource_type: str, combinations: Iterable[list[str]]
) -> None:
    """Add to `policies` what the configuration says for some combinations of categories of a resource type."""
    for categories in combinations:
        con.execute("INSERT INTO policies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _policy(source, resource_type, categories))


def _policy(source: Source, resource_type: str, categories: list[str]) -> list[object]:
    return [
        resource_type,
        categories,
        source.setting("known_at", resource_type, categories),
        duration_us(source.setting("tolerance", resource_type, categories)),
        source.setting("trust_last_updated", resource_type, categories),
        source.setting("migrated_before", resource_type, categories),
        any(category in source.bedside for category in categories),
        "encounter-diagnosis" in (categories or [source.condition_category]),
    ]
