"""Which questions must be computed, and which have the answer of the same person's question before?

In go the rows of a selection, the windows that are asked of it, and questions in the order of person and T, all with
K = T. As T moves on, what is seen of a row changes only where the row becomes known, is closed, comes into effect,
enters or leaves a window, or ends. In a feature table a patient has thousands of questions, and each selection changes
at few of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fhir_features.features.arrays import Array
from fhir_features.features.kernel import Questions, RowSet
from fhir_features.features.nodes import Window

# What a row says about when it is over, where it is asked.
_ENDS = ("abatement_at", "ends_at", "end_at")


def must_compute(questions: Questions, windows: Sequence[Window], *row_sets: RowSet) -> Array:
    """For each question whether something of the rows may be seen otherwise than at the person's question before.

    The first question of each person must always be computed.
    """
    must = np.zeros(len(questions) + 1, bool)
    for rows in row_sets:
        person = rows.column("person")
        for instants in _instants(rows, windows):
            # What a person's last question is before falls on the next person's first one, which is computed anyway.
            must[questions.timeline.first_after(person, instants - 1)] = True
    must[questions.starts] = True
    return must[:-1]


def _instants(rows: RowSet, windows: Sequence[Window]) -> Iterator[Array]:
    """The instants at which what is seen of each row changes."""
    yield rows.column("visible_from")
    yield rows.column("visible_to")
    for us in sorted({0} | {us for window in windows for us in (window.start_us, window.end_us) if us is not None}):
        yield rows.column("effective_at") + us
    for name in _ENDS:
        if rows.has(name):
            yield rows.column(name)
