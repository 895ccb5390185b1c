"""The dictionaries of distinct CodeableConcepts and units: what a source wrote in, a 64-bit id out.

An id is the hash of the content, so that two runs, two sites and two stores give the same id to the same codings.
A dictionary remembers what it has met; whether the store has it too is decided at the commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

import msgspec

from fhir_features.normalize.elements import Unusable
from fhir_features.normalize.structs import CodeableConcept, Quantity

# Of what is there, one has a dozen.
_MOST_CODINGS = 1000
CodingRow = tuple[int, int, str | None, str | None, str | None, str | None, bool | None]
UnitRow = tuple[int, str | None, str | None, str | None]


def content_id(content: object) -> int:
    """The first 64 bits of BLAKE2b over the JSON of a value, as a signed integer."""
    digest = hashlib.blake2b(msgspec.json.encode(content, order="sorted"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class Dictionary:
    """The codings and units that were met."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, int] = {}
        self._codings: list[CodingRow] = []
        self._units: list[UnitRow] = []

    def code_id(self, concept: CodeableConcept | None) -> int | None:
        """The id of a concept's codings, in their order; null for one that has none. Its text is not part of it.

        Raises Unusable for more codings than can be meant.
        """
        if concept is None or not concept.coding:
            return None
        if len(concept.coding) > _MOST_CODINGS:
            raise Unusable("size", "$", f"a concept in it has more than {_MOST_CODINGS} codings")
        known = self._ids.get(concept.coding)
        if known is None:
            codings = [(c.system, c.code, c.version, c.display, c.user_selected) for c in concept.coding]
            known = self._ids[concept.coding] = content_id(codings)
            self._codings += [(known, ordinal, *coding) for ordinal, coding in enumerate(codings)]
        return known

    def unit_id(self, quantity: Quantity | None) -> int | None:
        """The id of a quantity's unit, as (system, code, unit); null for one that has none."""
        if quantity is None or (quantity.code is None and quantity.unit is None):
            return None
        key = (quantity.system, quantity.code, quantity.unit)
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = content_id(key)
            self._units.append((known, *key))
        return known

    def newly_met(self) -> tuple[list[CodingRow], list[UnitRow]]:
        """The rows of the codings and of the units that were met since this was last asked."""
        met = self._codings, self._units
        self._codings, self._units = [], []
        return met
