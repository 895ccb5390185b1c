"""MEDS: what is known of patients as the Medical Event Data Standard has it, and back.

In go a connection that reads the lake, or a training set; out come tables that the `meds` package's own schemas have
validated (https://github.com/Medical-Event-Data-Standard/meds). MEDS has one clock, so an event's `time` here is when
it was *known* (never before it was true), and a model that reads events up to T reads nothing early; `effective_at`,
`known_to` (when this version was corrected or withdrawn; null: it stands) and `unit` are columns of their own.

A `subject_id` is a number made of site and patient_id alone, the same in every export. Times of MEDS have no zone, and
are UTC. Free text is left out.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fhir_features.errors import LakeError, SpineError, UsageError
from fhir_features.features.counting import (
    ENCOUNTER_STATUSES,
    MEDICATION_STATUSES,
    OBSERVATION_STATUSES,
    VERIFICATION_STATUSES,
    listed,
)
from fhir_features.features.spine import KEYS, TIME
from fhir_features.files import disk_errors
from fhir_features.lake import bucket_count, in_buckets_sql, patient_hash_sql
from fhir_features.sources.progress import Progress, silent

if TYPE_CHECKING:
    from fhir_features.features import TrainingSet

_NAIVE = pa.timestamp("us")


def _subject_id(row: str) -> str:
    """The subject_id of a row's patient in SQL: pinned for ever, and not negative."""
    hashed = patient_hash_sql(f"{row}.site", f"{row}.patient_id")
    return f"CAST({hashed} >> 1 AS BIGINT)"


def _here(column: str) -> str:
    return in_buckets_sql(column, "$first", "$last")


def _events(table: str, code: str, counts: str, *, numeric: str, text: str, unit: str, joins: str = "") -> str:
    return f"""SELECT
  e.site, e.patient_id, greatest(e.known_at, e.effective_at) AS known, {code} AS code, {numeric} AS numeric_value,
  {text} AS text_value, {unit} AS unit, e.effective_at, e.known_to
FROM lake.canonical_{table} e{joins}
WHERE {_here("e.bucket")}
  AND {counts}"""


# A concept where the code is understood, else the code as the source wrote it.
_CODE = """coalesce(
    upper(e.concept_system) || '//' || e.concept_code,
    coalesce(e.source_system, '') || '//' || e.source_code,
    'UNCODED'
  )"""
_STAYS = """SELECT site, patient_id, greatest(known_at, {at}) AS known, '{name}//' || coalesce(class_code, 'UNKNOWN'),
  NULL, NULL, NULL, {at}, known_to
FROM stays
WHERE status IN {statuses}
  AND {at} IS NOT NULL"""

_EVENTS = "\nUNION ALL\n".join(
    (
        _events(
            "observations",
            _CODE,
            f"e.status IN {listed(OBSERVATION_STATUSES)} AND e.absent_reason IS NULL",
            numeric="e.value_number",
            text="coalesce(a.code, CAST(e.value_boolean AS VARCHAR))",
            unit="coalesce(e.unit, e.source_unit)",
            joins="\nLEFT JOIN lake.codings a ON a.code_id = e.value_code_id AND a.ordinal = 0",
        ),
        _events(
            "conditions",
            _CODE,
            f"(e.verification_status IN {listed(VERIFICATION_STATUSES)} OR e.verification_status IS NULL)",
            numeric="NULL",
            text="e.clinical_status",
            unit="NULL",
        ),
        _events(
            "medication_requests",
            _CODE,
            f"e.status IN {listed(MEDICATION_STATUSES)} AND NOT coalesce(e.do_not_perform, false)",
            numeric="NULL",
            text="e.status",
            unit="NULL",
        ),
        _STAYS.format(at="start_at", name="ENCOUNTER_START", statuses=listed(ENCOUNTER_STATUSES)),
        _STAYS.format(at="end_at", name="ENCOUNTER_END", statuses=listed(ENCOUNTER_STATUSES)),
        """SELECT site, patient_id, CAST(birth_date AS TIMESTAMPTZ), 'MEDS_BIRTH', NULL, NULL, NULL, NULL, NULL
FROM newest_patients
WHERE birth_date IS NOT NULL
UNION ALL
SELECT site, patient_id, NULL, 'GENDER//' || sex, NULL, NULL, NULL, NULL, NULL
FROM newest_patients
WHERE sex IS NOT NULL
UNION ALL
SELECT site, patient_id, known_at, 'MEDS_DEATH', NULL, NULL, NULL, deceased_at, known_to
FROM newest_patients
WHERE deceased""",
    )
)

_SHARD = f"""WITH first_closings AS (
  SELECT version_no, state, min(closed_at) AS known_to
  FROM lake.closings
  WHERE {_here("bucket")}
  GROUP BY ALL
),
stays AS (
  SELECT e.*, c.known_to
  FROM lake.encounters e
  LEFT JOIN first_closings c USING (version_no, state)
  WHERE {_here("bucket")}
),
newest_patients AS (
  SELECT e.*, c.known_to
  FROM lake.patients e
  LEFT JOIN first_closings c USING (version_no, state)
  WHERE {_here("bucket")}
  QUALIFY row_number() OVER (PARTITION BY site, patient_id ORDER BY known_at DESC, version DESC) = 1
),
events AS (
{_EVENTS}
)
SELECT
  {_subject_id("v")} AS subject_id, timezone('UTC', known) AS time, code,
  CAST(numeric_value AS FLOAT) AS numeric_value, text_value, unit, effective_at, known_to
FROM events v
ORDER BY subject_id, time NULLS FIRST, code, effective_at, known_to, numeric_value, text_value, unit"""

_SUBJECTS = f"SELECT DISTINCT {_subject_id('v')} AS subject_id, site, patient_id FROM lake.versions v"


@dataclass(frozen=True)
class MedsDataset:
    """What an export wrote: its folder, how many events, and how many subjects."""

    folder: Path
    events: int
    subjects: int


def export_meds(con: duckdb.DuckDBPyConnection, folder: Path, progress: Progress = silent) -> MedsDataset:
    """Write all events as a MEDS dataset: `data/*.parquet`, a shard a bucket, and `metadata/`.

    It reads the lake as it is, under the newest lock in it. `metadata/subjects.parquet` says which patient each
    subject is: it leads back to them, so it stays where the warehouse may. An export that was interrupted is begun
    again. Raises UsageError for a folder that is not empty or cannot be written, or a missing package, LakeError for
    two patients of one number.
    """
    meds = _meds()
    with disk_errors(UsageError, f"the export at {folder}"):
        _make_room(folder)
        return _write(con, folder, meds, progress)


def _write(con: duckdb.DuckDBPyConnection, folder: Path, meds: Any, progress: Progress) -> MedsDataset:
    data, metadata = folder / "data", folder / "metadata"
    data.mkdir(parents=True)
    metadata.mkdir()
    subjects = _subjects(con)
    pq.write_table(subjects, metadata / "subjects.parquet")
    codes: set[str] = set()
    events = 0
    buckets = bucket_count(con)
    for bucket in range(buckets):
        progress("meds", "buckets", bucket, buckets)
        shard = con.execute(_SHARD, {"first": bucket, "last": bucket}).to_arrow_table()
        if shard.num_rows:
            shard = _valid(meds.DataSchema, shard)
            pq.write_table(shard, data / f"{bucket:04d}.parquet", compression="zstd")
            codes.update(pc.unique(shard["code"]).to_pylist())
            events += shard.num_rows
    named = [{"code": code, "description": None, "parent_codes": None} for code in sorted(codes)]
    listed_codes = pa.Table.from_pylist(named, schema=meds.CodeMetadataSchema.schema())
    pq.write_table(_valid(meds.CodeMetadataSchema, listed_codes), metadata / "codes.parquet")
    described = meds.DatasetMetadataSchema(
        etl_name="fhir_features",
        etl_version=importlib.metadata.version("fhir-features"),
        meds_version=importlib.metadata.version("meds"),
        code_modifier_columns=["unit"],
    )
    # Last: what says whose dataset it is says that it is whole, too.
    (metadata / "dataset.json").write_text(json.dumps(described.to_dict(), indent=2, sort_keys=True) + "\n")
    return MedsDataset(folder, events, subjects.num_rows)


def _make_room(folder: Path) -> None:
    """Remove what an export that was interrupted has left of itself; refuse a folder with anything else in it."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    is_cut_off = (folder / "metadata").is_dir() and not (folder / "metadata" / "dataset.json").exists()
    if not is_cut_off or {each.name for each in folder.iterdir()} != {"data", "metadata"}:
        raise UsageError(f"{folder} is not empty: name a new folder for the export")
    for each in ("data", "metadata"):
        shutil.rmtree(folder / each)


def feature_events(training: TrainingSet) -> pa.Table:
    """The answers of a training set as MEDS events: of each row those that are not null, at its event_timestamp.

    The code of a feature is `FEATURE//` and its name; numbers and booleans are the numeric value, texts the text value.
    """
    table = training.table
    keys = {"subject_id": _subject_ids(table), "time": table[TIME].cast(_NAIVE)}
    parts = []
    for name in (name for _, names in training.provenance.views for name in names):
        column = table[name]
        number, text = pa.nulls(len(column), pa.float32()), pa.nulls(len(column), pa.large_string())
        if pa.types.is_string(column.type):
            text = column.cast(pa.large_string())
        else:
            number = column.cast(pa.float64()).cast(pa.float32(), safe=False)
        code = pa.repeat(f"FEATURE//{name}", len(column))
        answers = pa.table({**keys, "code": code, "numeric_value": number, "text_value": text})
        parts.append(answers.filter(pc.is_valid(column)))
    order = [(name, "ascending") for name in ("subject_id", "time", "code")]
    return _valid(_meds().DataSchema, pa.concat_tables(parts).sort_by(order))


def labels(training: TrainingSet, column: str) -> pa.Table:
    """A column of a training set, such as a label that came with its entity frame, as MEDS labels.

    Raises UsageError for a column that is not there or of a type that no label has.
    """
    table = training.table
    if column not in table.column_names:
        raise UsageError(f"the training set has no column '{column}'")
    values = table[column]
    for holds, name, kind in _LABELS:
        if holds(values.type):
            found = {"subject_id": _subject_ids(table), "prediction_time": table[TIME].cast(_NAIVE)}
            return _valid(_meds().LabelSchema, pa.table({**found, name: values.cast(kind, safe=False)}))
    raise UsageError(f"column '{column}' holds {values.type}, which no MEDS label has")


_LABELS: tuple[tuple[Any, str, pa.DataType], ...] = (
    (pa.types.is_boolean, "boolean_value", pa.bool_()),
    (pa.types.is_integer, "integer_value", pa.int64()),
    (pa.types.is_floating, "float_value", pa.float32()),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "categorical_value", pa.string()),
)


def with_patients(con: duckdb.DuckDBPyConnection, frame: pa.Table) -> pa.Table:
    """An entity frame with MEDS's columns `subject_id` and `prediction_time` as one with ours beside them.

    Raises SpineError for a missing `prediction_time` and for subjects that are not in the lake.
    """
    if "prediction_time" not in frame.column_names:
        raise SpineError("the entity frame has a column 'subject_id', but no 'prediction_time': MEDS labels have both")
    wanted = pa.table({"place": pa.array(range(frame.num_rows), pa.int64()), "subject_id": frame["subject_id"]})
    con.register("wanted_subjects", wanted)
    con.register("subjects_here", _subjects(con))
    found = con.execute("""
SELECT site, patient_id
FROM wanted_subjects
LEFT JOIN subjects_here USING (subject_id)
ORDER BY place""").to_arrow_table()
    con.unregister("wanted_subjects")
    con.unregister("subjects_here")
    if missing := found["site"].null_count:
        raise SpineError(f"{missing} rows have a subject_id that no patient in the warehouse has")
    times = frame["prediction_time"]
    zoned = times.cast(pa.timestamp(times.type.unit, "UTC")) if pa.types.is_timestamp(times.type) else times
    for name in KEYS:
        frame = frame.append_column(name, found[name])
    return frame.append_column(TIME, zoned)


def _subjects(con: duckdb.DuckDBPyConnection) -> pa.Table:
    subjects = con.execute(f"{_SUBJECTS} ORDER BY subject_id").to_arrow_table()
    if pc.count_distinct(subjects["subject_id"]).as_py() != subjects.num_rows:
        raise LakeError("two patients have the same MEDS subject_id: export their sites apart")
    return subjects


def _subject_ids(table: pa.Table) -> pa.ChunkedArray:
    rows = table.select(list(KEYS))
    with duckdb.connect() as con:
        con.register("patients_of_rows", rows.append_column("place", pa.array(range(rows.num_rows), pa.int64())))
        found = con.execute(f"SELECT {_subject_id('v')} AS subject_id FROM patients_of_rows v ORDER BY place")
        return found.to_arrow_table()["subject_id"]


def _valid(schema: Any, table: pa.Table) -> pa.Table:
    """A table in the order of columns and the types of a schema of MEDS, which it is held to."""
    aligned = schema.align(table)
    schema.validate(aligned)
    return aligned


def _meds() -> Any:
    try:
        import meds
    except ImportError:
        raise UsageError("MEDS needs a package that is not installed: pip install 'fhir-features[meds]'") from None
    return meds
