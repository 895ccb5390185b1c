"""Which rows are active, and which belong to an encounter of some kind, as far as each question knows.

In go pairs of questions and rows (`seen.Pairs`) and the rows of the patients' encounters; out comes a flag a pair.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow.compute as pc

from fhir_features.features.arrays import Array
from fhir_features.features.counting import ACTIVE_DURING_ENCOUNTER, ACTIVE_NOW
from fhir_features.features.kernel import RowSet
from fhir_features.features.seen import Pairs


class Stays:
    """The encounters of a pass, for whoever asks whether a row belongs to one that is visible at K and begun at T."""

    def __init__(self, rows: RowSet) -> None:
        self.rows = rows

    def of(self, pairs: Pairs, matches: Callable[[Pairs], Array]) -> Array:
        """For each pair whether its row's encounter is one that matches."""
        asking, place = np.unique(pairs.question, return_inverse=True)
        questions = pairs.questions.at(asking)
        stays = Pairs(self.rows, questions, *self.rows.of_person(questions.person))
        fits = matches(stays) & (stays.column("effective_at") <= stays.t)
        ids = self.rows.words("resource_id")
        numbers = pc.fill_null(pc.index_in(pairs.row_set.words("encounter_id"), ids), -1).to_numpy()
        written = pairs.column("encounter_id")
        wanted = np.where(written < 0, -1, np.append(numbers, -1)[written])
        found = np.isin(
            place * (len(ids) + 1) + wanted, (stays.question * (len(ids) + 1) + stays.column("resource_id"))[fits]
        )
        is_one: Array = found & (wanted >= 0)
        return is_one

    def going_on(self, pairs: Pairs) -> Array:
        """For each pair whether its row's encounter is going on at T."""
        return self.of(pairs, lambda stays: stays.column("end_at") > stays.t)

    def of_class(self, pairs: Pairs, classes: tuple[str, ...]) -> Array:
        """For each pair whether its row's encounter is of one of the classes."""
        words = self.rows.words("class_code").to_pylist()
        wanted = [number for number, word in enumerate(words) if word in classes]
        return self.of(pairs, lambda stays: np.isin(stays.column("class_code"), wanted))


def active_conditions(pairs: Pairs, stays: Stays | None) -> Array:
    """Neither abated at T nor inactive; an encounter diagnosis without a clinical status during its encounter."""
    assert stays is not None
    activity = pairs.column("activity")
    active: Array
    active, during = activity == ACTIVE_NOW, activity == ACTIVE_DURING_ENCOUNTER
    if during.any():
        active |= during & stays.going_on(pairs)
    active &= pairs.column("abatement_at") > pairs.t
    return active


def active_orders(pairs: Pairs, stays: Stays | None) -> Array:
    """In force, and not over at T."""
    active: Array = pairs.column("is_in_force") & (pairs.column("ends_at") > pairs.t)
    return active


def active_encounters(pairs: Pairs, stays: Stays | None) -> Array:
    """Not over at T."""
    active: Array = pairs.column("end_at") > pairs.t
    return active


ACTIVE: dict[str, Callable[[Pairs, Stays | None], Array]] = {
    "conditions": active_conditions,
    "medication_requests": active_orders,
    "encounters": active_encounters,
}
