"""`fhir-features build`: append to feature tables what is new, or write them anew."""

from __future__ import annotations

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.errors import UsageError


@click.command(
    epilog=examples("fhir-features build", "fhir-features build diabetes", "fhir-features build --restate diabetes")
)
@click.argument("views", nargs=-1, metavar="[VIEW]...", shell_complete=completing.views)
@click.option("--restate", is_flag=True, help="Write the tables of the views named anew, with what is known now.")
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
@click.pass_obj
def command(config_path: str, views: tuple[str, ...], restate: bool, as_json: bool) -> None:
    """Build the feature tables of the views named, or of all, up to the watermarks of the sites.

    A view that is answered by a schedule is built up to its last instant at or before them. With --restate the whole
    history is written to a new folder, as the store knows it now; the newest row of each patient says what it said.
    Run `feast apply` and `fhir-features materialize` after it.

    With --json: a list of {view, version, file (null: nothing was new), rows, watermarks by site}.
    """
    from fhir_features.store import FeatureStore

    if restate and not views:
        raise UsageError("--restate needs the views named whose tables are to be written anew")
    store = FeatureStore(config_path)
    names = views or tuple(store.views)
    with working("build") as work:
        make = store.restate if restate else store.build
        built = [make(name, progress=work.progress) for name in names]
        work.done(sum(each.rows for each in built), "new rows")
    if as_json:
        print_json(built)
        return
    print_table(
        ("view", "version", "new rows", "file"),
        [(each.view, each.version[:12], each.rows, each.file.name if each.file else None) for each in built],
    )
