"""The reference engine: what the features of a view are at (patient, T, K), by plain loops over plain rows.

It shares nothing with the engine but the definitions and the ontologies. It is slow and it is meant to be obviously
right: each rule of TIME.md is a line that can be found. Rows are the dictionaries of `lake_rows`.
"""

from __future__ import annotations

import datetime as dt
import math
from fractions import Fraction
from functools import cache
from typing import Any

from fhir_features.ontology import load_ontologies

Row = dict[str, Any]
ontologies = cache(load_ontologies)
DAY = dt.timedelta(days=1)
OPEN = dt.datetime.max.replace(tzinfo=dt.UTC)


class Reference:
    """Answers from the rows of a `LakeRows` whose codes are resolved."""

    def __init__(self, tables: dict[str, list[Row]]) -> None:
        self.tables = tables
        self.known = ontologies()
        self.concepts_of = self._resolve()

    def answer(self, feature: Any, site: str, patient_id: str, t: dt.datetime, k: dt.datetime) -> Any:
        """The value of one feature."""
        value = feature.value
        if value.node == "patient":
            return self._patient_fact(value.operator, self._patient_record(site, patient_id, k), t)
        rows = self._visible(value.rows.table, site, patient_id, k)
        rows = [row for row in rows if self._selected(value.rows, row) and self._inside(value.window, row, t)]
        rows.sort(key=tie)
        result = self._operate(value, rows, t, k)
        if result in (0, False) and result is not None and value.operator in ("count", "exists", "ever", "active"):
            return result if self._patient_record(site, patient_id, k) is not None else None
        return result

    # Which rows count

    def _visible(self, table: str, site: str, patient_id: str, k: dt.datetime) -> list[Row]:
        """Rule 2, the clock of knowing: known_at <= K < known_to."""
        return [
            row
            for row in self.tables[table]
            if row["site"] == site
            and row["patient_id"] == patient_id
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

    def _inside(self, window: Any, row: Row, t: dt.datetime) -> bool:
        """Rule 2, the clock of truth: T - w < effective_at <= T."""
        if row["effective_at"] > t - dt.timedelta(microseconds=window.end_us):
            return False
        return window.start_us is None or row["effective_at"] > t - dt.timedelta(microseconds=window.start_us)

    def _selected(self, wanted: Any, row: Row) -> bool:
        """TIME section C, column "counts unless the feature asks otherwise"."""
        if wanted.table == "encounters":
            counts = row["status"] in ("in-progress", "arrived", "triaged", "onleave", "finished")
            return counts and (not wanted.classes or row["class_code"] in wanted.classes)
        if not self._is_member(wanted.concepts, row["code_id"]):
            return False
        if wanted.table == "observations":
            if row["status"] not in ("preliminary", "final", "amended", "corrected", "appended"):
                return False
            if row.get("absent_reason") is not None:
                return False
            return wanted.unit is None or self._number(wanted.unit, row) is not None
        if wanted.table == "conditions":
            return row["verification_status"] in ("confirmed", "unconfirmed", "provisional", None)
        if row.get("do_not_perform"):
            return False
        if row["status"] not in ("active", "on-hold", "completed", "stopped", "unknown"):
            return False
        if row["intent"] in ("plan", "proposal"):
            return bool(row.get("reported"))
        return row["intent"] in ("order", "original-order", "reflex-order", "filler-order", "instance-order")

    # What they give

    def _operate(self, value: Any, rows: list[Row], t: dt.datetime, k: dt.datetime) -> Any:
        operator = value.operator
        if operator == "count":
            return len(rows)
        if operator in ("exists", "ever"):
            return len(rows) > 0
        if operator == "active":
            return any(self._is_active(value.rows, row, t, k) for row in rows)
        if not rows:
            return None
        if operator == "time_since_last":
            return (t - max(row["effective_at"] for row in rows)) / DAY
        numbers = [self._number(value.rows.unit, row) for row in rows]
        if operator == "last":
            return numbers[-1]
        if operator == "first":
            return numbers[0]
        if operator == "min":
            return min(numbers)
        if operator == "max":
            return max(numbers)
        total = sum(Fraction(number) for number in numbers)
        return float(total) if operator == "sum" else float(total / len(numbers))

    def _is_active(self, wanted: Any, row: Row, t: dt.datetime, k: dt.datetime) -> bool:
        if wanted.table == "conditions":
            return self._is_active_condition(row, t, k)
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

    def _end_of_order(self, wanted: Any, row: Row) -> dt.datetime:
        ends = []
        if row.get("bounds_end") is not None:
            ends.append(row["bounds_end"])
        if row.get("dosage_days") is not None:
            ends.append(row["effective_at"] + row["dosage_days"] * DAY)
        if row.get("supply_days") is not None:
            start = row.get("authored_at") or row["effective_at"]
            ends.append(start + row["supply_days"] * ((row.get("repeats") or 0) + 1) * DAY)
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
        born, today = record["birth_date"], t.date()
        if born is None or born > today:
            return None
        return today.year - born.year - ((today.month, today.day) < (born.month, born.day))

    # Codes and units

    def _resolve(self) -> dict[int, set[tuple[str, str]]]:
        found: dict[int, set[tuple[str, str]]] = {}
        for row in self.tables["resolution"]:
            found.setdefault(row["code_id"], set()).add((row["system"], row["code"]))
        return found

    def _is_member(self, concepts: Any, code_id: int) -> bool:
        wanted = {(concept.system, concept.code) for concept in self.known.expand(concepts)}
        return not wanted.isdisjoint(self.concepts_of.get(code_id, set()))

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
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-14)
    return type(one) is type(other) and one == other
