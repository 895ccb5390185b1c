"""`fhir-features export-meds`: the events of the store as a MEDS dataset."""

from __future__ import annotations

from pathlib import Path

import click

from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples


@click.command(epilog=examples("fhir-features export-meds meds"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print {folder, events, subjects} as JSON.")
@click.pass_obj
def command(config_path: str, folder: Path, as_json: bool) -> None:
    """Write the events of the store into FOLDER, which must be new or empty, as a MEDS dataset.

    The time of an event is when it was known, so that a reader of events up to T reads nothing early. What leads back
    to patients is in metadata/subjects.parquet: it stays where the warehouse may. Needs the package's extra `meds`.
    """
    from fhir_features.store import FeatureStore

    with working("export-meds") as work:
        made = FeatureStore(config_path).export_meds(folder, progress=work.progress)
        work.done(made.events, "events written")
    if as_json:
        print_json(made)
    else:
        print_table(("events", "subjects", "folder"), [(made.events, made.subjects, str(made.folder))])
