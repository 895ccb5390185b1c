"""Which rows of an event table count, and what of them an operator can read: the rules of TIME section C as SQL.

In goes a table and its selections (numbered rows nodes, whose members stand in `<table>_members`); out come the pieces
of the statements that select rows. `rules` names each rule, so that `explain` can say by which one a row was left out.
In all fragments `e` is the event row, `m` the member row, `c` the conversion of its unit, `v` its canonical concept.
"""

from __future__ import annotations

from fhir_features.features.exact import MAGNITUDE
from fhir_features.features.nodes import Conditions, Encounters, Medications, Observations, Rows
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

# TIME rule 11.
KNOWN_AT_SOURCES = (
    "history",
    "last_updated",
    "issued",
    "report_issued",
    "recorded_date",
    "authored_on",
    "bedside",
    "encounter_start",
    "encounter_end",
    "provenance",
    "received",
    "assumed",
)

# No order lasts ten thousand years; beyond it instants overflow.
_LONGEST_DAYS = 3_650_000


def listed(words: tuple[str, ...]) -> str:
    """Words as a SQL list, for IN."""
    return "(" + ", ".join(literal(word) for word in words) + ")"


def _one_of(column: str, words: tuple[str, ...]) -> str:
    """Whether a column has one of the words. IN is computed by a join, row by row; a function of a text once a word
    where a file has a dictionary of words."""
    return f"list_contains({list(words)}, {column})"


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
        "its status does not count": _one_of("e.status", OBSERVATION_STATUSES),
        "it has no value": "e.absent_reason IS NULL",
        "its result is no number": "(NOT m.needs_number OR e.value_number IS NOT NULL)",
    },
    "conditions": {
        "its verification status does not count": (
            f"({_one_of('e.verification_status', VERIFICATION_STATUSES)} OR e.verification_status IS NULL)"
        ),
    },
    "medication_requests": {
        "its status does not count": _one_of("e.status", MEDICATION_STATUSES),
        "it is an order not to give": "NOT coalesce(e.do_not_perform, false)",
        "its intent does not count": (
            f"({_one_of('e.intent', ORDER_INTENTS)} OR (e.reported AND {_one_of('e.intent', REPORTED_INTENTS)}))"
        ),
    },
    "encounters": {"its status does not count": _one_of("e.status", ENCOUNTER_STATUSES)},
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
    (
        "clinical_statuses",
        "its clinical status is another",
        "(m.clinical_statuses IS NULL OR list_contains(m.clinical_statuses, e.clinical_status))",
    ),
    ("method", "its method is another", "(m.methods IS NULL OR list_contains(m.methods, e.method_code_id))"),
    ("coded", "its coded value is another", "(m.coded IS NULL OR list_contains(m.coded, e.value_code_id))"),
    ("without_comparator", "its value is only a limit", "(NOT m.without_comparator OR e.value_comparator IS NULL)"),
)

# Numbers that a feature cannot use are counted in the summary, by the first of these rules that they fail.
NOT_CONVERTIBLE, OUT_OF_RANGE = 1, 2
_NUMBER_RULES = {
    # NaN sorts above all numbers, so that it fails like an infinite or absurd value.
    "its value cannot be brought to the unit": f"(NOT m.needs_number OR abs({VALUE}) <= {MAGNITUDE:.0e})",
    "its value is below the range": f"(m.low IS NULL OR {VALUE} >= m.low)",
    "its value is above the range": f"(m.high IS NULL OR {VALUE} <= m.high)",
}


def row_rules(table: str, selections: tuple[Rows, ...]) -> dict[str, str]:
    """The rules that a row must meet to be seen at all, each with its predicate, in the order of telling."""
    chosen = dict(_RULES[table])
    if any(getattr(each, "statuses", None) for each in selections):
        chosen["its status does not count"] = "list_contains(m.statuses, e.status)"
    if any(isinstance(each, Conditions) and each.verification_statuses for each in selections):
        chosen["its verification status does not count"] = (
            "(list_contains(m.verification_statuses, e.verification_status)"
            " OR (e.verification_status IS NULL AND NOT m.asks_verification))"
        )
    for name, rule, predicate in _FILTERS:
        if any(getattr(each, name, None) not in (None, (), False) for each in selections):
            chosen[rule] = predicate
    return chosen


def rules(table: str, selections: tuple[Rows, ...]) -> dict[str, str]:
    """All rules that a row must meet to count, those on its number last."""
    return {**row_rules(table, selections), **(_NUMBER_RULES if table == "observations" else {})}


_COUNTING_STATUSES: dict[type[Rows], tuple[str, ...]] = {
    Observations: OBSERVATION_STATUSES,
    Medications: MEDICATION_STATUSES,
    Encounters: ENCOUNTER_STATUSES,
}


def default_statuses(rows: Rows) -> tuple[str, ...]:
    """The statuses that count unless the feature asks otherwise; of conditions, which have others, none."""
    return _COUNTING_STATUSES.get(type(rows), ())


# Which number rule a row fails first, 0 for none.
_CONVERTIBLE, *_IN_RANGE = _NUMBER_RULES.values()
EXCLUDED = f"""CASE
    WHEN {_CONVERTIBLE} IS NOT TRUE THEN {NOT_CONVERTIBLE}
    WHEN ({" AND ".join(_IN_RANGE)}) IS NOT TRUE THEN {OUT_OF_RANGE}
    ELSE 0
  END"""

ACTIVE_NOW, ACTIVE_DURING_ENCOUNTER = 1, 2

# What a row says, for operators to read (`operators.Operator.reads`).
ROW_COLUMNS: dict[str, dict[str, str]] = {
    "observations": {
        "value": VALUE,
        "coded_value": "v.concept",
        "abnormal": f"coalesce(list_has_any(e.interpretations, {list(ABNORMAL)}), false)",
        "outside": (
            "CASE\n"
            f"    WHEN (abs(e.value_number) <= {MAGNITUDE:.0e}) IS NOT TRUE THEN -1\n"
            "    WHEN e.value_number < e.reference_low OR e.value_number > e.reference_high THEN 1\n"
            "    WHEN e.reference_low IS NOT NULL OR e.reference_high IS NOT NULL THEN 0\n"
            "    ELSE -1\n"
            "  END"
        ),
        "encounter_id": "e.encounter_id",
    },
    "conditions": {
        "concept": "v.concept",
        "recorded_at": "e.recorded_at",
        "abatement_at": "e.abatement_at",
        # TIME section C: without a clinical status an encounter diagnosis is active during its encounter.
        "activity": (
            "CASE\n"
            f"    WHEN {_one_of('e.clinical_status', ACTIVE_CLINICAL_STATUSES)} THEN {ACTIVE_NOW}\n"
            "    WHEN e.clinical_status IS NOT NULL THEN 0\n"
            f"    WHEN list_contains(e.categories, 'encounter-diagnosis') THEN {ACTIVE_DURING_ENCOUNTER}\n"
            f"    ELSE {ACTIVE_NOW}\n"
            "  END"
        ),
        "encounter_id": "e.encounter_id",
    },
    "medication_requests": {
        "concept": "v.concept",
        "ingredients": "coalesce(i.ingredients, [])",
        "is_in_force": _one_of("e.status", ACTIVE_MEDICATION_STATUSES),
        "ends_at": ENDS_AT,
        # What is known to be over, or on hold, covered at most until that was known.
        "covers_to": f"CASE WHEN {_one_of('e.status', ACTIVE_MEDICATION_STATUSES)} THEN {ENDS_AT}\n"
        f"    ELSE least({ENDS_AT}, e.known_at) END",
        "encounter_id": "e.encounter_id",
    },
    "encounters": {
        "resource_id": "e.resource_id",
        "end_at": "e.end_at",
        "covers_to": "e.end_at",
        "class_code": "e.class_code",
    },
}

# Which code of a row `v.concept`, its canonical concept, is of.
CONCEPT_OF = {"observations": "e.value_code_id", "conditions": "e.code_id", "medication_requests": "e.code_id"}

# What `active` reads.
ACTIVE_READS = {
    "conditions": ("abatement_at", "activity", "encounter_id"),
    "medication_requests": ("is_in_force", "ends_at"),
    "encounters": ("end_at",),
}
