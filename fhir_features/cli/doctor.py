"""`fhir-features doctor`: would a pull work, and what should be changed?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import examples
from fhir_features.config import Config, load_config
from fhir_features.sources import Check, examine


@click.command(
    epilog=examples(
        "fhir-features doctor",
        "fhir-features doctor files  # one source",
        "fhir-features doctor --json  # for a monitor; the exit code is 1 when anything fails",
    )
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=completing.sources)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {source, check, verdict, finding}.")
@click.pass_obj
def command(config_path: str, sources: Sequence[str], as_json: bool) -> None:
    """Try the named sources, or everything: what works, what does not, and what to change.

    Of a server: what it says of itself, whether it gives tokens, and one small read of each resource type in the way
    that a pull would read it. Nothing is landed, and nothing of any patient is shown. Without a name also this machine
    (versions, time zones, permissions, disk), the definitions, the ontologies, and what of the Feast repository is
    known to be wrong; at the end, what to do next. A verdict is `works`, `limited` (one can live with it) or `fails`;
    with one that fails the exit code is 1.
    """
    config = load_config(config_path)
    for name in sources:
        config.source(name)
    checks: list[Check] = []
    with working("doctor") as work:
        for check in _checks(config, sources):
            checks.append(check)
            work.step(f"{check.source} {check.check}: {check.verdict}")
    if as_json:
        print_json(checks)
    else:
        print_table(
            ("of", "check", "verdict", "finding"),
            [(check.source, check.check, check.verdict, check.finding) for check in checks],
        )
    failing = any(check.verdict == "fails" for check in checks)
    if not sources:
        print(f"next: {'change what fails' if failing else _next_step(config_path)}", file=sys.stderr)
    if failing:
        sys.exit(1)


def _checks(config: Config, sources: Sequence[str]) -> Iterator[Check]:
    if not sources:
        from fhir_features.environment import examine_environment

        yield from examine_environment(config)
    for name in sources or config.sources:
        yield from examine(config, name)
    if not sources:
        from fhir_features.feast import examine_repository

        yield from examine_repository(config.features.path)


def _next_step(config_path: str) -> str:
    from fhir_features.store import FeatureStore

    return FeatureStore(config_path).status().next_step
