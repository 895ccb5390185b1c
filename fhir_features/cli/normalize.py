"""`fhir-features normalize`: turn what has landed into event tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config

if TYPE_CHECKING:
    from fhir_features.normalize import RunSummary


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

    with working("normalize") as work:
        summaries = normalize(load_config(config_path), work.progress, validation=Validation(validate))
        work.done(sum(each.received for each in summaries), "resource versions received")
    if as_json:
        print_json(summaries)
    else:
        _print(summaries)
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


def _print(summaries: list[RunSummary]) -> None:
    counts = ("received", "normalized", "quarantined", "duplicates", "ignored")
    print_table(
        ("commit", "source", "run", *counts),
        [(s.store_seq, s.source, s.run_id, *(getattr(s, count) for count in counts)) for s in summaries],
    )
    print_table(
        ("commit", "type", "versions"),
        [(s.store_seq, resource_type, count) for s in summaries for resource_type, count in s.versions.items()],
    )
    print_table(
        ("commit", "type", "not valid", "where", "rule"),
        [(s.store_seq, f.resource_type, f.versions, f.json_path, f.rule) for s in summaries for f in s.findings],
    )
