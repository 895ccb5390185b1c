"""Runs the tables of `schedules.py`."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from evidence import table
from schedules import SPECS, Spec

from fhir_features.features.cadence import read_serving


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.title)
def test_as_of_when_is_answered(spec: Spec) -> None:
    for line in table(spec.asked):
        asked_at = np.array([line["asked at (UTC)"]], "M8[us]")
        (answered_at,) = read_serving(spec.serving).answered_at(asked_at.astype(np.int64)).astype("M8[us]").tolist()
        assert str(answered_at) == line["answered as of (UTC)"]
        for column in ("asked at", "answered as of"):
            instant = dt.datetime.fromisoformat(line[f"{column} (UTC)"]).replace(tzinfo=dt.UTC)
            assert f"{instant.astimezone(ZoneInfo(spec.zone)):%Y-%m-%d %H:%M:%S}" == line[f"{column} (local)"]
