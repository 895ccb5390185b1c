"""`fhir-features normalize`: turn what has landed into event tables."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from fhir_features.cli.teaching import examples
from fhir_features.config import load_config


@click.command(
    epilog=examples(
        "fhir-features normalize",
        "fhir-features normalize --max-quarantined 100  # code 1 when more is set aside",
        "fhir-features normalize --validate all",
    )
)
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
@click.option(
    "--max-quarantined",
    type=click.IntRange(min=0),
    metavar="N",
    help="Exit with 1 when a run has more than N resource versions in quarantine.",
)
@click.option(
    "--validate",
    type=click.Choice(["sample", "all", "off"]),
    default="sample",
    show_default=True,
    help="Hold a sample of the resources (one in 256), all or none to the whole of FHIR R4.",
)
@click.pass_obj
def command(config_path: str, as_json: bool, max_quarantined: int | None, validate: str) -> None:
    """Normalize every landed run that the lake does not have yet, one commit a run.

    Printed are the counts of each run in resource versions, which balance: received = normalized + quarantined +
    duplicates + ignored. With --json the same, as a list of {source, run_id, store_seq, received, normalized,
    quarantined, duplicates, ignored, versions, known_before_effective, validated, findings}. What validation finds is
    told, and sets nothing aside.
    """
    from fhir_features.normalize import Validation, normalize
    from fhir_features.sources import on_terminal

    with on_terminal() as progress:
        summaries = normalize(load_config(config_path), progress, validation=Validation(validate))
    if as_json:
        print(json.dumps([dataclasses.asdict(summary) for summary in summaries], indent=2))
    else:
        for s in summaries:
            counts = f"{s.normalized:,} normalized + {s.quarantined:,} quarantined"
            print(
                f"{s.source} {s.run_id}: {s.received:,} received = {counts} + {s.duplicates:,} duplicates "
                f"+ {s.ignored:,} ignored (commit {s.store_seq})"
            )
            for resource_type, versions in s.versions.items():
                print(f"  {resource_type:<18} {versions:>9,}")
            for found in s.findings:
                print(f"  {found.resource_type:<18} {found.versions:>9,} not valid: {found.json_path} {found.rule}")
    if not summaries:
        print("nothing new has landed", file=sys.stderr)
    for s in summaries:
        if s.quarantined:
            print(f"warning: {s.source} {s.run_id}: {s.quarantined:,} in quarantine", file=sys.stderr)
        if s.findings:
            print(
                f"warning: {s.source} {s.run_id}: not all of {s.validated:,} resources that were validated are valid",
                file=sys.stderr,
            )
    if max_quarantined is not None and any(s.quarantined > max_quarantined for s in summaries):
        sys.exit(1)
