"""`fhir-features gc`: remove what processes that were killed have left."""

from __future__ import annotations

import click

from fhir_features.cli.printing import print_json, print_table, size
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config


@click.command(epilog=examples("fhir-features gc --dry-run  # what would go", "fhir-features gc"))
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
@click.pass_obj
def command(config_path: str, dry_run: bool, as_json: bool) -> None:
    """Remove files that belong to nothing: of commits that never came to be, written aside, spilled, or replaced.

    What a pull needs to go on is kept. Refused (exit code 20) while another process pulls, builds, writes or reads.
    With --json a list of {path, why, bytes}.
    """
    from fhir_features.upkeep import gc

    with working("gc") as work:
        orphans = gc(load_config(config_path), work.progress, dry_run=dry_run)
        freed = size(sum(each.bytes for each in orphans))
        work.done(len(orphans), f"{'would be removed' if dry_run else 'removed'}, {freed},")
    if as_json:
        print_json(orphans)
    else:
        print_table(("path", "why", "size"), [(str(each.path), each.why, size(each.bytes)) for each in orphans])
