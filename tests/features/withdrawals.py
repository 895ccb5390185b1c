"""The cases of `test_withdrawals`: what is withdrawn, moved, re-dated or merged, and what was known of it when.

Patients are A and B; instants are day and hour of March 2024, in UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from landing import at, observation


@dataclass(frozen=True)
class Case:
    """`arrives` has the resources of each run, with their ids as written here.

    `answers` are lines `T | known as of | patient | last`, instants as day and hour, `-` for no answer; another feature
    than `last` is named, as `recent=7.5`.
    """

    title: str
    arrives: tuple[list[dict[str, Any]], ...]
    answers: str


def result(value: float, version: str | None, updated: str | None, of: str = "A", id: str = "o", **more: Any) -> Any:
    """A version of a result of 5 March, drawn at 08:00 and issued at 14:00."""
    meta = {"versionId": version, "lastUpdated": updated and instant(updated).isoformat()}
    return observation(
        id,
        meta={name: value for name, value in meta.items() if value},
        subject={"reference": f"Patient/{of}"},
        **{"valueQuantity": percent(value), **more},
    )


def percent(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}


def deleted(modified: str, id: str = "o") -> dict[str, Any]:
    response = {"lastModified": instant(modified).isoformat()}
    return {"request": {"method": "DELETE", "url": f"Observation/{id}"}, "response": response}


def person(id: str, version: str, updated: str, **more: Any) -> dict[str, Any]:
    meta = {"versionId": version, "lastUpdated": instant(updated).isoformat()}
    return {"resourceType": "Patient", "id": id, "meta": meta, "birthDate": "1960-05-04", **more}


def link(kind: str, other: str) -> dict[str, Any]:
    return {"link": [{"type": kind, "other": {"reference": f"Patient/{other}"}}]}


def sugar(unit: str) -> dict[str, Any]:
    return {
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
        "valueQuantity": {"value": 9.0, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
    }


def panel(version: str, updated: str, values: list[float]) -> dict[str, Any]:
    """A version of a panel without a value of its own, whose parts are HbA1c."""
    code = {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]}
    parts = [{"code": code, "valueQuantity": percent(value)} for value in values]
    return result(0, version, updated, valueQuantity=None, code={"text": "panel"}, component=parts)


def instant(text: str) -> dt.datetime:
    """`05 14` is 5 March 2024 at 14:00."""
    day, hour = text.split()
    return at(f"2024-03-{day} {hour}:00")


def versioned(kind: str, version: str, updated: str, **content: Any) -> dict[str, Any]:
    """A version of a diagnosis, an order or a stay of patient A."""
    meta = {"versionId": version, "lastUpdated": instant(updated).isoformat()}
    return {"resourceType": kind, "id": kind, "meta": meta, "subject": {"reference": "Patient/A"}, **content}


def diagnosis(version: str, updated: str, verification: str) -> dict[str, Any]:
    status = "http://terminology.hl7.org/CodeSystem/condition"
    content = {
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "E11.9"}]},
        "recordedDate": "2024-03-05T14:00:00Z",
        "verificationStatus": {"coding": [{"system": f"{status}-ver-status", "code": verification}]},
    }
    if verification != "entered-in-error":
        content["clinicalStatus"] = {"coding": [{"system": f"{status}-clinical", "code": "active"}]}
    return versioned("Condition", version, updated, **content)


def order(version: str, updated: str, status: str) -> dict[str, Any]:
    drug = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "860975"}]}
    content = {"status": status, "intent": "order", "authoredOn": "2024-03-05T14:00:00Z"}
    return versioned("MedicationRequest", version, updated, medicationCodeableConcept=drug, **content)


def stay(version: str, updated: str, status: str) -> dict[str, Any]:
    inpatient = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    period = {"start": "2024-03-05T14:00:00Z"}
    return versioned("Encounter", version, updated, status=status, **{"class": inpatient}, period=period)


ERROR = {"status": "entered-in-error"}
FIXED = {"status": "corrected"}
TWO = [person("A", "1", "01 00"), person("B", "1", "01 00")]

CASES = (
    Case(
        "entered in error",
        ([result(7.5, "1", "05 14")], [result(7.5, "2", "07 10", **ERROR)]),
        """
        05 13 |       | A | -
        05 14 |       | A | 7.5
        07 09 |       | A | 7.5
        07 10 |       | A | -
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "cancelled",
        ([result(7.5, "1", "05 14")], [result(7.5, "2", "07 10", status="cancelled")]),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | -
        07 10 |       | A | count=0
        11 00 | 06 00 | A | 7.5
        """,
    ),
    Case(
        "deleted",
        ([result(7.5, "1", "05 14")], [deleted("07 20")]),
        """
        07 19 |       | A | 7.5
        07 20 |       | A | -
        11 00 | 07 19 | A | 7.5
        """,
    ),
    Case(
        "deleted, then undeleted",
        ([result(7.5, "1", "05 14")], [deleted("07 20")], [result(7.5, "3", "09 14")]),
        """
        07 19 |       | A | 7.5
        07 20 |       | A | -
        09 13 |       | A | -
        09 14 |       | A | 7.5
        11 00 | 08 00 | A | -
        """,
    ),
    Case(
        "value corrected",
        ([result(7.5, "1", "05 14")], [result(6.4, "2", "07 10", **FIXED)]),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | 6.4
        07 10 |       | A | count=1
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "unit corrected",
        ([result(0, "1", "05 14", **sugar("mmol/L"))], [result(0, "2", "07 10", **FIXED, **sugar("mg/dL"))]),
        """
        07 09 |       | A | glucose=162.1404
        07 10 |       | A | glucose=9
        11 00 | 07 09 | A | glucose=162.1404
        """,
    ),
    Case(
        "re-dated out of the window",
        (
            [result(7.5, "1", "05 14")],
            [result(7.5, "2", "07 10", **FIXED, effectiveDateTime="2024-03-01T08:00:00Z")],
        ),
        """
        07 09 |       | A | recent=7.5
        07 10 |       | A | recent=-
        07 10 |       | A | 7.5
        07 12 | 07 09 | A | recent=7.5
        """,
    ),
    Case(
        "re-dated to after T",
        (
            [result(7.5, "1", "05 14")],
            [result(7.5, "2", "07 10", **FIXED, effectiveDateTime="2024-03-08T08:00:00Z")],
        ),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | -
        08 08 |       | A | 7.5
        """,
    ),
    Case(
        "preliminary, final, corrected",
        (
            [result(7.0, "1", "05 14", status="preliminary")],
            [result(7.1, "2", "07 10")],
            [result(7.2, "3", "09 10", **FIXED)],
        ),
        """
        05 14 |       | A | 7.0
        07 10 |       | A | 7.1
        09 09 |       | A | 7.1
        09 10 |       | A | 7.2
        11 00 | 07 09 | A | 7.0
        11 00 | 08 00 | A | 7.1
        """,
    ),
    Case(
        "moved to another patient",
        ([*TWO, result(7.5, "1", "05 14")], [result(7.5, "2", "07 10", of="B")]),
        """
        07 09 |       | A | 7.5
        07 09 |       | B | -
        07 10 |       | A | -
        07 10 |       | B | 7.5
        11 00 | 07 09 | A | 7.5
        11 00 | 07 09 | B | count=0
        """,
    ),
    Case(
        "moved, and moved back",
        (
            [*TWO, result(7.5, "1", "05 14")],
            [result(7.5, "2", "07 10", of="B")],
            [result(7.5, "3", "09 10")],
        ),
        """
        07 10 |       | A | -
        07 10 |       | B | 7.5
        09 09 |       | A | -
        09 10 |       | A | 7.5
        09 10 |       | B | -
        11 00 | 08 00 | B | 7.5
        11 00 | 06 00 | A | 7.5
        """,
    ),
    Case(
        "moved to another patient, whose result it is deleted from",
        ([*TWO, result(7.5, "1", "05 14")], [result(7.5, "2", "07 10", of="B")], [deleted("09 10")]),
        """
        07 10 |       | A | -
        09 09 |       | B | 7.5
        09 10 |       | B | -
        09 10 |       | A | -
        """,
    ),
    Case(
        "moved to another patient under the same versionId",
        ([*TWO, result(7.5, "1", "05 14")], [result(7.5, "1", "07 10", of="B")]),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | -
        07 10 |       | B | 7.5
        """,
    ),
    Case(
        "deleted, and its id given to another patient's result",
        ([*TWO, result(7.5, "1", "05 14")], [deleted("07 10")], [result(6.4, "3", "09 10", of="B")]),
        """
        07 10 |       | A | -
        09 09 |       | B | -
        09 10 |       | B | 6.4
        09 10 |       | A | -
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "received again as it was before its correction",
        (
            [result(7.5, "1", "05 14")],
            [result(6.4, "2", "07 10", **FIXED)],
            [result(7.5, "1", "05 14")],
        ),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | 6.4
        11 00 |       | A | 6.4
        11 00 |       | A | count=1
        """,
    ),
    Case(
        "corrected to no value",
        (
            [result(7.5, "1", "05 14")],
            [result(0, "2", "07 10", **FIXED, valueQuantity=None, dataAbsentReason={"text": "haemolysed"})],
        ),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | -
        07 10 |       | A | count=0
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "a part of a panel, withdrawn in a correction of the panel",
        (
            [panel("1", "05 14", [7.5, 6.1])],
            [panel("2", "07 10", [7.5])],
        ),
        """
        05 14 |       | A | count=2
        07 09 |       | A | 6.1
        07 10 |       | A | count=1
        07 10 |       | A | 7.5
        11 00 | 07 09 | A | count=2
        """,
    ),
    Case(
        "corrected under the same versionId",
        ([result(7.5, "1", "05 14")], [result(6.4, "1", "07 10", **FIXED)]),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | 6.4
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "a correction that arrives before what it corrects",
        ([result(6.4, "2", "05 20", **FIXED)], [result(7.5, "1", "05 14")]),
        """
        05 14 |       | A | 7.5
        05 19 |       | A | 7.5
        05 20 |       | A | 6.4
        05 20 |       | A | count=1
        11 00 | 05 19 | A | 7.5
        """,
    ),
    Case(
        "a withdrawal that arrives before what it withdraws",
        ([result(7.5, "2", "05 20", **ERROR)], [result(7.5, "1", "05 14")]),
        """
        05 19 |       | A | 7.5
        05 20 |       | A | -
        """,
    ),
    Case(
        "withdrawn and replaced under another id",
        (
            [result(7.5, "1", "05 14")],
            [
                result(7.5, "2", "07 10", **ERROR),
                result(6.4, "1", "07 11", id="o2", issued=instant("07 11").isoformat()),
            ],
        ),
        """
        07 09 |       | A | 7.5
        07 10 |       | A | -
        07 11 |       | A | 6.4
        07 11 |       | A | count=1
        11 00 | 07 09 | A | 7.5
        """,
    ),
    Case(
        "withdrawn, then reinstated",
        ([result(7.5, "1", "05 14")], [result(7.5, "2", "07 10", **ERROR)], [result(7.5, "3", "09 10")]),
        """
        07 09 |       | A | 7.5
        09 09 |       | A | -
        09 10 |       | A | 7.5
        11 00 | 08 00 | A | -
        """,
    ),
    Case(
        "a diagnosis in error",
        ([diagnosis("1", "05 14", "confirmed")], [diagnosis("2", "07 10", "entered-in-error")]),
        """
        05 13 |       | A | diabetes=0
        07 09 |       | A | diabetes=1
        07 10 |       | A | diabetes=0
        11 00 | 07 09 | A | diabetes=1
        """,
    ),
    Case(
        "a diagnosis that is refuted, then confirmed after all",
        (
            [diagnosis("1", "05 14", "provisional")],
            [diagnosis("2", "07 10", "refuted")],
            [diagnosis("3", "09 10", "confirmed")],
        ),
        """
        07 09 |       | A | diabetes=1
        09 09 |       | A | diabetes=0
        09 10 |       | A | diabetes=1
        11 00 | 08 00 | A | diabetes=0
        """,
    ),
    Case(
        "an order that is cancelled",
        ([order("1", "05 14", "active")], [order("2", "07 10", "cancelled")]),
        """
        05 14 |       | A | metformin=1
        07 09 |       | A | metformin=1
        07 10 |       | A | metformin=0
        11 00 | 07 09 | A | metformin=1
        """,
    ),
    Case(
        "a stay that never was",
        ([stay("1", "05 14", "in-progress")], [stay("2", "07 10", "entered-in-error")]),
        """
        05 13 |       | A | in_hospital=0
        07 09 |       | A | in_hospital=1
        07 10 |       | A | in_hospital=0
        11 00 | 07 09 | A | in_hospital=1
        """,
    ),
    Case(
        "patient merged",
        (
            [*TWO, result(7.5, "1", "05 14")],
            [person("A", "2", "07 10", active=False, **link("replaced-by", "B"))],
        ),
        """
        07 09 |       | B | -
        07 10 |       | B | 7.5
        07 10 |       | A | 7.5
        11 00 | 07 09 | B | count=0
        """,
    ),
    Case(
        "patient merged, as the record that stays says",
        (
            [*TWO, result(7.5, "1", "05 14"), result(6.4, "1", "05 15", of="B", id="o2")],
            [person("B", "2", "07 10", **link("replaces", "A"))],
        ),
        """
        07 09 |       | B | 6.4
        07 09 |       | B | count=1
        07 10 |       | B | count=2
        07 10 |       | A | count=2
        """,
    ),
    Case(
        "patient merged, and unmerged",
        (
            [*TWO, result(7.5, "1", "05 14")],
            [person("A", "2", "07 10", active=False, **link("replaced-by", "B"))],
            [person("A", "3", "09 10")],
        ),
        """
        07 10 |       | B | 7.5
        09 09 |       | B | 7.5
        09 10 |       | B | -
        09 10 |       | A | 7.5
        11 00 | 08 00 | B | 7.5
        """,
    ),
)
