"""Which codes does the ICD-10-CM tabular list (XML) define? Headers and billable codes, with titles and parents.

The list prints most codes in full. A `sevenChrDef` says instead that the codes below take a 7th character, with the
placeholder X up to the 6th (ICD-10-CM Official Guidelines, section I.A.4 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

# In S06 the outcomes "death before regaining consciousness" take no later encounter: 7th characters D and S are not
# valid after 7 or 8 in the 6th place (CMS code files FY2021 to FY2026).
_DEATH_OUTCOMES = frozenset("78")


@dataclass(frozen=True, slots=True)
class Code:
    """One ICD-10-CM code with its dot, its title, its parent (None for a category) and whether it is billable."""

    code: str
    display: str
    parent: str | None
    billable: bool


def tabular_codes(xml: bytes) -> Iterator[Code]:
    """All codes of the tabular list in its order."""
    for section in ElementTree.fromstring(xml).iter("section"):
        for diagnosis in section.findall("diag"):
            yield from _codes_below(diagnosis, None, {})


def _codes_below(diagnosis: ElementTree.Element, parent: str | None, sevenths: dict[str, str]) -> Iterator[Code]:
    code, title = diagnosis.findtext("name", ""), diagnosis.findtext("desc", "")
    definition = diagnosis.find("sevenChrDef")
    if definition is not None:
        sevenths = {extension.get("char", ""): extension.text or "" for extension in definition.iter("extension")}
    children = diagnosis.findall("diag")
    yield Code(code, title, parent, billable=not children and not sevenths)
    for child in children:
        yield from _codes_below(child, code, sevenths)
    if not children:
        stem = code.ljust(7, "X") if "." in code else f"{code}.XXX"
        for seventh, meaning in sevenths.items():
            if not (code.startswith("S06.") and code[6:7] in _DEATH_OUTCOMES and seventh in "DS"):
                yield Code(stem + seventh, f"{title}, {meaning}", code, billable=True)
