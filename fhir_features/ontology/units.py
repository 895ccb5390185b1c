"""Which unit did a source mean, and how does a value get from one unit to another?

In: system, code and text of a Quantity. Out: a UCUM code, or nothing for what is not known: a unit is never guessed.
Conversions are a factor and an offset in doubles. UCUM itself is `ucumvert` over the official `ucum-essence.xml`; what
UCUM does not have is data in `ontologies/units`: other spellings, molar masses and equations by LOINC code. Loading
ucumvert takes most of a second, so nothing loads it that can be answered without.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.ontology.systems import identify_system, shipped_folder


@dataclass(frozen=True, slots=True)
class Conversion:
    """`value_to = value_from * factor + offset`; exactly 1.0 and 0.0 between equal units."""

    factor: float
    offset: float


SAME = Conversion(1.0, 0.0)


class Units:
    """Units as sources write them and as UCUM has them. Answers are cached; one object serves a process."""

    def __init__(self) -> None:
        self._parsed: dict[str, _Unit | None] = {}

    def ucum(self, unit_system: str | None, unit_code: str | None, unit_text: str | None) -> str | None:
        """The UCUM code of a Quantity's unit (system, code and text as written), or None if it is not known.

        A spelling in `ontologies/units/spellings.tsv` comes before UCUM's own reading of it: who writes `pH` does not
        mean picohenry, nor `K/uL` kelvin.
        """
        system = identify_system(unit_system)
        code_counts = unit_system is None or (system is not None and system.name == "ucum")
        for written in (unit_code if code_counts else None, unit_text):
            unit = (written or "").strip()
            found = self._spellings.get(unit, unit)
            if found and (found in self._known or self._parse(found)):
                return found
        return None

    def facts(self, loincs: Sequence[str]) -> list[str]:
        """All that the data says of how to convert numbers of these LOINC codes, as lines of text."""
        masses = [f"{loinc} {self._molar_masses[loinc]!r} g/mol" for loinc in loincs if loinc in self._molar_masses]
        equations = [f"{key} {self._equations[key]}" for key in sorted(self._equations) if key[0] in loincs]
        return [*(f"{written} is {ucum}" for written, ucum in sorted(self._spellings.items())), *masses, *equations]

    def check(self, unit: str) -> None:
        """Refuse a unit of a definition that is not UCUM. Raises DefinitionError that says what to write instead."""
        meant = self._spellings.get(unit)
        if meant:
            raise DefinitionError(f"'{unit}' is not how UCUM writes this unit: write '{meant}'")
        if unit not in self._known and not self._parse(unit):
            raise DefinitionError(f"'{unit}' is not a UCUM unit: {did_you_mean(unit, self._known)}")

    def commensurable(self, one: str, other: str) -> bool:
        """Whether values in one UCUM unit can be converted into the other for every analyte."""
        return self.conversion(one, other) is not None

    def conversion(self, from_ucum: str, to_ucum: str, loinc: str | None = None) -> Conversion | None:
        """How to convert a value of a LOINC code between two UCUM units; None if it cannot be done.

        With a LOINC code also between mass and amount of substance (mg/dL, mmol/L), and by published equations.
        """
        if from_ucum == to_ucum:
            return SAME
        return self._conversion(from_ucum, to_ucum, loinc)

    @lru_cache(maxsize=100_000)  # noqa: B019 - one object serves a process
    def _conversion(self, from_ucum: str, to_ucum: str, loinc: str | None) -> Conversion | None:
        if loinc is not None and (loinc, from_ucum, to_ucum) in self._equations:
            return self._equations[loinc, from_ucum, to_ucum]
        source, target = self._parse(from_ucum), self._parse(to_ucum)
        if source is None or target is None:
            return None
        return _linear(source, target) or self._molar(source, target, self._molar_masses.get(loinc or ""))

    def _molar(self, source: _Unit, target: _Unit, grams_per_mole: float | None) -> Conversion | None:
        molar_mass = self._parse("g/mol")
        if grams_per_mole is None or molar_mass is None or source.is_temperature or target.is_temperature:
            return None
        to_moles = _linear(source.divided_by(molar_mass), target)
        if to_moles:
            return Conversion(_rounded(to_moles.factor / grams_per_mole), 0.0)
        to_grams = _linear(source.times(molar_mass), target)
        return Conversion(_rounded(to_grams.factor * grams_per_mole), 0.0) if to_grams else None

    def _parse(self, unit: str) -> _Unit | None:
        if unit not in self._parsed:
            self._parsed[unit] = _read_unit(unit)
        return self._parsed[unit]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {row["written"]: row["ucum"] for row in _rows("spellings.tsv")}

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._spellings.values())

    @cached_property
    def _molar_masses(self) -> dict[str, float]:
        rows = _rows("molar_masses.tsv")
        return {loinc: float(row["grams_per_mole"]) for row in rows for loinc in row["loinc"].split()}

    @cached_property
    def _equations(self) -> dict[tuple[str, str, str], Conversion]:
        return {
            (row["loinc"], row["from_ucum"], row["to_ucum"]): Conversion(float(row["factor"]), float(row["offset"]))
            for row in _rows("by_loinc.tsv")
        }


@dataclass(frozen=True, slots=True)
class _Unit:
    """A parsed unit: a pint quantity (None: UCUM has the unit, pint cannot calculate with it), whether it is nothing
    but an annotation such as {score}, and its arbitrary units, which convert into nothing else (UCUM section 24)."""

    quantity: Any
    annotation: bool
    arbitrary: tuple[str, ...]

    @property
    def is_temperature(self) -> bool:
        # pint neither multiplies nor compares a quantity on a scale with an offset.
        return self.quantity is not None and "[temperature]" in self.quantity.dimensionality

    def times(self, other: _Unit) -> _Unit:
        return _Unit(self.quantity and self.quantity * other.quantity, False, self.arbitrary)

    def divided_by(self, other: _Unit) -> _Unit:
        return _Unit(self.quantity and self.quantity / other.quantity, False, self.arbitrary)


def _rows(name: str) -> list[dict[str, str]]:
    with (shipped_folder() / "units" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


_ATOM = re.compile(r"\[[^\]]+\]")
_ANNOTATION = re.compile(r"\{[^}]*\}")


def _read_unit(unit: str) -> _Unit | None:
    from lark.exceptions import LarkError, VisitError

    try:
        quantity = _registry().from_ucum(unit)
    except VisitError:
        quantity = None
    except LarkError:
        return None
    annotation = hasattr(quantity, "type")
    atoms = _ATOM.findall(_ANNOTATION.sub("", unit))
    return _Unit(
        quantity=_registry().Quantity(1) if annotation else quantity,
        annotation=annotation,
        arbitrary=tuple(sorted(atom for atom in atoms if atom in _arbitrary_units())),
    )


def _linear(source: _Unit, target: _Unit) -> Conversion | None:
    if source.quantity is None or target.quantity is None or source.arbitrary != target.arbitrary:
        return None
    if source.annotation or target.annotation:
        plain = all(unit.annotation or (unit.quantity == 1 and unit.quantity.unitless) for unit in (source, target))
        return SAME if plain else None
    if source.quantity.dimensionality != target.quantity.dimensionality:
        return None
    zero, one, hundred = (_convert(value, source.quantity, target.quantity) for value in (0.0, 1.0, 100.0))
    if abs((hundred - zero) - 100 * (one - zero)) > 1e-6 * abs(hundred - zero):
        return None
    if zero == 0:
        return Conversion(_rounded(one), 0.0)
    return Conversion(_small_ratio((hundred - zero) / 100), _small_ratio(zero))


def _convert(value: float, source: Any, target: Any) -> float:
    quantity = _registry().Quantity(value * source.magnitude, source.units)
    return float(quantity.to(target.units).magnitude / target.magnitude)


def _rounded(value: float) -> float:
    # pint multiplies doubles on the way, which leaves noise in the last digits; UCUM's constants have fewer.
    return float(f"{value:.15g}")


def _small_ratio(value: float) -> float:
    # The scales of temperature, the only ones with an offset, differ by ratios of small numbers: 9/5, 32, -160/9.
    return float(Fraction(value).limit_denominator(1000))


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=1)
def _arbitrary_units() -> frozenset[str]:
    from ucumvert.xml_util import root

    return frozenset(unit.attrib["Code"] for unit in root.findall(".//{*}unit[@isArbitrary='yes']"))
