"""What the patients' own records say at each question: whether they are known at K, age, sex, deceased.

In go the rows of the patients' records and the questions of a pass; out come Arrow columns, a row a question, null for
a patient who is not known. The newest record that is visible at K counts, whatever T is (TIME section C).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from fhir_features.features.arrays import Array
from fhir_features.features.kernel import Questions, RowSet
from fhir_features.features.seen import Pairs, Seen

# Every instant of a record is the same, so that its rows are in the order of knowing.
STATEMENT = """SELECT
  e.version_no,
  e.state,
  0 AS component,
  a.person,
  TIMESTAMPTZ '0001-01-01' AS effective_at,
  e.known_at,
  e.known_at AS visible_from,
  e.known_to AS visible_to,
  e.birth_date,
  e.sex,
  coalesce(e.deceased, false) AS deceased
FROM patients_in($first_bucket, $last_bucket) e
JOIN asked_people a
  ON a.site = e.site
  AND a.patient_id = e.patient_id
  AND a.since IS NULL
WHERE a.asked_bucket BETWEEN $first_asked AND $last_asked"""


class Facts:
    """The facts of the questions of a pass."""

    def __init__(self, rows: RowSet, questions: Questions) -> None:
        first, last = rows.of_person(questions.person)
        self._seen: Seen = Pairs(rows, questions, first, last).seen(first, last)
        self._rows = rows
        self._t = questions.t.astype("datetime64[us]")

    @cached_property
    def is_known(self) -> Array:
        """Whether the patient is known at K."""
        is_known: Array = ~self._seen.none
        return is_known

    def answer(self, operator: str) -> pa.Array:
        """One of `operators.PATIENT_OPERATORS`."""
        if operator == "sex":
            words = self._rows.words("sex")
            return words.take(pa.array(self._newest("sex"), mask=~self.is_known | (self._newest("sex") < 0)))
        if operator == "deceased":
            return pa.array(self._newest("deceased"), pa.bool_(), mask=~self.is_known)
        born = self._newest("birth_date").astype("datetime64[D]")
        today = self._t.astype("datetime64[D]")
        answer = (today - born).astype(np.int64) if operator == "age_days" else _years(born, today)
        return pa.array(answer, pa.int64(), mask=~(self.is_known & (born <= today)))

    def _newest(self, name: str) -> Array:
        return self._seen.at(self._seen.pairs.column(name), self._seen.last - 1)


def _years(born: Array, today: Array) -> Array:
    """Completed years from one date to another."""
    years = today.astype("datetime64[Y]").astype(np.int64) - born.astype("datetime64[Y]").astype(np.int64)
    return years - (_day_of_year(today) < _day_of_year(born))


def _day_of_year(date: Array) -> Array:
    """Month and day as one number, in the order of the calendar."""
    months = date.astype("datetime64[M]")
    days: Array = months.astype(np.int64) % 12 * 32 + (date - months.astype("datetime64[D]")).astype(np.int64)
    return days
