"""`fhir-features materialize`: load what has been built into the online store of the Feast repository."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click

from fhir_features.cli.teaching import examples


@click.command(epilog=examples("fhir-features materialize", "fhir-features materialize diabetes"))
@click.argument("views", nargs=-1, metavar="[VIEW]...")
@click.option("--json", "as_json", is_flag=True, help="Print what was loaded as JSON.")
@click.pass_obj
def command(config_path: str, views: Sequence[str], as_json: bool) -> None:
    """Load what the named feature views, or all, have built since the last time into the online store.

    Printed is the interval of answered_at that was loaded of each view: from the beginning the first time, and never
    beyond the watermark. With --json the same, as a list of {view, since, until}; a since of null is the beginning,
    both are null when there was nothing new.
    """
    from fhir_features.feast import materialize
    from fhir_features.store import FeatureStore

    loaded = materialize(FeatureStore(config_path), views)
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in loaded], default=lambda at: at.isoformat(), indent=2))
        return
    for each in loaded:
        if each.until is None:
            print(f"{each.view}: nothing new")
        else:
            since = each.since.isoformat(timespec="seconds") if each.since else "the beginning"
            print(f"{each.view}: loaded from {since} to {each.until.isoformat(timespec='seconds')}")
