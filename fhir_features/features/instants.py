"""At which instants may the answers of a view change: the spine of a feature table of cadence `on_change`.

In go a plan whose members stand (`terms.create_members`) and the temporary table `spans` (site, built_to, built_seq,
reach); out comes the statement for the questions of some buckets: for each patient the instants in (built_to, reach] at
which something became known or true, was closed, ended, or left a window (TIME rule 22), and `reach` itself for the
patients about whom the store has learned something since `built_seq`.
"""

from __future__ import annotations

from fhir_features.features.compile import Plan, leaves
from fhir_features.features.counting import ENDS_AT, MEMBERS
from fhir_features.features.nodes import Aggregate, PatientFact
from fhir_features.lake import EVENT_TABLES, literal

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}

# In years; longer than anyone has lived.
_LONGEST_LIFE = 150


def change_instants(plan: Plan) -> str:
    """The statement; its parameters are `first_bucket` and `last_bucket`, its rows (site, bucket, patient_id, t)."""
    parts = [_instants_of_rows(plan, table) for table in plan.selections]
    if plan.reads_encounters:
        parts.append(_instants("encounters", "[e.end_at]"))
    parts.append(_instants("patients", _birthdays(plan), begins="e.known_at"))
    tables = [_TYPE_OF[table] for table in plan.selections] + ["Patient"] + ["Encounter"] * plan.reads_encounters
    listed = ", ".join(literal(resource_type) for resource_type in sorted(set(tables)))
    all_instants = "\n  UNION ALL\n".join(parts)
    return f"""WITH instants AS (
{all_instants}
),
news AS (
  SELECT site, bucket, patient_id
  FROM instants
  WHERE is_news
  UNION
  SELECT c.site, c.bucket, c.patient_id
  FROM lake.closings c
  JOIN spans s ON s.site = c.site
  WHERE c.bucket BETWEEN $first_bucket AND $last_bucket
    AND c.resource_type IN ({listed})
    AND c.store_seq > s.built_seq
)
SELECT i.site, i.bucket, i.patient_id, i.t
FROM instants i
JOIN spans s ON s.site = i.site
WHERE i.t > s.built_to
  AND i.t <= s.reach
UNION
SELECT n.site, n.bucket, n.patient_id, s.reach
FROM news n
JOIN spans s ON s.site = n.site"""


def _instants_of_rows(plan: Plan, table: str) -> str:
    values = [value for feature in plan.features for value in leaves(feature.value)]
    windows = [value.window for value in values if isinstance(value, Aggregate) and value.rows.table == table]
    edges = sorted({us for window in windows for us in (window.start_us, window.end_us) if us})
    moments = [f"e.effective_at + to_microseconds({us})" for us in edges]
    ends = {"conditions": ["e.abatement_at"], "medication_requests": [ENDS_AT], "encounters": ["e.end_at"]}
    moments += ends.get(table, [])
    return _instants(table, f"[{', '.join(moments)}]", f"\n    JOIN {table}_members m ON {MEMBERS[table]}")


def _instants(table: str, moments: str, members: str = "", begins: str = "greatest(e.known_at, e.effective_at)") -> str:
    """One row an instant at which a version of a resource begins to count, ceases to, or changes its part."""
    return f"""  SELECT site, bucket, patient_id, is_news, unnest(moments) AS t
  FROM (
    SELECT
      e.site, e.bucket, e.patient_id,
      e.store_seq > s.built_seq AS is_news,
      list_filter(
        [{begins}, e.known_to] || {moments},
        lambda t: t >= {begins} AND (t <= e.known_to OR e.known_to IS NULL)
      ) AS moments
    FROM {table} e
    JOIN spans s ON s.site = e.site{members}
    WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
  )"""


def _birthdays(plan: Plan) -> str:
    values = [value for feature in plan.features for value in leaves(feature.value)]
    if not any(isinstance(value, PatientFact) and value.operator == "age" for value in values):
        return "[]"
    # The day after, too: who was born on 29 February is a year older on 1 March of other years.
    days = "CAST(e.birth_date + to_years(n // 2) + to_days(n % 2) AS TIMESTAMPTZ)"
    return f"list_transform(range({2 * _LONGEST_LIFE}), lambda n: {days})"
