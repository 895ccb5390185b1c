"""Anchored spines: rows that a study asks at, each by virtue of what was known at its instant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from lake_rows import LakeRows, at, memory_lake, refill
from test_feature_commands import run

from fhir_features import FeatureView, condition, encounter, medication, observation, patient, spine
from fhir_features.errors import DefinitionError
from fhir_features.features.anchors import Spine, anchored_rows
from fhir_features.features.engine import stand_at
from fhir_features.features.repository import load_spines
from fhir_features.features.terms import ontologies


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = memory_lake()
    yield con
    con.close()


def asked(con: duckdb.DuckDBPyConnection, rows: LakeRows, anchored: Spine) -> list[tuple[str, ...]]:
    """The rows of a spine without their site, instants as day of January 2024 and hour."""
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    table = anchored_rows(con, ontologies(), anchored)
    assert str(table.schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
    return [
        tuple(f"{value:%d %H}" if isinstance(value, dt.datetime) else value for value in row.values())
        for row in table.drop_columns("site").to_pylist()
    ]


def jan(text: str) -> dt.datetime:
    """`05 08` is 5 January 2024 at 08:00."""
    day, hour = text.split()
    return at(f"2024-01-{day} {hour}:00")


def stay(rows: LakeRows, start: str, known: str, end: str | None = None, until: str | None = None, **more: Any) -> None:
    """A version of a stay: from when to when it was, and from when to when it was known."""
    status = "finished" if end else "in-progress"
    times = {"effective_at": jan(start), "known_at": jan(known), "end_at": end and jan(end)}
    row = rows.encounter(**{"status": status, "resource_id": "stay", **times, **more})
    if until:
        rows.close(row, jan(until))


def one_stay() -> LakeRows:
    """A stay from the 5th at 08:00, known two hours later; over on the 7th at 12:00, known on the 8th."""
    rows = LakeRows()
    rows.patient()
    stay(rows, "05 08", "05 10", until="08 09")
    stay(rows, "05 08", "08 09", "07 12", version="2")
    return rows


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        (spine.encounters(), ("p1", "05 10", "stay", "05 08")),
        (spine.encounters("start+1h"), ("p1", "05 10", "stay", "05 09")),
        (spine.encounters("start + 24h", class_="inpatient"), ("p1", "06 08", "stay", "06 08")),
        (spine.encounters("start+24h", class_="IMP", while_open=True), ("p1", "06 08", "stay", "06 08")),
        (spine.encounters("start+60h", while_open=True), ("p1", "07 20", "stay", "07 20")),
        (spine.encounters("start+5d"), ("p1", "10 08", "stay", "10 08")),
        (spine.encounters("start+5d", while_open=True), None),
        (spine.encounters("start+24h", class_="emergency"), None),
        (spine.encounters("end"), ("p1", "08 09", "stay", "07 12")),
        (spine.encounters("end+2d"), ("p1", "09 12", "stay", "09 12")),
    ],
    ids=str,
)
def test_an_encounter_is_asked_at_when_its_anchor_is_known_to_have_come(
    con: duckdb.DuckDBPyConnection, anchor: Spine, expected: tuple[str, ...] | None
) -> None:
    assert asked(con, one_stay(), anchor) == ([expected] if expected else [])


def test_a_withdrawal_takes_away_no_row_from_before_it(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    stay(rows, "05 08", "05 08", until="06 00")
    stay(rows, "05 08", "06 00", version="2", status="entered-in-error")
    assert asked(con, rows, spine.encounters("start+1h")) == [("p1", "05 09", "stay", "05 09")]
    assert asked(con, rows, spine.encounters("start+24h")) == []


def test_a_stay_whose_start_is_corrected_is_asked_at_once(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    stay(rows, "05 08", "05 08", until="05 20")
    stay(rows, "05 12", "05 20", version="2")
    assert asked(con, rows, spine.encounters("start+6h")) == [("p1", "05 14", "stay", "05 14")]
    assert asked(con, rows, spine.encounters("start+24h")) == [("p1", "06 12", "stay", "06 12")]


def test_class_and_patient_are_those_known_then(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    stay(rows, "05 08", "05 08", until="05 12", class_code="EMER")
    stay(rows, "05 08", "05 12", until="05 16", class_code="IMP", version="2")
    stay(rows, "05 08", "05 16", class_code="IMP", version="3", patient_id="p2")
    assert asked(con, rows, spine.encounters("start+1h", class_="inpatient")) == [
        ("p1", "05 12", "stay", "05 09"),
        ("p2", "05 16", "stay", "05 09"),
    ]


def test_a_grid_has_those_who_were_known(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    rows.patient("old")
    rows.close(rows.patient("gone", known_at=jan("02 00")), jan("08 00"))
    rows.patient("new", known_at=jan("08 01"))
    weekly = spine.grid(every="7d", start="2024-01-01T01:00:00+01:00", end=jan("16 00"))
    expected = [("new", "15 00")] + [("old", day) for day in ("01 00", "08 00", "15 00")]
    assert asked(con, rows, weekly) == expected


def test_a_grid_during_stays_has_what_was_known_to_go_on(con: duckdb.DuckDBPyConnection) -> None:
    rows = one_stay()
    stay(rows, "07 08", "07 08", "07 22", resource_id="other", class_code="EMER")
    daily = {"every": "12h", "start": jan("05 06"), "end": jan("12 00")}
    inpatient = spine.grid(**daily, during=encounter("inpatient"))
    # Until the 8th at 09:00 nobody knew that it had ended.
    known_open = ("05 18", "06 06", "06 18", "07 06", "07 18", "08 06")
    assert asked(con, rows, inpatient) == [("p1", time, "stay") for time in known_open]
    anywhere = asked(con, rows, spine.grid(**daily, during=encounter()))
    assert anywhere == [("p1", time, "stay") for time in known_open]


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (condition("icd10cm:E11", descendants=True), [("p1", "06 00"), ("p2", "09 00")]),
        (observation("loinc:4548-4", unit="%").where(low=6.5), [("p1", "04 00")]),
        (medication("rxnorm:6809", ingredient=True), [("p2", "03 00")]),
        (encounter("inpatient"), [("p1", "05 10")]),
    ],
    ids=lambda each: str(getattr(each, "rows", "")),
)
def test_the_first_is_when_it_was_known_and_true(con: duckdb.DuckDBPyConnection, series: Any, expected: Any) -> None:
    rows = one_stay()
    rows.patient("p2")
    refuted = rows.condition("icd10cm:E11.9", effective_at=jan("02 00"), verification_status="refuted")
    rows.close(refuted, jan("06 00"))
    confirmed = {"resource_id": refuted["resource_id"], "version": "2", "known_at": jan("06 00")}
    rows.close(rows.condition("icd10cm:E11.9", effective_at=jan("02 00"), **confirmed), jan("07 00"))
    rows.condition("icd10cm:E11.9", effective_at=jan("02 00"), known_at=jan("08 00"))
    rows.condition("icd10cm:E11.65", effective_at=jan("09 00"), known_at=jan("02 00"), patient_id="p2")
    rows.condition("icd10cm:I10", effective_at=jan("01 00"))
    rows.observation("loinc:4548-4", 6.0, "%", effective_at=jan("01 00"))
    rows.observation("loinc:4548-4", 7.0, "%", effective_at=jan("03 00"), known_at=jan("04 00"))
    rows.medication("rxnorm:860975", effective_at=jan("03 00"), patient_id="p2")
    assert asked(con, rows, spine.first(series)) == expected


@pytest.mark.parametrize(
    "anchored",
    [
        spine.encounters("start+24h"),
        spine.grid(every="1d", start=jan("01 00"), end=jan("09 00"), during=encounter()),
        spine.first(condition("icd10cm:E11")),
    ],
    ids=lambda each: each.spine,
)
def test_without_data_there_are_no_rows(con: duckdb.DuckDBPyConnection, anchored: Spine) -> None:
    assert asked(con, LakeRows(), anchored) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: spine.encounters("admission"), "'admission' is no anchor"),
        (lambda: spine.encounters("end-24h"), "nobody knows at that instant that the encounter is to end"),
        (lambda: spine.encounters("start+24"), "say '24d' for days"),
        (lambda: spine.encounters("end", while_open=True), "asks for nothing"),
        (lambda: spine.encounters(class_="inpatent"), "did you mean 'inpatient'"),
        (lambda: spine.grid(every="7d", start="2024-01-01", end=jan("02 00")), "start: '2024-01-01' has no offset"),
        (lambda: spine.grid(every="7d", start=jan("02 00"), end=dt.datetime(2024, 2, 1)), "end is an instant with a"),
        (lambda: spine.grid(every="7d", start=jan("02 00"), end=jan("02 00")), "ends after it starts"),
        (lambda: spine.grid(every="7d", start=jan("01 00"), end=jan("02 00"), during="IMP"), "during takes encounters"),
        (lambda: spine.first(condition("icd10cm:E11").ever()), "takes rows"),
    ],
)
def test_a_spine_that_cannot_be_is_refused_when_it_is_made(make: Any, says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        make()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_training_set_over_a_spine(project: Any) -> None:
    rows = one_stay()
    rows.observation("loinc:4548-4", 7.0, "%", effective_at=jan("05 09"), known_at=jan("06 09"))
    project.write(rows)
    admissions = spine.encounters("start+24h")
    hba1c = observation("loinc:4548-4", unit="%").last().named("hba1c")
    view = FeatureView(name="v", entity=patient, features=[hba1c])
    table = project.store.get_historical_features(admissions, [view]).to_arrow()
    assert table.column_names == ["site", "patient_id", "event_timestamp", "encounter_id", "anchor_at", "hba1c"]
    assert table["hba1c"].to_pylist() == [None]
    project.define(
        'from fhir_features import *\nv = FeatureView(name="v", entity=patient, features=['
        'observation("loinc:4548-4", unit="%").last().named("hba1c")])\n'
        'admissions = spine.encounters("start+26h")\n'
    )
    output = project.folder / "out.parquet"
    run(project, "get", "admissions", "--features", "v", "--output", str(output))
    assert pq.read_table(output)["hba1c"].to_pylist() == [7.0]
    refused = run(project, "get", "admission", "--features", "v", "--output", str(output))
    assert refused.returncode == 2
    assert "'admission' is no .parquet or .csv file, and no spine: did you mean 'admissions'?" in refused.stderr


ANCHORED = (
    spine.encounters("start+6h"),
    spine.encounters("start+24h", class_="inpatient", while_open=True),
    spine.encounters("end"),
    spine.grid(every="1d", start=jan("02 00"), end=jan("20 00")),
    spine.grid(every="8h", start=jan("02 00"), end=jan("20 00"), during=encounter("inpatient")),
    spine.first(condition("icd10cm:E11", descendants=True)),
    spine.first(observation("loinc:4548-4", unit="%").where(low=6.5)),
)


@pytest.mark.parametrize("seed", range(16))
def test_nothing_that_becomes_known_later_changes_the_rows_until_then(
    con: duckdb.DuckDBPyConnection, seed: int
) -> None:
    random = Random(seed)
    rows = histories(random)
    now = jan("02 00") + random.randrange(18 * 24) * dt.timedelta(hours=1)
    for anchored, after, then in zip(ANCHORED, all_rows(con, rows), all_rows(con, known_by(rows, now)), strict=True):
        assert [row for row in then if row["event_timestamp"] <= now] == [
            row for row in after if row["event_timestamp"] <= now
        ], anchored


def test_the_histories_give_rows_of_every_spine(con: duckdb.DuckDBPyConnection) -> None:
    found = [all_rows(con, histories(Random(seed))) for seed in range(4)]
    for number, anchored in enumerate(ANCHORED):
        assert sum(len(rows[number]) for rows in found) > 3, anchored


def histories(random: Random) -> LakeRows:
    """Versions of stays, diagnoses and results of three patients, each known some hours after the one before it."""
    rows = LakeRows()
    for name in ("p1", "p2", "p3"):
        row = rows.patient(name, known_at=hour(random, 96))
        if random.random() < 0.3:
            rows.close(row, row["known_at"] + dt.timedelta(hours=random.randrange(200)))
        for number in range(3):
            _versions(random, rows, rows.encounter, f"e-{name}-{number}", lambda: _stay(random), patient_id=name)
            _versions(random, rows, _condition(random, rows), f"c-{name}-{number}", dict, patient_id=name)
            _versions(random, rows, _result(random, rows), f"o-{name}-{number}", dict, patient_id=name)
    rows.resolve()
    return rows


def _versions(random: Random, rows: LakeRows, make: Any, resource_id: str, content: Any, **more: Any) -> None:
    known_at = hour(random, 300)
    for version in range(random.randint(1, 3)):
        until = known_at + dt.timedelta(hours=random.randrange(60))
        times = {"effective_at": hour(random, 300), "known_at": known_at, "version": str(version)}
        row = make(resource_id=resource_id, **times, **content(), **more)
        if random.random() < 0.7:
            rows.close(row, until)
        known_at = until


def _stay(random: Random) -> dict[str, Any]:
    return {
        "class_code": random.choice(["IMP", "EMER"]),
        "status": random.choice(["in-progress", "finished", "entered-in-error"]),
        "end_at": random.choice([None, hour(random, 400)]),
    }


def _condition(random: Random, rows: LakeRows) -> Any:
    verification = random.choice(["confirmed", "refuted"])
    code = random.choice(["icd10cm:E11.9", "icd10cm:I10"])
    return lambda **more: rows.condition(code, verification_status=verification, **more)


def _result(random: Random, rows: LakeRows) -> Any:
    return lambda **more: rows.observation("loinc:4548-4", random.choice([6.0, 7.0]), "%", **more)


def hour(random: Random, hours: int) -> dt.datetime:
    return jan("01 00") + random.randrange(hours) * dt.timedelta(hours=1)


def known_by(rows: LakeRows, now: dt.datetime) -> LakeRows:
    """What of these rows had become known by an instant."""
    known = LakeRows()
    known.tables = {
        name: [row for row in each if (row.get("known_at") or row.get("closed_at") or now) <= now]
        for name, each in rows.tables.items()
    }
    return known


def all_rows(con: duckdb.DuckDBPyConnection, rows: LakeRows) -> list[list[dict[str, Any]]]:
    """The rows of each of ANCHORED."""
    refill(con, rows)
    stand_at(con, ontologies(), 1)
    return [anchored_rows(con, ontologies(), anchored).to_pylist() for anchored in ANCHORED]


def test_the_first_of_an_encounter_waits_for_its_class(con: duckdb.DuckDBPyConnection) -> None:
    rows = LakeRows()
    rows.patient()
    stay(rows, "05 08", "05 10", until="06 00", class_code="EMER")
    stay(rows, "05 08", "06 00", version="2", class_code="IMP")
    rows.condition("icd10cm:E11", effective_at=jan("05 08"), known_at=jan("05 09"), encounter_id="stay")
    diabetes = condition("icd10cm:E11")
    assert asked(con, rows, spine.first(diabetes.where(encounter_class="emergency"))) == [("p1", "05 10")]
    assert asked(con, rows, spine.first(diabetes.where(encounter_class="inpatient"))) == [("p1", "06 00")]
    assert asked(con, rows, spine.first(diabetes.where(encounter_class="virtual"))) == []


def test_a_shipped_spine_is_found_by_the_name_of_its_variable() -> None:
    assert load_spines(Path(__file__).parents[2] / "feature_repo") == {
        "admissions": spine.encounters("start+24h", class_="inpatient")
    }


def test_the_spines_of_the_documentation_can_be_made() -> None:
    page = (Path(__file__).parents[2] / "docs" / "asking.md").read_text()
    *calls, last = page.split("```python\n")[1].split("```")[0].strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(calls), names)
    assert eval(last, names) == spine.first(condition("icd10cm:E11", descendants=True))
