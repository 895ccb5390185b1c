"""Why one patient's answer is what it is, as a page for the clinician who doubts it.

In goes an `Explanation` and the feature that it is of; out comes a page with, for each value of the feature, a timeline
in which both clocks are drawn, and a table of every version with its verdict. It has a patient's data in it.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fhir_features.features.compile import leaves
from fhir_features.features.explain import Explanation
from fhir_features.features.nodes import Aggregate, Feature, PatientFact
from fhir_features.features.verdicts import COUNTS
from fhir_features.features.wording import in_words, unit_in_words, unit_of
from fhir_features.report.page import hours, render, short, write_page
from fhir_features.report.timeline import Lane, Question, Span, close_up, timeline, whole_span

# As many versions a timeline shows at most: those nearest to T, and all on which the answer rests.
_MOST_LANES = 40


@dataclass(frozen=True)
class Row:
    """One version as the table tells it. `lag`: from true to known in words."""

    number: int
    says: str
    true_at: dt.datetime | None
    known_at: dt.datetime
    closed_at: dt.datetime | None
    lag: str
    counts: bool
    decides: bool
    verdict: str
    source_changed: bool
    known_through: str
    resource_type: str
    resource_id: str
    version: str
    other_patient: str | None

    @property
    def lane(self) -> Lane | None:
        """The row in a timeline; None without an instant at which it was true."""
        if self.true_at is None:
            return None
        instants = self.true_at, self.known_at, self.closed_at
        return Lane(self.number, self.says, *instants, self.counts, self.decides, self.verdict)


@dataclass(frozen=True)
class Part:
    """One value of the feature: its title, how many rows have each verdict, its timelines and its rows."""

    title: str
    verdicts: list[tuple[str, int]]
    whole: Markup | None
    close: Markup | None
    untold: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ExplanationPage:
    """An explanation as a page. `name`: "view:feature"."""

    name: str
    feature: Feature
    site: str
    patient_id: str
    explained: Explanation

    def html(self) -> str:
        """The page: one document that loads nothing and runs nothing."""
        return render(
            "explain.html",
            name=self.name,
            definition=in_words(self.feature.value),
            answer=_answer(self.explained.answer, unit_of(self.feature.value)),
            site=self.site,
            patient_id=self.patient_id,
            explained=self.explained,
            parts=self.parts(),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file that only its owner can read, replacing the one before. Raises UsageError."""
        return write_page(Path(path), self.html(), mode=0o600)

    def parts(self) -> list[Part]:
        """What the page shows of each value of the feature."""
        rows = list(enumerate(self.explained.rows.to_pylist(), start=1))
        found = []
        for value in dict.fromkeys(leaves(self.feature.value)):
            own = tuple(self._row(number, row, value) for number, row in rows if row["part"] == in_words(value))
            found.append(self._part(value, own))
        return found

    def _row(self, number: int, row: dict[str, Any], value: Aggregate | PatientFact) -> Row:
        true_at, known_at = row["effective_at"], row["known_at"]
        return Row(
            number,
            _answer(row["number"] if row["number"] is not None else row["text"], _unit(value)),
            true_at,
            known_at,
            row["known_to"],
            _lag(known_at - true_at) if true_at else "",
            row["verdict"] == COUNTS,
            row["decides"],
            row["verdict"],
            row["source_changed"],
            row["known_at_source"],
            row["resource_type"],
            row["resource_id"],
            row["version"],
            row["patient_id"] if row["patient_id"] != self.patient_id else None,
        )

    def _part(self, value: Aggregate | PatientFact, rows: tuple[Row, ...]) -> Part:
        verdicts = Counter(row.verdict for row in rows)
        by_number = sorted(verdicts.items(), key=lambda item: (item[0] != COUNTS, -item[1], item[0]))
        lanes = [row.lane for row in rows if row.lane]
        if isinstance(value, PatientFact) or not lanes:
            return Part(in_words(value), by_number, None, None, 0, rows)
        asked = _question(self.explained, value)
        shown = _nearest(lanes, asked)
        near = close_up(shown, asked)
        says = f"Timeline of {in_words(value)}"
        return Part(
            in_words(value),
            by_number,
            timeline(shown, asked, whole_span(shown, asked), says),
            timeline(_moving(shown, near), asked, near, f"{says}, close to T") if near else None,
            len(lanes) - len(shown),
            rows,
        )


def _question(explained: Explanation, value: Aggregate) -> Question:
    start, end = value.window.start_us, value.window.end_us
    begins = None if start is None else explained.t - dt.timedelta(microseconds=start)
    return Question(explained.t, explained.k, begins, explained.t - dt.timedelta(microseconds=end))


def _moving(lanes: list[Lane], span: Span) -> list[Lane]:
    """The lanes of which something happens in a span of time."""
    return [lane for lane in lanes if any(map(span.holds, (lane.true_at, lane.known_at, lane.closed_at)))]


def _nearest(lanes: list[Lane], asked: Question) -> list[Lane]:
    chosen = sorted(lanes, key=lambda lane: (not lane.decides, abs(lane.true_at - asked.t)))[:_MOST_LANES]
    return sorted(chosen, key=lambda lane: lane.row)


def _unit(value: Aggregate | PatientFact) -> str:
    return "" if isinstance(value, PatientFact) else getattr(value.rows, "unit", None) or ""


def _answer(value: Any, unit: str | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{short(float(value))} {unit_in_words(unit)}".rstrip()
    return str(value)


def _lag(length: dt.timedelta) -> str:
    if not length:
        return "at once"
    said = hours(abs(length) / dt.timedelta(hours=1))
    return f"{said} {'later' if length > dt.timedelta(0) else 'before it was true'}"
