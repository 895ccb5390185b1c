"""Which unit did a source mean, and how does a value get from one unit to another?

In: system, code and text of a Quantity. Out: a UCUM code, or nothing for what is not known: a unit is never guessed.
Conversions are a factor and an offset in doubles. UCUM itself is `ucumvert` over the official `ucum-essence.xml`; what
UCUM does not have is data in `ontologies/units`: other spellings, molar masses and equations by LOINC code. Loading
ucumvert takes two seconds, so what it says of the usual units stands in `ontologies/ucum/usual.tsv`.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
        self._parsed: dict[str, ParsedUnit | None] = {}

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
        return _linear(source, target) or _molar(source, target, self._molar_masses.get(loinc or ""))

    def _parse(self, unit: str) -> ParsedUnit | None:
        if unit not in self._parsed:
            self._parsed[unit] = self._usual[unit] if unit in self._usual else parse_ucum(unit)
        return self._parsed[unit]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {row["written"]: row["ucum"] for row in _rows("units/spellings.tsv")}

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._spellings.values()) | frozenset(self._usual)

    @cached_property
    def _usual(self) -> dict[str, ParsedUnit]:
        return {row["ucum"]: ParsedUnit.from_row(row) for row in _rows(USUAL)}

    @cached_property
    def _molar_masses(self) -> dict[str, float]:
        rows = _rows("units/molar_masses.tsv")
        return {loinc: float(row["grams_per_mole"]) for row in rows for loinc in row["loinc"].split()}

    @cached_property
    def _equations(self) -> dict[tuple[str, str, str], Conversion]:
        return {
            (row["loinc"], row["from_ucum"], row["to_ucum"]): Conversion(float(row["factor"]), float(row["offset"]))
            for row in _rows("units/by_loinc.tsv")
        }


@dataclass(frozen=True, slots=True)
class ParsedUnit:
    """What a UCUM unit is: `value_in_base_units = value * factor + offset`.

    `dimension`: base dimensions with their exponents, such as `[length]:-3 [mass]:1`; None where no factor tells, as of
    pH. `annotation`: it is nothing but an annotation, such as {score}. `arbitrary`: the arbitrary units in it, which
    convert into nothing else (UCUM section 24).
    """

    dimension: str | None
    factor: Fraction
    offset: Fraction
    annotation: bool
    arbitrary: str

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> ParsedUnit:
        """The unit that a row of `usual.tsv` describes."""
        return cls(
            None if row["dimension"] == "?" else row["dimension"],
            Fraction(row["factor"]),
            Fraction(row["offset"]),
            row["annotation"] == "yes",
            row["arbitrary"],
        )

    def as_row(self) -> tuple[str, ...]:
        """The columns of `usual.tsv` after the unit."""
        words = ("?" if self.dimension is None else self.dimension, str(self.factor), str(self.offset))
        return (*words, "yes" if self.annotation else "no", self.arbitrary)


USUAL = "ucum/usual.tsv"


def _rows(name: str) -> list[dict[str, str]]:
    with (shipped_folder() / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


_ATOM = re.compile(r"\[[^\]]+\]")
_ANNOTATION = re.compile(r"\{[^}]*\}")


def parse_ucum(unit: str) -> ParsedUnit | None:
    """What UCUM says of a unit, by ucumvert; None if it is none."""
    from lark.exceptions import LarkError, VisitError

    atoms = _ATOM.findall(_ANNOTATION.sub("", unit))
    arbitrary = " ".join(sorted(atom for atom in atoms if atom in _arbitrary_units()))
    unknown = ParsedUnit(None, Fraction(1), Fraction(0), False, arbitrary)
    try:
        quantity = _registry().from_ucum(unit)
    except VisitError:
        return unknown
    except LarkError:
        return None
    if hasattr(quantity, "type"):
        return ParsedUnit("", Fraction(1), Fraction(0), True, arbitrary)
    zero, one, hundred = (_in_base_units(value, quantity) for value in (0.0, 1.0, 100.0))
    if abs((hundred - zero) - 100 * (one - zero)) > 1e-6 * abs(hundred - zero):
        return unknown
    dimension = " ".join(f"{name}:{power}" for name, power in sorted(quantity.dimensionality.items()))
    if zero == 0:
        return ParsedUnit(dimension, _exact(one), Fraction(0), False, arbitrary)
    return ParsedUnit(dimension, _small_ratio((hundred - zero) / 100), _small_ratio(zero), False, arbitrary)


def _in_base_units(value: float, unit: Any) -> float:
    return float(_registry().Quantity(value * unit.magnitude, unit.units).to_root_units().magnitude)


def _linear(source: ParsedUnit, target: ParsedUnit) -> Conversion | None:
    if source.dimension is None or target.dimension is None or source.arbitrary != target.arbitrary:
        return None
    if source.annotation or target.annotation:
        return SAME if all(unit.dimension == "" and unit.factor == 1 for unit in (source, target)) else None
    if source.dimension != target.dimension:
        return None
    factor, offset = source.factor / target.factor, (source.offset - target.offset) / target.factor
    if source.offset or target.offset:
        return Conversion(float(factor), float(offset))
    return Conversion(_rounded(float(factor)), 0.0)


def _molar(source: ParsedUnit, target: ParsedUnit, grams_per_mole: float | None) -> Conversion | None:
    if grams_per_mole is None or source.arbitrary != target.arbitrary:
        return None
    if source.dimension is None or target.dimension is None or source.offset or target.offset:
        return None
    if source.annotation or target.annotation:
        return None
    ratio = _rounded(float(source.factor / target.factor))
    if _in_moles(source.dimension) == _powers(target.dimension):
        return Conversion(_rounded(ratio / grams_per_mole), 0.0)
    if _in_moles(target.dimension) == _powers(source.dimension):
        return Conversion(_rounded(ratio * grams_per_mole), 0.0)
    return None


def _powers(dimension: str) -> Counter[str]:
    return Counter({name: int(power) for name, power in (part.split(":") for part in dimension.split())})


def _in_moles(dimension: str) -> Counter[str]:
    """The dimension of the same divided by a molar mass; a Counter has 0 of what is not in it."""
    powers = _powers(dimension)
    powers["[mass]"] -= 1
    powers["[substance]"] += 1
    return powers


def _rounded(value: float) -> float:
    # pint multiplies doubles on the way, which leaves noise in the last digits; UCUM's constants have fewer.
    return float(f"{value:.15g}")


def _exact(value: float) -> Fraction:
    """The ratio or decimal that a double of pint stands for: 1/86400 of /d, 453.59237 of [lb_av]."""
    scale = Fraction(10) ** math.floor(math.log10(value))
    ratio = (Fraction(value) / scale).limit_denominator(1_000_000) * scale
    return ratio if abs(ratio - Fraction(value)) <= 2e-15 * ratio else Fraction(repr(_rounded(value)))


def _small_ratio(value: float) -> Fraction:
    # The scales of temperature, the only ones with an offset, differ by ratios of small numbers: 9/5, 32, -160/9.
    return Fraction(value).limit_denominator(1000)


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=1)
def _arbitrary_units() -> frozenset[str]:
    from ucumvert.xml_util import root

    return frozenset(unit.attrib["Code"] for unit in root.findall(".//{*}unit[@isArbitrary='yes']"))
