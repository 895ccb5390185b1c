"""Of results of one instant the one that became known last is the newest, and of those the one of the last id (TIME
rule 5): in whatever order the rows lie, and however few questions are answered at once."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from lake_rows import LakeRows, at

from fhir_features import FeatureView, observation, patient
from fhir_features.features import kernel

# In the order of the rule: id, when it became known, value.
TIED = (("z", "2024-03-05 09:00", 5.0), ("a", "2024-03-05 10:00", 7.0), ("b", "2024-03-05 10:00", 6.0))
HBA1C = observation("loinc:4548-4", unit="%")
VIEW = FeatureView(
    name="tied",
    entity=patient,
    features=[HBA1C.first().named("first"), HBA1C.last().named("last"), HBA1C.change().named("change")],
)


def test_tied_results_are_taken_in_the_order_of_the_rule(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = LakeRows()
    orders = list(permutations(TIED))
    for number, order in enumerate(orders):
        rows.store_seq = 1
        rows.patient(f"p{number}")
        # Within a commit rows are written in order.
        for rows.store_seq, (name, known, value) in enumerate(order, start=1):
            when = {"effective_at": at("2024-03-05 08:00"), "known_at": at(known)}
            rows.observation("loinc:4548-4", value, "%", patient_id=f"p{number}", resource_id=f"{name}{number}", **when)
    project.write(rows)
    asked = [(f"p{number}", at(t)) for number in range(len(orders)) for t in ("2024-03-05 09:30", "2024-03-06")]
    spine = pa.table(
        {
            "patient_id": [name for name, _ in asked],
            "event_timestamp": pa.array([t for _, t in asked], pa.timestamp("us", "UTC")),
        }
    )
    found = project.store.get_historical_features(spine, [VIEW]).to_arrow().select(["first", "last", "change"])
    assert [tuple(row.values()) for row in found.to_pylist()] == [(5.0, 5.0, None), (5.0, 6.0, -1.0)] * len(orders)
    monkeypatch.setattr(kernel, "_PAIRS_AT_ONCE", 1)
    one_by_one = project.store.get_historical_features(spine, [VIEW]).to_arrow()
    assert one_by_one.select(found.column_names).equals(found)
