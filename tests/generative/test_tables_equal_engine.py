"""A feature table, read as "the latest row at or before T", gives what the engine gives with the view's cadence; its
live rows give what the engine gave at (answered_at, store_seq); and a restatement changes all but what is newest."""

from __future__ import annotations

import datetime as dt
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import dice
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lake_rows import LakeRows, memory_lake, refill
from strategies import ORIGIN, PATIENTS, instants, lake_rows, views

from fhir_features.features import FeatureView
from fhir_features.features.cadence import ON_CHANGE, read_cadence
from fhir_features.features.compile import compile_features, leaves
from fhir_features.features.engine import answers, ask, stand_at
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.table_log import table_folder
from fhir_features.features.tables import build, restate
from fhir_features.features.terms import create_members, ontologies

INSTANT = pa.timestamp("us", tz="UTC")
lake = cache(memory_lake)
# Clocks are turned on 10 March in New York and on 31 March in Berlin, where until then 01:00 is midnight in UTC, on the
# grid of what is generated.
SCHEDULES = [
    "daily@02:30 America/New_York",
    "daily@01:00,13:00 Europe/Berlin",
    "hourly@:30 America/New_York",
    "weekly@Sun 02:30 America/New_York",
]
REACH = [ORIGIN - dt.timedelta(days=10), ORIGIN + dt.timedelta(days=10, hours=7), ORIGIN + dt.timedelta(days=50)]
SITES = sorted({site for site, _ in PATIENTS})
Asked = list[tuple[str, str, dt.datetime]]


def changes_at_every_instant(view: FeatureView) -> bool:
    return any(value.operator in INSTANT_OPERATORS for feature in view.features for value in leaves(feature.value))


@dice.from_seed
def cadences(draw: dice.Draw) -> str:
    return draw(dice.sampled_from([ON_CHANGE, ON_CHANGE, *SCHEDULES]))


def tables_of(view: FeatureView, cadence: str) -> FeatureView:
    """The view with a cadence that can hold it."""
    cadence = SCHEDULES[0] if cadence == ON_CHANGE and changes_at_every_instant(view) else cadence
    return FeatureView(name=view.name, entity="patient", features=view.features, cadence=cadence)


def with_young_patients(rows: LakeRows) -> LakeRows:
    """Patients known since shortly, so that what changes at every instant is not asked for since 1900."""
    for row in rows.tables["patients"]:
        row["known_at"] = max(row["known_at"], ORIGIN - dt.timedelta(days=20))
    return rows


def answered_at(view: FeatureView, asked: Asked) -> Asked:
    """The questions as the view's cadence asks them."""
    times = np.array([t.replace(tzinfo=None) for _, _, t in asked], "M8[us]").astype(np.int64)
    moved = pa.array(read_cadence(view.cadence).answered_at(times)).cast(INSTANT).to_pylist()
    return [(site, patient, t) for (site, patient, _), t in zip(asked, moved, strict=True)]


def engine_at(view: FeatureView, asked: Asked, store_seq: int) -> list[dict[str, Any]]:
    columns = list(zip(*asked, strict=True))
    table = pa.table(
        {
            "question": pa.array(range(len(asked)), pa.int64()),
            "site": pa.array(columns[0], pa.string()),
            "patient_id": pa.array(columns[1], pa.string()),
            "t": pa.array(columns[2], INSTANT),
            "k": pa.array(columns[2], INSTANT),
        }
    )
    con = lake()
    stand_at(con, ontologies(), store_seq)
    ask(con, table)
    plan = compile_features(view.features)
    create_members(con, ontologies(), plan)
    answered = pa.concat_tables(list(answers(con, plan)))
    return answered.sort_by("question").drop_columns("question").to_pylist()


def write_at(write: Any, view: FeatureView, folder: Path, store_seq: int) -> Any:
    con = lake()
    stand_at(con, ontologies(), store_seq)
    return write(con, ontologies(), view, folder, store_seq=store_seq)


def read_table(folder: Path, view: FeatureView) -> list[dict[str, Any]]:
    files = sorted(table_folder(folder, view).glob("*.parquet"))
    table = [row for file in files for row in pq.read_table(file).to_pylist()]
    keys = [(row["site"], row["patient_id"], row["answered_at"]) for row in table]
    assert len(set(keys)) == len(keys)
    return table


def latest(view: FeatureView, table: list[dict[str, Any]], asked: Asked) -> list[dict[str, Any]]:
    """The plainest reader there is: of each patient the latest row at or before T."""
    names = [feature.name for feature in view.features]
    found = []
    for site, patient, t in asked:
        own = [r for r in table if (r["site"], r["patient_id"]) == (site, patient) and r["answered_at"] <= t]
        newest = max(own, key=lambda row: row["answered_at"], default=dict.fromkeys(names))
        found.append({name: newest[name] for name in names})
    return found


def everyone(times: list[dt.datetime]) -> Asked:
    return [(site, patient, t) for site, patient in PATIENTS for t in times]


@settings(max_examples=settings().max_examples // 5)
@given(lake_rows(), views(), cadences(), st.lists(instants, min_size=1, max_size=8))
def test_the_latest_row_at_t_is_the_answer_at_t(
    rows: LakeRows, view: FeatureView, cadence: str, times: list[dt.datetime]
) -> None:
    view = tables_of(view, cadence)
    for site in SITES:
        rows.watermark(REACH[-1], site)
    refill(lake(), with_young_patients(rows))
    with tempfile.TemporaryDirectory() as folder:
        write_at(build, view, Path(folder), 1)
        asked = everyone(times)
        served = latest(view, read_table(Path(folder), view), asked)
        assert served == engine_at(view, answered_at(view, asked), 1)


def three_commits(rows: LakeRows, data: st.DataObject) -> None:
    """Spread the rows over three commits, each of which moves the watermarks."""
    everything = [row for name in rows.tables if name not in ("codings", "units") for row in rows.tables[name]]
    for row in everything:
        row["store_seq"] = data.draw(st.integers(1, 3))
    for seq, reach in enumerate(REACH, start=1):
        for site in SITES:
            rows.store_seq = seq
            rows.watermark(reach, site)
    refill(lake(), with_young_patients(rows))


@settings(max_examples=settings().max_examples // 10)
@given(lake_rows(), views(), cadences(), st.lists(instants, min_size=1, max_size=4), st.data())
def test_live_rows_are_the_answers_of_their_store_seq(
    rows: LakeRows, view: FeatureView, cadence: str, times: list[dt.datetime], data: st.DataObject
) -> None:
    view = tables_of(view, cadence)
    three_commits(rows, data)
    names = [feature.name for feature in view.features]
    with tempfile.TemporaryDirectory() as folder:
        for seq in (1, 2, 3):
            write_at(build, view, Path(folder), seq)
        again = write_at(build, view, Path(folder), 3)
        assert (again.file, again.rows) == (None, 0)
        table = read_table(Path(folder), view)
        assume(table)
        after = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
        for seq, reach in enumerate(REACH, start=1):
            ((_, _, reach),) = answered_at(view, [("", "", reach)])
            live = [row for row in table if row["store_seq"] == seq]
            assert all(row["published_at"] == reach and after < row["answered_at"] <= reach for row in live)
            if live:
                asked = [(row["site"], row["patient_id"], row["answered_at"]) for row in live]
                assert [{name: row[name] for name in names} for row in live] == engine_at(view, asked, seq)
            # A schedule answers news at its next instant, `on_change` where the build ends.
            first = after if view.cadence != ON_CHANGE else reach
            asked = everyone([reach, *[t for t in times if first < t <= reach]])
            asked = [each for each in answered_at(view, asked) if each[2] > after]
            served = latest(view, [row for row in table if row["store_seq"] <= seq], asked)
            assert served == engine_at(view, asked, seq)
            after = reach


@settings(max_examples=settings().max_examples // 10)
@given(lake_rows(), views(), cadences(), st.lists(instants, min_size=1, max_size=4), st.data())
def test_a_restatement_changes_all_but_what_is_newest(
    rows: LakeRows, view: FeatureView, cadence: str, times: list[dt.datetime], data: st.DataObject
) -> None:
    view = tables_of(view, cadence)
    three_commits(rows, data)
    with tempfile.TemporaryDirectory() as folder:
        for seq in (1, 2):
            write_at(build, view, Path(folder), seq)
        before = read_table(Path(folder), view)
        write_at(restate, view, Path(folder), 3)
        table = read_table(Path(folder), view)
        ((_, _, reach),) = answered_at(view, [("", "", REACH[1])])
        own = {(row["site"], row["patient_id"]) for row in before}
        ends = [(site, patient, reach) for site, patient in PATIENTS if (site, patient) in own]
        assert latest(view, table, ends) == latest(view, before, ends)
        asked = [each for each in answered_at(view, everyone(times)) if each[2] < reach]
        if asked:
            assert latest(view, table, asked) == engine_at(view, asked, 3)
        # What is built upon it is what would have been built upon the table before.
        write_at(build, view, Path(folder), 3)
        ends = answered_at(view, everyone([REACH[2]]))
        assert latest(view, read_table(Path(folder), view), ends) == engine_at(view, ends, 3)
