"""Which words of FHIR's code systems a definition may use: statuses, and the classes of encounters by their names."""

from __future__ import annotations

from fhir_features.errors import DefinitionError, did_you_mean

# https://hl7.org/fhir/R4/valueset-observation-status.html, and R5's `appended`.
RESULT_STATUSES = (
    "registered", "preliminary", "final", "amended", "corrected", "appended", "cancelled", "entered-in-error", "unknown"
)  # fmt: skip
# https://hl7.org/fhir/R4/valueset-medicationrequest-status.html
ORDER_STATUSES = (
    "active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"
)  # fmt: skip
# https://hl7.org/fhir/R4/valueset-encounter-status.html
STAY_STATUSES = (
    "planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "entered-in-error", "unknown"
)  # fmt: skip
# https://hl7.org/fhir/R4/valueset-condition-clinical.html
CLINICAL_STATUSES = ("active", "recurrence", "relapse", "inactive", "remission", "resolved")
# https://hl7.org/fhir/R4/valueset-condition-ver-status.html
VERIFICATION_STATUSES = ("unconfirmed", "provisional", "differential", "confirmed", "refuted", "entered-in-error")

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


def encounter_classes(word: str) -> tuple[str, ...]:
    """The v3 ActCode codes of a class word or code. Raises DefinitionError for another word."""
    codes = sorted({code for group in ENCOUNTER_CLASSES.values() for code in group})
    if word in codes:
        return (word,)
    if word not in ENCOUNTER_CLASSES:
        raise DefinitionError(f"'{word}' is not an encounter class: {did_you_mean(word, [*ENCOUNTER_CLASSES, *codes])}")
    return ENCOUNTER_CLASSES[word]
