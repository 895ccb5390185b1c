"""`fhir-features doctor`: would a pull work, and what should be changed?"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from itertools import chain

import click

from fhir_features.config import load_config
from fhir_features.sources import Check, examine


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {source, check, verdict, finding}.")
@click.pass_obj
def command(config_path: str, sources: Sequence[str], as_json: bool) -> None:
    """Try the named sources, or all: what of them works, what does not, and what to change.

    Of a server: what it says of itself, whether it gives tokens, and one small read of each resource type in the way
    that a pull would read it. Nothing is landed, and nothing of any patient is shown. Without a name also what of the
    Feast repository is known to be wrong. A verdict is `works`, `limited` (one can live with it) or `fails`; with one
    that fails the exit code is 1.
    """
    from fhir_features.feast import examine_repository

    config = load_config(config_path)
    for name in sources:
        config.source(name)
    checks: list[Check] = []
    of_sources = chain.from_iterable(examine(config, name) for name in sources or config.sources)
    for check in chain(of_sources, () if sources else examine_repository(config.features.path)):
        checks.append(check)
        if not as_json:
            print(f"{check.source}  {check.check:<18} {check.verdict:<7}  {check.finding}")
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    if any(check.verdict == "fails" for check in checks):
        sys.exit(1)
