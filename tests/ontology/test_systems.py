"""Which code system is meant, and is this one of its codes?"""

import pytest

from fhir_features.errors import DefinitionError
from fhir_features.ontology import Concept, Ontologies, parse_concept
from fhir_features.ontology.systems import code_forms, identify_system, systems


@pytest.mark.parametrize(
    "written",
    [
        "http://snomed.info/sct",
        "https://snomed.info/sct/",
        "urn:oid:2.16.840.1.113883.6.96",
        "2.16.840.1.113883.6.96",
        "http://snomed.info/sct|http://snomed.info/sct/731000124108",
        "http://snomed.info/sct/731000124108/version/20240301",
        "SNOMED-CT",
    ],
)
def test_a_system_is_known_under_all_its_names(written: str) -> None:
    system = identify_system(written)
    assert system is not None
    assert system.name == "snomed"


@pytest.mark.parametrize("written", [None, "", "http://hospital.example/codes", "urn:oid:1.2.840.114350.1.13"])
def test_a_system_that_is_not_known_is_none(written: str | None) -> None:
    assert identify_system(written) is None


def test_no_two_systems_share_a_name() -> None:
    names = [
        name.lower()
        for system in systems().values()
        for name in {system.name, system.uri, *system.oids, *system.aliases}
    ]
    assert len(names) == len(set(names))


def test_every_example_is_a_code_of_its_system() -> None:
    assert [name for name, system in systems().items() if not system.is_code(system.example)] == []


@pytest.mark.parametrize(
    ("system", "written", "forms"),
    [
        ("icd10cm", "e119", ("E11.9",)),
        ("icd10cm", "E11.9 ", ("E11.9",)),
        ("icd10cm", "S0600XA", ("S06.00XA",)),
        ("icd10cm", "E1", ()),
        ("icd9cm", "25000", ("250.00",)),
        ("icd9cm", "V4582", ("V45.82",)),
        ("icd9cm", "E8490", ("E849.0",)),
        ("rxnorm", "006809", ("6809",)),
        ("cvx", "8", ("08",)),
        ("snomed", "44054006", ("44054006",)),
        ("snomed", "44054007", ()),
        ("snomed", "754786011", ()),
        ("loinc", "4548-4", ("4548-4",)),
        ("loinc", "4548-5", ()),
        ("ndc", "0071-0155-23", ("00071015523",)),
        ("ndc", "12345-678-90", ("12345067890",)),
        ("ndc", "12345-6789-1", ("12345678901",)),
        ("ndc", "000071015523", ("00071015523",)),
        ("ndc", "0071015523", ("00071015523", "00710015523", "00710155203")),
        ("ndc", "not an ndc", ()),
    ],
)
def test_codes_are_read_in_the_forms_in_which_sources_write_them(
    system: str, written: str, forms: tuple[str, ...]
) -> None:
    assert code_forms(systems()[system], written) == forms


def test_a_concept_of_a_definition_is_read() -> None:
    assert parse_concept("icd10cm:E11.9") == Concept("icd10cm", "E11.9")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("E11.9", "write system and code, such as 'icd10cm:E11.9'"),
        ("icd10cmm:E11.9", "did you mean 'icd10cm'?"),
        ("icd-10-cm:E11.9", "did you mean 'icd10cm'?"),
        ("icd10cm:E119", "write 'icd10cm:E11.9'"),
        ("icd10cm:E1", "write it like 'icd10cm:E11.9'"),
        ("rxnorm:06809", "write 'rxnorm:6809'"),
        ("loinc:4548-5", "its check digit is wrong"),
        ("snomed:44054007", "its check digit is wrong"),
    ],
)
def test_a_concept_that_is_written_wrong_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        parse_concept(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_shipped_code_has_the_form_of_its_system(ontologies: Ontologies) -> None:
    sql = "SELECT DISTINCT system, code\nFROM concept\nORDER BY ALL"
    odd = [f"{system}:{code}" for system, code in ontologies._catalog.query(sql) if not systems()[system].is_code(code)]
    assert odd == []
