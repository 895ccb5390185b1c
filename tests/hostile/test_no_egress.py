"""The tests cannot reach another machine, nor can what they start; and what we depend on does not try to."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

OTHER = ["192.0.2.1", "north.example"]


@pytest.fixture
def denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's own attempts are written, so that they do not fail it."""
    monkeypatch.setenv("EGRESS_DENIED", str(tmp_path / "denied"))
    return tmp_path / "denied"


@pytest.mark.parametrize("host", OTHER)
def test_another_machine_is_not_reached(host: str, denied: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="only this machine"):
        socket.create_connection((host, 443), timeout=1)
    assert host in denied.read_text()


@pytest.mark.parametrize("host", OTHER)
def test_nor_by_a_program_that_a_test_starts(host: str, denied: Path) -> None:
    code = f"import socket; socket.create_connection(({host!r}, 443), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "only this machine" in done.stderr
    assert host in denied.read_text()


@pytest.fixture
def attempts() -> Iterator[list[str]]:
    """Every connection and look-up of a name from here on, to this machine too."""
    seen: list[str] = []
    watched = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watched and event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
            seen.append(f"{event} {arguments[-1]}")

    sys.addaudithook(watch)
    yield seen
    watched = False  # A hook cannot be taken away.


def test_feast_tells_nobody_that_it_is_used(attempts: list[str], tmp_path: Path) -> None:
    """With no setting of ours: what is off by default stays off in a repository that a user makes."""
    import feast
    import pandas as pd
    from feast.types import Int64

    (tmp_path / "feature_store.yaml").write_text(
        "project: told\nprovider: local\nregistry: registry.db\nonline_store:\n  type: sqlite\n  path: online.db\n"
        "entity_key_serialization_version: 3\n"
    )
    now = dt.datetime.now(dt.UTC)
    pd.DataFrame({"id": ["a"], "x": [1], "at": [now - dt.timedelta(days=1)]}).to_parquet(tmp_path / "x.parquet")
    entity = feast.Entity(name="id", value_type=feast.ValueType.STRING)
    source = feast.FileSource(path=str(tmp_path / "x.parquet"), timestamp_field="at")
    view = feast.FeatureView(name="v", entities=[entity], schema=[feast.Field(name="x", dtype=Int64)], source=source)
    store = feast.FeatureStore(repo_path=str(tmp_path))
    store.apply([entity, view])
    store.materialize(now - dt.timedelta(days=2), now)
    assert store.get_online_features(["v:x"], [{"id": "a"}]).to_dict()["x"] == [1]
    assert attempts == []


def test_no_extension_of_duckdb_is_downloaded(attempts: list[str]) -> None:
    """DuckDB connects by itself, unseen by Python: so it is its settings that are looked at, and what it says."""
    import duckdb

    from fhir_features.lake import connect

    with connect() as con:
        settings = "SELECT value FROM duckdb_settings() WHERE name IN ('autoinstall_known_extensions', 'autoload_known_extensions')"
        assert con.execute(settings).fetchall() == [("false",)] * 2
        with pytest.raises(duckdb.Error):
            con.execute("FROM read_csv('https://north.example/x.csv')")
    assert attempts == []
