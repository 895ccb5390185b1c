"""Which unit did a source mean, and how does a value get into another?"""

import subprocess
import sys

import pytest

from fhir_features.errors import DefinitionError
from fhir_features.ontology import Conversion, Units
from fhir_features.ontology.builder import ucum
from fhir_features.ontology.systems import shipped_folder
from fhir_features.ontology.units import USUAL

UCUM = "http://unitsofmeasure.org"


@pytest.fixture(scope="module")
def units() -> Units:
    return Units()


@pytest.mark.parametrize(
    ("system", "code", "text", "ucum"),
    [
        (UCUM, "mg/dL", "milligrams", "mg/dL"),
        (UCUM, "mg/dl", None, "mg/dl"),
        (UCUM, "pH", "pH", "[pH]"),
        (UCUM, "(score)", "(score)", "{score}"),
        (None, None, "mmHg", "mm[Hg]"),
        (None, None, "K/uL", "10*3/uL"),
        (None, None, "°F", "[degF]"),
        (None, "mg/dL", None, "mg/dL"),
        ("urn:local", "17", "mg/dL", "mg/dL"),
        ("urn:local", "mg/dL", None, None),
        (UCUM, "nonsense", "mg/dL", "mg/dL"),
        (None, None, "furlongs per fortnight", None),
        (None, None, "units", None),
        (None, None, None, None),
        (None, "", " ", None),
    ],
)
def test_a_unit_is_read_and_never_guessed(
    units: Units, system: str | None, code: str | None, text: str | None, ucum: str | None
) -> None:
    assert units.ucum(system, code, text) == ucum


@pytest.mark.parametrize(
    ("source", "target", "factor", "offset"),
    [
        ("kg", "kg", 1.0, 0.0),
        ("mg/dl", "mg/dL", 1.0, 0.0),
        ("10*3/uL", "10*9/L", 1.0, 0.0),
        ("[lb_av]", "kg", 0.45359237, 0.0),
        ("[in_i]", "cm", 2.54, 0.0),
        ("g/dL", "g/L", 10.0, 0.0),
        ("Cel", "[degF]", 1.8, 32.0),
        ("m[IU]/L", "u[IU]/mL", 1.0, 0.0),
        ("%", "1", 0.01, 0.0),
        ("{score}", "1", 1.0, 0.0),
    ],
)
def test_units_of_one_dimension_convert_exactly(
    units: Units, source: str, target: str, factor: float, offset: float
) -> None:
    assert units.conversion(source, target) == Conversion(factor, offset)


def test_a_fever_is_the_same_in_both_scales(units: Units) -> None:
    conversion = units.conversion("[degF]", "Cel")
    assert conversion is not None
    assert 100.4 * conversion.factor + conversion.offset == pytest.approx(38.0, abs=1e-9)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("kg", "%"),
        ("mg/dL", "mmol/L"),
        ("[IU]/L", "10*9/L"),
        ("[IU]/L", "U/L"),
        ("[pH]", "1"),
        ("{score}", "%"),
        ("{INR}", "mg/dL"),
        ("nonsense", "kg"),
    ],
)
def test_units_of_other_dimensions_do_not_convert(units: Units, source: str, target: str) -> None:
    assert units.conversion(source, target) is None
    assert not units.commensurable(source, target)


@pytest.mark.parametrize(
    ("loinc", "milligrams_per_decilitre", "unit", "value"),
    [
        ("2345-7", 90.0, "mmol/L", 4.996),
        ("2160-0", 1.0, "umol/L", 88.4),
        ("2093-3", 200.0, "mmol/L", 5.172),
        ("3094-0", 14.0, "mmol/L", 4.998),
        ("2571-8", 150.0, "mmol/L", 1.694),
    ],
)
def test_mass_and_amount_convert_for_a_known_analyte(
    units: Units, loinc: str, milligrams_per_decilitre: float, unit: str, value: float
) -> None:
    there, back = units.conversion("mg/dL", unit, loinc), units.conversion(unit, "mg/dL", loinc)
    assert there is not None
    assert back is not None
    assert milligrams_per_decilitre * there.factor == pytest.approx(value, rel=2e-3)
    assert there.factor * back.factor == pytest.approx(1.0, rel=1e-12)


def test_ifcc_haemoglobin_a1c_is_not_ten_times_smaller(units: Units) -> None:
    conversion = units.conversion("mmol/mol", "%", "4548-4")
    assert conversion is not None
    assert 48 * conversion.factor + conversion.offset == pytest.approx(6.5, abs=0.05)


@pytest.mark.parametrize(
    ("unit", "says"),
    [("mmHg", "write 'mm\\[Hg\\]'"), ("K/uL", "write '10\\*3/uL'"), ("mgs/dL", "did you mean '"), ("", "known: %")],
)
def test_a_unit_of_a_definition_must_be_ucum(units: Units, unit: str, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        units.check(unit)


def test_every_spelling_leads_to_a_unit(units: Units) -> None:
    assert [ucum for ucum in sorted(units._known) if not units._parse(ucum)] == []


def test_the_usual_units_are_as_ucumvert_reads_them() -> None:
    assert (shipped_folder() / USUAL).read_text(encoding="utf-8") == ucum.table()


def test_a_logarithmic_unit_converts_into_nothing(units: Units) -> None:
    assert [units.conversion(one, other) for one, other in (("dB", "1"), ("1", "dB"), ("[pH]", "mol/L"))] == [None] * 3


def test_the_usual_units_are_known_without_loading_ucumvert() -> None:
    script = (
        "import sys; from fhir_features.ontology import Units; u = Units(); u.conversion('mg/dL', 'mmol/L', '2345-7'); "
        "u.ucum(None, None, 'mmHg'); u.check('mL/min/{1.73_m2}'); sys.exit('pint' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(("source", "target"), [("Cel", "mg/dL"), ("mg/dL", "[degF]")])
def test_a_temperature_under_a_code_with_a_molar_mass_does_not_convert(units: Units, source: str, target: str) -> None:
    assert units.conversion(source, target, "2345-7") is None
