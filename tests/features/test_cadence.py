"""Cadences and servings as text: what is read, what is refused, and what a training set then answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from lake_rows import LakeRows, at

from fhir_features import FeatureView, lag, observation, patient
from fhir_features.cli import cli
from fhir_features.errors import DefinitionError, UsageError
from fhir_features.features.cadence import EXACT, read_cadence, read_serving

hba1c = observation("loinc:4548-4", unit="%")


def view(name: str, cadence: str = "on_change") -> FeatureView:
    return FeatureView(name=name, entity=patient, features=[hba1c.last().named(f"{name}_last")], cadence=cadence)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("daily@02:00 Europe/Berlin", "daily@02:00 Europe/Berlin"),
        ("daily@14:00,02:00,14:00  UTC", "daily@02:00,14:00 UTC"),
        ("hourly@:15 America/New_York", "hourly@:15 America/New_York"),
        ("weekly@Mon 02:00 Europe/Berlin", "weekly@Mon 02:00 Europe/Berlin"),
        ("on_change", "exact"),
    ],
)
def test_a_cadence_has_one_spelling(text: str, canonical: str) -> None:
    assert str(read_cadence(text)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("daily@02:00", "names no time zone: add one, such as 'daily@02:00 Europe/Berlin'"),
        ("weekly@Mon 02:00", "names no time zone"),
        ("daily@02:00 Europe/Berlyn", "'Europe/Berlyn' is not a time zone"),
        ("daily@24:00 UTC", "is not a cadence"),
        ("daily@2:00 UTC", "is not a cadence"),
        ("hourly@15 UTC", "is not a cadence"),
        ("weekly@Mo 02:00 UTC", "is not a cadence"),
        ("every 4h", "is not a cadence"),
        ("lag 6h", "is not a cadence"),
        ("", "is not a cadence"),
    ],
)
def test_a_wrong_cadence_is_refused_when_the_view_is_made(text: str, says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        view("nightly", text)
    assert str(refused.value).startswith("feature view 'nightly', cadence: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_cadence_is_part_of_the_definition_and_the_version() -> None:
    nightly = view("v", "daily@02:00 Europe/Berlin")
    assert nightly.version != view("v").version
    assert nightly.version == view("v", "daily@02:00   Europe/Berlin").version
    assert FeatureView(**nightly.definition()) == nightly


def test_a_serving_is_a_lag_exact_or_a_cadence() -> None:
    assert read_serving(lag("24h")) == read_serving("lag 1d") == lag("1d")
    assert read_serving("exact") == read_serving("on_change") == EXACT
    assert read_serving("daily@02:00 UTC") == read_cadence("daily@02:00 UTC")
    with pytest.raises(UsageError, match="lag: '6' is not a duration"):
        lag("6")
    with pytest.raises(UsageError, match="or 'exact', or a lag such as 'lag 6h'"):
        read_serving("6h")


@pytest.mark.parametrize("cadence", ["daily@02:00 Europe/Berlin", "hourly@:15 UTC", "lag 6h", "exact"])
@pytest.mark.parametrize("year", [-3000, 1, 9999, 12000])
def test_instants_far_away_are_answered_at_or_before_themselves(cadence: str, year: int) -> None:
    instants = np.array([f"{year:05}-12-31T23:59:59.999999"], "M8[us]").astype(np.int64)
    (answered_at,) = read_serving(cadence).answered_at(instants)
    assert instants[0] - 26 * 3_600_000_000 < answered_at <= instants[0]


def some_rows() -> LakeRows:
    rows = LakeRows()
    rows.patient()
    # Drawn in the morning, known at noon: the nightly run of the 5th does not know it.
    rows.observation("loinc:4548-4", 7.0, "%", effective_at=at("2024-01-05 08:00"), known_at=at("2024-01-05 12:00"))
    rows.watermark(at("2024-01-06 12:00"))
    rows.resolve()
    return rows


def spine(*times: str) -> pa.Table:
    instants = pa.array([at(text) for text in times], pa.timestamp("us", tz="UTC"))
    return pa.table({"patient_id": ["p1"] * len(times), "event_timestamp": instants})


def test_each_view_answers_by_its_cadence_unless_another_serving_is_asked_for(project: Any) -> None:
    project.write(some_rows())
    views = [view("nightly", "daily@02:00 Europe/Berlin"), view("now")]
    asked = spine("2024-01-05 13:00", "2024-01-06 00:59:59", "2024-01-06 01:00", "2024-01-07 00:00")

    def answers(**how: Any) -> list[list[float | None]]:
        table = project.store.get_historical_features(asked, views, **how).to_arrow()
        assert table.column_names == ["patient_id", "event_timestamp", "site", "nightly_last", "now_last"]
        assert table["event_timestamp"].to_pylist() == asked["event_timestamp"].to_pylist()
        return [table["nightly_last"].to_pylist(), table["now_last"].to_pylist()]

    assert answers() == [[None, None, 7.0, 7.0], [7.0, 7.0, 7.0, 7.0]]
    assert answers(serving="exact") == [[7.0, 7.0, 7.0, 7.0]] * 2
    assert answers(serving=lag("6h")) == [[None, 7.0, 7.0, 7.0]] * 2
    assert answers(serving="daily@00:00 UTC") == [[None, 7.0, 7.0, 7.0]] * 2
    # K is the earlier of the audit's cut-off and the instant of the answer.
    assert answers(known_as_of=at("2024-01-05 11:59")) == [[None] * 4] * 2
    assert answers(known_as_of=at("2024-01-05 12:00")) == [[None, None, 7.0, 7.0], [7.0] * 4]


def test_a_row_is_incomplete_when_its_answer_lies_beyond_the_watermark(project: Any) -> None:
    project.write(some_rows())
    asked = spine("2024-01-06 11:00", "2024-01-06 13:00", "2024-01-07 03:00")
    nightly = view("nightly", "daily@02:00 UTC")
    assert project.store.get_historical_features(asked, [nightly]).summary.incomplete == 1
    assert project.store.get_historical_features(asked, [nightly], serving="exact").summary.incomplete == 2
    assert project.store.get_historical_features(asked.slice(0, 0), [nightly]).to_arrow().num_rows == 0


def test_a_patient_may_be_unknown_yet_when_the_answer_was_made(project: Any) -> None:
    rows = some_rows()
    rows.patient("p2", known_at=at("2024-01-05 12:00"))
    project.write(rows)
    asked = spine("2024-01-05 13:00").set_column(0, "patient_id", pa.array(["p2"]))
    summary = project.store.get_historical_features(asked, [view("nightly", "daily@02:00 UTC"), view("now")]).summary
    assert summary.unknown_patients == 1


def test_the_command_asks_with_a_serving(project: Any) -> None:
    project.write(some_rows())
    pq.write_table(spine("2024-01-05 13:00"), project.folder / "spine.parquet")
    output = project.folder / "out.parquet"
    words = ["--config", str(project.folder), "get", str(project.folder / "spine.parquet")]
    words += ["--features", "diabetes:hba1c_last_1y", "--output", str(output), "--json", "--serving"]
    for serving, expected in (("lag 6h", None), ("exact", 7.0), ("daily@02:00 UTC", None)):
        printed = CliRunner().invoke(cli, [*words, serving], catch_exceptions=False).stdout
        assert json.loads(printed)["known_at_source"] == ({} if expected is None else {"issued": 1})
        assert pq.read_table(output)["hba1c_last_1y"].to_pylist() == [expected]
    refused = CliRunner().invoke(cli, [*words, "daily@02:00"])
    assert isinstance(refused.exception, UsageError)
    assert str(refused.exception).startswith("serving: 'daily@02:00' names no time zone")
