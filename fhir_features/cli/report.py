"""`fhir-features report`: what the store holds and answers, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples


@click.command(
    epilog=examples(
        "fhir-features report  # writes report.html, to be opened from disk",
        "fhir-features report --suppress-below 0 --output internal.html  # every count as it is",
    )
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="The file to write.",
)
@click.option(
    "--suppress-below",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Tell no count of fewer patients than this, and round the others; 0 tells every count as it is.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the page tells as JSON instead; null: not told.")
@click.pass_obj
def command(config_path: str, output: Path, suppress_below: int, as_json: bool) -> None:
    """Write a page on what the store holds and answers: one HTML file that needs no network, to look at or to send.

    It has sources and their freshness, volume over time, what was set aside, how much later than true things were
    known, how much of the codes is understood, and for each feature what is missing and how its values are distributed.
    It says nothing of any one patient. The same store gives the same page.
    """
    from fhir_features.files import check_folder
    from fhir_features.store import FeatureStore

    if not as_json:
        check_folder(output)
    with working("report") as work:
        made = FeatureStore(config_path).report(suppress_below=suppress_below, progress=work.progress)
        work.done(sum(len(view.features) for view in made.facts.views), "features described")
    if as_json:
        print(made.json())
        return
    print(made.save(output))
