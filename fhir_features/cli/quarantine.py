"""`fhir-features quarantine`: what was set aside, why, and whether it passes now."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import Group, examples
from fhir_features.config import load_config


@click.group(cls=Group, epilog=examples("fhir-features quarantine list", "fhir-features quarantine retry"))
def command() -> None:
    """What could not be normalized: count it, find it, try it again."""


@command.command("list", epilog=examples("fhir-features quarantine list"))
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_obj
def list_counts(config_path: str, as_json: bool) -> None:
    """Count what is set aside, by source, resource type and rule.

    With --json a list of {source, resource_type, rule, rows}; resource_type is null where none could be read.
    """
    from fhir_features.normalize import counts

    found = counts(load_config(config_path))
    if as_json:
        print_json(found)
        return
    print_table(("source", "type", "rule", "versions"), [(c.source, c.resource_type, c.rule, c.rows) for c in found])
    _say_when_empty(found)


@command.command(epilog=examples("fhir-features quarantine show --type Observation --rule code"))
@click.option("--source", shell_complete=completing.sources, help="Only of this source.")
@click.option("--type", "resource_type", metavar="TYPE", help="Only of this resource type.")
@click.option("--rule", help="Only what this rule set aside.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.pass_obj
def show(config_path: str, source: str | None, resource_type: str | None, rule: str | None, as_json: bool) -> None:
    """Show each resource version that is set aside: where it lies in the landing, by which rule, and why.

    A place is SOURCE/RUN/FILE:LINE under the landing; of a Bundle file the line is the number of the entry. With --json
    a list of {source, run_id, file, line, entry, resource_type, resource_id, json_path, rule, reason}.
    """
    from fhir_features.normalize import set_aside

    config = load_config(config_path)
    if source is not None:
        config.source(source)
    rows = set_aside(config, source=source, resource_type=resource_type, rule=rule)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("place", "resource", "rule", "where", "why"),
        [
            (
                f"{row.source}/{row.run_id}/{row.file}:{row.line}" + (f" entry {row.entry}" if row.entry else ""),
                f"{row.resource_type or '-'}/{row.resource_id or '-'}",
                row.rule,
                row.json_path,
                row.reason,
            )
            for row in rows
        ],
    )
    _say_when_empty(rows)


@command.command(epilog=examples("fhir-features quarantine retry  # after a key was corrected, or a bug"))
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
@click.pass_obj
def retry(config_path: str, as_json: bool) -> None:
    """Decode and normalize again, from the landing, what is set aside. Nothing is pulled.

    What passes of a run is one commit, as if it had passed when the run was normalized. Printed is a line for each run
    that has something set aside. With --json a list of {source, run_id, store_seq, tried, normalized, quarantined,
    duplicates, ignored}; store_seq is null for a run of which nothing changed.
    """
    from fhir_features.normalize import retry as retry_quarantine

    with working("quarantine retry") as work:
        summaries = retry_quarantine(load_config(config_path), work.progress)
        work.done(sum(each.tried for each in summaries), "resource versions tried")
    if as_json:
        print_json(summaries)
    else:
        counts = ("tried", "normalized", "duplicates", "ignored", "quarantined")
        print_table(
            ("commit", "source", "run", *counts),
            [(s.store_seq, s.source, s.run_id, *(getattr(s, count) for count in counts)) for s in summaries],
        )
    _say_when_empty(summaries)


def _say_when_empty(rows: Sequence[object]) -> None:
    if not rows:
        print("nothing is set aside", file=sys.stderr)
