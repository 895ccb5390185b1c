"""Invented patients, written as tables in Markdown: a page that a clinician reads, in; rows of event tables, out.

Each `## heading` begins a patient; what kind of rows a table has is said by its first column: `born` (the patient's
record), `observation`, `condition`, `medication`, `encounter`, or `asked at`, whose further columns are features as
`view:feature` with the answers that are expected. Instants are in UTC unless they have an offset; an empty cell is
nothing stated. All else on the page is prose. Raises DefinitionError of one line that names the file and the line.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.terms import ontologies
from fhir_features.features.words import encounter_classes
from fhir_features.ontology import parse_concept

ASKED = "asked at"
SITE = "test"
_SINCE_EVER = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One line of an `asked at` table: T, K, and by feature ("view:feature") the expected answer as it is written."""

    line: int
    t: dt.datetime
    k: dt.datetime
    expected: dict[str, str]


@dataclass(frozen=True)
class Invented:
    """One patient: the heading, and the event rows by table, with codes and units as they are written.

    A row has `until` beside the columns of its event table: when its version was closed, or None.
    """

    title: str
    line: int
    rows: dict[str, list[Row]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """The rows of one kind: their event table, how each column is read, and what stands where a cell is empty."""

    table: str
    columns: dict[str, tuple[str, Callable[[str], Any]]]
    otherwise: Row
    needed: tuple[str, ...]


def read_patients(file: Path) -> list[Invented]:
    """The invented patients of a page."""
    if not file.exists():
        raise DefinitionError(f"there are no feature tests at {file}: write invented patients there, as tables")
    patients: list[Invented] = []
    for title, line, header, cells in _lines(file):
        if title is not None:
            patients.append(Invented(title, line))
            continue
        try:
            if not patients:
                raise DefinitionError("a table stands before the first '## heading', which names a patient")
            _add(patients[-1], line, header, cells)
        except (DefinitionError, ValueError) as error:
            raise DefinitionError(f"{file}, line {line}: {error}") from None
    return patients


def _lines(file: Path) -> Iterator[tuple[str | None, int, list[str], list[str]]]:
    """The headings, as (title, line, [], []), and the lines of tables, as (None, line, header, cells)."""
    header: list[str] = []
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if text.startswith("## "):
            yield text[3:].strip(), line, [], []
        if not text.lstrip().startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in text.strip().removeprefix("|").removesuffix("|").split("|")]
        if not header:
            header = cells
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            yield None, line, header, cells


def _add(patient: Invented, line: int, header: list[str], cells: list[str]) -> None:
    if len(cells) != len(header):
        raise DefinitionError(f"the table has {len(header)} columns, and this line {len(cells)}")
    stated = dict(zip(header, cells, strict=True))
    if header[0] == ASKED:
        patient.asked.append(_asked(line, stated))
        return
    if header[0] not in KINDS:
        raise DefinitionError(f"'{header[0]}' is no kind of table: {did_you_mean(header[0], [*KINDS, ASKED])}")
    kind = KINDS[header[0]]
    row = {**kind.otherwise, "resource_id": f"line {line}"}
    for name, cell in stated.items():
        if name not in kind.columns:
            raise DefinitionError(f"'{name}' is no column of {header[0]}: {did_you_mean(name, kind.columns)}")
        column, read = kind.columns[name]
        if cell:
            row[column] = read(cell)
    for name in kind.needed:
        if not stated.get(name):
            raise DefinitionError(f"the line says no '{name}': every {header[0]} has one")
    patient.rows.setdefault(kind.table, []).append(_completed(kind.table, row))


def _asked(line: int, stated: dict[str, str]) -> Asked:
    t = _instant(stated.pop(ASKED))
    known_as_of = stated.pop("known as of", "")
    return Asked(line, t, min(t, _instant(known_as_of)) if known_as_of else t, stated)


def _completed(table: str, row: Row) -> Row:
    """A row with what follows from what it states."""
    row.setdefault("effective_at", _SINCE_EVER)
    row.setdefault("known_at", row["effective_at"])
    if table == "medication_requests":
        row["authored_at"] = row["effective_at"]
    if table == "encounters":
        row["start_at"] = row["effective_at"]
        row.setdefault("status", "finished" if row.get("end_at") else "in-progress")
    return row


def _instant(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not an instant: write it like '2024-03-05 14:00', in UTC") from None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a date: write it like '1960-05-04'") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None


def _whole(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"'{text}' is neither 'yes' nor 'no'")
    return text == "yes"


def _text(text: str) -> str:
    return text


def _texts(text: str) -> list[str]:
    return [text]


def _code(text: str) -> str:
    parse_concept(text)
    return text


def _unit(text: str) -> str:
    ontologies().units.check(text)
    return text


def _class(text: str) -> str:
    codes = encounter_classes(text)
    if codes != (text,):
        raise ValueError(f"'{text}' is several classes: write the one of this stay, of {', '.join(codes)}")
    return text


_CLOCKS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "known": ("known_at", _instant),
    "until": ("until", _instant),
    "site": ("site", _text),
}
_ANYWHERE: Row = {"site": SITE, "until": None}

KINDS: dict[str, Kind] = {
    "born": Kind(
        "patients",
        {"born": ("birth_date", _day), "sex": ("sex", _text), "deceased": ("deceased", _flag), **_CLOCKS},
        {**_ANYWHERE, "deceased": False},
        (),
    ),
    "observation": Kind(
        "observations",
        {
            "observation": ("code", _code),
            "drawn": ("effective_at", _instant),
            "value": ("value_number", _number),
            "unit": ("unit", _unit),
            "coded": ("value_code", _code),
            "absent": ("absent_reason", _text),
            "comparator": ("value_comparator", _text),
            "status": ("status", _text),
            "category": ("categories", _texts),
            "interpretation": ("interpretations", _texts),
            "method": ("method_code", _code),
            "encounter": ("encounter_id", _text),
            "low": ("reference_low", _number),
            "high": ("reference_high", _number),
            **_CLOCKS,
        },
        {**_ANYWHERE, "component": 0, "status": "final"},
        ("observation", "drawn"),
    ),
    "condition": Kind(
        "conditions",
        {
            "condition": ("code", _code),
            "onset": ("effective_at", _instant),
            "recorded": ("recorded_at", _instant),
            "abated": ("abatement_at", _instant),
            "clinical": ("clinical_status", _text),
            "verification": ("verification_status", _text),
            "category": ("categories", _texts),
            "encounter": ("encounter_id", _text),
            **_CLOCKS,
        },
        {**_ANYWHERE, "verification_status": "confirmed", "categories": ["problem-list-item"]},
        ("condition", "onset"),
    ),
    "medication": Kind(
        "medication_requests",
        {
            "medication": ("code", _code),
            "ordered": ("effective_at", _instant),
            "status": ("status", _text),
            "intent": ("intent", _text),
            "days": ("supply_days", _number),
            "repeats": ("repeats", _whole),
            "ends": ("bounds_end", _instant),
            "category": ("categories", _texts),
            "encounter": ("encounter_id", _text),
            "reported": ("reported", _flag),
            "forbidden": ("do_not_perform", _flag),
            **_CLOCKS,
        },
        {**_ANYWHERE, "status": "active", "intent": "order"},
        ("medication", "ordered"),
    ),
    "encounter": Kind(
        "encounters",
        {
            "encounter": ("class_code", _class),
            "start": ("effective_at", _instant),
            "end": ("end_at", _instant),
            "status": ("status", _text),
            "id": ("resource_id", _text),
            **_CLOCKS,
        },
        _ANYWHERE,
        ("encounter", "start"),
    ),
}
