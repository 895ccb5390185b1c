"""`fhir-features pull`: ask the sources for what is new, and land it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import load_config
from fhir_features.errors import FhirFeaturesError
from fhir_features.sources import PullSummary, pull


@click.command(epilog=examples("fhir-features pull", "fhir-features pull files --json  # one source, as JSON"))
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=completing.sources)
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
@click.pass_obj
def command(config_path: str, sources: Sequence[str], as_json: bool) -> None:
    """Receive what is new from the named sources, or from all, into the landing.

    A source that fails does not keep the others from being pulled. A pull that was interrupted is continued.

    Printed is a line for each source and resource type: resources received, repeats included, in how many pages
    (files); how many of them were landed; and up to when the source has now been seen. With --json the same, as a
    list of {source, run_id, types: [{resource_type, received, pages, landed, watermark, warnings}], warnings}.
    """
    config = load_config(config_path)
    for name in sources:
        config.source(name)
    summaries: list[PullSummary] = []
    failures: list[FhirFeaturesError] = []
    with working("pull") as work:
        for name in sources or config.sources:
            try:
                summaries += pull(config, [name], work.progress)
            except FhirFeaturesError as error:
                failures.append(error)
        if summaries:
            work.done(sum(of.landed for summary in summaries for of in summary.types), "resources landed")
    if as_json:
        print_json(summaries)
    else:
        print_table(
            ("source", "type", "received", "pages", "landed", "seen up to"),
            [
                (summary.source, of.resource_type, of.received, of.pages, of.landed, of.watermark)
                for summary in summaries
                for of in summary.types
            ],
        )
        for summary in summaries:
            for warning in (*summary.warnings, *(warning for of in summary.types for warning in of.warnings)):
                print(f"warning: {summary.source}: {warning}", file=sys.stderr)
    for failure in failures[:-1]:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]
