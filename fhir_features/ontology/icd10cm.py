"""Which codes does the ICD-10-CM tabular list (XML) define, and into which does a release divide those before it?

In: the list. Out: headers and billable codes, with titles and parents.

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


# A billable code that a release subdivides: its candidates are the new billable codes below it, placeholders X aside
# and with the same 7th character. They are candidates, never followed by themselves. The query reads the tables `codes`
# and `predecessor` (code, billable).
SPLIT_CODES = """
WITH retired AS MATERIALIZED (
  SELECT predecessor.code
  FROM predecessor
  ANTI JOIN (SELECT code FROM codes WHERE billable) AS still_billable USING (code)
  WHERE predecessor.billable
), added AS MATERIALIZED (
  SELECT codes.code
  FROM codes
  ANTI JOIN (SELECT code FROM predecessor WHERE billable) AS billable_before USING (code)
  WHERE codes.billable
)
SELECT
  retired.code AS code,
  'split' AS kind,
  added.code AS successor
FROM retired
JOIN added ON CASE
  WHEN retired.code LIKE '%X_'
    THEN starts_with(added.code, rtrim(left(retired.code, 7), 'X')) AND right(added.code, 1) = right(retired.code, 1)
  ELSE starts_with(replace(added.code, '.', ''), replace(retired.code, '.', ''))
END
"""


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
