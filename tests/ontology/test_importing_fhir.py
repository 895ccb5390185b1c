"""How FHIR CodeSystems, ValueSets and ConceptMaps become artifacts, and what a ValueSet means."""

import json
from pathlib import Path
from typing import Any

import pytest
from imports import codes, imported, statuses
from releases import DISEASE, FEVER, OLD_FEVER, SPLIT

from fhir_features.errors import DefinitionError, OntologyError, UsageError
from fhir_features.ontology import Ontologies, concept_set, value_set
from fhir_features.ontology.importers import import_release


def fhir(folder: Path, resource: dict[str, Any]) -> Path:
    file = folder / f"{resource['resourceType']}.json"
    file.write_text(json.dumps(resource), encoding="utf-8")
    return file


SNOMED, ICD10CM = "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"
CODE_SYSTEM: dict[str, Any] = {
    "resourceType": "CodeSystem",
    "url": SNOMED,
    "version": "local-1",
    "name": "Local",
    "content": "fragment",
    "concept": [
        {
            "code": "73211009",
            "display": "Any diabetes",
            "designation": [{"language": "de", "value": "Zuckerkrankheit"}],
            "concept": [{"code": "44054006", "display": "Diabetes"}],
        },
        {"code": FEVER, "property": [{"code": "parent", "valueCode": "73211009"}]},
        {"code": OLD_FEVER, "property": [{"code": "status", "valueCode": "retired"}]},
    ],
}


def test_a_fhir_code_system_brings_its_hierarchy_names_and_states(tmp_path: Path) -> None:
    ontologies = imported("fhir", fhir(tmp_path, CODE_SYSTEM), tmp_path / "home")
    assert codes(ontologies, "snomed:73211009", descendants=True) == {"73211009", "44054006", FEVER}
    assert [hit.concept.code for hit in ontologies.search("zuckerkrankheit")] == ["73211009"]
    assert statuses(ontologies, "snomed", OLD_FEVER) == {("retired", OLD_FEVER)}


def concept_map(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "ConceptMap", "version": "1", "group": list(groups)}


def mapping(source: str, target: str, *elements: tuple[str, str | None, str]) -> dict[str, Any]:
    targets = [{"code": code, "target": [{"code": aim, "equivalence": how}]} for code, aim, how in elements]
    return {"source": source, "target": target, "element": targets}


def test_a_fhir_concept_map_brings_all_its_groups(tmp_path: Path) -> None:
    first = mapping("http://loinc.org", SNOMED, ("2345-7", FEVER, "wider"))
    second = mapping("http://loinc.org", SNOMED, ("4548-4", DISEASE, "equivalent"))
    third = mapping(SNOMED, ICD10CM, (FEVER, "R509", "equivalent"), (DISEASE, None, "unmatched"))
    ontologies = imported("fhir", fhir(tmp_path, concept_map(first, second, third)), tmp_path / "home")
    assert ("mapped", FEVER) in statuses(ontologies, "loinc", "2345-7")
    assert ("mapped", DISEASE) in statuses(ontologies, "loinc", "4548-4"), (
        "two groups between the same systems are one map"
    )
    assert ("mapped", "R50.9") in statuses(ontologies, "snomed", FEVER), "in canonical form"
    assert ontologies.resolve_code("snomed", DISEASE)[0].flags == ("no_map",)


VALUE_SET: dict[str, Any] = {
    "resourceType": "ValueSet",
    "name": "Diabetes",
    "version": "2024",
    "compose": {
        "include": [
            {"system": ICD10CM, "filter": [{"property": "concept", "op": "is-a", "value": "E11"}]},
            {"system": SNOMED, "concept": [{"code": "44054006"}]},
        ],
        "exclude": [{"system": ICD10CM, "concept": [{"code": "E11A"}]}],
    },
}


def test_a_fhir_value_set_is_read_as_a_concept_set(tmp_path: Path, ontologies: Ontologies) -> None:
    meant = concept_set("icd10cm:E11", descendants=True) | concept_set("snomed:44054006")
    meant -= concept_set("icd10cm:E11.A")
    assert ontologies.expand(value_set(fhir(tmp_path, VALUE_SET))) == ontologies.expand(meant)


def test_a_fhir_value_set_is_an_artifact_in_the_lock(tmp_path: Path) -> None:
    file = fhir(tmp_path, VALUE_SET)
    ontologies = imported("fhir", file, tmp_path / "home")
    assert ontologies.expand(ontologies.value_set("valueset.Diabetes@2024")) == ontologies.expand(value_set(file))
    assert [m.content_sha256 for m in ontologies.verify() if m.kind == "valueset"] != []
    with pytest.raises(UsageError, match=r"no value set 'valueset.Diabetes@2025' in the lock: did you mean"):
        ontologies.value_set("valueset.Diabetes@2025")
    changed = {**VALUE_SET, "compose": {"include": VALUE_SET["compose"]["include"]}}
    with pytest.raises(OntologyError, match="a release never changes"):
        import_release("fhir", fhir(tmp_path, changed), tmp_path / "home")


def test_an_expansion_counts_where_compose_cannot_be_said(tmp_path: Path, ontologies: Ontologies) -> None:
    contains = [{"system": SNOMED, "code": FEVER, "contains": [{"system": SNOMED, "code": SPLIT}]}]
    whole = {**VALUE_SET, "compose": {"include": [{"system": SNOMED}]}, "expansion": {"total": 2, "contains": contains}}
    assert {c.code for c in ontologies.expand(value_set(fhir(tmp_path, whole)))} == {FEVER, SPLIT}
    with pytest.raises(DefinitionError, match="its expansion has 2 of 300 codes"):
        value_set(fhir(tmp_path, {**whole, "expansion": {"total": 300, "contains": contains}}))


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        ({"resourceType": "Patient"}, "is a Patient, not a CodeSystem, ValueSet or ConceptMap"),
        ({**CODE_SYSTEM, "concept": [{"display": "nameless"}]}, r"concept\[0\] has 'None', which is no code of SNOMED"),
        ({**CODE_SYSTEM, "content": "complete", "count": 7}, "has 4 concepts and says 7"),
        ({**CODE_SYSTEM, "concept": []}, "has 0 concepts"),
        (concept_map(), "maps nothing"),
        (concept_map(mapping("urn:x", SNOMED)), "code system 'urn:x' is not known: add it to systems"),
        (concept_map(mapping(SNOMED, ICD10CM, (FEVER, "fever", "equal"))), r"group\[0\].element\[0\] has 'fever'"),
        (concept_map(mapping(SNOMED, ICD10CM, (FEVER, "R50.9", "maybe"))), "equivalence 'maybe', none of FHIR R4"),
        (
            concept_map({**mapping(SNOMED, ICD10CM, (FEVER, "R50.9", "equal")), "unmapped": {"mode": "fixed"}}),
            r"group\[0\].unmapped cannot be taken",
        ),
        ({**VALUE_SET, "name": "../../x"}, "has no name of letters"),
        (
            {**VALUE_SET, "compose": {"include": [{"system": SNOMED}]}},
            "a whole system or another ValueSet cannot be taken",
        ),
        ({"resourceType": "ValueSet", "name": "Empty", "version": "1"}, "is not a ValueSet that includes something"),
    ],
)
def test_a_fhir_resource_that_is_wrong_is_refused(tmp_path: Path, resource: dict[str, Any], says: str) -> None:
    with pytest.raises((OntologyError, DefinitionError), match=says):
        import_release("fhir", fhir(tmp_path, resource), tmp_path / "home")
    assert list((tmp_path / "home").rglob("*")) == []
