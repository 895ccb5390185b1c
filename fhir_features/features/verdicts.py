"""The verdict on each version that bears on a value: it counts, or the first rule by which it does not, as SQL.

In goes one value of a feature; out comes the statement that judges each row of the patient who is asked about, in the
order in which a person would. The rules are those of the engine's own statement (`counting.rules`). A statement reads
the views of `lake.create_views`, the tables of one question (`engine.ask`) and the members of this value alone.
"""

from __future__ import annotations

from fhir_features.features import counting
from fhir_features.features.compile import seen_window
from fhir_features.features.nodes import Aggregate, Observations, PatientFact
from fhir_features.features.operators import OPERATORS
from fhir_features.lake import EVENT_TABLES, literal

COUNTS = "counts"

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}

# What the patient's own record says, as text; and what its versions are judged by, newest first.
_PATIENT_TEXT = {
    "sex": "e.sex",
    "deceased": "CAST(coalesce(e.deceased, false) AS VARCHAR)",
    "age": "CAST(e.birth_date AS VARCHAR)",
    "age_days": "CAST(e.birth_date AS VARCHAR)",
}


# What a version says of itself, which its verdict may rest on; and the value of a result as its source wrote it.
_STATUS = {"conditions": "concat_ws(', ', e.clinical_status, e.verification_status)"}
_WRITTEN = """nullif(concat_ws(
    ' ',
    coalesce(
      coalesce(e.value_comparator, '') || format('{:.12g}', e.value_number),
      e.value_string,
      CAST(e.value_boolean AS VARCHAR)
    ),
    coalesce(u.unit, u.code)
  ), '')"""


def verdicts(value: Aggregate | PatientFact) -> str:
    """The statement that judges the rows of a value: a row a version (of snapshots, a state), in the order of ties.

    Its columns are those of `explain.Explanation.rows`, without `part` and `decides`, and `read`: what the operator
    reads of the row.
    """
    return _of_records(value) if isinstance(value, PatientFact) else _of_events(value)


# The records of the person, and whether K knows them to be; the encounters, as K knows them; and the sources of results
# that were closed, each when it was.
_OF_THE_PERSON = """WITH records AS (
  SELECT
    a.t, a.k, p.site, p.bucket, p.patient_id,
    bool_or(coalesce(p.since <= a.k, true) AND coalesce(p.until > a.k, true)) AS is_same
  FROM asked a
  JOIN persons r USING (person)
  JOIN people p
    ON p.asked_site = r.site
    AND p.asked_patient_id = r.patient_id
  GROUP BY ALL
),
encounters_seen AS (
  SELECT n.resource_id, n.class_code, coalesce(n.end_at > q.t, true) AS is_going_on
  FROM records q
  JOIN encounters n
    ON n.site = q.site
    AND n.patient_id = q.patient_id
    AND n.bucket = q.bucket
  WHERE q.is_same
    AND n.known_at <= q.k
    AND coalesce(n.known_to > q.k, true)
    AND n.effective_at <= q.t
    AND n.status IN {statuses}
),
closed_sources AS (
  SELECT c.resource_id, c.closed_at
  FROM records q
  JOIN lake.closings c
    ON c.site = q.site
    AND c.patient_id = q.patient_id
    AND c.bucket = q.bucket
  WHERE c.resource_type = 'Observation'
    AND c.closed_at <= q.k
)"""

_CLOSED = {"e.known_to <= q.k": "concat('it was closed: ', coalesce(r.reason, 'superseded'))"}

_CLOSED_BY = """LEFT JOIN (
  SELECT version_no, state, arg_min(reason, ROW(closed_at, reason)) AS reason
  FROM lake.closings
  WHERE resource_type = {resource_type}
    AND bucket IN (SELECT bucket FROM records)
  GROUP BY ALL
) r
  ON r.version_no = e.version_no
  AND r.state = e.state"""

_SOURCE_CHANGED = """EXISTS (
    FROM closed_sources c
    WHERE c.closed_at > e.known_at
      AND list_contains(
        list_transform(e.derived_from, lambda source: regexp_extract(source, 'Observation/([^/]+)', 1)),
        c.resource_id
      )
  )"""


def _of_events(value: Aggregate) -> str:
    table = value.rows.table
    window = value.window
    begins = f"q.t - to_microseconds({window.start_us})" if window.start_us is not None else None
    classes = getattr(value.rows, "encounter_classes", ())
    judged = {
        "NOT q.is_same": "'its record was not known to be of the same person'",
        "e.known_at > q.k": "'it was not yet known'",
        **_CLOSED,
        **{f"({rule}) IS NOT TRUE": literal(name) for name, rule in counting.rules(table, (value.rows,)).items()},
        f"e.effective_at > q.t - to_microseconds({window.end_us})": "'it lies after the window'",
    }
    if classes:
        judged["e.encounter_id IS NULL"] = "'it names no encounter'"
        of_class = f"SELECT resource_id FROM encounters_seen WHERE class_code IN {counting.listed(classes)}"
        judged[f"e.encounter_id NOT IN ({of_class})"] = "'its encounter is of another class, or was not known'"
    judged |= {condition: literal(verdict) for condition, verdict in _too_early(value, begins).items()}
    cases = _cases(judged)
    unmapped = "WHEN m.selection IS NULL THEN 'its code is not mapped'\n    " if table != "encounters" else ""
    only_relevant = (
        "m.selection IS NOT NULL"
        if table == "encounters"
        else "(m.selection IS NOT NULL OR e.code_id NOT IN (SELECT code_id FROM resolved))"
    )
    of_the_person = _OF_THE_PERSON.format(statuses=counting.listed(counting.ENCOUNTER_STATUSES))
    canonical = f"LEFT JOIN canonical v ON v.code_id = {counting.CONCEPT_OF[table]}\n" if table != "encounters" else ""
    if value.operator == "count_ingredients":
        canonical += "LEFT JOIN ingredients i ON i.code_id = e.code_id\n"
    if table == "observations":
        canonical += "LEFT JOIN units u ON u.unit_id = e.unit_id\n"
    return f"""{of_the_person}
SELECT
  {literal(_TYPE_OF[table])} AS resource_type,
  e.patient_id, e.resource_id, e.version, e.state,
  CAST({"e.component" if table == "observations" else "0"} AS USMALLINT) AS component,
  e.effective_at, e.effective_text, e.known_at, e.known_to, e.known_at_source,
  {_STATUS.get(table, "e.status")} AS status,
  {_SOURCE_CHANGED if table == "observations" else "false"} AS source_changed,
  {_WRITTEN if table == "observations" else "CAST(NULL AS VARCHAR)"} AS written,
  {counting.VALUE if _has_number(value) else "CAST(NULL AS DOUBLE)"} AS number,
  {"v.concept" if canonical else "e.class_code"} AS text,
  {_read(value)} AS read,
  CASE
    {unmapped}{cases}
    ELSE {literal(COUNTS)}
  END AS verdict
FROM records q
JOIN {table} e
  ON e.site = q.site
  AND e.patient_id = q.patient_id
  AND e.bucket = q.bucket
LEFT JOIN {table}_members m ON {counting.MEMBERS[table]}{counting.JOIN_CONVERSIONS if table == "observations" else ""}
{canonical}{_CLOSED_BY.format(resource_type=literal(_TYPE_OF[table]))}
WHERE {only_relevant}
ORDER BY e.effective_at, e.known_at, e.resource_id, component, e.version, e.state"""


def _too_early(value: Aggregate, begins: str | None) -> dict[str, str]:
    """The conditions under which a row was over before it could count, each with its verdict."""
    columns = counting.ROW_COLUMNS[value.rows.table]
    if value.operator != "active":
        if begins is None:
            return {}
        if seen_window(value) == value.window:
            return {f"e.effective_at <= {begins}": "it lies before the window"}
        return {f"{columns['covers_to']} <= {begins}": "it was over before the window"}
    if value.rows.table == "conditions":
        going_on = "SELECT resource_id FROM encounters_seen WHERE is_going_on"
        during = f"({columns['activity']}) = {counting.ACTIVE_DURING_ENCOUNTER}"
        return {
            f"({columns['activity']}) = 0": "its clinical status is not that of an active one",
            "e.abatement_at <= q.t": "it had abated",
            f"{during} AND (e.encounter_id IN ({going_on})) IS NOT TRUE": "its encounter is not going on",
        }
    if value.rows.table == "medication_requests":
        return {
            f"NOT {columns['is_in_force']}": "its status is not that of one in force",
            f"{columns['ends_at']} <= q.t": "it was over",
        }
    return {"e.end_at <= q.t": "it was over"}


def _of_records(value: PatientFact) -> str:
    judged = {"e.known_at > q.k": "'it was not yet known'", **_CLOSED}
    return f"""{_OF_THE_PERSON.format(statuses=counting.listed(counting.ENCOUNTER_STATUSES))}
SELECT
  'Patient' AS resource_type,
  e.patient_id, e.resource_id, e.version, e.state, CAST(0 AS USMALLINT) AS component,
  CAST(NULL AS TIMESTAMPTZ) AS effective_at, CAST(NULL AS VARCHAR) AS effective_text,
  e.known_at, e.known_to, e.known_at_source,
  CAST(NULL AS VARCHAR) AS status, false AS source_changed, CAST(NULL AS VARCHAR) AS written,
  CAST(NULL AS DOUBLE) AS number,
  {_PATIENT_TEXT[value.operator]} AS text,
  e.known_at AS read,
  CASE
    {_cases(judged)}
    ELSE {literal(COUNTS)}
  END AS verdict
FROM records q
JOIN persons USING (site, bucket, patient_id)
JOIN asked a USING (person)
JOIN patients e
  ON e.site = q.site
  AND e.patient_id = q.patient_id
  AND e.bucket = q.bucket
{_CLOSED_BY.format(resource_type="'Patient'")}
ORDER BY e.known_at, e.resource_id, e.version, e.state"""


def _cases(judged: dict[str, str]) -> str:
    return "\n    ".join(f"WHEN {condition} THEN {verdict}" for condition, verdict in judged.items())


def _has_number(value: Aggregate) -> bool:
    return isinstance(value.rows, Observations) and value.rows.unit is not None


def _read(value: Aggregate) -> str:
    """What the operator reads of a row; where that is nothing, when the row was true."""
    reads = OPERATORS[value.operator].reads
    return counting.ROW_COLUMNS[value.rows.table][reads[0]] if reads else "e.effective_at"
