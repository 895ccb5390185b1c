"""The lake knows in which units the numbers of each code came, each pair once, from the commit on that brought it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lake_rows import LakeRows, memory_lake, refill
from landing import at, land, observation, rows, warehouse

from fhir_features.config import Config
from fhir_features.lake import add_measured_units, create_views
from fhir_features.normalize import normalize

_LOINC = "http://loinc.org"


def result(resource_id: str, quantity: dict[str, Any]) -> dict[str, Any]:
    code = {"coding": [{"system": _LOINC, "code": "2345-7"}]}
    return observation(resource_id, code=code, valueQuantity=quantity)


def pairs(config: Config) -> list[tuple[Any, ...]]:
    sql = """
SELECT c.code, u.code, m.store_seq
FROM lake.measured_units m
JOIN codings c USING (code_id)
LEFT JOIN units u USING (unit_id)
ORDER BY ALL"""
    return rows(config, sql)


def test_each_pair_is_kept_once_with_its_commit(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    lines = [result("a", {"value": 5, "code": "mg/dL"}), result("b", {"value": 6, "code": "mg/dL"})]
    land(config, lines, at("2024-03-20 00:00"))
    normalize(config)
    assert pairs(config) == [("2345-7", "mg/dL", 1)]
    lines = [
        result("c", {"value": 7, "code": "mg/dL"}),
        result("d", {"value": 8}),
        result("e", {"value": 5, "code": "mmol/L"}),
        result("f", {"code": "g/L"}),
    ]
    land(config, lines, at("2024-03-21 00:00"))
    normalize(config)
    second = pairs(config)[-1][2]
    assert pairs(config) == [("2345-7", "mg/dL", 1), ("2345-7", "mmol/L", second), ("2345-7", None, second)]


def test_pairs_of_later_commits_are_not_seen() -> None:
    con, lake = memory_lake(), LakeRows()
    lake.observation("loinc:2345-7", 5.0, "mg/dL", effective_at=at("2024-03-05 08:00"))
    refill(con, lake)
    add_measured_units(con, "(SELECT 1 AS code_id, 99 AS unit_id, 1.0 AS value_number)", 2)
    create_views(con, 1)
    assert con.execute("SELECT unit_id FROM measured_units").fetchall() == [(1,)]
    create_views(con, 2)
    assert con.execute("SELECT unit_id FROM measured_units ORDER BY ALL").fetchall() == [(1,), (99,)]
