"""The operators as methods: rows of one kind, waiting to be asked for something.

A window is `within="365d"` (the time before T), `within=between("7d", "1d")` (from 7 days to 1 day before T; `None` is
the beginning of history), or none, which is all of history up to T. Raises DefinitionError of one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.nodes import (
    Aggregate,
    Conditions,
    Encounters,
    Medications,
    Observations,
    Window,
)
from fhir_features.features.terms import ontologies
from fhir_features.features.unnamed import Unnamed, finite
from fhir_features.features.wording import rows_in_words
from fhir_features.features.words import (
    CLINICAL_STATUSES,
    ORDER_STATUSES,
    RESULT_STATUSES,
    STAY_STATUSES,
    VERIFICATION_STATUSES,
    encounter_classes,
)
from fhir_features.ontology import ConceptSet, concept_set
from fhir_features.times import duration_us

Within = str | Window | None
RowsT = TypeVar("RowsT", Observations, Conditions, Medications, Encounters)


def between(start: str | None, end: str) -> Window:
    """The window from `start` to `end` before T, such as between("7d", "1d"): T - 7d < effective_at <= T - 1d.

    A start of None is the beginning of history.
    """
    start_us = None if start is None else duration(start, "between")
    window = Window(start_us=start_us, end_us=duration(end, "between"))
    if window.start_us is not None and window.start_us <= window.end_us:
        raise DefinitionError(f"between('{start}', '{end}') is empty: the first is the longer one")
    return window


def duration(text: str, what: str) -> int:
    """A duration in microseconds."""
    try:
        return duration_us(text)
    except ValueError as error:
        raise DefinitionError(f"{what}: {error}") from None


class Series(Generic[RowsT]):
    """Rows of one kind."""

    def __init__(self, rows: RowsT) -> None:
        self.rows: RowsT = rows

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {rows_in_words(self.rows)}>"

    def count(self, *, within: Within = None) -> Unnamed:
        """How many rows; 0 for a patient who is known and has none."""
        return self._ask("count", within)

    def exists(self, *, within: Within = None) -> Unnamed:
        """Whether there is a row."""
        return self._ask("exists", within)

    def ever(self) -> Unnamed:
        """Whether there has been one at or before T."""
        return self._ask("ever")

    def time_since_last(self, *, within: Within = None) -> Unnamed:
        """Days from the newest row's effective time to T."""
        return self._ask("time_since_last", within)

    def _ask(self, operator: str, within: Within = None) -> Unnamed:
        start = None if within is None or isinstance(within, Window) else duration(within, "within")
        window = within if isinstance(within, Window) else Window(start_us=start)
        return Unnamed(Aggregate(rows=self.rows, operator=operator, window=window))

    def _asking(self, **asked: Any) -> RowsT:
        """The rows with what else is asked of them; words are given as one or as a sequence."""
        given = {name: value for name, value in asked.items() if value is not None}
        for name, value in given.items():
            if isinstance(value, str):
                given[name] = (value,)
            elif isinstance(value, Sequence):
                given[name] = tuple(sorted(set(value)))
        return self.rows.model_copy(update=given)


Words = str | Sequence[str] | None


class ObservationSeries(Series[Observations]):
    """Results of a concept set; those that give a number need a unit."""

    def where(
        self,
        *,
        site: Words = None,
        status: Words = None,
        category: Words = None,
        interpretation: Words = None,
        encounter_class: Words = None,
        method: str | ConceptSet | None = None,
        coded: str | ConceptSet | None = None,
        low: float | None = None,
        high: float | None = None,
        comparators: bool = True,
    ) -> ObservationSeries:
        """Only the results of these sites, statuses, categories or interpretations, or with a value in [low, high].

        `encounter_class`: taken in an encounter that K knows to be of this class. `method`, `coded`: a code or concept
        set of Observation.method, or of a coded value. `comparators=False` leaves out values that are only a limit,
        such as `<0.01` (TIME rule 15).
        """
        if (low is not None or high is not None) and self.rows.unit is None:
            raise DefinitionError("a range of values needs a unit: say observation(..., unit='mg/dL')")
        low, high = (None if limit is None else finite("where", limit) for limit in (low, high))
        if low is not None and high is not None and low > high:
            raise DefinitionError(f"where(low={low:g}, high={high:g}) is empty: low is the smaller one")
        asked = self._asking(
            sites=site,
            statuses=_of_code_system("status", status, RESULT_STATUSES),
            categories=category,
            interpretations=interpretation,
            encounter_classes=_classes(encounter_class),
            method=_one_set("method", method),
            coded=_one_set("coded", coded),
            low=low,
            high=high,
            without_comparator=not comparators,
        )
        return ObservationSeries(asked)

    def last(self, *, within: Within = None) -> Unnamed:
        """The newest value, that is the nearest before T (ties: TIME rule 5)."""
        return self._number("last", within)

    def first(self, *, within: Within = None) -> Unnamed:
        """The oldest value (ties: TIME rule 5)."""
        return self._number("first", within)

    def min(self, *, within: Within = None) -> Unnamed:
        """The smallest value."""
        return self._number("min", within)

    def max(self, *, within: Within = None) -> Unnamed:
        """The largest value."""
        return self._number("max", within)

    def mean(self, *, within: Within = None) -> Unnamed:
        """The mean of the values."""
        return self._number("mean", within)

    def median(self, *, within: Within = None) -> Unnamed:
        """The median of the values."""
        return self._number("median", within)

    def sum(self, *, within: Within = None) -> Unnamed:
        """The sum of the values."""
        return self._number("sum", within)

    def std(self, *, within: Within = None) -> Unnamed:
        """The sample standard deviation of the values; of fewer than two, null."""
        return self._number("std", within)

    def slope(self, *, within: Within = None) -> Unnamed:
        """The change per day, by least squares."""
        return self._number("slope", within)

    def delta(self, *, within: Within = None) -> Unnamed:
        """The newest value minus the oldest."""
        return self._number("delta", within)

    def change(self, *, within: Within = None) -> Unnamed:
        """The newest value minus the one before it."""
        return self._number("change", within)

    def share_outside_range(self, *, within: Within = None) -> Unnamed:
        """Of the results that carry a reference range, the share that lies outside of it."""
        return self._ask("share_outside_range", within)

    def count_abnormal(self, *, within: Within = None) -> Unnamed:
        """How many are interpreted as abnormal, high or low."""
        return self._ask("count_abnormal", within)

    def last_code(self, *, within: Within = None) -> Unnamed:
        """The newest coded value, as `snomed:266919005`."""
        return self._ask("last_code", within)

    def mode_code(self, *, within: Within = None) -> Unnamed:
        """The most frequent coded value."""
        return self._ask("mode_code", within)

    def _number(self, operator: str, within: Within) -> Unnamed:
        if self.rows.unit is None:
            raise DefinitionError(f"{operator}() needs a unit: say observation(..., unit='mg/dL'), or '1' for none")
        return self._ask(operator, within)


class ConditionSeries(Series[Conditions]):
    """Diagnoses and problems of a concept set."""

    def where(
        self,
        *,
        site: Words = None,
        category: Words = None,
        clinical_status: Words = None,
        verification_status: Words = None,
        encounter_class: Words = None,
    ) -> ConditionSeries:
        """Only those of these sites, categories or statuses, or of an encounter that K knows to be of this class.

        A `verification_status` stands in the place of those that count otherwise (TIME section C).
        """
        asked = self._asking(
            sites=site,
            categories=category,
            clinical_statuses=_of_code_system("clinical_status", clinical_status, CLINICAL_STATUSES),
            verification_statuses=_of_code_system("verification_status", verification_status, VERIFICATION_STATUSES),
            encounter_classes=_classes(encounter_class),
        )
        return ConditionSeries(asked)

    def active(self) -> Unnamed:
        """Whether one is active at T (TIME section C)."""
        return self._ask("active")

    def count_concepts(self, *, within: Within = None) -> Unnamed:
        """How many different concepts there are among them."""
        return self._ask("count_concepts", within)

    def time_since_onset(self) -> Unnamed:
        """Days from the first onset to T."""
        return self._ask("time_since_onset")

    def time_since_recorded(self) -> Unnamed:
        """Days from when the first was recorded to T."""
        return self._ask("time_since_recorded")


class MedicationSeries(Series[Medications]):
    """Orders of the medications of a concept set."""

    def where(
        self, *, site: Words = None, status: Words = None, category: Words = None, encounter_class: Words = None
    ) -> MedicationSeries:
        """Only those of these sites, statuses or categories, or of an encounter that K knows to be of this class.

        A `status` stands in the place of those that count otherwise (TIME section C).
        """
        asked = self._asking(
            sites=site,
            statuses=_of_code_system("status", status, ORDER_STATUSES),
            categories=category,
            encounter_classes=_classes(encounter_class),
        )
        return MedicationSeries(asked)

    def active(self, *, assume: str) -> Unnamed:
        """Whether an order covers T. `assume`: how long one lasts that says nothing about its end (TIME section C)."""
        return MedicationSeries(self._asking(assume_us=duration(assume, "assume")))._ask("active")

    def proportion_covered(self, *, within: str | Window, assume: str) -> Unnamed:
        """The proportion of days covered: the share of the window in which an order was in force, from 0 to 1.

        An order lasts from its beginning to its end, as for `active`, and covers nothing after it was known to have
        been stopped, completed or put on hold. Days that two orders cover count once. Measured to the microsecond.
        """
        covered = MedicationSeries(self._asking(assume_us=duration(assume, "assume")))
        return covered._ask("proportion_covered", _bounded(within, "proportion_covered"))

    def count_ingredients(self, *, within: Within = None) -> Unnamed:
        """How many different ingredients they contain, by RxNorm."""
        return self._ask("count_ingredients", within)

    def count_concepts(self, *, within: Within = None) -> Unnamed:
        """How many different medications there are among them."""
        return self._ask("count_concepts", within)


class EncounterSeries(Series[Encounters]):
    """Encounters of some classes."""

    def where(self, *, site: Words = None, status: Words = None) -> EncounterSeries:
        """Only those of these sites or statuses, which stand in the place of those that count otherwise."""
        return EncounterSeries(self._asking(sites=site, statuses=_of_code_system("status", status, STAY_STATUSES)))

    def active(self) -> Unnamed:
        """Whether one is going on at T: in hospital now."""
        return self._ask("active")

    def days(self, *, within: Within = None) -> Unnamed:
        """How many days of the window lie in an encounter: of inpatient ones, the days in hospital.

        What two encounters share counts once; one that is going on lasts until T. Measured to the microsecond.
        """
        return self._ask("days", within)

    def time_since_discharge(self) -> Unnamed:
        """Days from the newest end of one to T."""
        return self._ask("time_since_discharge")


def _classes(words: Words) -> tuple[str, ...] | None:
    if words is None:
        return None
    listed = (words,) if isinstance(words, str) else words
    return tuple(code for word in listed for code in encounter_classes(word))


def _one_set(name: str, codes: object) -> ConceptSet | None:
    if codes is None:
        return None
    if not isinstance(codes, str | ConceptSet):
        raise DefinitionError(f"{name}: it is a code such as 'snomed:266919005', or a concept_set(...)")
    concepts = concept_set(codes) if isinstance(codes, str) else codes
    ontologies().check(concepts)
    return concepts


def _of_code_system(name: str, words: Words, known: tuple[str, ...]) -> Words:
    """Words as they are given; of another than FHIR has there would be no row ever."""
    for word in (words,) if isinstance(words, str) else words or ():
        if word not in known:
            raise DefinitionError(f"{name}: '{word}' is none that FHIR has: {did_you_mean(word, known)}")
    return words


def _bounded(within: str | Window, operator: str) -> str | Window:
    if within is None or (isinstance(within, Window) and within.start_us is None):
        raise DefinitionError(f"{operator}() needs a window with a beginning, such as within='90d'")
    return within
