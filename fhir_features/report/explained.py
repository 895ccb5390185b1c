"""Why one patient's answer is what it is, as a page for the clinician who doubts it.

In goes an `Explanation` and the feature that it is of; out comes a page with, for each value of the feature, a timeline
in which both clocks are drawn, and a table of every version with its verdict, in the words and the time zone of the
clinic. It has a patient's data in it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fhir_features.features.compile import leaves
from fhir_features.features.explain import Explanation
from fhir_features.features.nodes import Aggregate, Encounters, Feature, PatientFact
from fhir_features.features.verdicts import COUNTS
from fhir_features.features.wording import in_words, unit_in_words, unit_of
from fhir_features.features.words import ENCOUNTER_CLASSES
from fhir_features.ontology import Ontologies, parse_concept
from fhir_features.report.page import hours, local, render, short, write_page
from fhir_features.report.timeline import Lane, Question, Span, close_up, timeline, whole_span
from fhir_features.report.values import Mark, values

# As many versions a timeline shows at most: those on which the answer rests, and of the others those nearest to T.
_MOST_LANES = 40
# As many of them may be versions from before the window that do not count.
_MOST_BEFORE = 3
_CODE = re.compile(r"[a-z][\w.-]*:[^\s,|()]+")
_CLASS_NAMES = {code: name for name, codes in ENCOUNTER_CLASSES.items() for code in codes}


@dataclass(frozen=True)
class Row:
    """One version as the table tells it.

    `says`: its value in the feature's unit, or what it is of, with `code` beneath; `written`: the value as its source
    wrote it, where that is another number. `true_text`: when it was true, as precisely as its source said. `lag`: from
    true to known in words.
    """

    number: int
    says: str
    code: str | None
    written: str | None
    true_at: dt.datetime | None
    true_text: str
    known_at: dt.datetime
    closed_at: dt.datetime | None
    lag: str
    value: float | None
    decides: bool
    verdict: str
    source_changed: bool
    known_through: str
    resource_type: str
    resource_id: str
    version: str
    other_patient: str | None

    @property
    def counts(self) -> bool:
        """Whether it is part of the answer."""
        return self.verdict == COUNTS

    def lane(self, zone: dt.tzinfo) -> Lane | None:
        """The row in a timeline; None without an instant at which it was true."""
        if self.true_at is None:
            return None
        closed = f", closed {local(self.closed_at, zone)}" if self.closed_at else ""
        told = f"{self.says}: true {self.true_text}, known {local(self.known_at, zone)}{closed}; {self.verdict}"
        instants = self.true_at, self.known_at, self.closed_at
        return Lane(self.number, self.says, *instants, self.counts, self.decides, self.verdict, told)


@dataclass(frozen=True)
class Part:
    """One value of the feature: its title, how many rows have each verdict, its timelines, the values where they are
    too many for lanes, the rows that are in the timeline (or all, without one), and the rest."""

    title: str
    verdicts: list[tuple[str, int]]
    whole: Markup | None
    close: Markup | None
    values: Markup | None
    rows: tuple[Row, ...]
    rest: tuple[Row, ...]


@dataclass(frozen=True)
class ExplanationPage:
    """An explanation as a page. `name`: "view:feature"; `known`: what codes are named by; `zone`: in which instants are
    told."""

    name: str
    feature: Feature
    site: str
    patient_id: str
    explained: Explanation
    known: Ontologies
    zone: dt.tzinfo

    def html(self) -> str:
        """The page: one document that loads nothing and runs nothing."""
        return render(
            "explain.html",
            name=self.name,
            feature=self.feature,
            definition=self._named(in_words(self.feature.value)),
            answer=_value(self.explained.answer, unit_of(self.feature.value)),
            site=self.site,
            patient_id=self.patient_id,
            explained=self.explained,
            parts=self.parts(),
            zone=self.zone,
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file that only its owner can read, replacing the one before. Raises UsageError."""
        return write_page(Path(path), self.html(), mode=0o600)

    def parts(self) -> list[Part]:
        """What the page shows of each value of the feature."""
        rows = list(enumerate(self.explained.rows.to_pylist(), start=1))
        names = self._names([row["text"] for _, row in rows if row["text"]])
        found = []
        for value in dict.fromkeys(leaves(self.feature.value)):
            own = tuple(self._row(number, row, value, names) for number, row in rows if row["part"] == in_words(value))
            found.append(self._part(value, own))
        return found

    def _names(self, codes: list[str]) -> dict[str, str]:
        """The names of codes ("system:code") that have one."""
        concepts = [parse_concept(code) for code in dict.fromkeys(codes) if _CODE.fullmatch(code)]
        return {str(concept): title for concept, title in self.known.titles(concepts).items()}

    def _named(self, words: str) -> str:
        """A definition, its codes by name."""
        names = self._names(_CODE.findall(words))
        return _CODE.sub(lambda found: f"{names[found[0]]} [{found[0]}]" if found[0] in names else found[0], words)

    def _row(self, number: int, row: dict[str, Any], value: Aggregate | PatientFact, names: Mapping[str, str]) -> Row:
        true_at, known_at, text = row["effective_at"], row["known_at"], row["text"]
        if isinstance(value, Aggregate) and isinstance(value.rows, Encounters):
            names = _CLASS_NAMES
        says = _value(row["number"], _unit(value)) or names.get(text, text) or row["written"] or "no value"
        is_own_status = "status" in row["verdict"] and row["status"]
        return Row(
            number,
            says,
            text if text in names else None,
            row["written"] if row["written"] != says and _is_other_number(row["written"], row["number"]) else None,
            true_at,
            _as_precise(row["effective_text"], true_at, self.zone),
            known_at,
            row["known_to"],
            _lag(known_at - true_at) if true_at else "",
            row["number"],
            row["decides"],
            f"{row['verdict']}: {row['status']}" if is_own_status else row["verdict"],
            row["source_changed"],
            row["known_at_source"].replace("_", " "),
            row["resource_type"],
            row["resource_id"],
            _version(row["version"], row["state"]),
            row["patient_id"] if row["patient_id"] != self.patient_id else None,
        )

    def _part(self, value: Aggregate | PatientFact, rows: tuple[Row, ...]) -> Part:
        title = self._named(in_words(value))
        verdicts = Counter(row.verdict for row in rows)
        by_number = sorted(verdicts.items(), key=lambda item: (item[0] != COUNTS, -item[1], item[0]))
        lanes = [lane for row in rows if (lane := row.lane(self.zone))]
        if isinstance(value, PatientFact) or not lanes:
            return Part(title, by_number, None, None, None, rows, ())
        asked = _question(self.explained, value)
        shown = _nearest(lanes, asked)
        near = close_up(shown, asked)
        says = f"Timeline of {title}"
        numbers = {lane.row for lane in shown}
        span = whole_span(shown, asked)
        return Part(
            title,
            by_number,
            timeline(shown, asked, span, says, self.zone),
            timeline(_moving(shown, near), asked, near, f"{says}, close to T", self.zone) if near else None,
            self._values(rows, asked, span, title) if len(shown) == _MOST_LANES else None,
            tuple(row for row in rows if row.number in numbers),
            tuple(row for row in rows if row.number not in numbers),
        )

    def _values(self, rows: tuple[Row, ...], asked: Question, span: Span, title: str) -> Markup | None:
        marks = [
            Mark(row.true_at, row.value, row.says, row.counts, row.decides)
            for row in rows
            if row.true_at and row.value is not None and span.holds(row.true_at)
        ]
        if not marks:
            return None
        low, high = (best(marks, key=lambda mark: mark.number).says for best in (min, max))
        says = (
            f"Values of {title}: {len(marks)} between {low} and {high}, {sum(m.counts for m in marks)} of which count"
        )
        return values(marks, asked, span, says, self.zone)


def _question(explained: Explanation, value: Aggregate) -> Question:
    start, end = value.window.start_us, value.window.end_us
    begins = None if start is None else explained.t - dt.timedelta(microseconds=start)
    return Question(explained.t, explained.k, begins, explained.t - dt.timedelta(microseconds=end))


def _moving(lanes: list[Lane], span: Span) -> list[Lane]:
    """The lanes of which something happens in a span of time."""
    return [lane for lane in lanes if any(map(span.holds, (lane.true_at, lane.known_at, lane.closed_at)))]


def _nearest(lanes: list[Lane], asked: Question) -> list[Lane]:
    by_nearness = sorted(lanes, key=lambda lane: (not lane.decides, abs(lane.true_at - asked.t)))
    before = [lane for lane in by_nearness if not lane.counts and asked.begins and lane.true_at <= asked.begins]
    left_out = {lane.row for lane in before[_MOST_BEFORE:]}
    chosen = [lane for lane in by_nearness if lane.row not in left_out][:_MOST_LANES]
    return sorted(chosen, key=lambda lane: lane.row)


def _unit(value: Aggregate | PatientFact) -> str:
    return "" if isinstance(value, PatientFact) else getattr(value.rows, "unit", None) or ""


def _value(value: Any, unit: str | None) -> str:
    """A value as it is told; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{short(float(value))} {unit_in_words(unit)}".rstrip()
    return str(value)


def _version(version: str, state: int) -> str:
    # What stands behind "~" tells versions of one number, or of none, apart, and says nothing to anybody.
    number = version.split("~")[0]
    said = f"version {number}" if number else "no version number"
    return f"{said}, as it was at first" if state == 0 else said


def _is_other_number(written: str | None, number: float | None) -> bool:
    """Whether what a source wrote is not the number that a row says, but one of another unit, or with a comparator."""
    return written is not None and (number is None or written.split(" ")[0] != f"{number:.12g}")


def _as_precise(text: str | None, true_at: dt.datetime | None, zone: dt.tzinfo) -> str:
    """When something was true: a date without a time as it was written, since nobody said at what time of the day."""
    return text if text and "T" not in text else local(true_at, zone)


def _lag(length: dt.timedelta) -> str:
    if not length:
        return "at once"
    said = hours(abs(length) / dt.timedelta(hours=1))
    return f"{said} {'later' if length > dt.timedelta(0) else 'before it was true'}"
