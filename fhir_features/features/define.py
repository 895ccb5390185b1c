"""The words that features are written in: `observation("loinc:4548-4", unit="%").last(within="365d").named("hba1c")`.

In go codes, units and windows as a person writes them; out come frozen nodes (`nodes`), checked here once against the
ontologies in use, so that a mistake is refused where it is made. Raises DefinitionError of one line.
"""

from __future__ import annotations

from typing import Any

from fhir_features.errors import DefinitionError
from fhir_features.features.nodes import Conditions, Encounters, Medications, Observations, PatientFact
from fhir_features.features.series import (
    ConditionSeries,
    EncounterSeries,
    MedicationSeries,
    ObservationSeries,
)
from fhir_features.features.terms import ontologies
from fhir_features.features.unnamed import Unnamed, expression
from fhir_features.features.words import encounter_classes
from fhir_features.ontology import ConceptSet, concept_set

_SYSTEMS = {
    "observation": ("loinc", "snomed"),
    "condition": ("icd10cm", "icd9cm", "snomed"),
    "medication": ("rxnorm", "ndc", "cvx", "snomed"),
}


class _Patient:
    """The entity of a view, and what the patient's own record says."""

    entity = "patient"

    def __repr__(self) -> str:
        return "<patient>"

    def age(self) -> Unnamed:
        """Completed years at T, by UTC dates."""
        return Unnamed(PatientFact(operator="age"))

    def sex(self) -> Unnamed:
        """Patient.gender: male, female, other, unknown."""
        return Unnamed(PatientFact(operator="sex"))

    def age_days(self) -> Unnamed:
        """Days since birth, by UTC dates: the age of the newborn."""
        return Unnamed(PatientFact(operator="age_days"))

    def deceased(self) -> Unnamed:
        """Whether the patient is known to have died."""
        return Unnamed(PatientFact(operator="deceased"))


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


def coalesce(one: Unnamed, other: Unnamed | float) -> Unnamed:
    """A number, or where it is null, for a patient who is known at K, another one."""
    return expression("coalesce", one, other)


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
