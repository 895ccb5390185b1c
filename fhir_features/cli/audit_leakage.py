"""`fhir-features audit-leakage`: could the values of a training table have been known?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fhir_features.cli import completing
from fhir_features.cli.options import instant_option, serving_option
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples

# How many of the rows that leaked are told one by one; --json and --output have all.
_SHOWN = 20


@click.command(epilog=examples("fhir-features audit-leakage elsewhere.parquet diabetes:hba1c_last_1y --value hba1c"))
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("feature", metavar="VIEW:FEATURE", shell_complete=completing.views_and_features)
@click.option("--value", required=True, metavar="COLUMN", help="The column with the values of the feature.")
@click.option("--known-as-of", metavar="INSTANT", help="Nothing counts as known after this instant.")
@serving_option("'exact', whatever the view's cadence")
@click.option("--output", type=click.Path(path_type=Path), help="A .parquet or .csv file for the verdict on each row.")
@click.option("--json", "as_json", is_flag=True, help="Print {rows, counts, leaked: [{row, late_by_seconds}]}.")
@click.pass_obj
def command(
    config_path: str,
    table: Path,
    feature: str,
    value: str,
    known_as_of: str | None,
    serving: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare the values of TABLE, made elsewhere, with what VIEW:FEATURE was at each row's instant.

    TABLE is a Parquet or CSV file with site, patient_id and event_timestamp. A row has leaked when its value is the
    answer only with what became known later. Rows are numbered from 0. Ends with code 1 when any has leaked.
    """
    from fhir_features.features.audit import VERDICTS
    from fhir_features.features.retrieval import check_output, write_rows
    from fhir_features.store import FeatureStore

    if output is not None:
        check_output(output)
    cutoff = instant_option("--known-as-of", known_as_of)
    store = FeatureStore(config_path)
    with working("audit-leakage") as work:
        audit = store.audit_leakage(
            table, feature, value=value, known_as_of=cutoff, serving=serving or "exact", progress=work.progress
        )
        work.done(audit.rows.num_rows, "rows judged")
    if output is not None:
        write_rows(audit.rows, output)
    total, counts = audit.rows.num_rows, audit.counts
    leaked = list(zip(audit.leaked["row"].to_pylist(), audit.late_by(), strict=True))
    if as_json:
        told = [{"row": row, "late_by_seconds": late.total_seconds()} for row, late in leaked]
        print_json({"rows": total, "counts": counts, "leaked": told})
    else:
        print_table(
            ("verdict", "rows", "share"),
            [(verdict, counts[verdict], f"{counts[verdict] / max(total, 1):.2%}") for verdict in VERDICTS],
        )
        print_table(("leaked row", "known later by"), [(row, str(late)) for row, late in leaked[:_SHOWN]])
        if len(leaked) > _SHOWN:
            print(f"and {len(leaked) - _SHOWN:,} more: see them with --output or --json", file=sys.stderr)
    if leaked:
        sys.exit(1)
