"""What does it cost to load features into an online store, and to read them there? Feast's own calls in the same run.

    python benchmarks/online.py load   # 50,000 patients x 20 features, and an increment of 500, beside `materialize`
    python benchmarks/online.py read   # 1 and 100 patients x 20 features, beside `get_online_features().to_dict()`

Into SQLite, and into Redis where `redis-server` is installed. The feature table is a change log with `--rows` rows a
patient. CPU seconds of this process, and of a read the milliseconds at the median and the 99th percentile: the two ways
take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from fhir_features.feast.materializing import _materialize
from fhir_features.feast.objects import _feature_view
from fhir_features.feast.online import OnlineReader
from fhir_features.features import FeatureView, observation
from fhir_features.features.compile import compile_features
from fhir_features.features.instants import START, Span
from fhir_features.features.spine import INSTANT
from fhir_features.features.table_files import write_file
from fhir_features.features.table_log import Reached, file_name, table_folder, table_schema
from fhir_features.features.terms import ontologies
from fhir_features.features.view import LockedView
from fhir_features.sources.progress import silent
from fhir_features.store import FeatureStore

FEATURES, INCREMENT = 20, 500
FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CREATININE = observation("loinc:2160-0", unit="mg/dL")
VIEW = FeatureView(
    name="bench",
    entity="patient",
    features=tuple(CREATININE.last(within=f"{days + 1}d").named(f"f{days:02d}") for days in range(FEATURES)),
)


def write_build(folder: Path, patients: int, rows: int, number: int) -> dt.datetime:
    """A build of some patients' answers, `rows` of each; out comes its watermark."""
    draw = np.random.default_rng(number)
    reach = FIRST + dt.timedelta(days=number)
    start = START if number == 1 else FIRST + dt.timedelta(days=number - 1)
    hours = np.tile(np.arange(rows), patients)
    answered_at = pa.array([reach - dt.timedelta(hours=rows - 1 - int(hour)) for hour in hours], INSTANT)
    names = [f"patient-{patient:07d}" for patient in np.repeat(np.arange(patients), rows)]
    count = len(names)
    own = {name: pa.array(draw.normal(1, 0.3, count).round(2)) for name in (each.name for each in VIEW.features)}
    keys = {
        "site": ["north"] * count,
        "patient_id": names,
        "answered_at": answered_at,
        "published_at": pa.array([reach] * count, INSTANT),
        "store_seq": pa.array([number] * count, pa.int64()),
    }
    now = Reached({"north": reach}, {"north": number}, {"north": FIRST + dt.timedelta(days=1)}, {})
    span = Span("north", start, number - 1, reach, reach, answers_all=False, restates=False)
    schema = table_schema(compile_features(VIEW.features), VIEW, now)
    file = table_folder(folder, VIEW) / file_name([span], number)
    write_file(file, schema, iter([pa.table({**keys, **own})]))
    return reach


def opened(folder: Path, online_store: dict[str, Any], project: str) -> Any:
    """A Feast store with the view registered, which reads tables as Feast does at its best."""
    import feast
    from feast.repo_config import RepoConfig

    serving = feast.FeatureStore(
        config=RepoConfig(
            project=project,
            provider="local",
            registry=str(folder / f"{project}.db"),
            offline_store={"type": "duckdb"},
            online_store=online_store,
            materialization={"pull_latest_features": True},
            entity_key_serialization_version=3,
        )
    )
    owner = SimpleNamespace(
        tables=folder,
        config=SimpleNamespace(file=folder / "fhir_features.toml"),
        locked=lambda name: LockedView(VIEW, ontologies()),
    )
    entities = [feast.Entity(name=key, value_type=feast.ValueType.STRING) for key in ("site", "patient_id")]
    serving.apply([*entities, _feature_view(cast(FeatureStore, owner), VIEW, entities, {})])
    return serving


def cpu(do: Callable[[], Any]) -> float:
    """The CPU seconds of a call, all threads together."""
    begun = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        do()
    return time.process_time() - begun


def load(folder: Path, stores: dict[str, dict[str, Any]], patients: int, rows: int) -> None:
    """Load everything, then an increment, ours and Feast's, each into an online store of its own."""
    table = table_folder(folder, VIEW)
    beginning = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    for name, online_store in stores.items():
        shutil.rmtree(table, ignore_errors=True)
        until = write_build(folder, patients, rows, 1)
        ours, plain = (opened(folder, _own(online_store, way), f"{way}_{name}") for way in ("ours", "feast"))
        first = (
            cpu(partial(_materialize, ours, VIEW, table, False, silent)),
            cpu(partial(plain.materialize, beginning, until)),
        )
        later = write_build(folder, INCREMENT, 1, 2)
        second = (
            cpu(partial(_materialize, ours, VIEW, table, False, silent)),
            cpu(partial(plain.materialize_incremental, later)),
        )
        for what, (one, other) in ((f"{patients} patients", first), (f"{INCREMENT} more", second)):
            print(f"{name}: {what}: {one:.2f} CPU s, Feast {other:.2f} CPU s: {one / other:.2f}", flush=True)


def read(folder: Path, stores: dict[str, dict[str, Any]], patients: int, rows: int, calls: int) -> None:
    """Read 1 and 100 patients, in turns."""
    write_build(folder, patients, rows, 1)
    table = table_folder(folder, VIEW)
    features = [f"{VIEW.name}:{feature.name}" for feature in VIEW.features]
    for name, online_store in stores.items():
        serving = opened(folder, _own(online_store, "read"), f"read_{name}")
        _materialize(serving, VIEW, table, False, silent)
        reader = OnlineReader(serving, ("north",))
        draw = np.random.default_rng(1)
        for asked in (1, 100):
            took: dict[str, list[float]] = {"ours": [], "feast": []}
            used = dict.fromkeys(took, 0.0)
            for _ in range(calls):
                chosen = draw.choice(patients, asked, replace=False)
                asking = [{"site": "north", "patient_id": f"patient-{patient:07d}"} for patient in chosen]
                ways: dict[str, Callable[[], Any]] = {
                    "ours": partial(reader.read, features, asking),
                    "feast": partial(serving.get_online_features, features, asking),
                }
                for way, call in ways.items():
                    begun, begun_cpu = time.perf_counter(), time.process_time()
                    call().to_dict()
                    used[way] += time.process_time() - begun_cpu
                    took[way].append((time.perf_counter() - begun) * 1_000)
            _print_read(name, asked, calls, took, used)


def _print_read(name: str, asked: int, calls: int, took: dict[str, list[float]], used: dict[str, float]) -> None:
    shown = []
    for way, times in took.items():
        median, last = np.percentile(times, [50, 99])
        shown.append(f"{way} p50 {median:.2f} p99 {last:.2f} ms, {used[way] / calls * 1_000:.2f} CPU ms")
    ratios = [np.percentile(took["ours"], part) / np.percentile(took["feast"], part) for part in (50, 99)]
    ratio = f"p50 {ratios[0]:.2f} p99 {ratios[1]:.2f} CPU {used['ours'] / used['feast']:.2f}"
    print(f"{name}: {asked} patients: {'; '.join(shown)}; ratio {ratio}", flush=True)


def _own(online_store: dict[str, Any], way: str) -> dict[str, Any]:
    if online_store["type"] == "sqlite":
        return {**online_store, "path": online_store["path"].replace(".db", f"-{way}.db")}
    return online_store


@contextlib.contextmanager
def stores_there(folder: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The online stores that are measured."""
    found: dict[str, dict[str, Any]] = {"sqlite": {"type": "sqlite", "path": str(folder / "online.db")}}
    program = shutil.which("redis-server")
    if program is None:
        yield found
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield {**found, "redis": {"type": "redis", "connection_string": f"127.0.0.1:{port}"}}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Make the table, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "read"))
    parser.add_argument("--patients", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--calls", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, stores_there(Path(scratch)) as stores:
        if chosen.what == "load":
            load(Path(scratch), stores, chosen.patients, chosen.rows)
        else:
            read(Path(scratch), stores, chosen.patients, chosen.rows, chosen.calls)


if __name__ == "__main__":
    main()
