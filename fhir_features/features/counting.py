"""Which rows of an event table count, and what of them a question can read: the rules of TIME section C as SQL.

In goes a table and its selections (numbered rows nodes, whose members stand in `<table>_members`); out come the pieces
of the engine's statement. `RULES` names each rule, so that `explain` can say by which one a row was left out. In all
fragments `e` is the event row, `m` the member row, `c` the conversion of its unit, `q` the question.
"""

from __future__ import annotations

from fhir_features.features.nodes import Observations, Rows
from fhir_features.features.operators import DAY, MAGNITUDE
from fhir_features.lake import literal

# TIME section C, column "counts unless the feature asks otherwise".
OBSERVATION_STATUSES = ("preliminary", "final", "amended", "corrected", "appended")
VERIFICATION_STATUSES = ("confirmed", "unconfirmed", "provisional")
ACTIVE_CLINICAL_STATUSES = ("active", "recurrence", "relapse")
MEDICATION_STATUSES = ("active", "on-hold", "completed", "stopped", "unknown")
ACTIVE_MEDICATION_STATUSES = ("active", "unknown")
ORDER_INTENTS = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
REPORTED_INTENTS = ("plan", "proposal")
ENCOUNTER_STATUSES = ("in-progress", "arrived", "triaged", "onleave", "finished")

# HL7 v3 ObservationInterpretation, abnormal: https://terminology.hl7.org/5.1.0/CodeSystem-v3-ObservationInterpretation.html
ABNORMAL = ("A", "AA", "H", "HH", "HU", "L", "LL", "LU")

# No order lasts ten thousand years; beyond it instants overflow.
_LONGEST_DAYS = 3_650_000


def listed(words: tuple[str, ...]) -> str:
    """Words as a SQL list, for IN."""
    return "(" + ", ".join(literal(word) for word in words) + ")"


def _days_after(start: str, days: str) -> str:
    # An absurd length would overflow, and is as good as endless. least() would make one of null.
    length = f"CASE WHEN {days} > {_LONGEST_DAYS} THEN {_LONGEST_DAYS} ELSE {days} END"
    return f"{start} + to_microseconds(CAST({length} * 86400000000 AS BIGINT))"


_SUPPLY_DAYS = "e.supply_days * (coalesce(e.repeats, 0) + 1)"

# When an order is over: the earliest end that it states, else after what the feature assumes (TIME section C).
ENDS_AT = f"""coalesce(
      least(
        e.bounds_end,
        {_days_after("e.effective_at", "e.dosage_days")},
        {_days_after("coalesce(e.authored_at, e.effective_at)", _SUPPLY_DAYS)}
      ),
      e.effective_at + to_microseconds(m.assume_us)
    )"""

VALUE = "e.value_number * c.factor + c.addend"

VISIBLE = "e.known_at <= q.k\n    AND (e.known_to > q.k OR e.known_to IS NULL)"

MEMBERS = {
    "observations": "m.code_id = e.code_id",
    "conditions": "m.code_id = e.code_id",
    "medication_requests": "m.code_id = e.code_id",
    "encounters": "(m.classes IS NULL OR list_contains(m.classes, e.class_code))",
}

JOIN_CONVERSIONS = """
  LEFT JOIN conversions c
    ON c.selection = m.selection
    AND c.code_id = e.code_id
    AND c.unit_id IS NOT DISTINCT FROM e.unit_id"""

_RULES: dict[str, dict[str, str]] = {
    "observations": {
        "its status does not count": f"e.status IN {listed(OBSERVATION_STATUSES)}",
        "it has no value": "e.absent_reason IS NULL",
        # NaN sorts above all numbers, so that it fails like an infinite or absurd value.
        "its value cannot be brought to the unit": f"(NOT m.needs_number OR abs({VALUE}) <= {MAGNITUDE:.0e})",
    },
    "conditions": {
        "its verification status does not count": (
            f"(e.verification_status IN {listed(VERIFICATION_STATUSES)} OR e.verification_status IS NULL)"
        ),
    },
    "medication_requests": {
        "its status does not count": f"e.status IN {listed(MEDICATION_STATUSES)}",
        "it is an order not to give": "NOT coalesce(e.do_not_perform, false)",
        "its intent does not count": (
            f"(e.intent IN {listed(ORDER_INTENTS)} OR (e.reported AND e.intent IN {listed(REPORTED_INTENTS)}))"
        ),
    },
    "encounters": {"its status does not count": f"e.status IN {listed(ENCOUNTER_STATUSES)}"},
}

# What a selection may ask for beside its members: field, rule, predicate.
_FILTERS = (
    ("sites", "it is of another site", "(m.sites IS NULL OR list_contains(m.sites, e.site))"),
    ("categories", "it is of another category", "(m.categories IS NULL OR list_has_any(e.categories, m.categories))"),
    (
        "interpretations",
        "its interpretation is another",
        "(m.interpretations IS NULL OR list_has_any(e.interpretations, m.interpretations))",
    ),
    ("low", "its value is below the range", f"(m.low IS NULL OR {VALUE} >= m.low)"),
    ("high", "its value is above the range", f"(m.high IS NULL OR {VALUE} <= m.high)"),
    ("without_comparator", "its value is only a limit", "(NOT m.without_comparator OR e.value_comparator IS NULL)"),
)


def rules(table: str, selections: tuple[Rows, ...]) -> dict[str, str]:
    """The rules that a row must meet to count, each with its predicate, in the order in which they are told."""
    chosen = dict(_RULES[table])
    if any(getattr(each, "statuses", None) for each in selections):
        chosen["its status does not count"] = "list_contains(m.statuses, e.status)"
    for name, rule, predicate in _FILTERS:
        if any(getattr(each, name, None) not in (None, (), False) for each in selections):
            chosen[rule] = predicate
    return chosen


def default_statuses(rows: Rows) -> tuple[str, ...]:
    """The statuses that count unless the feature asks otherwise."""
    return OBSERVATION_STATUSES if isinstance(rows, Observations) else MEDICATION_STATUSES


# What a row says, for aggregates and for the columns of a pair below.
ROW_COLUMNS: dict[str, dict[str, str]] = {
    "observations": {
        "value": VALUE,
        "day": f"epoch_us(e.effective_at) / {DAY}",
        "coded_value": "v.concept",
        "abnormal": f"list_has_any(e.interpretations, {list(ABNORMAL)})",
        "outside": (
            "CASE\n"
            "      WHEN e.value_number < e.reference_low OR e.value_number > e.reference_high THEN true\n"
            "      WHEN e.reference_low IS NOT NULL OR e.reference_high IS NOT NULL THEN false\n"
            "    END"
        ),
    },
    "conditions": {
        "concept": "v.concept",
        "recorded_at": "e.recorded_at",
        "clinical_status": "e.clinical_status",
        "abatement_at": "e.abatement_at",
        "encounter_id": "e.encounter_id",
        "is_encounter_diagnosis": "list_contains(e.categories, 'encounter-diagnosis')",
    },
    "medication_requests": {"concept": "v.concept", "status": "e.status", "ends_at": ENDS_AT},
    "encounters": {"end_at": "e.end_at"},
}

# Which code of a row `v.concept`, its canonical concept, is of.
CONCEPT_OF = {"observations": "e.value_code_id", "conditions": "e.code_id", "medication_requests": "e.code_id"}

# What a question makes of a row.
PAIR_COLUMNS: dict[str, dict[str, str]] = {
    "observations": {},
    "conditions": {
        # TIME section C: an encounter diagnosis without a clinical status is active during its encounter.
        "active": f"""(e.abatement_at IS NULL OR e.abatement_at > q.t)
    AND CASE
      WHEN e.clinical_status IS NOT NULL THEN e.clinical_status IN {listed(ACTIVE_CLINICAL_STATUSES)}
      WHEN e.is_encounter_diagnosis THEN o.encounter_id IS NOT NULL
      ELSE true
    END"""
    },
    "medication_requests": {"active": f"e.status IN {listed(ACTIVE_MEDICATION_STATUSES)} AND q.t < e.ends_at"},
    "encounters": {
        "active": "(e.end_at > q.t OR e.end_at IS NULL)",
        "ended_at": "CASE WHEN e.end_at <= q.t THEN e.end_at END",
    },
}

OPEN_ENCOUNTERS = f"""open_encounters AS (
  SELECT DISTINCT
    q.question, e.resource_id AS encounter_id
  FROM questions q
  JOIN encounters e
    ON e.site = q.site
    AND e.patient_id = q.patient_id
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
    AND {VISIBLE}
    AND e.status IN {listed(ENCOUNTER_STATUSES)}
    AND e.effective_at <= q.t
    AND (e.end_at > q.t OR e.end_at IS NULL)
)"""

JOIN_OPEN_ENCOUNTERS = """
  LEFT JOIN open_encounters o
    ON o.question = q.question
    AND o.encounter_id = e.encounter_id"""

_NEWEST = "ROW(e.known_at, e.resource_id, e.version, e.state)"

KNOWN_PATIENTS = f"""known_patients AS (
  SELECT
    q.question,
    true AS known,
    arg_max_null(e.birth_date, {_NEWEST}) AS birth_date,
    arg_max_null(e.sex, {_NEWEST}) AS sex,
    arg_max_null(e.deceased, {_NEWEST}) AS deceased
  FROM questions q
  JOIN patients e
    ON e.site = q.site
    AND e.patient_id = q.patient_id
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
    AND {VISIBLE}
  GROUP BY q.question
)"""

PATIENT_FACTS = {
    "age": """CASE
    WHEN p.birth_date <= CAST(q.t AS DATE) THEN
      year(q.t) - year(p.birth_date)
      - CAST(ROW(month(q.t), day(q.t)) < ROW(month(p.birth_date), day(p.birth_date)) AS BIGINT)
  END""",
    "age_days": "CASE WHEN p.birth_date <= CAST(q.t AS DATE) THEN CAST(q.t AS DATE) - p.birth_date END",
    "sex": "p.sex",
    "deceased": "CASE WHEN p.known THEN coalesce(p.deceased, false) END",
}
