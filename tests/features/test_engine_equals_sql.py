"""The engine against one plain statement of SQL, over what its benchmark makes: late, corrected and shuffled rows."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_all_answers_are_those_of_a_plain_join_whatever_the_order_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    engine = importlib.import_module("engine")
    case = replace(engine.LAB, events=3_000, patients=20, questions=150, codes=3)
    as_drawn, in_order = replace(case, shuffled=True), case
    for each in (as_drawn, in_order):
        engine.make_lake(tmp_path / each.lake, each)
    folder = tmp_path / in_order.lake
    found = engine.measure(engine.OURS, folder, in_order, engine.answer_file(folder, engine.OURS))
    engine.measure(engine.DUCKDB, folder, in_order, engine.answer_file(folder, engine.DUCKDB))
    assert engine.differing(folder, engine.DUCKDB) == "0 of 6,750"
    shuffled = engine.measure(engine.OURS, tmp_path / as_drawn.lake, as_drawn, tmp_path / "shuffled.parquet")
    assert shuffled["hash"] == found["hash"]
    monkeypatch.delitem(sys.modules, "engine")
