"""Which code system is meant, and is this a code of it?

In: a system as a source or a definition names it (URI, OID, alias, short name) and a code as it was written. Out: the
system's short name and the code in canonical form (`E11.9` with its dot, RxCUI without zeros, NDC in 11 digits), or
nothing when it cannot be one. The facts are data: `ontologies/systems.toml`.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fhir_features.errors import DefinitionError, OntologyError, did_you_mean

HOME_VARIABLE = "FHIR_FEATURES_ONTOLOGIES"
SYSTEMS_FILE = "systems.toml"

# Which release of a system judges a code: that of the date which controls coding, the latest in the lock, or, for any
# other word, the release of that version.
BY_DATE, LATEST = "by_date", "latest"


class Concept(NamedTuple):
    """One code of one code system: `system` is a short name such as `icd10cm`, `code` is in canonical form."""

    system: str
    code: str

    def __str__(self) -> str:
        return f"{self.system}:{self.code}"


@dataclass(frozen=True, slots=True)
class System:
    """One code system as `ontologies/systems.toml` describes it (the meaning of the fields stands there)."""

    name: str
    title: str
    uri: str
    oids: tuple[str, ...]
    aliases: tuple[str, ...]
    pattern: re.Pattern[str]
    check: str | None
    example: str
    release: str
    priority: int
    classifies: str | None

    @property
    def facts(self) -> str:
        """All that decides which codings are of this system, as text."""
        return f"{self.name} {self.uri} {self.oids} {self.aliases} {self.pattern.pattern} {self.check} {self.release}"

    def is_code(self, code: str) -> bool:
        """Whether a code is one in canonical form, its check digit included."""
        return self.pattern.fullmatch(code) is not None and (self.check is None or _CHECKS[self.check](code))


@lru_cache(maxsize=1)
def shipped_folder() -> Path:
    """The folder of the shipped ontologies: in an installed package, else the checkout's. Raises OntologyError."""
    package = Path(str(importlib.resources.files("fhir_features")))
    for folder in (package / "_ontologies", package.parent / "ontologies"):
        if (folder / SYSTEMS_FILE).is_file():
            return folder
    raise OntologyError(f"the ontologies are missing from {package}: install fhir-features again")


def ontologies_home() -> Path:
    """The folder of the lock in use: $FHIR_FEATURES_ONTOLOGIES, else the shipped one."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) if home else shipped_folder()


def ucum_file() -> Path:
    """The official `ucum-essence.xml`, which comes unchanged with ucumvert: UCUM's licence allows no other form of it.

    Raises OntologyError if ucumvert is not there. Found without importing ucumvert, which takes most of a second.
    """
    spec = importlib.util.find_spec("ucumvert")
    file = Path(spec.origin).parent / "vendor" / "ucum-essence.xml" if spec and spec.origin else None
    if file is None or not file.is_file():
        raise OntologyError("UCUM is missing: install ucumvert in the version that fhir-features asks for")
    return file


@lru_cache(maxsize=1)
def systems() -> dict[str, System]:
    """All known code systems by short name: the shipped ones, and what the site's own `systems.toml` says otherwise."""
    facts = _read_systems(shipped_folder())
    if ontologies_home() != shipped_folder():
        for name, own in _read_systems(ontologies_home()).items():
            facts[name] = {**facts.get(name, {}), **own}
    return {
        name: System(
            name=name,
            title=fact["title"],
            uri=fact["uri"],
            oids=tuple(fact.get("oids", ())),
            aliases=tuple(fact.get("aliases", ())),
            pattern=re.compile(fact["pattern"]),
            check=fact.get("check"),
            example=fact["example"],
            release=fact.get("release", LATEST),
            priority=fact.get("priority", 100),
            classifies=fact.get("classifies"),
        )
        for name, fact in facts.items()
    }


def identify_system(written: str | None) -> System | None:
    """The system that a source means by a URI, OID or name, version suffixes included; None if it is not known."""
    if written is None:
        return None
    return _by_alias().get(_folded(written))


def stated_version(system: str | None, version: str | None) -> str | None:
    """The version of a code system that a coding names: in its own field, or as part of the system."""
    if version or not system:
        return version or None
    edition = _SNOMED_EDITION.search(system.strip().lower())
    stated = system.partition("|")[2] or (edition[2] if edition else "")
    return stated.strip() or None


def code_forms(system: System, written: str) -> tuple[str, ...]:
    """The canonical codes that a written code can stand for: none if it is no code of the system.

    There is more than one only for a 10-digit NDC without hyphens, whose short segment cannot be told.
    """
    forms = _FORMS.get(system.name, _as_written)(written.strip())
    return tuple(form for form in forms if system.is_code(form))


def parse_concept(text: str) -> Concept:
    """A concept of a definition, such as `icd10cm:E11.9`. Raises DefinitionError that says what to write instead."""
    name, colon, code = text.partition(":")
    if not colon:
        raise DefinitionError(f"'{text}' is not a concept: write system and code, such as 'icd10cm:E11.9'")
    known = systems()
    if name not in known:
        meant = identify_system(name)
        hint = f"did you mean '{meant.name}'?" if meant else did_you_mean(name, known)
        raise DefinitionError(f"there is no code system '{name}' in '{text}': {hint}")
    system = known[name]
    if system.is_code(code):
        return Concept(name, code)
    forms = code_forms(system, code)
    if len(forms) == 1:
        raise DefinitionError(f"'{text}' is not in canonical form: write '{name}:{forms[0]}'")
    if system.check and system.pattern.fullmatch(code):
        raise DefinitionError(
            f"'{text}' is not a {system.title} code: its check digit is wrong, look for a typing error"
        )
    raise DefinitionError(f"'{text}' is no code of {system.title}: write it like '{name}:{system.example}'")


def _read_systems(folder: Path) -> dict[str, Any]:
    file = folder / SYSTEMS_FILE
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OntologyError(f"{file} cannot be read: {error}") from None


@lru_cache(maxsize=1)
def _by_alias() -> dict[str, System]:
    named = {}
    for system in systems().values():
        for spelling in (system.name, system.uri, *system.aliases, *system.oids):
            named[_folded(spelling)] = system
    return named


# Versions travel in the system in two ways: `system|version` (FHIR R4 canonical references) and, for SNOMED CT,
# `http://snomed.info/sct/<module>/version/<date>` (https://hl7.org/fhir/R4/snomedct.html).
_SNOMED_EDITION = re.compile(r"(//snomed\.info/x?sct)/(.*)")


def _folded(written: str) -> str:
    text = written.strip().lower().partition("|")[0]
    text = text.removeprefix("urn:oid:").removeprefix("https:").removeprefix("http:").rstrip("/")
    return _SNOMED_EDITION.sub(r"\1", text)


def _as_written(code: str) -> tuple[str, ...]:
    return (code,)


def _upper(code: str) -> tuple[str, ...]:
    return (code.upper(),)


def _icd10(code: str) -> tuple[str, ...]:
    bare = code.upper().replace(".", "")
    return (f"{bare[:3]}.{bare[3:]}" if len(bare) > 3 else bare,)


def _icd9(code: str) -> tuple[str, ...]:
    bare = code.upper().replace(".", "")
    stem = 4 if bare.startswith("E") else 3
    return (f"{bare[:stem]}.{bare[stem:]}" if len(bare) > stem else bare,)


def _without_zeros(code: str) -> tuple[str, ...]:
    return (code.lstrip("0"),)


def _cvx(code: str) -> tuple[str, ...]:
    return (code.zfill(2),)


_NDC_SEGMENTS = re.compile(r"([0-9]{4,5})-([0-9]{3,4})-([0-9]{1,2})")


def _ndc(code: str) -> tuple[str, ...]:
    # An NDC has 5-4-2 digits; labels print 10 of the 11: 4-4-2, 5-3-2 or 5-4-1 (21 CFR 207.33; NLM RxNorm NDC notes).
    code = code.replace("*", "0")
    segments = _NDC_SEGMENTS.fullmatch(code)
    if segments:
        return (segments[1].zfill(5) + segments[2].zfill(4) + segments[3].zfill(2),)
    if not code.isdigit():
        return ()
    if len(code) == 12 and code.startswith("0"):
        return (code[1:],)
    if len(code) == 10:
        return tuple(sorted({"0" + code, code[:5] + "0" + code[5:], code[:9] + "0" + code[9:]}))
    return (code,)


_FORMS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "icd10cm": _icd10,
    "icd10": _icd10,
    "icd9cm": _icd9,
    "icd10pcs": _upper,
    "rxnorm": _without_zeros,
    "atc": _upper,
    "cpt": _upper,
    "cvx": _cvx,
    "ndc": _ndc,
}

# The dihedral group of order 10 (SNOMED CT identifiers, appendix "Check-digit computation"): product, and the
# permutation that is applied to the digit at each place, counted from the right.
_VERHOEFF_PRODUCT = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_VERHOEFF_PLACE = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


def _verhoeff(code: str) -> bool:
    state = 0
    for place, digit in enumerate(reversed(code)):
        state = int(_VERHOEFF_PRODUCT[state][int(_VERHOEFF_PLACE[place % 8][int(digit)])])
    # Digits 2 and 3 from the right name the partition: 00 and 10 are concepts, others descriptions and relationships.
    return state == 0 and code[-3:-1] in ("00", "10")


def _mod10(code: str) -> bool:
    body, _, check = code.partition("-")
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (10 - total % 10) % 10 == int(check)


_CHECKS: dict[str, Callable[[str], bool]] = {"verhoeff": _verhoeff, "mod10": _mod10}
