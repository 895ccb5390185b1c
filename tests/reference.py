"""The reference engine: what the features of a view are at (patient, T, K), by plain loops over plain rows.

It shares nothing with the engine but the definitions and the ontologies. It is slow and it is meant to be obviously
right: each rule of TIME.md is a line that can be found. Rows are the dictionaries of `lake_rows`.
"""

from __future__ import annotations

import datetime as dt
import math
from fractions import Fraction
from functools import cache
from itertools import pairwise
from statistics import median
from typing import Any

from people_reference import same_person

from fhir_features.ontology import load_ontologies

Row = dict[str, Any]
ZERO_WHEN_KNOWN = (
    "count",
    "count_abnormal",
    "count_concepts",
    "count_ingredients",
    "exists",
    "ever",
    "active",
    "days",
    "proportion_covered",
)
LASTS_INTO_THE_WINDOW = ("days", "proportion_covered")
ontologies = cache(load_ontologies)
DAY = dt.timedelta(days=1)
MICROSECOND = dt.timedelta(microseconds=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
TIMES = {
    "time_since_last": "effective_at",
    "time_since_onset": "effective_at",
    "time_since_recorded": "recorded_at",
    "time_since_discharge": "end_at",
}
OPEN = dt.datetime.max.replace(tzinfo=dt.UTC)


class Reference:
    """Answers from the rows of a `LakeRows` whose codes are resolved."""

    def __init__(self, tables: dict[str, list[Row]]) -> None:
        self.tables = tables
        self.known = ontologies()
        self.concept_of: dict[int | None, str] = {}
        self.concepts_of = self._resolve()
        self._person = cache(lambda *who: frozenset(same_person(tables, *who)))

    def answer(self, feature: Any, site: str, patient_id: str, t: dt.datetime, k: dt.datetime) -> Any:
        """The value of one feature."""
        return self.value(feature.value, site, patient_id, t, k)

    def value(self, value: Any, site: str, patient_id: str, t: dt.datetime, k: dt.datetime) -> Any:
        """A value: of an expression, of the patient's record, or of rows."""
        if value.node == "number":
            return value.number
        if value.node == "expression":
            one, other = (self.value(each, site, patient_id, t, k) for each in value.arguments)
            if value.operator == "coalesce" and self._patient_record(site, patient_id, k) is None:
                other = None
            return express(value.operator, one, other)
        if value.node == "patient":
            return self._patient_fact(value.operator, self._patient_record(site, patient_id, k), t)
        rows = self._counting(value, site, patient_id, t, k)
        result = self._operate(value, rows, t, k)
        if result in (0, False) and value.operator in ZERO_WHEN_KNOWN:
            return result if self._patient_record(site, patient_id, k) is not None else None
        return result

    def rows_of(self, value: Any, site: str, patient_id: str, t: dt.datetime, k: dt.datetime) -> list[Row]:
        """The rows that a value is made of; of `active` those that are, of what lasts those that reach the window."""
        rows = self._counting(value, site, patient_id, t, k)
        if value.operator == "active":
            return [row for row in rows if self._is_active(value.rows, row, t, k)]
        if value.operator in LASTS_INTO_THE_WINDOW and value.window.start_us is not None:
            start = t - dt.timedelta(microseconds=value.window.start_us)
            return [row for row in rows if self._lasts_to(value.rows, row) > start]
        return rows

    # Which rows count

    def _counting(self, value: Any, site: str, patient_id: str, t: dt.datetime, k: dt.datetime) -> list[Row]:
        rows = self._visible(value.rows.table, site, patient_id, k)
        rows = [row for row in rows if self._selected(value.rows, row) and self._inside(value, row, t)]
        rows = [row for row in rows if self._in_encounter(value.rows, row, t, k)]
        return sorted(rows, key=tie)

    def _visible(self, table: str, site: str, patient_id: str, k: dt.datetime) -> list[Row]:
        """Rule 2, the clock of knowing: known_at <= K < known_to. Rule 13: of all records of the person, at K."""
        records = {patient_id} if table == "patients" else self._person(site, patient_id, k)
        return [
            row
            for row in self.tables[table]
            if row["site"] == site
            and row["patient_id"] in records
            and row["known_at"] <= k
            and k < self._known_to(table, row)
        ]

    def _known_to(self, table: str, row: Row) -> dt.datetime:
        types = {
            "patients": "Patient",
            "encounters": "Encounter",
            "observations": "Observation",
            "conditions": "Condition",
            "medication_requests": "MedicationRequest",
        }
        closings = [
            closing["closed_at"]
            for closing in self.tables["closings"]
            if closing["resource_type"] == types[table]
            and all(closing[key] == row[key] for key in ("site", "resource_id", "version", "state"))
            and closing["patient_id"] == row["patient_id"]
        ]
        return min(closings, default=OPEN)

    def _in_encounter(self, wanted: Any, row: Row, t: dt.datetime, k: dt.datetime) -> bool:
        """Whether the row belongs to an encounter of the classes asked for, as K knows it and T sees it."""
        if not getattr(wanted, "encounter_classes", ()):
            return True
        return any(
            encounter["resource_id"] == row.get("encounter_id")
            and encounter["status"] in ("in-progress", "arrived", "triaged", "onleave", "finished")
            and encounter["effective_at"] <= t
            and encounter["class_code"] in wanted.encounter_classes
            for encounter in self._visible("encounters", row["site"], row["patient_id"], k)
        )

    def _inside(self, value: Any, row: Row, t: dt.datetime) -> bool:
        """Rule 2, the clock of truth: T - w < effective_at <= T; what lasts into the window may begin before it."""
        window = value.window
        if row["effective_at"] > t - dt.timedelta(microseconds=window.end_us):
            return False
        if window.start_us is None or value.operator in LASTS_INTO_THE_WINDOW:
            return True
        return row["effective_at"] > t - dt.timedelta(microseconds=window.start_us)

    def _selected(self, wanted: Any, row: Row) -> bool:
        """TIME section C, column "counts unless the feature asks otherwise"."""
        if wanted.sites and row["site"] not in wanted.sites:
            return False
        if wanted.table == "encounters":
            counting = wanted.statuses or ("in-progress", "arrived", "triaged", "onleave", "finished")
            return row["status"] in counting and (not wanted.classes or row["class_code"] in wanted.classes)
        if not self._is_member(wanted.concepts, row["code_id"]):
            return False
        if wanted.table == "observations":
            return self._selected_observation(wanted, row)
        if wanted.table == "conditions":
            if wanted.categories and not set(wanted.categories) & set(row["categories"] or []):
                return False
            if wanted.clinical_statuses and row["clinical_status"] not in wanted.clinical_statuses:
                return False
            if wanted.verification_statuses:
                return row["verification_status"] in wanted.verification_statuses
            return row["verification_status"] in ("confirmed", "unconfirmed", "provisional", None)
        if row.get("do_not_perform"):
            return False
        if wanted.categories and not set(wanted.categories) & set(row.get("categories") or []):
            return False
        if row["status"] not in (wanted.statuses or ("active", "on-hold", "completed", "stopped", "unknown")):
            return False
        if row["intent"] in ("plan", "proposal"):
            return bool(row.get("reported"))
        return row["intent"] in ("order", "original-order", "reflex-order", "filler-order", "instance-order")

    def _selected_observation(self, wanted: Any, row: Row) -> bool:
        if row["status"] not in (wanted.statuses or ("preliminary", "final", "amended", "corrected", "appended")):
            return False
        if row.get("absent_reason") is not None:
            return False
        if wanted.categories and not set(wanted.categories) & set(row.get("categories") or []):
            return False
        if wanted.interpretations and not set(wanted.interpretations) & set(row.get("interpretations") or []):
            return False
        if wanted.method and not self._is_member(wanted.method, row.get("method_code_id")):
            return False
        if wanted.coded and not self._is_member(wanted.coded, row.get("value_code_id")):
            return False
        if wanted.without_comparator and row.get("value_comparator") is not None:
            return False
        if wanted.unit is None:
            return True
        number = self._number(wanted.unit, row)
        if number is None:
            return False
        return (wanted.low is None or number >= wanted.low) and (wanted.high is None or number <= wanted.high)

    # What they give

    def _operate(self, value: Any, rows: list[Row], t: dt.datetime, k: dt.datetime) -> Any:
        operator = value.operator
        if operator == "count":
            return len(rows)
        if operator in ("exists", "ever"):
            return len(rows) > 0
        if operator == "active":
            return any(self._is_active(value.rows, row, t, k) for row in rows)
        if operator == "count_abnormal":
            codes = {"A", "AA", "H", "HH", "HU", "L", "LL", "LU"}
            return sum(bool(codes & set(row.get("interpretations") or [])) for row in rows)
        if operator == "count_concepts":
            return len({self.concept_of.get(row["code_id"]) for row in rows} - {None})
        if operator == "count_ingredients":
            return len({ingredient for row in rows for ingredient in self._ingredients(row["code_id"])})
        if operator in LASTS_INTO_THE_WINDOW:
            return self._covered(value, rows, t)
        if not rows:
            return None
        if operator in ("last_code", "mode_code"):
            coded = [self.concept_of.get(row.get("value_code_id")) for row in rows]
            return code_of(operator, [concept for concept in coded if concept is not None])
        if operator == "share_outside_range":
            outside = [is_outside(row) for row in rows if is_outside(row) is not None]
            return sum(outside) / len(outside) if outside else None
        if operator.startswith("time_since"):
            instants = [row[TIMES[operator]] for row in rows if row.get(TIMES[operator]) is not None]
            if operator == "time_since_discharge":
                instants = [instant for instant in instants if instant <= t]
            newest = operator in ("time_since_last", "time_since_discharge")
            return (t - (max(instants) if newest else min(instants))) / DAY if instants else None
        numbers = [self._number(value.rows.unit, row) for row in rows]
        days = [Fraction((row["effective_at"] - EPOCH) // MICROSECOND, 86_400_000_000) for row in rows]
        return summarize(operator, [Fraction(number) for number in numbers], days)

    def _is_active(self, wanted: Any, row: Row, t: dt.datetime, k: dt.datetime) -> bool:
        if wanted.table == "conditions":
            return self._is_active_condition(row, t, k)
        if wanted.table == "encounters":
            return row.get("end_at") is None or t < row["end_at"]
        return row["status"] in ("active", "unknown") and t < self._end_of_order(wanted, row)

    def _is_active_condition(self, row: Row, t: dt.datetime, k: dt.datetime) -> bool:
        if row.get("abatement_at") is not None and row["abatement_at"] <= t:
            return False
        if row["clinical_status"] is not None:
            return row["clinical_status"] in ("active", "recurrence", "relapse")
        if "encounter-diagnosis" in (row.get("categories") or []):
            return any(
                encounter["resource_id"] == row.get("encounter_id")
                and encounter["status"] in ("in-progress", "arrived", "triaged", "onleave", "finished")
                and encounter["effective_at"] <= t
                and (encounter.get("end_at") is None or t < encounter["end_at"])
                for encounter in self._visible("encounters", row["site"], row["patient_id"], k)
            )
        return True

    def _covered(self, value: Any, rows: list[Row], t: dt.datetime) -> float | None:
        """The days of the window in which one or more of the rows last, or their share of it: microsecond stretches."""
        end = t - dt.timedelta(microseconds=value.window.end_us)
        start = dt.datetime.min.replace(tzinfo=dt.UTC)
        if value.window.start_us is not None:
            start = t - dt.timedelta(microseconds=value.window.start_us)
        lasts = [(max(row["effective_at"], start), min(self._lasts_to(value.rows, row), end)) for row in rows]
        edges = sorted({edge for one in lasts for edge in one})
        covered = dt.timedelta(0)
        for low, high in pairwise(edges):
            if any(first <= low and high <= last for first, last in lasts):
                covered += high - low
        return covered / DAY if value.operator == "days" else covered / (end - start)

    def _lasts_to(self, wanted: Any, row: Row) -> dt.datetime:
        if wanted.table == "encounters":
            return row.get("end_at") or OPEN
        end = self._end_of_order(wanted, row)
        # What is known to be over, or on hold, covered at most until that was known.
        return end if row["status"] in ("active", "unknown") else min(end, row["known_at"])

    def _end_of_order(self, wanted: Any, row: Row) -> dt.datetime:
        ends = []
        if row.get("bounds_end") is not None:
            ends.append(row["bounds_end"])
        if row.get("dosage_days") is not None:
            ends.append(after(row["effective_at"], row["dosage_days"]))
        if row.get("supply_days") is not None:
            start = row.get("authored_at") or row["effective_at"]
            ends.append(after(start, row["supply_days"] * ((row.get("repeats") or 0) + 1)))
        return min(ends) if ends else row["effective_at"] + dt.timedelta(microseconds=wanted.assume_us)

    def _patient_record(self, site: str, patient_id: str, k: dt.datetime) -> Row | None:
        records = self._visible("patients", site, patient_id, k)
        records.sort(key=lambda row: (row["known_at"], row["resource_id"], row["version"], row["state"]))
        return records[-1] if records else None

    def _patient_fact(self, operator: str, record: Row | None, t: dt.datetime) -> Any:
        if record is None:
            return None
        if operator == "sex":
            return record["sex"]
        if operator == "deceased":
            return bool(record.get("deceased"))
        born, today = record["birth_date"], t.date()
        if born is None or born > today:
            return None
        if operator == "age_days":
            return (today - born).days
        return today.year - born.year - ((today.month, today.day) < (born.month, born.day))

    # Codes and units

    def _resolve(self) -> dict[int, set[tuple[str, str]]]:
        found: dict[int, set[tuple[str, str]]] = {}
        for row in self.tables["resolution"]:
            if row["status"] == "candidate" or row["code"] is None:
                continue
            if row["rank"] == 0:
                self.concept_of.setdefault(row["code_id"], f"{row['system']}:{row['code']}")
            found.setdefault(row["code_id"], set()).add((row["system"], row["code"]))
        return found

    def _is_member(self, concepts: Any, code_id: int) -> bool:
        wanted = {(concept.system, concept.code) for concept in self.known.expand(concepts)}
        return not wanted.isdisjoint(self.concepts_of.get(code_id, set()))

    def _ingredients(self, code_id: int) -> set[str]:
        codes = sorted(code for system, code in self.concepts_of.get(code_id, set()) if system == "rxnorm")
        return {ingredient for found in self.known.ingredients(codes).values() for ingredient in found}

    def _number(self, unit: str, row: Row) -> float | None:
        """The number in the feature's unit; None when there is none, or it is no clinical quantity."""
        if row["value_number"] is None:
            return None
        factor, offset = 0.0, 0.0
        if row["unit_id"] is None:
            if unit != "1":
                return None
            factor = 1.0
        else:
            written = next(each for each in self.tables["units"] if each["unit_id"] == row["unit_id"])
            source = self.known.units.ucum(written["system"], written["code"], written["unit"])
            loinc = min((code for system, code in self.concepts_of[row["code_id"]] if system == "loinc"), default=None)
            conversion = self.known.units.conversion(source, unit, loinc) if source else None
            if conversion is None:
                return None
            factor, offset = conversion.factor, conversion.offset
        number = row["value_number"] * factor + offset
        return number if math.isfinite(number) and abs(number) <= 1e17 else None


def after(start: dt.datetime, days: float) -> dt.datetime:
    """An instant some days later; absurdly many are for ever."""
    return start + days * DAY if days < 1_000_000 else OPEN


def summarize(operator: str, numbers: list[Fraction], days: list[Fraction]) -> float | None:
    """A number from numbers in the order of the tie rule, in exact arithmetic until the end."""
    mean = sum(numbers) / len(numbers)
    if operator == "std":
        squares = sum((number - mean) ** 2 for number in numbers)
        return math.sqrt(squares / (len(numbers) - 1)) if len(numbers) > 1 else None
    if operator == "slope":
        middle = sum(days) / len(days)
        spread = sum((day - middle) ** 2 for day in days)
        if spread == 0:
            return None
        return float(sum((d - middle) * (n - mean) for d, n in zip(days, numbers, strict=True)) / spread)
    if operator == "change":
        return float(numbers[-1]) - float(numbers[-2]) if len(numbers) > 1 else None
    results = {
        "last": numbers[-1],
        "first": numbers[0],
        "min": min(numbers),
        "max": max(numbers),
        "sum": sum(numbers),
        "mean": mean,
        "median": median(numbers),
        "delta": numbers[-1] - numbers[0],
    }
    return float(results[operator])


def code_of(operator: str, concepts: list[str]) -> str | None:
    """The newest or the most frequent coded value."""
    if not concepts:
        return None
    if operator == "last_code":
        return concepts[-1]
    return min(concepts, key=lambda concept: (-concepts.count(concept), concept))


def is_outside(row: Row) -> bool | None:
    """Whether a value is outside its reference range; None where there is none."""
    number, low, high = row["value_number"], row.get("reference_low"), row.get("reference_high")
    if number is None or not abs(number) <= 1e17 or (low is None and high is None):
        return None
    return (low is not None and number < low) or (high is not None and number > high)


def express(operator: str, one: Any, other: Any) -> Any:
    """An expression over two answers."""
    if operator == "coalesce":
        chosen = other if one is None else one
        return None if chosen is None else float(chosen)
    if one is None or other is None:
        return None
    if operator == "ratio":
        return None if other == 0 else one / other
    if operator == "difference":
        return float(one) - float(other)
    compared = {"greater": one > other, "less": one < other, "at_least": one >= other, "at_most": one <= other}
    return {**compared, "equal": one == other, "unequal": one != other}[operator]


def tie(row: Row) -> tuple[Any, ...]:
    """Rule 5, and what is left when even that is equal."""
    return (
        row["effective_at"],
        row["known_at"],
        row["resource_id"],
        row.get("component", 0),
        row["version"],
        row["state"],
    )


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same; numbers to 12 digits, since the exact sum is kept to 15 decimals."""
    if isinstance(one, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return type(one) is type(other) and one == other
