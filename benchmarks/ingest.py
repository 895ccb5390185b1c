"""How fast are resources read and normalized, against what else could read them? One command a question.

    python benchmarks/ingest.py decode      # to Arrow batches; DuckDB's unchecked read_ndjson and fhir.resources beside
    python benchmarks/ingest.py normalize   # from the landing to the commit, with one process that decodes and with two
    python benchmarks/ingest.py increment   # 10,000 new versions into 1 M, 4 M and 16 M stored ones, and nothing new

1 M generated Observations of 20,000 patients, `--scale` times as many: category, coding, subject, encounter, effective,
issued, quantity, reference range and meta on each; 2 % blood pressures with components, 1 % coded answers, 1 % partial
dates, 0.1 % broken in a way that only a check finds. `--keep FOLDER` keeps them. Each measurement is a process of its
own, without its imports: CPU seconds of all threads and children, and the peak of the resident memory of the largest.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS, PATIENTS, CHANGED = 1_000_000, 20_000, 10_000
SLOW_PEER = 20_000
STORED = (1_000_000, 4_000_000, 16_000_000)
LABS = [
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 70, 99),
    ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 136, 145),
    ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 3.5, 5.1),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.6, 1.3),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 12, 17.5),
    ("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", 4.5, 11),
    ("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", 150, 400),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 4, 5.6),
]
_CONFIG = """
[warehouse]
path = "."

[sources.ward]
kind = "files"
path = "in"
site = "north"
timezone = "Europe/Berlin"
"""
_CATEGORY = (
    '[{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"%s","display":"%s"}]}]'
)
_QUANTITY = '{"value":%s,"unit":"%s","system":"http://unitsofmeasure.org","code":"%s"}'


def observations(count: int, *, first: int = 0, version: int = 1, seed: int = 7) -> Iterator[str]:
    """NDJSON lines of Observations `first`, `first + 1`, …; those of a later version were updated a year later."""
    draw = random.Random(seed)
    for n in range(first, first + count):
        patient, day, kind = draw.randrange(PATIENTS), draw.randrange(1, 1800), draw.random()
        date = f"{2018 + day // 360}-{day % 360 // 30 + 1:02}-{day % 28 + 1:02}"
        clock = f"{draw.randrange(1, 23):02}:{draw.randrange(60):02}:{draw.randrange(60):02}"
        drawn = date[:7] if kind < 0.01 else f"{date}T{clock}+01:00"
        updated = f"{int(date[:4]) + version - 1}{date[4:]}T23:{clock[3:]}.{n % 1000:03}Z"
        status = "finished" if kind > 0.999 else "final"
        shared = (
            f'{{"resourceType":"Observation","id":"o{n}","meta":{{"versionId":"{version}","lastUpdated":"{updated}",'
            '"profile":["http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-lab"]},'
            f'"status":"{status}","subject":{{"reference":"Patient/p{patient}"}},'
            f'"encounter":{{"reference":"Encounter/e{patient}-{day}"}},"effectiveDateTime":"{drawn}",'
            f'"issued":"{date}T23:{clock[3:]}.000+01:00"'
        )
        yield f"{shared},{_pressure(draw) if 0.01 < kind < 0.03 else _result(draw, coded=0.03 < kind < 0.04)}}}\n"


def _result(draw: random.Random, coded: bool) -> str:
    code, display, unit, low, high = LABS[draw.randrange(len(LABS))]
    value = '"valueCodeableConcept":{"coding":[{"system":"http://snomed.info/sct","code":"10828004"}]}'
    if not coded:
        value = f'"valueQuantity":{_QUANTITY % (round(draw.uniform(0.5, 1.5) * high, 2), unit, unit)}'
    return (
        f'"category":{_CATEGORY % ("laboratory", "Laboratory")},"code":{{"coding":[{{"system":"http://loinc.org",'
        f'"code":"{code}","display":"{display}"}}],"text":"{display}"}},{value},"referenceRange":'
        f'[{{"low":{_QUANTITY % (low, unit, unit)},"high":{_QUANTITY % (high, unit, unit)},"text":"{low}-{high}"}}]'
    )


def _pressure(draw: random.Random) -> str:
    components = ",".join(
        f'{{"code":{{"coding":[{{"system":"http://loinc.org","code":"{code}"}}]}},'
        f'"valueQuantity":{_QUANTITY % (draw.randrange(50, 180), "mmHg", "mm[Hg]")}}}'
        for code in ("8480-6", "8462-4")
    )
    coding = '{"system":"http://loinc.org","code":"85354-9"}'
    category = _CATEGORY % ("vital-signs", "Vital Signs")
    return f'"category":{category},"code":{{"coding":[{coding}]}},"component":[{components}]'


def land(folder: Path, name: str, lines: Iterator[str]) -> None:
    """Pull one file of lines into the landing of a warehouse, which is made when it is not there."""
    from fhir_features.config import load_config
    from fhir_features.sources import pull

    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "fhir_features.toml").write_text(_CONFIG)
    with (folder / "in" / f"{name}.ndjson").open("w") as out:
        out.writelines(lines)
    pull(load_config(folder))
    (folder / "in" / f"{name}.ndjson").unlink()


def read_by_us(folder: Path) -> int:
    """All lines to Arrow, checked; in this process alone."""
    from fhir_features.config import load_config
    from fhir_features.normalize.decoding import decoded
    from fhir_features.normalize.dialect import dialect_of
    from fhir_features.normalize.validation import Validation
    from fhir_features.sources import landed_runs
    from fhir_features.sources.progress import silent

    (run,) = landed_runs(folder / "landing")
    dialect = dialect_of(load_config(folder).sources[run.source])
    return sum(batch.received for batch in decoded(run, dialect, Validation.SAMPLE, silent, processes=1))


def read_by_duckdb(folder: Path) -> int:
    """The same columns by one statement over read_ndjson, which checks nothing and reads no instant, on one thread."""
    import duckdb

    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in {**_OBSERVATION, **_VALUED}.items())
    own = ", ".join(f'"{name}" := "{name}"' for name in _VALUED)
    codes = "list_transform(flatten(list_transform({}, x -> x.coding)), x -> x.code)"
    con = duckdb.connect(config={"threads": 1})
    batches = con.execute(f"""
SELECT
  id, meta.versionId, meta.lastUpdated, status, {codes.format("category")} AS categories,
  split_part(subject.reference, '/', 2), split_part(encounter.reference, '/', 2), effectiveDateTime, effectiveInstant,
  effectivePeriod, issued, method, bodySite, device.reference, hasMember, derivedFrom,
  v.code, v.valueQuantity.value, v.valueQuantity.comparator, v.valueQuantity.unit, v.valueCodeableConcept,
  v.valueString, v.valueBoolean, v.valueInteger, v.valueRange, v.valueRatio, v.valueSampledData, v.valueTime,
  v.valueDateTime, v.valuePeriod, v.dataAbsentReason.coding[1].code, {codes.format("v.interpretation")},
  v.referenceRange[1].low.value, v.referenceRange[1].high.value, v.referenceRange[1].text, is_own
FROM (
  SELECT
    *,
    unnest(list_prepend(struct_pack({own}), component)) AS v,
    unnest(list_prepend(true, list_transform(component, x -> false))) AS is_own
  FROM read_ndjson('{folder}/landing/ward/*/*.zst', columns = {{{columns}}}, compression = 'zstd')
)""").to_arrow_reader(20_000)
    return sum(batch["is_own"].true_count for batch in batches)


_CODING = "STRUCT(system VARCHAR, code VARCHAR, version VARCHAR, display VARCHAR, userSelected BOOLEAN)"
_CONCEPT = f"STRUCT(coding {_CODING}[], text VARCHAR)"
_AMOUNT = "STRUCT(value DOUBLE, comparator VARCHAR, unit VARCHAR, system VARCHAR, code VARCHAR)"
_REFERENCE = "STRUCT(reference VARCHAR)"
_PERIOD = 'STRUCT("start" VARCHAR, "end" VARCHAR)'
_VALUED = {
    "code": _CONCEPT,
    "valueQuantity": _AMOUNT,
    "valueCodeableConcept": _CONCEPT,
    **dict.fromkeys(("valueString", "valueTime", "valueDateTime"), "VARCHAR"),
    "valueBoolean": "BOOLEAN",
    "valueInteger": "INTEGER",
    "valueRange": f"STRUCT(low {_AMOUNT}, high {_AMOUNT})",
    **dict.fromkeys(("valueRatio", "valueSampledData"), "JSON"),
    "valuePeriod": _PERIOD,
    "dataAbsentReason": _CONCEPT,
    "interpretation": f"{_CONCEPT}[]",
    "referenceRange": f"STRUCT(low {_AMOUNT}, high {_AMOUNT}, type {_CONCEPT}, text VARCHAR)[]",
}
_OBSERVATION = {
    **dict.fromkeys(("id", "status", "effectiveDateTime", "effectiveInstant", "issued"), "VARCHAR"),
    "meta": "STRUCT(versionId VARCHAR, lastUpdated VARCHAR)",
    "category": f"{_CONCEPT}[]",
    **dict.fromkeys(("subject", "encounter", "device"), _REFERENCE),
    **dict.fromkeys(("hasMember", "derivedFrom"), f"{_REFERENCE}[]"),
    **dict.fromkeys(("method", "bodySite"), _CONCEPT),
    "effectivePeriod": _PERIOD,
    "component": f"STRUCT({', '.join(f'{name} {kind}' for name, kind in _VALUED.items())})[]",
}


def read_by_fhir_resources(folder: Path) -> int:
    """The first lines to models and of them to rows: what a validating library costs."""
    from fhir.resources.R4B.observation import Observation

    from fhir_features.sources import landed_runs, read_lines

    (run,) = landed_runs(folder / "landing")
    rows = []
    for number, _, line in read_lines(run.folder, run.files[0]):
        if number > SLOW_PEER:
            break
        o = Observation.model_validate_json(line)
        quantity, codings = o.valueQuantity, o.code.coding
        assert o.subject and codings
        value = (quantity.value, quantity.unit) if quantity else (None, None)
        rows.append(
            (o.id, o.status, o.subject.reference, codings[0].system, codings[0].code, o.effectiveDateTime, *value)
        )
    return len(rows)


def normalized(folder: Path) -> int:
    """Everything that the landing has and the lake has not, to the commit."""
    from fhir_features.config import load_config
    from fhir_features.normalize import normalize

    return sum(summary.received for summary in normalize(load_config(folder)))


def normalized_alone(folder: Path) -> int:
    """The same where only one core decodes."""
    import os

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    return normalized(folder)


WAYS: dict[str, Callable[[Path], int]] = {
    "fhir_features": read_by_us,
    "DuckDB's read_ndjson": read_by_duckdb,
    "fhir.resources": read_by_fhir_resources,
    "normalize": normalized,
    "normalize, one core": normalized_alone,
}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """One way, once, in this process."""
    import duckdb  # noqa: F401
    import pyarrow as pa

    import fhir_features.normalize
    import fhir_features.sources  # noqa: F401

    pa.array([1])
    if way == "fhir.resources":
        import fhir.resources.R4B.observation  # noqa: F401
    before, wall = _cpu_s(), time.perf_counter()
    count = WAYS[way](folder)
    cpu = _cpu_s() - before
    found = {"resources": count, "cpu_s": round(cpu, 2), "wall_s": round(time.perf_counter() - wall, 2)}
    of_a_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return {**found, "per_cpu_s": round(count / cpu), "peak_mb": _peak_mb(), "peak_mb_of_a_child": of_a_child}


def _peak_mb() -> int:
    """The peak of this process alone: `ru_maxrss` has what its parent held when it began, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def in_a_process(way: str, folder: Path) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "measure", "--way", way, "--keep", str(folder)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    print(f"{way}: {found}", flush=True)
    return found


def compare(folder: Path, ways: tuple[str, ...], runs: int, *, fresh: bool) -> None:
    """Some ways in turn, in a warehouse whose lake is new each time if `fresh`; medians and ratios to the first."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way in ways:
            if fresh:
                shutil.rmtree(folder / "lake", ignore_errors=True)
            run = in_a_process(way, folder)
            found[way].append(run["cpu_s"] / run["resources"] * 1e6)
    medians = {way: statistics.median(costs) for way, costs in found.items()}
    for way, cost in medians.items():
        ratio = cost / medians[ways[0]]
        print(f"{way}: median {cost:.1f} CPU microseconds a resource, {ratio:.2f} times those of {ways[0]}")


def store(folder: Path, count: int) -> None:
    """A lake that holds `count` Observations, each one version, as a run of them would have left it."""
    from fhir_features.lake import bucket_sql, commit, writing

    bucket = bucket_sql("'north'", "patient_id", 32)
    known = "TIMESTAMPTZ '2018-01-01' + to_seconds(n % 150000000)"
    drawn = f"SELECT range AS n, 'o' || n AS resource_id, 'p' || n % {PATIENTS} AS patient_id FROM range({count})"
    with writing(folder / "lake", buckets=32) as con, commit(con, "benchmark") as seq:
        con.execute(f"""
INSERT INTO lake.observations BY NAME
SELECT
  'north' AS site, {bucket} AS bucket, patient_id, resource_id, '1' AS version, 1 AS state, {known} AS effective_at,
  {known} AS known_at, 'issued' AS known_at_source, 0 AS component, 'final' AS status, n % 8 AS code_id,
  'Quantity' AS value_type, n % 100 AS value_number, {seq} AS store_seq
FROM ({drawn})
ORDER BY bucket, patient_id""")
        con.execute(f"""
INSERT INTO lake.versions BY NAME
SELECT
  'north' AS site, 'Observation' AS resource_type, resource_id, '1' AS version, '1' AS version_id,
  'normalized' AS outcome, false AS withdrawn, false AS witnessed, {bucket} AS bucket, patient_id, 1 AS states,
  {known} AS known_at, {known} AS last_updated, 1 AS version_number, TIMESTAMPTZ '2024-01-01' AS received_at,
  n AS row_no,
  'ward' AS source, 'first' AS run_id, {seq} AS store_seq
FROM ({drawn})
ORDER BY resource_id""")
        con.execute("INSERT INTO lake.commits (store_seq, source, run_id) VALUES (?, 'ward', 'first')", [seq])


def increment(root: Path, scale: float, runs: int) -> None:
    """New versions, half of them of stored resources from all over, into ever larger lakes; then nothing new."""
    for stored in STORED:
        count = round(stored * scale)
        folder = root / f"stored-{count}"
        if not (folder / "lake").exists():
            folder.mkdir(parents=True)
            store(folder, count)
        costs: dict[str, list[float]] = {}
        for run in range(runs):
            changed = random.Random(run).sample(range(count), CHANGED // 2)
            lines = [*_of(changed, 2 + run), *observations(CHANGED // 2, first=count * (run + 2))]
            land(folder, f"run-{run}-{time.time_ns()}", iter(lines))
            for what in ("new", "nothing new"):
                costs.setdefault(what, []).append(in_a_process("normalize", folder)["cpu_s"])
        print(
            f"{count} stored: median CPU s { ({what: statistics.median(of) for what, of in costs.items()}) }",
            flush=True,
        )


def _of(numbers: list[int], version: int) -> Iterator[str]:
    for n in numbers:
        yield from observations(1, first=n, version=version, seed=n)


def main() -> None:
    """Read the question, make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("decode", "normalize", "increment", "measure"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="Keep the warehouses here, and use them again.")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.keep or Path(temporary)
        if chosen.what == "measure":
            print(json.dumps(measure(chosen.way, root)))
        elif chosen.what == "increment":
            increment(root, chosen.scale, chosen.runs)
        else:
            count = round(RESULTS * chosen.scale)
            folder = root / f"results-{count}"
            if not folder.exists():
                land(folder, "first", observations(count))
            decode = chosen.what == "decode"
            compare(folder, tuple(WAYS)[:3] if decode else tuple(WAYS)[3:], chosen.runs, fresh=not decode)


if __name__ == "__main__":
    main()
