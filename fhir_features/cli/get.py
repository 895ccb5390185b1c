"""`fhir-features get`: a training set from a file of entities, or from an anchored spine of the definitions."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fhir_features.cli import completing
from fhir_features.cli.options import instant_option, serving_option
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from fhir_features.features.anchors import Spine
    from fhir_features.features.summary import Summary
    from fhir_features.store import FeatureStore


@click.command(
    epilog=examples(
        "fhir-features get admissions --features diabetes --output training.parquet",
        "fhir-features get rows.csv --features diabetes:age --features vitals --output training.csv",
        "fhir-features get rows.csv --features diabetes --serving 'daily@02:00 Europe/Berlin' --output t.parquet",
    )
)
@click.argument("entities", shell_complete=completing.spines_or_files)
@click.option(
    "--features",
    "names",
    multiple=True,
    required=True,
    metavar="VIEW[:FEATURE]",
    shell_complete=completing.views_and_features,
    help="May be repeated.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A .parquet or .csv file to write.")
@click.option("--known-as-of", metavar="INSTANT", help="Nothing counts as known after this instant.")
@serving_option("that of each view's cadence")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_obj
def command(
    config_path: str,
    entities: str,
    names: tuple[str, ...],
    output: Path,
    known_as_of: str | None,
    serving: str | None,
    as_json: bool,
) -> None:
    """Answer features for the rows of ENTITIES, a Parquet or CSV file with site, patient_id and event_timestamp.

    ENTITIES can also be the name of a variable of features.py that holds a spine, such as spine.encounters(...).

    VIEW@1a2b3c asks an earlier version of a view. Beside the output lies its receipt, OUTPUT.receipt.json, from which
    `fhir-features reproduce` makes it again.

    Printed is what to know of the answers before a model is trained: rows of patients who were not known then, rows
    beyond the watermark (incomplete), numbers without the unit of a feature (excluded) or out of its range; and the
    event rows by what their known_at rests on. What there is to warn of is said on stderr. With --json the same, as
    {rows, unknown_patients, incomplete, known_at_source, excluded_values, out_of_range, absent}.
    """
    from fhir_features.features.retrieval import check_output
    from fhir_features.store import FeatureStore

    check_output(output)
    store = FeatureStore(config_path)
    with working("get") as work, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        answered = store.get_historical_features(
            _entities(store, entities),
            list(names),
            known_as_of=instant_option("--known-as-of", known_as_of),
            serving=serving,
            progress=work.progress,
        )
        answered.save(output)
        work.done(answered.table.num_rows, f"rows written to {output}")
    if as_json:
        print_json(answered.summary)
    else:
        _print(answered.summary)
    for line in answered.summary.warnings:
        print(f"warning: {line}", file=sys.stderr)


def _print(summary: Summary) -> None:
    counts = ("rows", "unknown_patients", "incomplete", "excluded_values", "out_of_range")
    print_table([count.replace("_", " ") for count in counts], [[getattr(summary, count) for count in counts]])
    print_table(
        ("known by", "event rows", "share"),
        [(source, summary.known_at_source[source], f"{share:.1%}") for source, share in summary.shares.items()],
    )


def _entities(store: FeatureStore, named: str) -> str | Spine:
    if Path(named).suffix:
        return named
    if named not in store.spines:
        raise UsageError(f"'{named}' is no .parquet or .csv file, and no spine: {did_you_mean(named, store.spines)}")
    return store.spines[named]
