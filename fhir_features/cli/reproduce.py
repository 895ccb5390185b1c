"""`fhir-features reproduce`: make a training set again from its receipt."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples


@click.command(
    epilog=examples(
        "fhir-features reproduce training.parquet.receipt.json",
        "fhir-features reproduce training.parquet.receipt.json --output again.parquet",
    )
)
@click.argument("receipt", type=click.Path(path_type=Path))
@click.option("--spine", type=click.Path(path_type=Path), help="The entities, if the warehouse does not keep them.")
@click.option("--output", type=click.Path(path_type=Path), help="A .parquet or .csv file to write, with its receipt.")
@click.option("--json", "as_json", is_flag=True, help="Print {same, rows, sha256, differing, made_with, engine}.")
@click.pass_obj
def command(config_path: str, receipt: Path, spine: Path | None, output: Path | None, as_json: bool) -> None:
    """Make the training set of RECEIPT again, and say whether every value is the same.

    It takes the lake, the definitions and the ontologies as they were then, whatever came later. Ends with code 41
    when one of them is gone, which is named, and with code 1 when all are there and the values differ.
    """
    from fhir_features.features.retrieval import check_output
    from fhir_features.store import FeatureStore

    if output is not None:
        check_output(output)
    with working("reproduce") as work:
        made = FeatureStore(config_path).reproduce(receipt, spine=spine, progress=work.progress)
        if output is not None:
            made.training.save(output)
        work.done(made.training.table.num_rows, "rows asked again")
    was, now = made.receipt.engine, made.training.receipt.engine
    rows, sha256 = made.receipt.output.rows, made.receipt.output.sha256
    if as_json:
        told = {"same": made.same, "rows": rows, "sha256": sha256, "differing": made.differing}
        print_json({**told, "made_with": vars(was), "engine": vars(now)})
    else:
        differing = None if made.same else ", ".join(made.differing) or "the order of columns"
        print_table(("same", "rows", "sha256", "differing"), [("yes" if made.same else "no", rows, sha256, differing)])
    if made.same:
        return
    if was != now:
        versions = [f"fhir-features {each.package} and DuckDB {each.duckdb}" for each in (was, now)]
        print(f"note: it was made with {versions[0]}, this is {versions[1]}", file=sys.stderr)
    sys.exit(1)
