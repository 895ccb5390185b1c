"""Ontologies as versioned artifacts: which concept does a code stand for, and what does a concept set come to?

`load_ontologies()` reads the lock; everything else is asked of the `Ontologies` that it returns. Definitions use
`concept_set` alone, which needs no lock.
"""

from fhir_features.ontology.artifacts import Lock
from fhir_features.ontology.concept_sets import ConceptSet, concept_set
from fhir_features.ontology.coverage import Coverage, code_coverage
from fhir_features.ontology.diff import Change
from fhir_features.ontology.impact import Impact
from fhir_features.ontology.ontologies import Ontologies, load_ontologies, ontologies_under
from fhir_features.ontology.systems import Concept, parse_concept
from fhir_features.ontology.units import Conversion, Units
from fhir_features.ontology.value_sets import value_set

__all__ = [
    "Change",
    "Concept",
    "ConceptSet",
    "Conversion",
    "Coverage",
    "Impact",
    "Lock",
    "Ontologies",
    "Units",
    "code_coverage",
    "concept_set",
    "load_ontologies",
    "ontologies_under",
    "parse_concept",
    "value_set",
]
