"""`fhir-features compact`: many small files of the lake become few."""

from __future__ import annotations

import sys

import click

from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config


@click.command(epilog=examples("fhir-features compact"))
@click.option("--json", "as_json", is_flag=True, help="Print what was compacted as JSON.")
@click.pass_obj
def command(config_path: str, as_json: bool) -> None:
    """Write each table of the lake that has several files into one; what it says, and every answer, stays the same.

    Whoever reads meanwhile goes on undisturbed; files that were replaced are removed when nobody reads, if not now then
    by `gc`. With --json a list of {table, files_before, files, rows}.
    """
    from fhir_features.upkeep import compact

    with working("compact") as work:
        compacted = compact(load_config(config_path), work.progress)
        work.done(sum(each.rows for each in compacted), "rows written")
    if as_json:
        print_json(compacted)
    else:
        print_table(
            ("table", "files before", "files", "rows"),
            [(each.table, each.files_before, each.files, each.rows) for each in compacted],
        )
    if not compacted:
        print("no table has several files", file=sys.stderr)
