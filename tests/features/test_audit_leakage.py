"""A table made elsewhere: which of its values could not have been known, and by how much they came too early."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from lake_rows import LakeRows, at
from test_retrieval import some_rows

from fhir_features import FeatureStore
from fhir_features.cli import cli
from fhir_features.errors import UsageError

Make = Callable[[LakeRows], FeatureStore]

# Drawn on 1 January at 08:00; 7.0 known at 14:00, corrected to 8.0 on 5 January.
HBA1C = [
    ("p1", "2024-01-01 10:00", 7.0, "leaked", dt.timedelta(hours=4)),
    ("p1", "2024-01-01 10:00", 8.0, "leaked", dt.timedelta(days=3, hours=14)),
    ("p1", "2024-01-01 10:00", None, "fine", None),
    ("p1", "2024-01-03", 7.0, "fine", None),
    ("p1", "2024-01-03", 8.0, "leaked", dt.timedelta(days=2)),
    ("p1", "2024-01-03", None, "missing", None),
    ("p1", "2024-01-03", 0.07, "different", None),
    ("p1", "2024-01-06", 8.0 * (1 + 1e-12), "fine", None),
    ("p1", "2024-01-06", 8.0 * (1 + 1e-8), "different", None),
    ("p1", "2024-01-06", 7.0, "different", None),
    ("p1", "2023-12-31", 7.0, "different", None),
    ("nobody", "2024-01-06", None, "fine", None),
    ("nobody", "2024-01-06", 7.0, "different", None),
]


def table(rows: list[Any], values: pa.DataType | None = None) -> pa.Table:
    return pa.table(
        {
            "patient_id": [row[0] for row in rows],
            "event_timestamp": pa.array([at(row[1]) for row in rows], pa.timestamp("us", "UTC")),
            "theirs": pa.array([row[2] for row in rows], values),
        }
    )


def test_each_value_is_judged_by_what_was_known_then(lake_of: Make) -> None:
    audit = lake_of(some_rows()).audit_leakage(table(HBA1C), "diabetes:hba1c_last_1y", value="theirs")
    assert audit.rows["verdict"].to_pylist() == [row[3] for row in HBA1C]
    assert audit.late_by() == [row[4] for row in HBA1C if row[4]]
    assert audit.leaked["row"].to_pylist() == [0, 1, 4]
    assert audit.counts == {"fine": 4, "leaked": 3, "missing": 1, "different": 5}


# As a model has it that is fed at 06:00 each day, of which the lateness counts.
NIGHTLY = [
    ("p1", "2024-01-01 16:00", 7.0, "leaked", dt.timedelta(hours=10)),
    ("p1", "2024-01-01 16:00", 8.0, "leaked", dt.timedelta(days=3, hours=18)),
    ("p1", "2024-01-01 16:00", None, "fine", None),
    ("p1", "2024-01-02 07:00", 7.0, "fine", None),
    ("p1", "2024-01-05 03:00", 8.0, "leaked", dt.timedelta(hours=18)),
    ("p1", "2024-01-01 16:00", 0.07, "different", None),
]


def test_a_value_that_a_serving_did_not_have_yet_has_leaked(project: Any) -> None:
    project.write(some_rows())
    how = {"value": "theirs", "serving": "daily@06:00 UTC"}
    audit = project.store.audit_leakage(table(NIGHTLY), "diabetes:hba1c_last_1y", **how)
    assert audit.rows["verdict"].to_pylist() == [row[3] for row in NIGHTLY]
    assert audit.late_by() == [row[4] for row in NIGHTLY if row[4]]
    csv.write_csv(table(NIGHTLY), project.folder / "theirs.csv")
    asked = ["--config", str(project.folder), "audit-leakage", str(project.folder / "theirs.csv")]
    asked += ["diabetes:hba1c_last_1y", "--value", "theirs", "--json", "--serving", "daily@06:00 UTC"]
    assert json.loads(CliRunner().invoke(cli, asked).stdout)["counts"] == audit.counts


def test_what_was_known_after_a_cut_off_has_leaked(lake_of: Make) -> None:
    rows = [("p1", "2024-01-06", 7.0, "fine"), ("p1", "2024-01-06", 8.0, "leaked")]
    cutoff = at("2024-01-04")
    how = {"value": "theirs", "known_as_of": cutoff}
    audit = lake_of(some_rows()).audit_leakage(table(rows), "diabetes:hba1c_last_1y", **how)
    assert audit.rows["verdict"].to_pylist() == [row[3] for row in rows]
    assert audit.rows["known_by"].to_pylist() == [cutoff, cutoff]
    assert audit.late_by() == [dt.timedelta(days=1)]


@pytest.mark.parametrize("values", [[1, 0, 1], [1.0, 0.0, 1.0], [True, False, True]])
def test_what_is_true_or_false_may_come_as_numbers(lake_of: Make, values: list[Any]) -> None:
    rows = some_rows()
    late = {"effective_at": at("2024-01-01"), "known_at": at("2024-01-08"), "patient_id": "p2"}
    rows.patient("p2")
    rows.condition("icd10cm:E11.9", **late)
    asked = [("p1", "2024-01-03"), ("p1", "2024-01-02"), ("p2", "2024-01-03")]
    theirs = table([(*who, value) for who, value in zip(asked, values, strict=True)])
    audit = lake_of(rows).audit_leakage(theirs, "diabetes:t2dm_active", value="theirs")
    assert audit.rows["verdict"].to_pylist() == ["fine", "fine", "leaked"]
    assert audit.late_by() == [dt.timedelta(days=5)]


def test_counts_and_missing_numbers_may_come_as_frames_hold_them(lake_of: Make) -> None:
    rows = [("p1", "2024-01-06", 53.0), ("p1", "2024-01-06", float("nan")), ("p1", "2024-01-06", 54.0)]
    audit = lake_of(some_rows()).audit_leakage(table(rows), "diabetes:age", value="theirs")
    assert audit.rows["verdict"].to_pylist() == ["fine", "missing", "different"]
    nothing = lake_of(some_rows()).audit_leakage(table([], pa.float64()), "diabetes:age", value="theirs")
    assert nothing.counts == dict.fromkeys(("fine", "leaked", "missing", "different"), 0)


@pytest.mark.parametrize(
    ("feature", "value", "says"),
    [
        ("diabetes", "theirs", "'diabetes' has 5 features: name one"),
        ("diabetes:age", "value", "the table has no column 'value'"),
        ("diabetes:age", "patient_id", "column 'patient_id' holds string, but 'age' is a count"),
    ],
)
def test_what_cannot_be_compared_is_refused(lake_of: Make, feature: str, value: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lake_of(some_rows()).audit_leakage(table(HBA1C), feature, value=value)


def test_the_command_names_rows_and_no_patients(project: Any) -> None:
    project.write(some_rows())
    csv.write_csv(table(HBA1C), project.folder / "theirs.csv")
    asked = ["--config", str(project.folder), "audit-leakage", str(project.folder / "theirs.csv")]
    asked += ["diabetes:hba1c_last_1y", "--value", "theirs"]
    output = project.folder / "verdicts.parquet"
    said = CliRunner().invoke(cli, [*asked, "--output", str(output)])
    assert said.exit_code == 1
    lines = [line.split() for line in said.stdout.splitlines()]
    assert ["leaked", "3", "23.08%"] in lines
    assert ["0", "4:00:00"] in lines
    assert "p1" not in said.output
    assert pq.read_table(output)["verdict"].to_pylist() == [row[3] for row in HBA1C]
    told = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert told["leaked"][0] == {"row": 0, "late_by_seconds": 14400.0}
    assert (told["rows"], told["counts"]["leaked"]) == (13, 3)
    csv.write_csv(table([HBA1C[3]]), project.folder / "theirs.csv")
    assert CliRunner().invoke(cli, asked).exit_code == 0
