"""Why is the answer what it is: which resource versions count for a feature at T, and by which rule others do not.

In go a feature and one question, and a connection that stands at a store_seq; out comes the answer and an Arrow table,
a row for each version of each resource of the patient with a code of the feature, or with one that means nothing under
the lock; where records are merged, of all records of the person. The rules are those of the engine's own statement
(`counting.rules`), told in the same order.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from fhir_features.features import counting
from fhir_features.features.compile import compile_features, leaves, seen_window
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Aggregate, Feature
from fhir_features.features.spine import INSTANT
from fhir_features.features.summary import unknown_questions
from fhir_features.features.terms import create_members
from fhir_features.lake import EVENT_TABLES, literal
from fhir_features.ontology import Ontologies

COUNTS = "counts"

_TYPE_OF = {table.name: resource_type for resource_type, table in EVENT_TABLES.items()}


@dataclass(frozen=True)
class Explanation:
    """The answer to a feature, and why.

    `rows`: resource_type, patient_id (the record that it is of), resource_id, version, state, component, effective_at,
    known_at, known_to, known_at_source, `source_changed` (a result that it is made from was closed after it was known:
    TIME rule 16) and `verdict`: `counts`, or the rule by which the row was left out. Instants are UTC microseconds.
    `ties`: how many rows that count were true and known at the same instants as another (TIME rule 5).
    `is_known`: whether the patient was known at K; of one who was not every answer is null.
    """

    answer: Any
    rows: pa.Table
    ties: int
    is_known: bool


def explain(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    feature: Feature,
    *,
    site: str,
    patient_id: str,
    t: dt.datetime,
    k: dt.datetime,
) -> Explanation:
    """The answer to a feature at T with what was known at K, and the verdict on each row that bears on it."""
    question = {"question": [0], "site": [site], "patient_id": [patient_id]}
    ask(con, pa.table({**question, "t": pa.array([t], INSTANT), "k": pa.array([k], INSTANT)}))
    plan = compile_features((feature,))
    create_members(con, known, plan)
    answer = next(answers(con, known, plan)).column(feature.name)[0].as_py()
    values = dict.fromkeys(value for value in leaves(feature.value) if isinstance(value, Aggregate))
    parts = []
    for value in values:
        # Each value alone, so that its selection is the first.
        alone = compile_features((Feature(name=feature.name, value=value),))
        create_members(con, known, alone)
        next(answers(con, known, alone))
        parts.append(con.execute(_verdicts(value)).to_arrow_table())
    if not parts:
        parts = [pa.table({name: pa.array([], pa.string()) for name in ("resource_type", "verdict")})]
    is_known = not len(unknown_questions(con))
    return Explanation(answer, pa.concat_tables(parts), sum(_ties(part) for part in parts), is_known)


def _ties(judged: pa.Table) -> int:
    """How many of the rows that count for a value share both instants with another one."""
    counting_rows = (row for row in judged.to_pylist() if row["verdict"] == COUNTS)
    instants = Counter((row["effective_at"], row["known_at"]) for row in counting_rows)
    return sum(number for number in instants.values() if number > 1)


# The records of the person, and whether K knows them to be; the encounters, as K knows them; and the sources of results
# that were closed, each when it was.
_OF_THE_PERSON = """WITH records AS (
  SELECT
    a.t, a.k, p.site, p.bucket, p.patient_id,
    bool_or(coalesce(p.since <= a.k, true) AND coalesce(p.until > a.k, true)) AS is_same
  FROM asked a
  JOIN people p
    ON p.asked_site = a.site
    AND p.asked_patient_id = a.patient_id
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

_SOURCE_CHANGED = """EXISTS (
    FROM closed_sources c
    WHERE c.closed_at > e.known_at
      AND list_contains(
        list_transform(e.derived_from, lambda source: regexp_extract(source, 'Observation/([^/]+)', 1)),
        c.resource_id
      )
  )"""


def _verdicts(value: Aggregate) -> str:
    """The statement that judges each row of the patient, in the order in which a person would."""
    table = value.rows.table
    window = value.window
    begins = f"q.t - to_microseconds({window.start_us})" if window.start_us is not None else None
    classes = getattr(value.rows, "encounter_classes", ())
    judged = {
        "NOT q.is_same": "'its record was not known to be of the same person'",
        "e.known_at > q.k": "'it was not yet known'",
        "e.known_to <= q.k": "concat('it was closed: ', coalesce(r.reason, 'superseded'))",
        **{f"({rule}) IS NOT TRUE": literal(name) for name, rule in counting.rules(table, (value.rows,)).items()},
        f"e.effective_at > q.t - to_microseconds({window.end_us})": "'it lies after the window'",
    }
    if classes:
        judged["e.encounter_id IS NULL"] = "'it names no encounter'"
        of_class = f"SELECT resource_id FROM encounters_seen WHERE class_code IN {counting.listed(classes)}"
        judged[f"e.encounter_id NOT IN ({of_class})"] = "'its encounter is of another class, or was not known'"
    judged |= {condition: literal(verdict) for condition, verdict in _too_early(value, begins).items()}
    cases = "\n    ".join(f"WHEN {condition} THEN {verdict}" for condition, verdict in judged.items())
    unmapped = "WHEN m.selection IS NULL THEN 'its code is not mapped'\n    " if table != "encounters" else ""
    only_relevant = (
        "m.selection IS NOT NULL"
        if table == "encounters"
        else "(m.selection IS NOT NULL OR e.code_id NOT IN (SELECT code_id FROM resolved))"
    )
    of_the_person = _OF_THE_PERSON.format(statuses=counting.listed(counting.ENCOUNTER_STATUSES))
    return f"""{of_the_person}
SELECT
  {literal(_TYPE_OF[table])} AS resource_type,
  e.patient_id, e.resource_id, e.version, e.state, {"e.component" if table == "observations" else "0 AS component"},
  e.effective_at, e.known_at, e.known_to, e.known_at_source,
  {_SOURCE_CHANGED if table == "observations" else "false"} AS source_changed,
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
LEFT JOIN (
  SELECT version_no, state, arg_min(reason, ROW(closed_at, reason)) AS reason
  FROM lake.closings
  WHERE resource_type = {literal(_TYPE_OF[table])}
  GROUP BY ALL
) r
  ON r.version_no = e.version_no
  AND r.state = e.state
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
