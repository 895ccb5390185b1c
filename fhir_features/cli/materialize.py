"""`fhir-features materialize`: from the sources to the online store, as a job to schedule."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_table, written
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples

if TYPE_CHECKING:
    from fhir_features.job import RunRecord, Step


@click.command(epilog=examples("fhir-features materialize", "fhir-features materialize diabetes"))
@click.argument("views", nargs=-1, metavar="[VIEW]...", shell_complete=completing.views)
@click.option("--no-pull", is_flag=True, help="Ask no source: go on from what has landed.")
@click.option("--anew", is_flag=True, help="Load everything again, as into an online store that was emptied.")
@click.option("--json", "as_json", is_flag=True, help="Print the record of the run.")
@click.pass_obj
def command(config_path: str, views: Sequence[str], no_pull: bool, anew: bool, as_json: bool) -> None:
    """Bring the named feature views, or all, up to date in the online store of the Feast repository.

    Pulls, normalizes, builds and loads what is new, one run at a time. What fails for one source or view does not keep
    the others back: the exit code is that of the first failure, and the same command goes on from there. As each step
    ends, a line on stderr says when it began, what it did, and in how many seconds.

    Printed is, of each view, the interval of answered_at that was loaded: from the beginning the first time, and never
    beyond the watermark; `-` where nothing was new. With --json the record of the run, as it lies in the warehouse's
    folder `runs`: {run_id, package, started_at, finished_at, state, exit_code, steps: [{name, started_at, finished_at,
    done, failures}]}. What the step `load` has done is a list of {view, since, until, patients}; a since of null is the
    beginning, both are null when there was nothing new.
    """
    from fhir_features.store import FeatureStore

    store = FeatureStore(config_path)
    with working("materialize") as work:
        record = store.materialize(views, pulls=not no_pull, anew=anew, progress=work.progress, ended=_tell)
        work.done(sum(each["patients"] for each in _loaded(record)), "patients loaded")
    if as_json:
        print(record.to_json(), end="")
    else:
        print_table(
            ("view", "patients", "after", "up to"),
            [
                (each["view"], each["patients"], each["since"] or (each["until"] and "the beginning"), each["until"])
                for each in _loaded(record)
            ],
        )
    for failure in record.failures:
        print(f"error: {failure.message}", file=sys.stderr)
    if record.exit_code:
        sys.exit(record.exit_code)


def _loaded(record: RunRecord) -> list[dict[str, Any]]:
    return [each for step in record.steps if step.name == "load" for each in step.done]


def _tell(step: Step) -> None:
    """The line of a step that has ended."""
    assert step.finished_at is not None
    seconds = (step.finished_at - step.started_at).total_seconds()
    failed = f", {len(step.failures):,} failed" if step.failures else ""
    print(f"{written(step.started_at)} {step.name}: {_did(step)}{failed} in {seconds:,.1f} s", file=sys.stderr)


def _did(step: Step) -> str:
    if step.name == "pull":
        landed = sum(of["landed"] for source in step.done for of in source["types"].values())
        return f"{landed:,} resources of {len(step.done):,} sources landed"
    if step.name == "normalize":
        received, quarantined = (sum(run[count] for run in step.done) for count in ("received", "quarantined"))
        return f"{received:,} resource versions of {len(step.done):,} runs, {quarantined:,} quarantined"
    counted, unit = {"build": ("rows", "new rows"), "load": ("patients", "patients")}[step.name]
    return f"{sum(each[counted] for each in step.done):,} {unit} of {len(step.done):,} views"
