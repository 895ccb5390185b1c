"""What is generated: rows that are late, corrected, withdrawn, re-dated, tied or twofold, and features over them.

Hypothesis draws a seed and the dice do the rest: its own draws come back to the simplest values so often that of 200
cases hardly one had an order in force. Instants lie on a coarse grid with a few odd microseconds, so that they meet each other and the edges of windows often.
Ids are chosen to be confused by whoever joins strings.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import dice as st
from lake_rows import LakeRows

from fhir_features.features import (
    FeatureView,
    between,
    coalesce,
    condition,
    encounter,
    medication,
    observation,
    patient,
)
from fhir_features.features.operators import EXPRESSIONS
from fhir_features.ontology import concept_set

ORIGIN = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
PATIENTS = [("1", "11"), ("11", "1"), ("nörd", "o'neil"), ("1", "ПÄ"), ("1", '"')]
# Those whose records may be merged: three of one site, so that there are chains and rings.
LINKED_SITE = "1"
LINKED = [who for who in PATIENTS if who[0] == LINKED_SITE]
BOUNDED = ["12h", "1d", "7d", "30d", between("7d", "1d"), between("30d", "12h")]
WINDOWS = [None, None, None, *BOUNDED, between(None, "1d")]
ANSWERS = ["snomed:266919005", "snomed:8517006", "snomed:449868002"]
OBSERVATION_CODES = ["loinc:4548-4", "loinc:2345-7", "loinc:8310-5"]
UNITS = {
    "loinc:4548-4": ["%", "mg/dL", None],
    "loinc:2345-7": ["mg/dL", "mmol/L", "Cel"],
    "loinc:8310-5": ["Cel", "[degF]"],
}
ASKED_UNITS = {"loinc:4548-4": ["%"], "loinc:2345-7": ["mg/dL", "g/L", "mmol/L"], "loinc:8310-5": ["Cel", "[degF]"]}
OBSERVATION_STATUSES = [
    "final",
    "preliminary",
    "amended",
    "corrected",
    "appended",
    "registered",
    "cancelled",
    "unknown",
    "entered-in-error",
]
VALUES = [0.0, 0.1, 0.2, 0.3, 7.1, 7.1, 8.4, 61.0, -3.5, 1e-7, 98.6, 123456.789, 1e16, 1e18, float("inf"), None]
VALUE_TYPES = [
    "Quantity",
    "CodeableConcept",
    "string",
    "boolean",
    "integer",
    "Range",
    "Ratio",
    "SampledData",
    "time",
    "dateTime",
    "Period",
]
PRECISIONS = ["year", "month", "day", "minute", "second", "subsecond", "derived"]
CONDITION_CODES = ["icd10cm:E11.9", "icd10cm:E11.65", "icd10cm:I10"]
CLINICAL = ["active", "recurrence", "relapse", "inactive", "remission", "resolved", None]
VERIFICATION = ["confirmed", "unconfirmed", "provisional", "refuted", "differential", "entered-in-error", None]
# The last one has three ingredients.
MEDICATION_CODES = ["rxnorm:860975", "rxnorm:6809", "rxnorm:1043400"]
MEDICATION_STATUSES = ["active", "on-hold", "completed", "stopped", "cancelled", "unknown", "draft", "entered-in-error"]
INTENTS = ["order", "original-order", "reflex-order", "filler-order", "instance-order", "plan", "proposal", "option"]
ENCOUNTER_STATUSES = [
    "in-progress",
    "arrived",
    "triaged",
    "onleave",
    "finished",
    "planned",
    "cancelled",
    "entered-in-error",
    "unknown",
]
CATEGORIES = [None, ["inpatient"], ["community", "discharge"]]
CLASSES = ["IMP", "AMB", "EMER", "ACUTE", None]
SOURCES = ["issued", "history", "last_updated", "received"]

hours = st.sampled_from([dt.timedelta(hours=12 * step) for step in range(-16, 17)])
odd = st.sampled_from([dt.timedelta(microseconds=us) for us in (0, 0, 0, 0, 1, -1)])
delays = st.sampled_from([dt.timedelta(hours=hours) for hours in (0, 0, 0, 6, 12, 24, 24 * 7, -12)])


def _instant(draw: st.Draw) -> dt.datetime:
    return ORIGIN + draw(hours) + draw(odd)


def _later(draw: st.Draw) -> dt.datetime:
    return draw(some_instant) + dt.timedelta(days=draw(st.sampled_from([0, 5, 10, 30])))


some_instant = st.Roll(_instant)
later = st.Roll(_later)
instants = st.from_seed(_instant)()
days = st.sampled_from([None] * 12 + [0.5, 1.0, 7.0, 30.0, 1e300])
# Mostly one patient, so that rows and questions meet.
someone = st.sampled_from(PATIENTS[:1] * 20 + PATIENTS)


@st.from_seed
def lake_rows(draw: st.Draw) -> LakeRows:
    """The rows of a small lake: a few resources of each type, each with up to three versions."""
    rows = LakeRows()
    for code in (*ANSWERS, *OBSERVATION_CODES, *CONDITION_CODES, *MEDICATION_CODES):
        rows.code(code)
    rows.resolve()
    has_links = draw(st.sampled_from([False, False, True]))
    for site, patient_id in PATIENTS:
        if draw(st.booleans()):
            parts = _linked_patient if has_links and site == LINKED_SITE else _patient
            _versions(draw, rows, rows.patient, {"resource_id": patient_id}, parts, (site, patient_id))
        elif draw(st.booleans()):
            rows.patient(patient_id, site)
    for make, parts in (
        ("observation", _observation),
        ("condition", _condition),
        ("medication", _medication),
        ("encounter", _encounter),
    ):
        for number in range(draw(st.integers(2, 10 if make == "observation" else 6))):
            resource_id = f"{make[0]}{number % 3}" if make == "encounter" else f"{make[0]}{number}"
            who = draw(st.sampled_from(LINKED) if has_links else someone)
            _versions(draw, rows, getattr(rows, make), {"resource_id": resource_id}, parts, who)
    return rows


def _versions(draw: st.Draw, rows: LakeRows, make: Any, own: dict[str, Any], parts: Any, who: tuple[str, str]) -> None:
    """Versions of one resource, each closed by the next one; the last may be withdrawn."""
    effective_at = draw(some_instant)
    known_at = effective_at + draw(delays)
    before = None
    for version in range(draw(st.sampled_from([1, 1, 2, 3]))):
        if before is not None:
            known_at += abs(draw(delays))
            rows.close(before, known_at)
            effective_at = draw(st.one_of(st.just(effective_at), some_instant))
        more = {
            "site": who[0],
            "patient_id": who[1],
            "effective_at": effective_at,
            "known_at": known_at,
            # Two patients never share a version of a resource, even where they share its id.
            "version": f"{len(rows.tables['closings'])}-{version}-{who[1]}",
            "state": draw(st.sampled_from([1, 1, 0])),
            "known_at_source": draw(st.sampled_from(SOURCES)),
        }
        before = make(**own, **more, **parts(draw))
    if before is not None and draw(st.sampled_from([False, False, False, False, True])):
        rows.close(before, known_at + draw(delays), "entered-in-error")


def _patient(draw: st.Draw) -> dict[str, Any]:
    births = [dt.date(2000, 2, 29), dt.date(1931, 3, 1), dt.date(2024, 3, 10), dt.date(2030, 1, 1), None]
    return {
        "birth_date": draw(st.sampled_from(births)),
        "sex": draw(st.sampled_from(["male", "female", "unknown", None])),
        "deceased": draw(st.sampled_from([None, False, True])),
    }


def _linked_patient(draw: st.Draw) -> dict[str, Any]:
    ends = {}
    for end in ("replaced_by", "replaces"):
        _, other_id = draw(st.sampled_from(LINKED))
        ends[end] = draw(st.sampled_from([[], [other_id]]))
    return {**_patient(draw), **ends}


def _observation(draw: st.Draw) -> dict[str, Any]:
    code = draw(st.sampled_from([OBSERVATION_CODES[0]] * 3 + OBSERVATION_CODES))
    value_type = draw(st.sampled_from(["Quantity"] * 8 + ["CodeableConcept"] * 6 + VALUE_TYPES))
    has_number = value_type in ("Quantity", "integer")
    return {
        "code": code,
        "value_type": value_type,
        "value": draw(st.sampled_from(VALUES)) if has_number else None,
        "unit": draw(st.sampled_from([UNITS[code][0]] * 3 + UNITS[code])) if value_type == "Quantity" else None,
        "value_code_id": draw(st.sampled_from([1, 1, 2, 3])) if value_type == "CodeableConcept" else None,
        "value_string": "7.1" if value_type in ("string", "time") else None,
        "value_boolean": True if value_type == "boolean" else None,
        "value_low": 7.1 if value_type == "Range" else None,
        "value_json": "{}" if value_type in ("Ratio", "SampledData") else None,
        "effective_precision": draw(st.sampled_from(PRECISIONS)),
        "status": draw(st.sampled_from(OBSERVATION_STATUSES[:3] * 6 + OBSERVATION_STATUSES)),
        "component": draw(st.sampled_from([0, 0, 1, 2])),
        "absent_reason": draw(st.sampled_from([None] * 8 + ["unknown"])),
        "value_comparator": draw(st.sampled_from([None, None, "<"])),
        "categories": draw(st.sampled_from([None, ["laboratory"], ["vital-signs", "laboratory"]])),
        "interpretations": draw(st.sampled_from([None, ["N"], ["H"], ["N", "LL"]])),
        "reference_low": draw(st.sampled_from([None, 0.1, 50.0])),
        "reference_high": draw(st.sampled_from([None, 7.1, 100.0])),
        "method_code_id": draw(st.sampled_from([None, 1, 1, 2])),
        "encounter_id": draw(st.sampled_from(["e0", "e1", "e2", None])),
    }


def _condition(draw: st.Draw) -> dict[str, Any]:
    return {
        "code": draw(st.sampled_from(CONDITION_CODES)),
        "clinical_status": draw(st.sampled_from(CLINICAL)),
        "verification_status": draw(st.sampled_from(["confirmed"] * 8 + VERIFICATION)),
        "categories": draw(st.sampled_from([["problem-list-item"], ["encounter-diagnosis"], [], None])),
        "abatement_at": draw(st.one_of(st.none(), some_instant)),
        "recorded_at": draw(st.one_of(st.none(), some_instant)),
        "encounter_id": draw(st.sampled_from(["e0", "e1", "e2", None])),
    }


def _medication(draw: st.Draw) -> dict[str, Any]:
    return {
        "code": draw(st.sampled_from(MEDICATION_CODES)),
        "status": draw(st.sampled_from(["active"] * 16 + MEDICATION_STATUSES)),
        "intent": draw(st.sampled_from(["order"] * 16 + INTENTS)),
        "reported": draw(st.sampled_from([None, True, False])),
        "do_not_perform": draw(st.sampled_from([None, False, False, False, False, False, True])),
        "authored_at": draw(st.one_of(st.none(), some_instant)),
        "bounds_end": draw(st.one_of(st.none(), st.none(), st.none(), some_instant)),
        "dosage_days": draw(days),
        "supply_days": draw(days),
        "repeats": draw(st.sampled_from([None, 0, 1, 3])),
        "categories": draw(st.sampled_from(CATEGORIES)),
        "encounter_id": draw(st.sampled_from(["e0", "e1", "e2", None])),
    }


def _encounter(draw: st.Draw) -> dict[str, Any]:
    return {
        "class_code": draw(st.sampled_from(CLASSES)),
        "status": draw(st.sampled_from(["finished"] * 3 + ENCOUNTER_STATUSES)),
        "end_at": draw(st.one_of(st.none(), some_instant)),
    }


windows = st.sampled_from(WINDOWS)


# Of each kind of rows: operators over a window, and operators over all of history.
NUMERIC = ["last", "first", "min", "max", "mean", "median", "sum", "std", "slope", "delta", "change"]
OF_RESULTS = ["count", "exists", "time_since_last", "share_outside_range", "count_abnormal", "last_code", "mode_code"]
OF_ROWS = ["count", "exists", "time_since_last"]
OF_CODED = [*OF_ROWS, "count_concepts"]


def _observation_series(draw: st.Draw) -> Any:
    code = draw(st.sampled_from([OBSERVATION_CODES[0]] * 2 + OBSERVATION_CODES))
    series = observation(code, unit=draw(st.sampled_from(ASKED_UNITS[code])))
    if draw(st.sampled_from([False, False, True])):
        return series.where(
            site=draw(st.sampled_from([None, "1", ["1", "nörd"]])),
            status=draw(st.sampled_from([None, "final", ["preliminary", "cancelled"]])),
            category=draw(st.sampled_from([None, "vital-signs", ["laboratory", "exam"]])),
            interpretation=draw(st.sampled_from([None, "H", ["N", "L"]])),
            encounter_class=draw(st.sampled_from([None, None, "inpatient", ["AMB", "emergency"]])),
            method=draw(st.sampled_from([None, None, None, ANSWERS[0]])),
            coded=draw(st.sampled_from([None, None, None, ANSWERS[0]])),
            low=draw(st.sampled_from([None, 0.1])),
            high=draw(st.sampled_from([None, 7.1])),
            comparators=draw(st.booleans()),
        )
    return series


def _observation_value(draw: st.Draw) -> Any:
    return getattr(_observation_series(draw), draw(st.sampled_from(NUMERIC + OF_ROWS)))(within=draw(windows))


def _uncoded_value(draw: st.Draw) -> Any:
    series = observation(draw(st.sampled_from(OBSERVATION_CODES)))
    if draw(st.sampled_from([False, False, True])):
        series = series.where(coded=draw(st.sampled_from([ANSWERS[0], concept_set(*ANSWERS[1:])])))
    return getattr(series, draw(st.sampled_from(OF_RESULTS)))(within=draw(windows))


def _condition_value(draw: st.Draw) -> Any:
    e11 = concept_set("icd10cm:E11", descendants=True)
    without = e11 - concept_set("icd10cm:E11.65")
    series = condition(draw(st.sampled_from([e11, e11, without, e11 | concept_set("icd10cm:I10"), "icd10cm:I10"])))
    if draw(st.sampled_from([False, False, True])):
        series = series.where(
            category=draw(st.sampled_from([None, "problem-list-item"])),
            site=draw(st.sampled_from([None, "1"])),
            clinical_status=draw(st.sampled_from([None, None, "active", ["remission", "resolved"]])),
            verification_status=draw(st.sampled_from([None, None, "differential", ["confirmed", "refuted"]])),
            encounter_class=draw(st.sampled_from([None, "inpatient"])),
        )
    operator = draw(st.sampled_from(["active", "ever", "time_since_onset", "time_since_recorded", *OF_CODED]))
    return getattr(series, operator)(**({"within": draw(windows)} if operator in OF_CODED else {}))


def _medication_value(draw: st.Draw) -> Any:
    either = concept_set("rxnorm:6809", "rxnorm:161", ingredient=True)
    series = draw(
        st.sampled_from([medication("rxnorm:6809", ingredient=True), medication("rxnorm:860975"), medication(either)])
    )
    if draw(st.sampled_from([False, False, True])):
        series = series.where(
            site=draw(st.sampled_from([None, "1"])),
            status=draw(st.sampled_from([None, "active", ["stopped", "cancelled"]])),
            category=draw(st.sampled_from([None, None, "inpatient", ["community", "outpatient"]])),
            encounter_class=draw(st.sampled_from([None, "inpatient"])),
        )
    operator = draw(st.sampled_from(["active", "ever", "count_ingredients", "proportion_covered", *OF_CODED]))
    if operator == "proportion_covered":
        window = draw(st.sampled_from(BOUNDED))
        return series.proportion_covered(within=window, assume=draw(st.sampled_from(["12h", "30d"])))
    if operator == "active":
        return series.active(assume=draw(st.sampled_from(["12h", "30d"])))
    within = {"within": draw(windows)} if operator in (*OF_CODED, "count_ingredients") else {}
    return getattr(series, operator)(**within)


def _encounter_value(draw: st.Draw) -> Any:
    series = encounter(draw(st.sampled_from([None, "inpatient", "AMB"])))
    if draw(st.sampled_from([False, False, True])):
        status = draw(st.sampled_from([None, "finished", ["planned", "in-progress"]]))
        series = series.where(site=draw(st.sampled_from([None, "1"])), status=status)
    operator = draw(st.sampled_from(["active", "ever", "time_since_discharge", "days", *OF_ROWS]))
    return getattr(series, operator)(**({"within": draw(windows)} if operator in (*OF_ROWS, "days") else {}))


def _patient_value(draw: st.Draw) -> Any:
    return getattr(patient, draw(st.sampled_from(["age", "age_days", "sex", "deceased"])))()


def _expression_value(draw: st.Draw) -> Any:
    one = getattr(_observation_series(draw), draw(st.sampled_from(["last", "count"])))(within=draw(windows))
    other = draw(st.sampled_from([patient.age(), 2, 0, 7.1, encounter().count(), _observation_series(draw).last()]))
    operator = draw(st.sampled_from(sorted(EXPRESSIONS)))
    if operator == "coalesce":
        return coalesce(one, other)
    makers = {
        "ratio": one.__truediv__,
        "difference": one.__sub__,
        "greater": one.__gt__,
        "less": one.__lt__,
        "at_least": one.__ge__,
        "at_most": one.__le__,
        "equal": one.__eq__,
        "unequal": one.__ne__,
    }
    return makers[operator](other)


VALUE_MAKERS = [
    _observation_value,
    _observation_value,
    _uncoded_value,
    _condition_value,
    _medication_value,
    _encounter_value,
    _patient_value,
    _expression_value,
]


@st.from_seed
def views(draw: st.Draw) -> FeatureView:
    """A view of one to eight features."""
    makers = [draw(st.sampled_from(VALUE_MAKERS)) for _ in range(draw(st.integers(1, 8)))]
    features = [make(draw).named(f"f{number}") for number, make in enumerate(makers)]
    return FeatureView(name="generated", entity=patient, features=features)


@st.from_seed
def questions(draw: st.Draw) -> list[tuple[str, str, dt.datetime, dt.datetime]]:
    """(site, patient, T, K) with K = T or before."""
    asked = []
    for _ in range(draw(st.integers(4, 12))):
        site, patient_id = draw(st.one_of(someone, someone, someone, st.sampled_from([*PATIENTS, ("1", "nobody")])))
        t = draw(later)
        known_as_of = draw(later) if draw(st.sampled_from([False, False, True])) else t
        asked.append((site, patient_id, t, min(t, known_as_of)))
    return asked
