"""`fhir-features init`: a project to begin with."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fhir_features.cli.teaching import examples


@click.command(
    epilog=examples(
        "fhir-features init my-store --example  # with ten invented patients to try it on",
        "fhir-features init my-store --files exports/ --site north --timezone America/New_York",
    )
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--files", type=click.Path(path_type=Path), help="The folder of NDJSON or Bundles to read.")
@click.option("--site", default="my-site", show_default=True, help="The organisation that the data comes from.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="The IANA time zone of the site.")
@click.option("--example", is_flag=True, help="Put ten invented patients into `received`.")
def command(folder: Path, files: Path | None, site: str, timezone: str, example: bool) -> None:
    """Make FOLDER a project: a configuration with comments, feature views with their tests, a Feast repository over
    them, and a .gitignore that keeps patients' data out.

    Nothing that is there is overwritten. Printed are the files that were written.
    """
    from fhir_features.project import create_project

    for path in create_project(folder, files=files, site=site, timezone=timezone, example=example):
        print(path)
    print(f"next: cd {folder}; fhir-features doctor; fhir-features pull; fhir-features normalize", file=sys.stderr)
