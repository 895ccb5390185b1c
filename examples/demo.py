"""From a FHIR server to features, online and offline: what `make demo` does, each step in a line.

Invented patients are loaded into a real FHIR server on this machine, pulled over HTTP and normalized. Then the hospital
goes on: results are corrected, withdrawn and reported late, and are pulled too. At the end stands what a store with one
clock would have answered for one patient, beside what was known. All files are in the folder `demo`, made anew.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from fhir_server import fhir_server, put

from fhir_features import FeatureStore, FeatureView, observation, patient
from fhir_features.config import Config, load_config
from fhir_features.feast import materialize
from fhir_features.lake import create_views, newest_store_seq, reading
from fhir_features.normalize import normalize
from fhir_features.sources import pull
from fhir_features.synthetic import TIME_ZONE, Resource, later, population

ROOT = Path(__file__).absolute().parent.parent
DEMO = ROOT / "demo"
PATIENTS = 30
PERSON = "patient-001"

# What the server holds was loaded just now, so its lastUpdated says nothing of when the history became known.
CONFIGURATION = """
[sources.hospital]
kind = "search"
site = "north"
timezone = "{time_zone}"
base_url = "{base_url}"
resource_types = ["Patient", "Encounter", "Observation", "Condition", "MedicationRequest", "Medication"]
migrated_before = "{migrated_before}"
overlap = "1s"
"""

HBA1C, GLUCOSE = "4548-4", "2339-0"
RESULTS = FeatureView(
    name="results",
    entity=patient,
    features=[
        observation(f"loinc:{HBA1C}", unit="%").last().named("hba1c"),
        observation(f"loinc:{GLUCOSE}", unit="mg/dL").last().named("glucose"),
    ],
)


def main() -> None:
    # As an interrupt does, so that the server is stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("server", type=Path, help="the program `sekmet`")
    program = arguments.parse_args().server.absolute()
    if DEMO.exists():
        shutil.rmtree(DEMO)
    shutil.copytree(ROOT / "feature_repo", DEMO / "feature_repo", ignore=shutil.ignore_patterns("data", "__pycache__"))
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with fhir_server(program, DEMO / "server") as base_url:
        first = population(patients=PATIENTS, seed=1, now=now)
        with step("server") as say:
            loaded = put(base_url, first)
            say(f"{len(first):,} resources of {PATIENTS} invented patients put onto {base_url}")
        _configure(base_url, migrated_before=loaded)
        config = load_config(DEMO)
        receive(config)
        before = dt.datetime.now(dt.UTC)
        news = later(first, now=before)
        with step("server") as say:
            put(base_url, news)
            say(f"{len(news)} more: corrected, withdrawn and late results of every third patient")
        receive(config)
    store = FeatureStore(DEMO)
    train(store, now)
    serve(store)
    compare(store, first, before)


def receive(config: Config) -> None:
    """Pull what is new, and normalize it."""
    # A server says what time it is in whole seconds: what was put in the same second would lie beyond the watermark.
    time.sleep(1)
    with step("pull") as say:
        (pulled,) = pull(config)
        say(", ".join(f"{of.landed:,} {of.resource_type}" for of in pulled.types if of.landed))
    with step("normalize") as say:
        (run,) = normalize(config)
        say(
            f"{run.received:,} received = {run.normalized:,} normalized + {run.quarantined} quarantined "
            f"+ {run.duplicates} duplicates + {run.ignored} ignored"
        )


def train(store: FeatureStore, now: dt.datetime) -> None:
    """A training set: each patient at the same hour of each of the last twelve months."""
    with step("training set") as say:
        instants = [now - dt.timedelta(days=30 * month) for month in range(12)]
        patients = [f"patient-{number:03d}" for number in range(1, PATIENTS + 1)]
        spine = _spine([(patient_id, at) for patient_id in patients for at in instants])
        training = store.get_historical_features(
            spine, ["diabetes", "utilization:emergency_visits_1y", "vitals:systolic_last_1y"]
        )
        shares = ", ".join(f"{share:.0%} {source}" for source, share in training.summary.shares.items())
        say(f"{training.summary.rows} rows x {training.table.num_columns} columns; known through {shares}")


def serve(store: FeatureStore) -> None:
    """Build the feature tables, load them into Feast's online store, and read one patient there."""
    with step("build") as say:
        built = [store.build(name) for name in store.views]
        say(", ".join(f"{build.rows:,} rows of {build.view}" for build in built))
    with step("feast apply") as say:
        feast_program = Path(sys.executable).parent / "feast"
        subprocess.run([feast_program, "-c", DEMO / "feature_repo", "apply"], check=True, capture_output=True)
        say(f"{len(store.views)} feature views registered")
    with step("materialize") as say:
        loaded = materialize(store)
        say(f"{', '.join(each.view for each in loaded)} up to {_written(loaded[0].until)}")
    with step("online") as say:
        results = ["labs:hba1c_last_1y", "labs:glucose_last_1y"]
        answered = store.get_online_features(results, [{"patient_id": PERSON}])
        served = {name: values[0] for name, values in answered.columns.items()}
        (until,) = [each.until for each in loaded if each.view == "labs"]
        offline = store.get_historical_features(_spine([(PERSON, until)]), results).to_arrow().to_pylist()
        same = all(offline[0][name] == value for name, value in served.items())
        say(f"{PERSON}: {served} ({'the same' if same else 'NOT the same'} offline)")
        if not same:
            raise SystemExit(f"offline it is {offline[0]}")


def compare(store: FeatureStore, first: Sequence[Resource], before: dt.datetime) -> None:
    """For one patient, what a store with one clock would have answered, and what was known."""
    newest = [each for each in first if each["id"].startswith(f"{PERSON}-visit") and each["id"].endswith("-hba1c")][-1]
    drawn = dt.datetime.fromisoformat(newest["effectiveDateTime"])
    reported = dt.datetime.fromisoformat(newest["issued"])
    now = dt.datetime.now(dt.UTC)
    two_hours = dt.timedelta(hours=2)
    cases = [
        (HBA1C, "hba1c", drawn + two_hours, f"drawn 2 h before, reported {_hours(reported - drawn)} h after that"),
        (HBA1C, "hba1c", before, "before it was corrected"),
        (HBA1C, "hba1c", now, "after it was corrected"),
        (GLUCOSE, "glucose", before, "before it was withdrawn"),
        (GLUCOSE, "glucose", now, "after it was withdrawn"),
    ]
    print(f"\nWhat did we know about {PERSON}?\n")
    print(f"{'result':<8} {'asked at':<21} {'':<42} {'one clock':>9} {'known':>7}")
    answered = store.get_historical_features(_spine([(PERSON, at) for _, _, at, _ in cases]), [RESULTS])
    for (loinc, name, at, when), known in zip(cases, answered.to_arrow().to_pylist(), strict=True):
        one_clock = _one_clock(store, loinc, at)
        remark = "" if one_clock == known[name] else "  <- wrong with one clock"
        print(f"{name:<8} {_written(at):<21} {when:<42} {one_clock:>9} {known[name]:>7}{remark}")


@contextmanager
def step(name: str) -> Iterator[Any]:
    """Time a step, and print what it says of itself in a line."""
    begun = dt.datetime.now(dt.UTC)
    said: list[str] = []
    yield said.append
    seconds = (dt.datetime.now(dt.UTC) - begun).total_seconds()
    print(f"{name:<13} {seconds:5.1f} s  {said[0]}", flush=True)


def _configure(base_url: str, migrated_before: dt.datetime) -> None:
    text = CONFIGURATION.format(time_zone=TIME_ZONE, base_url=base_url, migrated_before=migrated_before.isoformat())
    (DEMO / "fhir_features.toml").write_text(text)


def _spine(rows: Sequence[tuple[str, dt.datetime | None]]) -> pa.Table:
    patients, instants = zip(*rows, strict=True)
    return pa.table({"patient_id": patients, "event_timestamp": pa.array(instants, pa.timestamp("us", "UTC"))})


def _one_clock(store: FeatureStore, loinc: str, at: dt.datetime) -> float:
    """The newest result by the time of its sample alone, from the records as they stand today."""
    with reading(store.lake) as con:
        create_views(con, newest_store_seq(con))
        row = con.execute(
            """
SELECT arg_max(value_number, effective_at)
FROM observations
JOIN codings USING (code_id)
WHERE code = ?
  AND patient_id = ?
  AND effective_at <= ?
  AND known_to IS NULL
  AND status <> 'entered-in-error'""",
            [loinc, PERSON, at],
        ).fetchone()
    assert row is not None
    return float(row[0])


def _written(at: dt.datetime | None) -> str:
    assert at is not None
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%SZ}"


def _hours(length: dt.timedelta) -> int:
    return round(length / dt.timedelta(hours=1))


if __name__ == "__main__":
    main()
