"""`fhir-features verify`: is all of the warehouse as it was written?"""

from __future__ import annotations

import sys

import click

from fhir_features.cli.printing import print_json, print_table, size
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config


@click.command(epilog=examples("fhir-features verify", "fhir-features verify --json"))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_obj
def command(config_path: str, as_json: bool) -> None:
    """Read the whole warehouse and check it against the digests that it was written with; nothing is changed.

    Printed is a line for each file that is damaged or missing, with what to do; exits with 1 when there is one. With
    --json {files, bytes, findings}, the last a list of {path, problem, remedy}.
    """
    from fhir_features.upkeep import verify

    with working("verify") as work:
        verified = verify(load_config(config_path), work.progress)
        work.done(verified.files, f"files of {size(verified.bytes)}, {len(verified.findings):,} damaged,")
    if as_json:
        print_json(verified)
    else:
        print_table(("path", "problem", "what to do"), [(f.path, f.problem, f.remedy) for f in verified.findings])
    if verified.findings:
        sys.exit(1)
