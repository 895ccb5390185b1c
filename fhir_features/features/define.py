"""The words that features are written in: `observation("loinc:4548-4", unit="%").last(within="365d").named("hba1c")`.

In go codes, units and windows as a person writes them; out come frozen nodes (`nodes`), checked here once against the
ontologies in use, so that a mistake is refused where it is made. Raises DefinitionError of one line.
"""

from __future__ import annotations

from typing import Any

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.nodes import (
    Aggregate,
    Conditions,
    Encounters,
    Feature,
    Medications,
    Observations,
    PatientFact,
    Rows,
    Value,
    Window,
)
from fhir_features.features.terms import ontologies
from fhir_features.ontology import ConceptSet, concept_set
from fhir_features.times import duration_us

# HL7 v3 ActCode, value set ActEncounterCode: https://terminology.hl7.org/5.1.0/ValueSet-v3-ActEncounterCode.html
ENCOUNTER_CLASSES: dict[str, tuple[str, ...]] = {
    "inpatient": ("ACUTE", "IMP", "NONAC"),
    "emergency": ("EMER",),
    "ambulatory": ("AMB",),
    "observation": ("OBSENC",),
    "short stay": ("SS",),
    "pre-admission": ("PRENC",),
    "virtual": ("VR",),
    "home": ("HH",),
    "field": ("FLD",),
}

_SYSTEMS = {
    "observation": ("loinc", "snomed"),
    "condition": ("icd10cm", "icd9cm", "snomed"),
    "medication": ("rxnorm", "ndc", "cvx", "snomed"),
}


class Unnamed:
    """A feature without a name yet."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def named(self, name: str) -> Feature:
        """The feature, under the name of its column: lower-case letters, digits and underscores."""
        return Feature(name=name, value=self.value)


class _Series:
    """Rows of one kind, waiting for an operator. `within` is a duration before T; without it all of history counts."""

    rows: Rows

    def count(self, *, within: str | None = None) -> Unnamed:
        """How many rows; 0 for a patient who is known and has none."""
        return self._aggregate("count", within)

    def exists(self, *, within: str | None = None) -> Unnamed:
        """Whether there is a row."""
        return self._aggregate("exists", within)

    def time_since_last(self, *, within: str | None = None) -> Unnamed:
        """Days from the newest row's effective time to T."""
        return self._aggregate("time_since_last", within)

    def _aggregate(self, operator: str, within: str | None = None) -> Unnamed:
        start = None if within is None else _duration(within, "within")
        return Unnamed(Aggregate(rows=self.rows, operator=operator, window=Window(start_us=start)))


class ObservationSeries(_Series):
    """Results of a concept set; those that give a number need a unit."""

    def __init__(self, rows: Observations) -> None:
        self.rows: Observations = rows

    def last(self, *, within: str | None = None) -> Unnamed:
        """The newest value (ties: TIME rule 5)."""
        return self._number("last", within)

    def first(self, *, within: str | None = None) -> Unnamed:
        """The oldest value (ties: TIME rule 5)."""
        return self._number("first", within)

    def min(self, *, within: str | None = None) -> Unnamed:
        """The smallest value."""
        return self._number("min", within)

    def max(self, *, within: str | None = None) -> Unnamed:
        """The largest value."""
        return self._number("max", within)

    def mean(self, *, within: str | None = None) -> Unnamed:
        """The mean of the values."""
        return self._number("mean", within)

    def sum(self, *, within: str | None = None) -> Unnamed:
        """The sum of the values."""
        return self._number("sum", within)

    def _number(self, operator: str, within: str | None) -> Unnamed:
        if self.rows.unit is None:
            raise DefinitionError(f"{operator}() needs a unit: say observation(..., unit='mg/dL'), or '1' for none")
        return self._aggregate(operator, within)


class ConditionSeries(_Series):
    """Diagnoses and problems of a concept set."""

    def __init__(self, rows: Conditions) -> None:
        self.rows: Conditions = rows

    def active(self) -> Unnamed:
        """Whether one is active at T (TIME section C)."""
        return self._aggregate("active")

    def ever(self) -> Unnamed:
        """Whether there has been one at or before T."""
        return self._aggregate("ever")


class MedicationSeries(_Series):
    """Orders of the medications of a concept set."""

    def __init__(self, rows: Medications) -> None:
        self.rows: Medications = rows

    def active(self, *, assume: str) -> Unnamed:
        """Whether an order covers T. `assume`: how long one lasts that says nothing about its end (TIME section C)."""
        rows = self.rows.model_copy(update={"assume_us": _duration(assume, "assume")})
        return Unnamed(Aggregate(rows=rows, operator="active"))

    def ever(self) -> Unnamed:
        """Whether there has been an order at or before T."""
        return self._aggregate("ever")


class EncounterSeries(_Series):
    """Encounters of some classes."""

    def __init__(self, rows: Encounters) -> None:
        self.rows: Encounters = rows


class _Patient:
    """The entity of a view, and what the patient's own record says."""

    entity = "patient"

    def age(self) -> Unnamed:
        """Completed years at T, by UTC dates."""
        return Unnamed(PatientFact(operator="age"))

    def sex(self) -> Unnamed:
        """Patient.gender: male, female, other, unknown."""
        return Unnamed(PatientFact(operator="sex"))


patient = _Patient()


def observation(codes: str | ConceptSet, *, unit: str | None = None) -> ObservationSeries:
    """Results of a code or concept set; `unit` is the UCUM unit that values are converted to."""
    concepts = _concepts("observation", codes)
    if unit is not None:
        _check_unit(concepts, unit)
    return ObservationSeries(Observations(concepts=concepts, unit=unit))


def condition(codes: str | ConceptSet, *, descendants: bool = False) -> ConditionSeries:
    """Diagnoses of a code (with `descendants`, and what is below it) or concept set."""
    return ConditionSeries(Conditions(concepts=_concepts("condition", codes, descendants=descendants)))


def medication(codes: str | ConceptSet, *, ingredient: bool = False) -> MedicationSeries:
    """Orders of a code (with `ingredient`, of whatever contains it) or concept set."""
    return MedicationSeries(Medications(concepts=_concepts("medication", codes, ingredient=ingredient)))


def encounter(class_: str | None = None) -> EncounterSeries:
    """Encounters; of one class when one is named, such as 'inpatient' or a code of v3 ActCode such as 'IMP'."""
    return EncounterSeries(Encounters(classes=() if class_ is None else encounter_classes(class_)))


def encounter_classes(word: str) -> tuple[str, ...]:
    """The v3 ActCode codes of a class word or code. Raises DefinitionError for another word."""
    codes = sorted({code for group in ENCOUNTER_CLASSES.values() for code in group})
    if word in codes:
        return (word,)
    if word not in ENCOUNTER_CLASSES:
        raise DefinitionError(f"'{word}' is not an encounter class: {did_you_mean(word, [*ENCOUNTER_CLASSES, *codes])}")
    return ENCOUNTER_CLASSES[word]


def _duration(text: str, what: str) -> int:
    try:
        return duration_us(text)
    except ValueError as error:
        raise DefinitionError(f"{what}: {error}") from None


def _concepts(kind: str, codes: str | ConceptSet, **how: bool) -> ConceptSet:
    if isinstance(codes, ConceptSet):
        if any(how.values()):
            raise DefinitionError(f"{kind}() of a concept set takes no {_said(how)}: say it in concept_set(...)")
        concepts = codes
    elif isinstance(codes, str):
        concepts = concept_set(codes, **{name: value for name, value in how.items() if value})
    else:
        raise DefinitionError(f"{kind}() takes a code such as 'loinc:4548-4' or a concept_set(...)")
    ontologies().check(concepts)
    allowed = _SYSTEMS[kind]
    for concept in ontologies().expand(concepts):
        if concept.system not in allowed:
            raise DefinitionError(f"{kind}() takes codes of {', '.join(allowed)}, not of {concept.system}")
    return concepts


def _said(how: dict[str, bool]) -> str:
    return ", ".join(f"{name}=" for name, value in how.items() if value)


def _check_unit(concepts: ConceptSet, unit: str) -> None:
    """Refuse a unit that no UCUM knows, or that is of another dimension than the code's own unit."""
    known: Any = ontologies()
    known.units.check(unit)
    for concept in known.expand(concepts):
        expected = known.expected_unit(concept)
        loinc = concept.code if concept.system == "loinc" else None
        if expected is not None and known.units.conversion(expected, unit, loinc) is None:
            raise DefinitionError(
                f"{concept.system}:{concept.code} is measured in {expected}, which cannot be converted to '{unit}'"
            )
