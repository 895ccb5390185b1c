"""Which codes does a concept set come to?"""

import pytest

from fhir_features.errors import DefinitionError
from fhir_features.ontology import Concept, ConceptSet, Ontologies, concept_set


def codes(ontologies: Ontologies, concepts: ConceptSet) -> list[str]:
    return [concept.code for concept in ontologies.expand(concepts)]


def test_a_concept_alone_is_itself(ontologies: Ontologies) -> None:
    assert ontologies.expand(concept_set("loinc:4548-4")) == (Concept("loinc", "4548-4"),)


def test_descendants_go_over_all_releases(ontologies: Ontologies) -> None:
    sclerosis = codes(ontologies, concept_set("icd10cm:G35", descendants=True))
    assert sclerosis[0] == "G35"
    assert "G35.A" in sclerosis, "new in FY2026"
    contusion = codes(ontologies, concept_set("icd10cm:S30.1", descendants=True))
    assert "S30.1XXA" in contusion, "retired in FY2026"
    assert "S30.11XA" in contusion, "what it was divided into"


def test_diabetes_without_remission(ontologies: Ontologies) -> None:
    everything = concept_set("icd10cm:E11", descendants=True)
    without = everything - concept_set("icd10cm:E11.A")
    assert set(codes(ontologies, everything)) - set(codes(ontologies, without)) == {"E11.A"}
    assert "E11.9" in codes(ontologies, without)


def test_difference_binds_as_written(ontologies: Ontologies) -> None:
    one, two = concept_set("loinc:4548-4"), concept_set("loinc:718-7")
    assert codes(ontologies, one | (two - one)) == ["4548-4", "718-7"]
    assert codes(ontologies, (one | two) - one) == ["718-7"]


def test_an_ingredient_reaches_every_drug_that_contains_it(ontologies: Ontologies) -> None:
    metformin = codes(ontologies, concept_set("rxnorm:6809", ingredient=True))
    assert {"6809", "860975", "861007"} <= set(metformin)
    estradiol = codes(ontologies, concept_set("rxnorm:4124", ingredient=True))
    assert {"748856", "748879", "1534809"} <= set(estradiol), "packs and combinations too"


def test_a_set_survives_being_written_down() -> None:
    concepts = concept_set("icd10cm:E10", "icd10cm:E11", descendants=True) - concept_set("icd10cm:E11.A")
    assert ConceptSet.model_validate_json(concepts.model_dump_json()) == concepts
    assert str(concepts) == "((icd10cm:E10 and below | icd10cm:E11 and below) - icd10cm:E11.A)"


@pytest.mark.parametrize(
    "written",
    [
        '{"operation": "concept"}',
        '{"operation": "union"}',
        '{"operation": "union", "concept": "icd10cm:E11"}',
        '{"operation": "concept", "concept": "icd10cm:E11", "reach": "everything"}',
    ],
)
def test_a_set_that_says_nothing_cannot_be_read(written: str) -> None:
    with pytest.raises(ValueError, match="ConceptSet"):
        ConceptSet.model_validate_json(written)


def test_a_retired_code_passes_the_check(ontologies: Ontologies) -> None:
    ontologies.check(concept_set("icd10cm:S30.1XXA"))


@pytest.mark.parametrize(
    ("concept", "says"),
    [
        ("icd10cm:E11.99", "did you mean 'icd10cm:E11.9'?"),
        ("icd10cm:K56.9", "did you mean 'icd10cm:K56"),
    ],
)
def test_a_code_in_no_release_is_refused_with_the_nearest(ontologies: Ontologies, concept: str, says: str) -> None:
    with pytest.raises(DefinitionError, match="is in no release of ICD-10-CM") as refused:
        ontologies.check(concept_set(concept))
    assert says in str(refused.value)


def test_a_code_outside_a_fragment_is_checked_for_its_form_alone(ontologies: Ontologies) -> None:
    ontologies.check(concept_set("snomed:73211009"))


def test_descendants_without_a_hierarchy_are_refused(ontologies: Ontologies) -> None:
    with pytest.raises(DefinitionError, match="holds no hierarchy of SNOMED CT"):
        ontologies.check(concept_set("snomed:44054006", descendants=True))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"ingredient": True}, "only RxNorm has ingredients"),
    ],
)
def test_what_a_system_cannot_do_is_refused(arguments: dict[str, bool], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        concept_set("icd10cm:E11", **arguments)
