"""`fhir-features rebuild`: make the lake anew from the landing."""

from __future__ import annotations

import click

from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config


@click.command(epilog=examples("fhir-features rebuild", "fhir-features rebuild --json"))
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.pass_obj
def command(config_path: str, as_json: bool) -> None:
    """Make the lake anew from the landing, with the same content; it takes the old one's place when it is whole.

    For a lake that is damaged, or of another version. Killed in the middle it has changed nothing. Run `gc` after it to
    remove the files of the old one. With --json {runs, received}.
    """
    from fhir_features.upkeep import rebuild

    with working("rebuild") as work:
        rebuilt = rebuild(load_config(config_path), work.progress)
        work.done(rebuilt.received, "resource versions received")
    if as_json:
        print_json(rebuilt)
    else:
        print_table(("runs", "received"), [(rebuilt.runs, rebuilt.received)])
