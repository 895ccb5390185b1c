"""`fhir-features explain`: why is one answer what it is."""

from __future__ import annotations

import json

import click

from fhir_features.cli.teaching import examples
from fhir_features.errors import UsageError
from fhir_features.times import instant


@click.command(
    epilog=examples(
        "fhir-features explain diabetes:hba1c_last_1y --patient patient-001 --at 2026-03-01T12:00:00Z",
        "fhir-features explain diabetes:age --patient patient-001 --at 2026-03-01T12:00:00Z --json",
    )
)
@click.argument("feature", metavar="VIEW:FEATURE")
@click.option("--patient", "patient_id", required=True, help="The FHIR id of the patient.")
@click.option("--site", help="The site of the patient; not needed where the configuration has one.")
@click.option("--at", "at", required=True, metavar="INSTANT", help="T, such as 2024-03-05T14:00:00Z.")
@click.option("--known-as-of", metavar="INSTANT", help="Nothing counts as known after this instant.")
@click.option("--json", "as_json", is_flag=True, help="Print {answer, is_known, ties, rows} as JSON.")
@click.pass_obj
def command(
    config_path: str,
    feature: str,
    patient_id: str,
    site: str | None,
    at: str,
    known_as_of: str | None,
    as_json: bool,
) -> None:
    """Show which resource versions count for VIEW:FEATURE of a patient at an instant, and why others do not."""
    from fhir_features.store import FeatureStore

    try:
        t = instant(at)
        cutoff = instant(known_as_of) if known_as_of else None
    except ValueError as error:
        raise UsageError(str(error)) from None
    explained = FeatureStore(config_path).explain(feature, patient_id, t, site=site, known_as_of=cutoff)
    rows = explained.rows.to_pylist()
    if as_json:
        print(json.dumps({**vars(explained), "rows": rows}, indent=2, default=str))
        return
    print(f"{feature} = {explained.answer}")
    if not explained.is_known:
        print("  the store knew no such patient then: see that --patient, --site and --at are as meant")
    if explained.ties:
        print(f"  {explained.ties} rows that count are tied: the same instants, put in order by their ids")
    for row in rows:
        version = f"{row['resource_type']}/{row['resource_id']} version {row['version']}"
        if row["patient_id"] != patient_id:
            version += f" of Patient/{row['patient_id']}"
        verdict = row["verdict"] + ("; what it is made from has changed since" if row["source_changed"] else "")
        print(f"  {version}  true {row['effective_at']}  known {row['known_at']}  {verdict}")
