"""`fhir-features reconcile`: find what was deleted on a server without a word."""

from __future__ import annotations

import sys

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config
from fhir_features.sources.reconcile import MAX_SHARE, reconcile


@click.command(
    epilog=examples("fhir-features reconcile hospital --dry-run  # count only", "fhir-features reconcile hospital")
)
@click.argument("source", shell_complete=completing.sources)
@click.option(
    "--max-share",
    type=click.FloatRange(0, 1),
    default=MAX_SHARE,
    show_default=True,
    help="Refuse, with exit code 3, when more than this share of a resource type would be deleted.",
)
@click.option("--dry-run", is_flag=True, help="Compare and count, and land nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_obj
def command(config_path: str, source: str, max_share: float, dry_run: bool, as_json: bool) -> None:
    """Compare the ids that the server of SOURCE has now with those that live in the lake.

    What is gone from the server is landed as deletions, which the next normalize closes as of now. A resource that a
    search does not give is asked for by its id first. Nothing else is landed, and pulls go on from where they were.

    Printed is a line for each resource type, in resources: held (living in the lake, from this source), on the server,
    passed over by the search though they are there, gone, and on the server but not in the lake. With --json the same,
    as {source, run_id, types: [{resource_type, held, on_server, passed_over, gone, not_held}], warnings}.
    """
    config = load_config(config_path)
    with working("reconcile") as work:
        found = reconcile(config, source, max_share=max_share, dry_run=dry_run, progress=work.progress)
        work.done(sum(of.held for of in found.types), "resources compared")
    if as_json:
        print_json(found)
    else:
        print_table(
            ("source", "type", "held", "on server", "passed over", "gone", "not held"),
            [
                (found.source, of.resource_type, of.held, of.on_server, of.passed_over, of.gone, of.not_held)
                for of in found.types
            ],
        )
    for warning in found.warnings:
        print(f"warning: {found.source}: {warning}", file=sys.stderr)
    if found.run_id is not None:
        print(f"landed as run {found.run_id}: normalize closes what is gone", file=sys.stderr)
