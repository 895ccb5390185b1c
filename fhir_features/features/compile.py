"""One SQL a feature view: which statement answers its features for a set of questions.

In go the features of a view; out comes a `Plan`: the statement, and the selections (distinct rows nodes, numbered per
table) whose members `terms` looks up. The statement reads the views of `lake.create_views`, a table `asked` (question,
site, bucket, patient_id, t, k: T and K of TIME rule 1), the member tables, and two parameters, the first and the last
bucket. It gives one row a question with a column a feature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from fhir_features.features.nodes import Aggregate, Feature, Kind, PatientFact, Rows, Value, Window
from fhir_features.features.operators import ARROW_TYPES, MAGNITUDE, OPERATORS, PATIENT_OPERATORS
from fhir_features.lake import identifier, literal

# TIME section C, column "counts unless the feature asks otherwise".
OBSERVATION_STATUSES = ("preliminary", "final", "amended", "corrected", "appended")
VERIFICATION_STATUSES = ("confirmed", "unconfirmed", "provisional")
ACTIVE_CLINICAL_STATUSES = ("active", "recurrence", "relapse")
MEDICATION_STATUSES = ("active", "on-hold", "completed", "stopped", "unknown")
ACTIVE_MEDICATION_STATUSES = ("active", "unknown")
ORDER_INTENTS = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
REPORTED_INTENTS = ("plan", "proposal")
ENCOUNTER_STATUSES = ("in-progress", "arrived", "triaged", "onleave", "finished")

# No order lasts ten thousand years; beyond it instants overflow.
_LONGEST_DAYS = 3_650_000

_UNITS = (("w", 604_800_000_000), ("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000))


@dataclass(frozen=True)
class Plan:
    """A compiled view: the statement, its columns, and the selections of each table in their order."""

    sql: str
    features: tuple[Feature, ...]
    selections: dict[str, tuple[Rows, ...]] = field(hash=False)
    reads_encounters: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(feature.name for feature in self.features)

    @property
    def schema(self) -> pa.Schema:
        """The columns of an answer: `question` and the features."""
        return pa.schema(
            [("question", pa.int64())] + [(each.name, ARROW_TYPES[kind_of(each.value)]) for each in self.features]
        )


def compile_features(features: tuple[Feature, ...]) -> Plan:
    """The plan that answers these features."""
    by_table: dict[str, list[Feature]] = {}
    for feature in features:
        if isinstance(feature.value, Aggregate):
            by_table.setdefault(feature.value.rows.table, []).append(feature)
    parts = [_TablePart(table, chosen) for table, chosen in by_table.items()]
    ctes = [_questions(features)]
    if any(part.needs_open_encounters for part in parts):
        ctes.append(_OPEN_ENCOUNTERS)
    for part in parts:
        ctes += part.ctes()
    ctes.append(_KNOWN_PATIENTS)
    joins = "".join(f"\nLEFT JOIN {part.table}_features USING (question)" for part in parts)
    columns = ",\n  ".join(f"{_answer(feature)} AS {identifier(feature.name)}" for feature in features)
    sql = (
        "WITH "
        + ",\n".join(ctes)
        + f"\nSELECT\n  question,\n  {columns}\nFROM questions q\nLEFT JOIN known_patients p USING (question){joins}"
    )
    return Plan(
        sql,
        features,
        {part.table: part.selections for part in parts},
        reads_encounters=any(part.needs_open_encounters for part in parts),
    )


def kind_of(value: Value) -> Kind:
    """Which kind of answer a value gives."""
    if isinstance(value, PatientFact):
        return PATIENT_OPERATORS[value.operator][0]
    return OPERATORS[value.operator].kind


def duration_text(us: int) -> str:
    """A length in microseconds as a person writes it: `365d`."""
    unit, length = next((unit, length) for unit, length in _UNITS if us % length == 0)
    return f"{us // length}{unit}"


def _questions(features: tuple[Feature, ...]) -> str:
    """The questions of the buckets at hand, with the edges of all windows worked out once a question."""
    edges = sorted(
        {
            edge
            for feature in features
            if isinstance(feature.value, Aggregate)
            for edge in (feature.value.window.start_us, feature.value.window.end_us)
            if edge
        }
    )
    columns = "".join(f",\n    t - to_microseconds({edge}) AS {_edge(edge)}" for edge in edges)
    return f"""questions AS (
  SELECT
    question, site, bucket, patient_id, t, k{columns}
  FROM asked
  WHERE bucket BETWEEN $first_bucket AND $last_bucket
)"""


def _edge(us: int) -> str:
    return f"t_minus_{duration_text(us)}" if us else "t"


def _answer(feature: Feature) -> str:
    """The final column of a feature: what its rows gave, or what nothing means for a patient who is known."""
    if isinstance(feature.value, PatientFact):
        return _PATIENT_FACTS[feature.value.operator]
    name = f"{feature.value.rows.table}_features.{identifier(feature.name)}"
    empty = OPERATORS[feature.value.operator].empty
    if empty is None:
        return name
    return f"coalesce(nullif({name}, {empty}), CASE WHEN p.known THEN {empty} END)"


class _TablePart:
    """The CTEs of one event table: its rows selected once, seen from each question, aggregated once a selection."""

    def __init__(self, table: str, features: list[Feature]) -> None:
        self.table = table
        self.values = [(feature.name, feature.value) for feature in features if isinstance(feature.value, Aggregate)]
        self.selections = tuple(dict.fromkeys(value.rows for _, value in self.values))
        self.windows = list(dict.fromkeys(value.window for _, value in self.values))
        self.needs_open_encounters = table == "conditions" and any(v.operator == "active" for _, v in self.values)

    def ctes(self) -> list[str]:
        """What was selected, what of it is visible, the aggregates, and one column a feature."""
        return [_SELECTED[self.table], self._visible(), self._aggregated(), self._features()]

    def _visible(self) -> str:
        columns = [
            f"({self._inside(window)}) AS {_flag(window)}" for window in self.windows if window != self._widest()
        ]
        if any(value.operator == "active" for _, value in self.values):
            columns.append(f"{_ACTIVE[self.table]} AS active")
        return f"""visible_{self.table} AS (
  SELECT
    {", ".join(["q.question", "e.selection", "e.effective_at", "e.tie", *_MORE.get(self.table, ())])}{
            "".join(f",{chr(10)}    {column}" for column in columns)
        }
  FROM questions q
  JOIN selected_{self.table} e
    ON e.site = q.site
    AND e.patient_id = q.patient_id{_JOIN_OPEN_ENCOUNTERS if self.needs_open_encounters else ""}
  WHERE e.known_at <= q.k
    AND (e.known_to > q.k OR e.known_to IS NULL)
    AND {self._inside(self._widest())}
)"""

    def _widest(self) -> Window:
        """The window that holds all others."""
        starts = [window.start_us for window in self.windows]
        start = None if None in starts else max(us for us in starts if us is not None)
        return Window(start_us=start, end_us=min(window.end_us for window in self.windows))

    @staticmethod
    def _inside(window: Window) -> str:
        before = f"e.effective_at <= q.{_edge(window.end_us)}"
        if window.start_us is None:
            return before
        return f"e.effective_at > q.{_edge(window.start_us)} AND {before}"

    def _aggregates(self) -> dict[str, str]:
        """Each distinct aggregate with its window, and the name of its column."""
        wanted: dict[str, str] = {}
        for _, value in self.values:
            for aggregate in OPERATORS[value.operator].aggregates:
                wanted.setdefault(self._filtered(aggregate, value.window), f"a{len(wanted)}")
        return wanted

    def _filtered(self, aggregate: str, window: Window) -> str:
        return aggregate if window == self._widest() else f"{aggregate} FILTER (WHERE {_flag(window)})"

    def _aggregated(self) -> str:
        columns = "".join(f",\n    {sql} AS {name}" for sql, name in self._aggregates().items())
        return f"""aggregated_{self.table} AS (
  SELECT
    question, selection{columns}
  FROM visible_{self.table}
  GROUP BY question, selection
)"""

    def _features(self) -> str:
        names = self._aggregates()
        columns = []
        for name, value in self.values:
            operator = OPERATORS[value.operator]
            parts = [names[self._filtered(aggregate, value.window)] for aggregate in operator.aggregates]
            number = self.selections.index(value.rows)
            columns.append(
                f"any_value({operator.answer.format(*parts)}) FILTER (WHERE selection = {number}) AS {identifier(name)}"
            )
        listed = ",\n    ".join(columns)
        return f"""{self.table}_features AS (
  SELECT
    question,
    {listed}
  FROM aggregated_{self.table}
  JOIN questions USING (question)
  GROUP BY question
)"""


def _flag(window: Window) -> str:
    start = "ever" if window.start_us is None else f"within_{duration_text(window.start_us)}"
    return start if window.end_us == 0 else f"{start}_until_{duration_text(window.end_us)}"


def listed(words: tuple[str, ...]) -> str:
    """Words as a SQL list, for IN."""
    return "(" + ", ".join(literal(word) for word in words) + ")"


def _days_after(start: str, days: str) -> str:
    # least() keeps an absurd length from overflowing; it is as good as endless.
    return f"{start} + to_microseconds(CAST(least({days}, {_LONGEST_DAYS}) * 86400000000 AS BIGINT))"


def _selected(table: str, columns: str, source: str, where: str, last_of_tie: str = "e.version, e.state") -> str:
    return f"""selected_{table} AS (
  SELECT
    m.selection, e.site, e.patient_id, e.effective_at, e.known_at, e.known_to,
    ROW(e.effective_at, e.known_at, e.resource_id, {last_of_tie}) AS tie{columns}
  FROM {table} e
  {source}
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
    AND {where}
)"""


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

_VALUE = "e.value_number * c.factor + c.addend"

_SELECTED = {
    "observations": _selected(
        "observations",
        f",\n    {_VALUE} AS value",
        "JOIN observations_members m ON m.code_id = e.code_id\n"
        "  LEFT JOIN conversions c\n"
        "    ON c.selection = m.selection\n"
        "    AND c.code_id = e.code_id\n"
        "    AND c.unit_id IS NOT DISTINCT FROM e.unit_id",
        f"e.status IN {listed(OBSERVATION_STATUSES)}\n"
        "    AND e.absent_reason IS NULL\n"
        # NaN sorts above all numbers, so that it fails like an infinite or absurd value.
        f"    AND (NOT m.needs_number OR abs({_VALUE}) <= {MAGNITUDE:.0e})",
        "e.component, e.version, e.state",
    ),
    "conditions": _selected(
        "conditions",
        ",\n    e.clinical_status, e.abatement_at, e.encounter_id,\n"
        "    list_contains(e.categories, 'encounter-diagnosis') AS is_encounter_diagnosis",
        "JOIN conditions_members m ON m.code_id = e.code_id",
        f"(e.verification_status IN {listed(VERIFICATION_STATUSES)} OR e.verification_status IS NULL)",
    ),
    "medication_requests": _selected(
        "medication_requests",
        f",\n    e.status,\n    {ENDS_AT} AS ends_at",
        "JOIN medication_requests_members m ON m.code_id = e.code_id",
        f"e.status IN {listed(MEDICATION_STATUSES)}\n"
        "    AND NOT coalesce(e.do_not_perform, false)\n"
        f"    AND (e.intent IN {listed(ORDER_INTENTS)} OR (e.reported AND e.intent IN {listed(REPORTED_INTENTS)}))",
    ),
    "encounters": _selected(
        "encounters",
        "",
        "JOIN encounters_members m ON m.class_code = e.class_code OR m.class_code IS NULL",
        f"e.status IN {listed(ENCOUNTER_STATUSES)}",
    ),
}

# Columns beside effective_at and tie that aggregates read.
_MORE = {"observations": ("e.value",)}

_ACTIVE = {
    # TIME section C: an encounter diagnosis without a clinical status is active during its encounter.
    "conditions": f"""(e.abatement_at IS NULL OR e.abatement_at > q.t)
    AND CASE
      WHEN e.clinical_status IS NOT NULL THEN e.clinical_status IN {listed(ACTIVE_CLINICAL_STATUSES)}
      WHEN e.is_encounter_diagnosis THEN o.encounter_id IS NOT NULL
      ELSE true
    END""",
    "medication_requests": f"e.status IN {listed(ACTIVE_MEDICATION_STATUSES)} AND q.t < e.ends_at",
}

_OPEN_ENCOUNTERS = f"""open_encounters AS (
  SELECT DISTINCT
    q.question, e.resource_id AS encounter_id
  FROM questions q
  JOIN encounters e
    ON e.site = q.site
    AND e.patient_id = q.patient_id
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
    AND e.known_at <= q.k
    AND (e.known_to > q.k OR e.known_to IS NULL)
    AND e.status IN {listed(ENCOUNTER_STATUSES)}
    AND e.effective_at <= q.t
    AND (e.end_at > q.t OR e.end_at IS NULL)
)"""

_JOIN_OPEN_ENCOUNTERS = """
  LEFT JOIN open_encounters o
    ON o.question = q.question
    AND o.encounter_id = e.encounter_id"""

_KNOWN_PATIENTS = """known_patients AS (
  SELECT
    q.question,
    true AS known,
    arg_max_null(e.birth_date, ROW(e.known_at, e.resource_id, e.version, e.state)) AS birth_date,
    arg_max_null(e.sex, ROW(e.known_at, e.resource_id, e.version, e.state)) AS sex
  FROM questions q
  JOIN patients e
    ON e.site = q.site
    AND e.patient_id = q.patient_id
  WHERE e.bucket BETWEEN $first_bucket AND $last_bucket
    AND e.known_at <= q.k
    AND (e.known_to > q.k OR e.known_to IS NULL)
  GROUP BY q.question
)"""

_PATIENT_FACTS = {
    "age": """CASE
    WHEN p.birth_date <= CAST(q.t AS DATE) THEN
      year(q.t) - year(p.birth_date)
      - CAST(ROW(month(q.t), day(q.t)) < ROW(month(p.birth_date), day(p.birth_date)) AS BIGINT)
  END""",
    "sex": "p.sex",
}
