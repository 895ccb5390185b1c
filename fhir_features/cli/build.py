"""`fhir-features build`: append to feature tables what is new."""

from __future__ import annotations

import dataclasses
import json

import click


@click.command()
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
@click.pass_obj
def command(config_path: str, views: tuple[str, ...], as_json: bool) -> None:
    """Build the feature tables of the views named, or of all, up to the watermarks of the sites.

    With --json: a list of {view, version, file (null: nothing was new), rows, watermarks by site}.
    """
    from fhir_features.sources import on_terminal
    from fhir_features.store import FeatureStore

    store = FeatureStore(config_path)
    names = views or tuple(store.views)
    built = []
    with on_terminal() as progress:
        for number, name in enumerate(names, start=1):
            built.append(store.build(name))
            progress("features", "views built", number, len(names))
    if as_json:
        print(json.dumps([dataclasses.asdict(build) for build in built], indent=2, default=str))
        return
    for build in built:
        what = f"{build.rows:,} rows in {build.file.name}" if build.file else "nothing new"
        print(f"{build.view} {build.version[:12]}: {what}")
