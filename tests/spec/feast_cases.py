"""What our offline store answers, and what Feast's own DuckDB store does, as tables: the cases of docs/feast.md.

Each `Case` is rows of a source, questions, and both answers; each `Sequence` is news that comes one after the other, and
what is online after each. `tests/feast/test_conformance.py` runs them on both stores; `python tests/spec/feast_cases.py`
writes the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "feast.md"
SAME = "the same"

Value = float | int | str | None
Answers = tuple[Value, ...]


@dataclass(frozen=True)
class Case:
    """Rows of a source, (patient_id, at, created, value), and questions, (patient_id, event_timestamp), in UTC.

    `ours` are the answers to the questions; `feast` those of Feast's DuckDB store: the same, others, or what is raised;
    `spark` those of its Spark store, where it is asked.

    - `feature`: the name of the column with the values; `ttl_hours`: the view's time to live, 0 for none.
    - `layout`: how the source lies on disk: a `file`, a `hive` folder by year, or a `relative` path.
    - `frame`: what is given for the questions: a `pandas` frame, a `query`, a `parquet` file, or `dates`: the two of them
      in place of a frame.
    - `label`: a column of the frame beside the keys, with a value for each question.
    """

    title: str
    rows: tuple[tuple[str | None, str, str, Value], ...]
    asked: tuple[tuple[str | None, str], ...]
    ours: Answers
    feast: Answers | str = SAME
    spark: Answers | str = SAME
    feature: str = "value"
    ttl_hours: int = 0
    by_created: bool = False
    layout: str = "file"
    frame: str = "pandas"
    label: tuple[str, tuple[Value, ...]] | None = None
    text: str = ""

    @property
    def view(self) -> str:
        """The name of the case's view."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.title.lower()).split()
        return "_".join(words)


_ONE = (("a", "2024-01-01 00:00", "2024-01-01 00:00", 10),)
_TIE = (("a", "2024-01-01 00:00", "2024-01-03 00:00", 20), ("a", "2024-01-01 00:00", "2024-01-02 00:00", 10))

CASES = (
    Case("Of rows with one timestamp the one that was created last holds", _TIE, (("a", "2024-01-05 00:00"),), (20,)),
    Case(
        "A value is alive for its ttl, the last instant included",
        _ONE,
        (("a", "2024-01-01 06:00"), ("a", "2024-01-01 06:01")),
        (10, None),
        ttl_hours=6,
    ),
    Case(
        "Before the first row there is no value",
        _ONE,
        (("a", "2023-12-31 23:59"), ("b", "2024-01-01 00:00")),
        (None, None),
    ),
    Case(
        "A row holds from its very instant on",
        _ONE,
        (("a", "2024-01-01 00:00"),),
        (10,),
    ),
    Case(
        "Rows of the frame that differ in a label only are kept",
        _ONE,
        (("a", "2024-01-02 00:00"), ("a", "2024-01-02 00:00")),
        (10, 10),
        label=("outcome", (0, 1)),
    ),
    Case(
        "A row of the frame without a key is kept",
        _ONE,
        ((None, "2024-01-02 00:00"), ("a", "2024-01-02 00:00")),
        (None, 10),
    ),
    Case(
        "By creation, a row counts once it was created",
        _TIE,
        (("a", "2024-01-01 12:00"), ("a", "2024-01-02 00:00"), ("a", "2024-01-03 00:00")),
        (None, 10, 20),
        by_created=True,
    ),
    Case(
        "By creation, a late row about the past does not hide a newer one",
        (
            ("a", "2024-01-01 00:00", "2024-01-09 00:00", 10),
            ("a", "2024-01-02 00:00", "2024-01-02 00:00", 20),
            ("a", "2024-01-03 00:00", "2024-01-08 00:00", 30),
        ),
        (("a", "2024-01-05 00:00"), ("a", "2024-01-08 00:00"), ("a", "2024-01-10 00:00")),
        (20, 30, 30),
        by_created=True,
    ),
    Case(
        "Integers beyond 2^53 stay what they are, also beside nulls",
        (("a", "2024-01-01 00:00", "2024-01-01 00:00", 2**53 + 1),),
        (("a", "2024-01-02 00:00"), ("b", "2024-01-02 00:00")),
        (2**53 + 1, None),
        feast=(float(2**53), None),
        spark=(float(2**53), None),
        text="Read with `to_df`. Feast makes floats of them, with Spark, too.",
    ),
    Case(
        "Years that nanoseconds cannot hold are read",
        (("a", "1600-01-01 00:00", "1600-01-01 00:00", 10), ("a", "9999-01-01 00:00", "9999-01-01 00:00", 20)),
        (("a", "2024-01-02 00:00"),),
        (10,),
    ),
    Case("A feature may be called rn", _ONE, (("a", "2024-01-02 00:00"),), (10,), feast="IbisTypeError", feature="rn"),
    Case(
        "A feature may end in _y", _ONE, (("a", "2024-01-02 00:00"),), (10,), feast="IbisTypeError", feature="value_y"
    ),
    Case(
        "A folder with hive partitions is read",
        _ONE,
        (("a", "2024-01-02 00:00"),),
        (10,),
        feast="AttributeError",
        layout="hive",
    ),
    Case(
        "A relative path is one within the repository, wherever the call is made",
        _ONE,
        (("a", "2024-01-02 00:00"),),
        (10,),
        feast="IOException",
        layout="relative",
    ),
    Case("A query can be the frame", _ONE, (("a", "2024-01-02 00:00"),), (10,), feast="AttributeError", frame="query"),
    Case(
        "A Parquet file can be the frame",
        _ONE,
        (("a", "2024-01-02 00:00"), ("b", "2024-01-02 00:00")),
        (10, None),
        feast="AttributeError",
        frame="parquet",
    ),
    Case(
        "Without a frame, whoever has news between two dates is asked about at the later one",
        (
            ("a", "2023-06-01 00:00", "2023-06-01 00:00", 10),
            ("b", "2023-06-01 00:00", "2023-06-01 00:00", 15),
            ("b", "2024-01-01 00:00", "2024-01-01 00:00", 20),
            ("c", "2024-01-03 00:00", "2024-01-03 00:00", 30),
        ),
        (("b", "2024-01-02 00:00"),),
        (20,),
        feast="TypeError",
        frame="dates",
        text="From 2024-01-01 to 2024-01-02.",
    ),
)


@dataclass(frozen=True)
class Sequence:
    """A layout of a source, and by step the rows that are appended, (at, created, value), and what is online then.

    After each step `materialize` (the first time, from the beginning of time) or `materialize-incremental` runs up to
    the step's instant.
    """

    title: str
    text: str
    steps: tuple[tuple[str, str, tuple[tuple[str, str, Value], ...], Value], ...]


SEQUENCES = (
    Sequence(
        "By when it was true",
        "The ordinary layout: a result is a row at the time of its sample. What comes late or changes the past is not "
        "seen, and a correction is not told from the result that it corrects.",
        (
            ("a result of 08:00 is reported", "2026-11-01 14:00", (("2026-11-01 08:00", "2026-11-01 14:00", 10),), 10),
            ("it is corrected to 20", "2026-11-02 09:00", (("2026-11-01 08:00", "2026-11-02 09:00", 20),), 10),
            (
                "another of the day before comes late",
                "2026-11-03 09:00",
                (("2026-11-02 08:00", "2026-11-03 09:00", 88),),
                10,
            ),
        ),
    ),
    Sequence(
        "By what was answered, and from when on",
        "The layout of the feature tables: a row at each instant at which the answer changes.",
        (
            ("a result of 08:00 is reported", "2026-11-01 14:00", (("2026-11-01 14:00", "2026-11-01 14:00", 10),), 10),
            ("it is corrected to 20", "2026-11-02 09:00", (("2026-11-02 09:00", "2026-11-02 09:00", 20),), 20),
            ("a newer one is reported", "2026-11-03 09:00", (("2026-11-03 09:00", "2026-11-03 09:00", 30),), 30),
            (
                "the newer one was entered in error",
                "2026-11-04 09:00",
                (("2026-11-04 09:00", "2026-11-04 09:00", 20),),
                20,
            ),
            (
                "another of the day before comes late",
                "2026-11-05 09:00",
                (("2026-11-05 09:00", "2026-11-05 09:00", 88),),
                88,
            ),
            ("all were another patient's", "2026-11-06 09:00", (("2026-11-06 09:00", "2026-11-06 09:00", None),), None),
        ),
    ),
)

HEAD = """# Feast

<!-- Written by tests/spec/feast_cases.py: `make docs`. -->

Feature tables are plain Feast sources: any offline store that answers "the latest row at or before T" answers rightly
from them, Feast's `duckdb` and `spark` among them. Our own store does it with a part of the time and memory, and in the
cases below in which Feast's does not:

```yaml
offline_store:
  type: fhir_features.feast.FhirOfflineStore
materialization:
  pull_latest_features: true
```

It is a subclass of Feast's DuckDB store: monitoring, logging, saved datasets and writing are Feast's own. Parquet sources
that are not ours are read in the same way; Delta, Iceberg and object stores are read as Feast's DuckDB store reads them.

`fhir-features doctor` says what of a `feature_store.yaml` is known to be wrong: the `file` (`dask`) and `ray` offline
stores, a Spark session that is not in UTC, a materialization that reads every row. `feast ui` needs the extra `ui`
(`pip install 'fhir-features[ui]'`); `feast serve` needs none.

## Feature tables

- **A view without a table** is answered by the engine on the fly, with the view's cadence. To materialize it, build it.
- **A view that has changed since it was registered** is refused, with the commands that bring table and registry up to
  date: answers of two definitions never mix. So is a view that was restated, or is no longer defined.
- **`feast materialize` up to an instant beyond the watermark** is refused, as Feast would never come back for what is
  answered between the two. `fhir-features build --json` prints the watermark; `fhir-features materialize` needs none.
- **`feast materialize-incremental` starts 52 weeks ago** where nothing was loaded before, so patients without news since
  then would have no row online. Our store loads a feature table from where the last load ended, and from the beginning
  when there was none, whatever start is asked for. With Feast's `duckdb` store, begin with
  `feast materialize 0001-01-01T00:00:00 WATERMARK`.
- **Several sites** come each to their own watermark. Our store loads what a slower site has got since, too; with Feast's
  `duckdb` store end no later than the earliest watermark.
- **Nothing but a build writes a feature table**: `write_to_offline_store` and pushes into it are refused.
"""

MIDDLE = """
## Cases

Each was run on both stores. The rows of a source are (patient, timestamp, created, value), in UTC.
"""

SEQUENCES_HEAD = """
## What is online after news

`feast materialize`, then `feast materialize-incremental` after each step, into SQLite: both stores load the same. What
differs is the layout of the source.
"""


def page() -> str:
    """The page docs/feast.md."""
    return HEAD + MIDDLE + "".join(_case(case) for case in CASES) + SEQUENCES_HEAD + "".join(map(_sequence, SEQUENCES))


def _case(case: Case) -> str:
    settings = [f"a ttl of {case.ttl_hours} hours"] if case.ttl_hours else []
    settings += ["`filter_by_created_timestamp`"] if case.by_created else []
    said = " ".join([*([f"With {' and '.join(settings)}."] if settings else []), *([case.text] if case.text else [])])
    rows = _table(("patient", "timestamp", "created", case.feature), case.rows)
    feast = case.ours if case.feast == SAME else case.feast
    theirs = [feast] * len(case.asked) if isinstance(feast, str) else feast
    answers = [
        (patient, at, ours, their) for (patient, at), ours, their in zip(case.asked, case.ours, theirs, strict=True)
    ]
    asked = _table(("asked for", "at", "answered", "Feast's `duckdb`"), answers)
    return f"\n### {case.title}\n{f'{chr(10)}{said}{chr(10)}' if said else ''}\n{rows}\n{asked}"


def _sequence(sequence: Sequence) -> str:
    rows = [(what, at, online) for what, at, _, online in sequence.steps]
    return f"\n### {sequence.title}\n\n{sequence.text}\n\n{_table(('what happens', 'loaded up to', 'online'), rows)}"


def _table(columns: tuple[str, ...], rows: object) -> str:
    assert isinstance(rows, list | tuple)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join('' if cell is None else str(cell) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
