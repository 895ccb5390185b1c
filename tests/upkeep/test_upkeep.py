"""The care of a warehouse: verify, gc, compact and rebuild."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fhir_features.cli import cli
from fhir_features.config import load_config
from fhir_features.errors import FeatureTableError, LakeError, LakeLocked
from fhir_features.features.content_hash import table_hash
from fhir_features.files import alone, written_aside
from fhir_features.lake import commit, compacting, newest_store_seq, reading, writing
from fhir_features.lake.schema import TABLES
from fhir_features.normalize import normalize
from fhir_features.store import FeatureStore
from fhir_features.upkeep import compact, gc, rebuild, verify


def content(project: Path) -> dict[str, str]:
    with reading(project / "warehouse" / "lake") as con:
        return {
            table.name: table_hash(con.execute(f"FROM lake.{table.name} ORDER BY ALL").to_arrow_table()).sha256
            for table in TABLES
        }


def data_files(project: Path, table: str = "*") -> list[Path]:
    return sorted((project / "warehouse" / "lake" / "data" / "main").glob(f"{table}/*.parquet"))


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def run(capsys: pytest.CaptureFixture[str], project: Path, *words: str) -> tuple[int, Any, str]:
    """The exit code of a command, what it prints as JSON, and what it says."""
    code = 0
    try:
        cli.main(["--config", str(project), *words, "--json"], standalone_mode=False)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_a_warehouse_that_is_as_it_was_written_is_verified(project: Path, capsys: pytest.CaptureFixture[str]):
    code, printed, said = run(capsys, project, "verify")
    assert (code, printed["findings"]) == (0, [])
    assert printed["files"] > 30
    assert re.fullmatch(r"verify: \d+ files of \S+ kB, 0 damaged, in .+ s( \(.+/s\))?\n", said)


def test_what_is_damaged_is_named_with_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]):
    warehouse = project / "warehouse"
    (landed,) = warehouse.glob("landing/ward/*/mixed-*")
    (record, _) = sorted(warehouse.glob("landing/ward/*/run.json"))
    table, *_ = sorted(warehouse.glob("features/diabetes/*/*.parquet"))
    (view,) = warehouse.glob("views/kidney/*.json")
    (spine,) = warehouse.glob("spines/*.parquet")
    lost, *_ = data_files(project, "versions")
    lost.unlink()
    hurt = [landed, record, table, view, data_files(project, "observations")[0]]
    for file in hurt:
        damage(file)
    spine.write_bytes(spine.read_bytes()[:-8])
    hurt.append(spine)
    code, printed, _ = run(capsys, project, "verify")
    assert code == 1
    found = {each["path"]: each for each in printed["findings"]}
    # The run whose record cannot be read is in the lake, and not in the landing that can be read.
    assert set(found) == {str(file.relative_to(warehouse)) for file in [*hurt, lost]} - {
        str(landed.relative_to(warehouse))
    } | {str(record.parent.relative_to(warehouse))}
    assert "rebuild" in found[str(lost.relative_to(warehouse))]["remedy"]
    assert "backup" in found[str(record.relative_to(warehouse))]["remedy"]


def test_a_damaged_catalog_is_found(project: Path):
    catalog = project / "warehouse" / "lake" / "catalog.sqlite"
    with catalog.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 2000)
    assert [found.path for found in verify(load_config(project)).findings] == ["lake/catalog.sqlite"]


def test_nothing_is_read_from_a_damaged_data_file(project: Path):
    damage(data_files(project, "observations")[0])
    with pytest.raises(LakeError, match=r"observations/\S+ is missing or not as it was committed"):
        content(project)
    with pytest.raises(LakeError, match="is missing or not as it was committed"):
        normalize(load_config(project))


def test_nothing_is_built_upon_a_damaged_feature_table(project: Path):
    store = FeatureStore(project)
    damage(next((project / "warehouse" / "features" / "kidney").glob("*/*.parquet")))
    with pytest.raises(FeatureTableError, match=r"parquet or its \.sha256 is not as it was written"):
        store.build("kidney")


def test_nothing_is_built_upon_a_feature_table_whose_digest_is_damaged(project: Path):
    next((project / "warehouse" / "features" / "kidney").glob("*/.*.sha256")).write_text("of nothing\n\n")
    with pytest.raises(FeatureTableError, match=r"parquet or its \.sha256 is not as it was written"):
        FeatureStore(project).build("kidney")


def test_the_lake_is_made_anew_from_the_landing_to_the_same_content(project: Path, capsys: pytest.CaptureFixture[str]):
    before = content(project)
    old = data_files(project)
    assert run(capsys, project, "rebuild")[:2] == (0, {"runs": 2, "received": len_of_versions(project)})
    assert content(project) == before
    assert {Path(each["path"]) for each in run(capsys, project, "gc")[1]} == set(old)
    assert verify(load_config(project)).findings == ()
    store = FeatureStore(project)
    assert store.reproduce(project / "training.parquet.receipt.json").same


def len_of_versions(project: Path) -> int:
    with reading(project / "warehouse" / "lake") as con:
        ((received,),) = con.execute("SELECT sum(received)::BIGINT FROM lake.commits").fetchall()
    return int(received)


def test_a_lake_that_cannot_be_read_at_all_is_made_anew(project: Path):
    before = content(project)
    for file in data_files(project):
        damage(file)
    (project / "warehouse" / "lake" / "catalog.sqlite").write_bytes(b"not a database" * 1000)
    rebuild(load_config(project))
    assert content(project) == before


def test_compaction_changes_no_row_no_answer_and_no_receipt(project: Path, capsys: pytest.CaptureFixture[str]):
    before = content(project)
    code, printed, _ = run(capsys, project, "compact")
    assert code == 0
    assert {each["table"] for each in printed} >= {"observations", "versions", "commits"}
    assert all((each["files_before"], each["files"]) == (2, 1) for each in printed)
    assert content(project) == before
    assert gc(load_config(project)) == []
    assert verify(load_config(project)).findings == ()
    store = FeatureStore(project)
    assert store.reproduce(project / "training.parquet.receipt.json").same
    assert run(capsys, project, "compact")[1] == []
    with writing(store.lake, buckets=store.config.warehouse.buckets) as con, commit(con, "after") as store_seq:
        con.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
    assert {each.table for each in compact(load_config(project))} == {"commits"}
    assert verify(load_config(project)).findings == ()


def test_a_table_that_would_not_say_the_same_is_not_compacted(project: Path, monkeypatch: pytest.MonkeyPatch):
    before = content(project)
    counted = iter(range(1000))
    monkeypatch.setattr(compacting, "_fingerprint", lambda *_: (0, next(counted)))
    with pytest.raises(LakeError, match="would not say the same when compacted"):
        compact(load_config(project))
    assert content(project) == before


def test_whoever_reads_during_a_compaction_sees_one_version(project: Path):
    config = load_config(project)
    lake = project / "warehouse" / "lake"
    asked = "SELECT count(*), max(store_seq), sum(hash(version_no)) FROM lake.observations"
    with reading(lake) as con:
        before = con.execute(asked).fetchall()
        assert compact(config)
        with writing(lake, buckets=config.warehouse.buckets) as writer, commit(writer, "more") as store_seq:
            writer.execute("INSERT INTO lake.commits (store_seq) VALUES (?)", [store_seq])
        with pytest.raises(LakeLocked, match="is being read by another process"):
            gc(config)
        assert con.execute(asked).fetchall() == before
        assert newest_store_seq(con) == store_seq - 1
    assert {orphan.path.parent.name for orphan in gc(config)} >= {"observations", "versions"}
    with reading(lake) as con:
        assert con.execute(asked).fetchall() == before


def test_who_holds_a_lock_is_said(tmp_path: Path):
    import os

    with alone(tmp_path / "a.lock", "the thing is held"):  # noqa: SIM117
        with (
            pytest.raises(LakeLocked, match=rf"^the thing is held by process {os.getpid()} on \S+ since 20\S+: wait"),
            alone(tmp_path / "a.lock", "the thing is held"),
        ):
            pass
    with alone(tmp_path / "a.lock", "the thing is held"):
        pass
    (tmp_path / "a folder").mkdir()
    with (
        pytest.raises(LakeError, match=r"a folder cannot be written \(Is a directory\): correct that"),
        alone(tmp_path / "a folder", "the thing is held"),
    ):
        pass


def test_what_is_written_aside_is_there_whole_or_not_at_all(tmp_path: Path):
    file = tmp_path / "new" / "a.txt"
    with pytest.raises(ZeroDivisionError), written_aside(file) as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    assert list(file.parent.iterdir()) == []
    with written_aside(file) as aside:
        aside.write_text("whole")
    with pytest.raises(FileExistsError), written_aside(file, replace=False) as aside:
        aside.write_text("another")
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("a.txt", "whole")]
