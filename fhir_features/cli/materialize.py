"""`fhir-features materialize`: from the sources to the online store, as a job to schedule."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from fhir_features.cli.printing import print_table
from fhir_features.cli.progress import on_terminal
from fhir_features.cli.teaching import examples


@click.command(epilog=examples("fhir-features materialize", "fhir-features materialize diabetes"))
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--no-pull", is_flag=True, help="Ask no source: go on from what has landed.")
@click.option("--anew", is_flag=True, help="Load everything again, as into an online store that was emptied.")
@click.option("--json", "as_json", is_flag=True, help="Print the record of the run.")
@click.pass_obj
def command(config_path: str, views: Sequence[str], no_pull: bool, anew: bool, as_json: bool) -> None:
    """Bring the named feature views, or all, up to date in the online store of the Feast repository.

    Pulls, normalizes, builds and loads what is new, one run at a time. What fails for one source or view does not keep
    the others back: the exit code is that of the first failure, and the same command goes on from there.

    Printed is, of each view, the interval of answered_at that was loaded: from the beginning the first time, and never
    beyond the watermark; `-` where nothing was new. With --json the record of the run, as it lies in the warehouse's
    folder `runs`: {run_id, package, started_at, finished_at, state, exit_code, steps: [{name, started_at, finished_at,
    done, failures}]}. What the step `load` has done is a list of {view, since, until, patients}; a since of null is the
    beginning, both are null when there was nothing new.
    """
    from fhir_features.store import FeatureStore

    with on_terminal() as progress:
        record = FeatureStore(config_path).materialize(views, pulls=not no_pull, anew=anew, progress=progress)
    if as_json:
        print(record.to_json(), end="")
    else:
        print_table(
            ("view", "patients", "after", "up to"),
            [
                (each["view"], each["patients"], each["since"] or (each["until"] and "the beginning"), each["until"])
                for step in record.steps
                if step.name == "load"
                for each in step.done
            ],
        )
    for failure in record.failures:
        print(f"error: {failure.message}", file=sys.stderr)
    if record.exit_code:
        sys.exit(record.exit_code)
