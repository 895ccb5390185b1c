"""`fhir-features status`: how does the store stand?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from fhir_features.cli.printing import print_json, print_table, size
from fhir_features.cli.teaching import examples

if TYPE_CHECKING:
    from fhir_features.status import Status


@click.command(epilog=examples("fhir-features status", "fhir-features status --json  # for a monitor"))
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.pass_obj
def command(config_path: str, as_json: bool) -> None:
    """Show how the store stands: sources, how far they have been seen, what is stored and built, and the last runs.

    Nothing is asked of a server, and nothing is written. With --json the same, as {warehouse, bytes, writer,
    sources: [{source, site, kind, last_pull, waiting, unfinished}], watermarks: [{site, resource_type, watermark}],
    tables: [{table, rows, files, bytes}], views: [{view, version, cadence, built_to}], online: {kind, registered},
    runs: [{store_seq, source, run_id, received, normalized, quarantined, duplicates, ignored}], jobs: [{run_id,
    started_at, finished_at, state, failures, exit_code}], problem}. `runs` are the last commits, `jobs` the last runs
    of `fhir-features materialize`.
    """
    from fhir_features.status import status
    from fhir_features.store import FeatureStore

    found = status(FeatureStore(config_path))
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Status) -> None:
    writer = f"process {found.writer} is writing" if found.writer else "nobody is writing"
    print(f"{found.warehouse}  {size(found.bytes)}, {writer}\n")
    print_table(
        ("source", "site", "kind", "last pull", "waiting", ""),
        [(s.source, s.site, s.kind, s.last_pull, s.waiting, _remark(s.waiting, s.unfinished)) for s in found.sources],
    )
    if found.watermarks:
        print()
        rows = [(of.site, of.resource_type, of.watermark) for of in found.watermarks]
        print_table(("site", "type", "seen up to"), rows)
    if found.tables:
        print()
        held = [(of.table, of.rows, of.files, size(of.bytes)) for of in found.tables if of.rows]
        print_table(("table", "rows", "files", "size"), held)
    if found.problem:
        print(f"\nthe definitions cannot be read: {found.problem}")
    if found.views:
        print()
        print_table(
            ("view", "version", "cadence", "built up to"),
            [(of.view, of.version[:12], of.cadence, of.built_to) for of in found.views],
        )
    if found.online.kind is None:
        print("\nonline store: none, there is no feature_store.yaml")
    else:
        applied = "" if found.online.registered is not False else ", not registered yet: `feast apply`"
        print(f"\nonline store: {found.online.kind}{applied}")
    _print_runs(found)
    print(f"next: {found.next_step}", file=sys.stderr)


def _print_runs(found: Status) -> None:
    if found.runs:
        print()
        counts = ("received", "normalized", "quarantined", "duplicates", "ignored")
        print_table(
            ("commit", "source", "run", *counts),
            [(r.store_seq, r.source, r.run_id, *(getattr(r, count) for count in counts)) for r in found.runs],
        )

    if found.jobs:
        print()
        print_table(
            ("job", "began", "ended", "state", "failures", "exit code"),
            [(j.run_id, j.started_at, j.finished_at, j.state, j.failures, j.exit_code) for j in found.jobs],
        )


def _remark(waiting: int, unfinished: bool) -> str:
    remarks = ["`pull` goes on with an unfinished run"] if unfinished else []
    return "; ".join([*remarks, *(["`normalize` takes what waits"] if waiting else [])])
