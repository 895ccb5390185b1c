"""A feature table, read as "the latest row at or before T", gives what the engine gives at T; its live rows give what
the engine gave at (answered_at, store_seq)."""

from __future__ import annotations

import datetime as dt
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lake_rows import LakeRows, memory_lake, refill
from strategies import ORIGIN, PATIENTS, instants, lake_rows, views

from fhir_features.features import FeatureView
from fhir_features.features.compile import compile_features, leaves
from fhir_features.features.engine import answers, ask, stand_at
from fhir_features.features.operators import INSTANT_OPERATORS
from fhir_features.features.tables import build, table_folder
from fhir_features.features.terms import create_members, ontologies

INSTANT = pa.timestamp("us", tz="UTC")
lake = cache(memory_lake)
REACH = [ORIGIN - dt.timedelta(days=10), ORIGIN + dt.timedelta(days=5), ORIGIN + dt.timedelta(days=50)]
SITES = sorted({site for site, _ in PATIENTS})


def can_be_built(view: FeatureView) -> bool:
    return not any(value.operator in INSTANT_OPERATORS for feature in view.features for value in leaves(feature.value))


def engine_at(view: FeatureView, asked: list[tuple[str, str, dt.datetime]], store_seq: int) -> list[dict[str, Any]]:
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
    answered = pa.concat_tables(list(answers(con, ontologies(), plan)))
    return answered.sort_by("question").drop_columns("question").to_pylist()


def build_at(view: FeatureView, folder: Path, store_seq: int) -> Any:
    con = lake()
    stand_at(con, ontologies(), store_seq)
    return build(con, ontologies(), view, folder, store_seq=store_seq)


def read_table(folder: Path, view: FeatureView) -> list[dict[str, Any]]:
    files = sorted(table_folder(folder, view).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@settings(max_examples=settings().max_examples // 4)
@given(lake_rows(), views().filter(can_be_built), st.lists(instants, min_size=1, max_size=8))
def test_the_latest_row_at_t_is_the_answer_at_t(rows: LakeRows, view: FeatureView, times: list[dt.datetime]) -> None:
    for site in SITES:
        rows.watermark(REACH[-1], site)
    refill(lake(), rows)
    nothing = dict.fromkeys([feature.name for feature in view.features])
    with tempfile.TemporaryDirectory() as folder:
        build_at(view, Path(folder), 1)
        table = read_table(Path(folder), view)
        asked = [(site, patient, t) for site, patient in PATIENTS for t in times]
        for (site, patient, t), expected in zip(asked, engine_at(view, asked, 1), strict=True):
            before = [r for r in table if (r["site"], r["patient_id"]) == (site, patient) and r["answered_at"] <= t]
            newest = max(before, key=lambda row: row["answered_at"], default=nothing)
            assert {name: newest[name] for name in nothing} == expected


@settings(max_examples=settings().max_examples // 8)
@given(lake_rows(), views().filter(can_be_built), st.data())
def test_live_rows_are_the_answers_of_their_store_seq(rows: LakeRows, view: FeatureView, data: st.DataObject) -> None:
    everything = [row for name in rows.tables if name not in ("codings", "units") for row in rows.tables[name]]
    for row in everything:
        row["store_seq"] = data.draw(st.integers(1, 3))
    for seq, reach in enumerate(REACH, start=1):
        for site in SITES:
            rows.store_seq = seq
            rows.watermark(reach, site)
    refill(lake(), rows)
    names = [feature.name for feature in view.features]
    with tempfile.TemporaryDirectory() as folder:
        for seq in (1, 2, 3):
            build_at(view, Path(folder), seq)
        again = build_at(view, Path(folder), 3)
        assert (again.file, again.rows) == (None, 0)
        table = read_table(Path(folder), view)
        assume(table)
        keys = [(row["site"], row["patient_id"], row["answered_at"]) for row in table]
        assert len(set(keys)) == len(keys)
        for seq, reach in enumerate(REACH, start=1):
            live = [row for row in table if row["store_seq"] == seq]
            assert all(row["published_at"] == reach and row["answered_at"] <= reach for row in live)
            if live:
                asked = [(row["site"], row["patient_id"], row["answered_at"]) for row in live]
                assert [{name: row[name] for name in names} for row in live] == engine_at(view, asked, seq)
            asked = [(site, patient, reach) for site, patient in PATIENTS]
            served = [row for row in table if row["store_seq"] <= seq]
            for (site, patient, _), expected in zip(asked, engine_at(view, asked, seq), strict=True):
                own = [row for row in served if (row["site"], row["patient_id"]) == (site, patient)]
                newest = max(own, key=lambda row: row["answered_at"], default=dict.fromkeys(names))
                assert {name: newest[name] for name in names} == expected
