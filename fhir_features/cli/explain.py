"""`fhir-features explain`: why is one answer what it is."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import click

from fhir_features.cli import completing
from fhir_features.cli.options import instant_option, serving_option
from fhir_features.cli.printing import Cell, print_table
from fhir_features.cli.teaching import examples


@click.command(
    epilog=examples(
        "fhir-features explain diabetes:hba1c_last_1y --patient patient-001 --at 2026-03-01T12:00:00Z",
        "fhir-features explain diabetes:age --patient patient-001 --at 2026-03-01T12:00:00Z --json",
    )
)
@click.argument("feature", metavar="VIEW:FEATURE", shell_complete=completing.views_and_features)
@click.option("--patient", "patient_id", required=True, help="The FHIR id of the patient.")
@click.option("--site", help="The site of the patient; not needed where the configuration has one.")
@click.option("--at", "at", required=True, metavar="INSTANT", help="T, such as 2024-03-05T14:00:00Z.")
@click.option("--known-as-of", metavar="INSTANT", help="Nothing counts as known after this instant.")
@serving_option("that of the view's cadence")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it as a page with a timeline, which has the patient's data in it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print {answer, t, k, is_known, ties, verdicts, rows} as JSON.")
@click.pass_obj
def command(
    config_path: str,
    feature: str,
    patient_id: str,
    site: str | None,
    at: str,
    known_as_of: str | None,
    serving: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show which resource versions count for VIEW:FEATURE of a patient at an instant, and why others do not.

    Those that the answer rests on have a star: of the rows that count for `last`, the newest.
    """
    from fhir_features.store import FeatureStore

    t, cutoff = instant_option("--at", at), instant_option("--known-as-of", known_as_of)
    assert t is not None
    store = FeatureStore(config_path)
    if html is not None:
        page = store.explanation_page(feature, patient_id, t, site=site, known_as_of=cutoff, serving=serving)
        print(page.save(html))
        return
    explained = store.explain(feature, patient_id, t, site=site, known_as_of=cutoff, serving=serving)
    if as_json:
        print(explained.to_json())
        return
    print(f"{feature} = {explained.answer}")
    if explained.t != t:
        print(f"  as it was served then: the answer of {explained.t}")
    if not explained.is_known:
        print("  the store knew no such patient then: see that --patient, --site and --at are as meant")
    if explained.ties:
        print(f"  {explained.ties} rows that count are tied: the same instants, put in order by their ids")
    for part, rows in groupby(explained.rows.to_pylist(), lambda row: row["part"]):
        print(f"\n{part}")
        print_table(
            ("", "resource", "version", "value", "true", "known", "through", "verdict"),
            [_cells(row, patient_id) for row in rows],
        )
    print(f"\n{', '.join(f'{number:,} {verdict}' for verdict, number in explained.verdicts.items()) or 'no rows'}")


def _cells(row: dict[str, Any], patient_id: str) -> tuple[Cell, ...]:
    resource = f"{row['resource_type']}/{row['resource_id']}"
    if row["patient_id"] != patient_id:
        resource += f" of Patient/{row['patient_id']}"
    return (
        "*" if row["decides"] else "",
        resource,
        row["version"],
        row["text"] if row["number"] is None else f"{row['number']:g}",
        row["effective_at"],
        row["known_at"],
        row["known_at_source"],
        row["verdict"] + ("; what it is made from has changed since" if row["source_changed"] else ""),
    )
