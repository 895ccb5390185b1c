"""Which operators there are: on which rows, of which kind of value, and how they are computed.

An operator takes what each question sees in a window (`seen.Seen`) and gives a value a question, with a flag where it
has none. `empty` is the answer over no rows for a patient who is known (DESIGN.md, "What every part keeps").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fhir_features.features.arrays import NEVER, Array, expand
from fhir_features.features.exact import as_doubles
from fhir_features.features.nodes import Kind, Window
from fhir_features.features.seen import Seen

DAY_US = 86_400_000_000

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "count": pa.int64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
}

# A value a question, and where it is missing; of a text the number of its word.
Computed = tuple[Array, Array]


@dataclass(frozen=True)
class Operator:
    """One operator.

    `reads`: the columns of a row that it looks at; the text of a `text` operator is in the first. `number`: it needs a
    unit. `instant`: its answer changes at every instant. `reaches_back`: a row from before the window that lasts into
    it counts, so that all rows up to the window's end are seen. `summary`: it asks for nothing but the count, the
    totals, extremes, and the oldest and newest rows of what is seen.
    """

    kind: Kind
    tables: tuple[str, ...]
    reads: tuple[str, ...]
    compute: Callable[[Seen, Window], Computed]
    says: str
    number: bool = False
    empty: int | None = None
    instant: bool = False
    reaches_back: bool = False
    summary: bool = False


def _values(seen: Seen) -> Array:
    return seen.pairs.column("value")


def _last(seen: Seen, window: Window) -> Computed:
    return seen.newest("value"), seen.none


def _first(seen: Seen, window: Window) -> Computed:
    return seen.oldest("value"), seen.none


def _min(seen: Seen, window: Window) -> Computed:
    return seen.extreme(np.minimum, "value"), seen.none


def _max(seen: Seen, window: Window) -> Computed:
    return seen.extreme(np.maximum, "value"), seen.none


def _sum(seen: Seen, window: Window) -> Computed:
    return as_doubles(*seen.totals()), seen.none


def _mean(seen: Seen, window: Window) -> Computed:
    return as_doubles(*seen.totals(), seen.count), seen.none


def _median(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    values = _values(seen)[places]
    values = values[np.lexsort((values, question))]
    begin = np.cumsum(seen.count) - seen.count
    low, high = seen.at(values, begin + (seen.count - 1) // 2), seen.at(values, begin + seen.count // 2)
    return (low + high) / 2, seen.none


def _std(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    distance = _values(seen)[places] - _mean(seen, window)[0][question]
    squares = _added(seen, distance * distance)
    return np.sqrt(squares / np.maximum(seen.count - 1, 1)), seen.count < 2


def _slope(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    instants = seen.pairs.column("effective_at")
    begin, end = seen.at(instants, seen.first), seen.at(instants, seen.last - 1)
    days = (instants[places] - begin[question]) / DAY_US
    days = days - (_added(seen, days) / np.maximum(seen.count, 1))[question]
    distance = _values(seen)[places] - _mean(seen, window)[0][question]
    with np.errstate(all="ignore"):
        return _added(seen, days * distance) / _added(seen, days * days), seen.none | (begin == end)


def _added(seen: Seen, values: Array) -> Array:
    """Floating sums over the pairs of `seen.inside`, in their order, which is that of the tie rule."""
    ends = np.cumsum(seen.count)
    bounds = np.column_stack([ends - seen.count, ends]).ravel()
    return np.where(seen.none, 0.0, np.add.reduceat(np.append(values, 0.0), bounds)[::2])


def _delta(seen: Seen, window: Window) -> Computed:
    return _last(seen, window)[0] - _first(seen, window)[0], seen.none


def _change(seen: Seen, window: Window) -> Computed:
    return seen.newest("value") - seen.newest("value", before=1), seen.count < 2


def _share_outside(seen: Seen, window: Window) -> Computed:
    outside = seen.pairs.column("outside")
    ranged = seen.total(outside >= 0)
    return seen.total(outside == 1) / np.maximum(ranged, 1), ranged == 0


def _count_abnormal(seen: Seen, window: Window) -> Computed:
    return seen.total(seen.pairs.column("abnormal")), np.zeros(len(seen.count), bool)


def _last_code(seen: Seen, window: Window) -> Computed:
    words = seen.pairs.column("coded_value")
    newest = np.maximum.accumulate(np.where(words >= 0, np.arange(len(words)), -1))
    place = np.where(seen.none, -1, seen.at(newest, seen.last - 1))
    return seen.at(words, place), place < seen.first


def _mode_code(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    words = seen.pairs.column("coded_value")[places]
    question, words, counts = _counted(question[words >= 0], words[words >= 0])
    best = np.lexsort((words, -counts, question))
    leads = best[np.append(True, question[best][1:] != question[best][:-1])] if len(best) else best
    answer = np.full(len(seen.count), -1, np.int64)
    answer[question[leads]] = words[leads]
    return answer, answer < 0


def _count(seen: Seen, window: Window) -> Computed:
    return seen.count, np.zeros(len(seen.count), bool)


def _count_concepts(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    words = seen.pairs.column("concept")[places]
    question, _, _ = _counted(question[words >= 0], words[words >= 0])
    return np.bincount(question, minlength=len(seen.count)), np.zeros(len(seen.count), bool)


def _count_ingredients(seen: Seen, window: Window) -> Computed:
    places, question = seen.inside
    first, length, ingredients = seen.pairs.row_set.lists("ingredients")
    rows = seen.pairs.rows[places]
    listed, number = expand(first[rows], length[rows])
    question, _, _ = _counted(question[number], ingredients[listed])
    return np.bincount(question, minlength=len(seen.count)), np.zeros(len(seen.count), bool)


def _counted(question: Array, words: Array) -> tuple[Array, Array, Array]:
    """How often each question has each word: a row for each that it has, in the order of both."""
    order = np.lexsort((words, question))
    question, words = question[order], words[order]
    begins = np.flatnonzero(np.append(True, (question[1:] != question[:-1]) | (words[1:] != words[:-1])))
    begins = begins if len(question) else begins[:0]
    return question[begins], words[begins], np.diff(np.append(begins, len(question)))


def _exists(seen: Seen, window: Window) -> Computed:
    return ~seen.none, np.zeros(len(seen.count), bool)


def _active(seen: Seen, window: Window) -> Computed:
    return seen.total(seen.pairs.active) > 0, np.zeros(len(seen.count), bool)


def _since(column: str, ufunc: np.ufunc, *, only_past: bool = False) -> Callable[[Seen, Window], Computed]:
    """Days from the oldest (minimum) or the newest (maximum) instant of a column to T."""

    def compute(seen: Seen, window: Window) -> Computed:
        if only_past:
            instants = seen.pairs.column(column)
            found = seen.reduce(ufunc, np.where(instants <= seen.pairs.t, instants, -NEVER))
        else:
            found = seen.extreme(ufunc, column)
        return (seen.pairs.questions.t - found) / DAY_US, seen.none | (np.abs(found) == NEVER)

    return compute


def _days(seen: Seen, window: Window) -> Computed:
    return _covered_us(seen, window) / DAY_US, np.zeros(len(seen.count), bool)


def _proportion_covered(seen: Seen, window: Window) -> Computed:
    assert window.start_us is not None
    return _covered_us(seen, window) / (window.start_us - window.end_us), seen.none


def _covered_us(seen: Seen, window: Window) -> Array:
    """How much of the window lies in one or more of the intervals from effective_at to covers_to."""
    places, question = seen.inside
    pairs = seen.pairs
    window_end = pairs.questions.t[question] - window.end_us
    begins, ends = pairs.column("effective_at")[places], np.minimum(pairs.column("covers_to")[places], window_end)
    if window.start_us is not None:
        begins = np.maximum(begins, pairs.questions.t[question] - window.start_us)
    ends = np.maximum(ends, begins)
    added = np.maximum(ends - np.maximum(begins, _reached_before(question, begins, ends)), 0)
    total = np.append(0, np.cumsum(added))
    places_end = np.cumsum(seen.count)
    covered: Array = total[places_end] - total[places_end - seen.count]
    return covered


def _reached_before(question: Array, begins: Array, ends: Array) -> Array:
    """The latest end of the pairs before each one, of the same question; where there are none, its own beginning."""
    # Through ranks, as question and end do not fit into one number.
    ranked = np.argsort(ends, kind="stable")
    rank = np.empty(len(ends), np.int64)
    rank[ranked] = np.arange(len(ends))
    reached = np.maximum.accumulate(question * len(ends) + rank) - question * len(ends)
    answer = begins.copy()
    same = question[1:] == question[:-1]
    answer[1:][same] = ends[ranked[reached[:-1][same]]]
    return answer


_ALL = ("observations", "conditions", "medication_requests", "encounters")
_NUMBERS = ("observations",)
_ORDERS = ("medication_requests",)


def _number(compute: Callable[[Seen, Window], Computed], says: str, *, summary: bool = True) -> Operator:
    return Operator("number", _NUMBERS, ("value",), compute, says, number=True, summary=summary)


def _counting(compute: Callable[[Seen, Window], Computed], says: str, tables: tuple[str, ...], *reads: str) -> Operator:
    return Operator("count", tables, reads, compute, says, empty=0, summary=not reads)


def _flag(
    compute: Callable[[Seen, Window], Computed], says: str, tables: tuple[str, ...], *, summary: bool = True
) -> Operator:
    return Operator("boolean", tables, (), compute, says, empty=0, summary=summary)


def _days_since(column: str, ufunc: np.ufunc, says: str, *tables: str, only_past: bool = False) -> Operator:
    reads = () if column == "effective_at" else (column,)
    compute = _since(column, ufunc, only_past=only_past)
    return Operator("number", tables, reads, compute, says, instant=True, summary=not only_past)


OPERATORS: dict[str, Operator] = {
    "last": _number(_last, "the newest value, which is the nearest before T"),
    "first": _number(_first, "the oldest value"),
    "min": _number(_min, "the smallest value"),
    "max": _number(_max, "the largest value"),
    "sum": _number(_sum, "the sum of the values"),
    "mean": _number(_mean, "the mean of the values"),
    "median": _number(_median, "the median of the values", summary=False),
    "std": _number(_std, "the sample standard deviation; of fewer than two, null", summary=False),
    "slope": _number(_slope, "the change per day, by least squares; at a single instant, null", summary=False),
    "delta": _number(_delta, "the newest value minus the oldest"),
    "change": _number(_change, "the newest value minus the one before it"),
    "share_outside_range": Operator(
        "number",
        _NUMBERS,
        ("outside",),
        _share_outside,
        "of the results with a reference range, the share outside of it",
    ),
    "count_abnormal": _counting(_count_abnormal, "how many are interpreted as abnormal", _NUMBERS, "abnormal"),
    "last_code": Operator("text", _NUMBERS, ("coded_value",), _last_code, "the newest coded value"),
    "mode_code": Operator(
        "text",
        _NUMBERS,
        ("coded_value",),
        _mode_code,
        "the most frequent coded value; of equals the first in the alphabet",
    ),
    "count": _counting(_count, "how many there are", _ALL),
    "count_concepts": _counting(
        _count_concepts, "how many different concepts there are", ("conditions", *_ORDERS), "concept"
    ),
    "count_ingredients": _counting(
        _count_ingredients, "how many different ingredients they have", _ORDERS, "ingredients"
    ),
    "exists": _flag(_exists, "whether there is one", _ALL),
    "ever": _flag(_exists, "whether there has been one at or before T", _ALL),
    "active": _flag(_active, "whether one is active at T", _ALL[1:], summary=False),
    "time_since_last": _days_since("effective_at", np.maximum, "days from the newest to T", *_ALL),
    "time_since_onset": _days_since("effective_at", np.minimum, "days from the first onset to T", "conditions"),
    "time_since_recorded": _days_since(
        "recorded_at", np.minimum, "days from when the first was recorded to T", "conditions"
    ),
    "time_since_discharge": _days_since(
        "end_at", np.maximum, "days from the newest discharge to T", "encounters", only_past=True
    ),
    "days": Operator(
        "number",
        ("encounters",),
        ("covers_to",),
        _days,
        "how many days of the window lie in an encounter",
        empty=0,
        instant=True,
        reaches_back=True,
    ),
    "proportion_covered": Operator(
        "number",
        _ORDERS,
        ("covers_to",),
        _proportion_covered,
        "the share of the window that orders cover",
        empty=0,
        instant=True,
        reaches_back=True,
    ),
}

# Over the visible version of the patient's own record; known at K is all that it takes (TIME section C).
PATIENT_OPERATORS: dict[str, tuple[Kind, str]] = {
    "age": ("count", "completed years at T, by UTC dates"),
    "age_days": ("count", "days since birth, by UTC dates"),
    "sex": ("text", "Patient.gender"),
    "deceased": ("boolean", "whether the patient is known to have died"),
}

# Their answers change although nothing happens, so that no table of cadence on_change can hold them.
INSTANT_OPERATORS = frozenset({name for name, each in OPERATORS.items() if each.instant} | {"age_days"})


@dataclass(frozen=True)
class ExpressionOperator:
    """A value made of two answers, which are null where either is null. `known`: whether the patient is known at K."""

    kind: Kind
    compute: Callable[[pa.Array, pa.Array, pa.Array], pa.Array]
    says: str


def _ratio(one: pa.Array, other: pa.Array, known: pa.Array) -> pa.Array:
    divisor = other.cast(pa.float64())
    return pc.divide(one.cast(pa.float64()), pc.if_else(pc.equal(divisor, 0.0), None, divisor))


def _difference(one: pa.Array, other: pa.Array, known: pa.Array) -> pa.Array:
    return pc.subtract(one.cast(pa.float64()), other.cast(pa.float64()))


def _coalesce(one: pa.Array, other: pa.Array, known: pa.Array) -> pa.Array:
    return pc.coalesce(one.cast(pa.float64()), pc.if_else(known, other.cast(pa.float64()), None))


def _compared(name: str) -> Callable[[pa.Array, pa.Array, pa.Array], pa.Array]:
    return lambda one, other, known: pc.call_function(name, [one, other])


EXPRESSIONS: dict[str, ExpressionOperator] = {
    "ratio": ExpressionOperator("number", _ratio, "one divided by the other; null where that is 0"),
    "difference": ExpressionOperator("number", _difference, "one minus the other"),
    "coalesce": ExpressionOperator(
        "number", _coalesce, "one, or for a patient who is known, where it is null, the other"
    ),
    "greater": ExpressionOperator("boolean", _compared("greater"), "whether one is greater than the other"),
    "less": ExpressionOperator("boolean", _compared("less"), "whether one is less than the other"),
    "at_least": ExpressionOperator("boolean", _compared("greater_equal"), "whether one is the other or greater"),
    "at_most": ExpressionOperator("boolean", _compared("less_equal"), "whether one is the other or less"),
    "equal": ExpressionOperator("boolean", _compared("equal"), "whether one is the other"),
    "unequal": ExpressionOperator("boolean", _compared("not_equal"), "whether one is not the other"),
}
