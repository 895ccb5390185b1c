"""`fhir-features gc`: remove what processes that were killed have left."""

from __future__ import annotations

import json
import sys

import click

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

    orphans = gc(load_config(config_path), dry_run=dry_run)
    if as_json:
        rows = [{"path": str(each.path), "why": each.why, "bytes": each.bytes} for each in orphans]
        print(json.dumps(rows, indent=2))
    else:
        for each in orphans:
            print(f"{each.path} {each.why}: {each.bytes:,} bytes")
    what = "would be removed" if dry_run else "removed"
    print(f"{len(orphans):,} {what}, {sum(each.bytes for each in orphans):,} bytes", file=sys.stderr)
