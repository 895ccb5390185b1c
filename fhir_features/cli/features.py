"""`fhir-features features`: what is defined, and whether it says what is meant."""

from __future__ import annotations

import dataclasses
import json
import sys

import click


@click.group()
def command() -> None:
    """Show the feature views of the project, and test them."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {view, version, cadence, features}.")
@click.pass_obj
def list_views(config_path: str, as_json: bool) -> None:
    """List the feature views with their versions."""
    from fhir_features.store import FeatureStore

    views = FeatureStore(config_path).views.values()
    if as_json:
        rows = [
            {
                "view": view.name,
                "version": view.version,
                "cadence": view.cadence,
                "features": [feature.name for feature in view.features],
            }
            for view in views
        ]
        print(json.dumps(rows, indent=2))
        return
    for view in views:
        print(f"{view.name:<24} {view.version[:12]}  {view.cadence}  {len(view.features)} features")


@command.command("show")
@click.argument("view")
@click.option("--sql", is_flag=True, help="Print the statement that answers the view.")
@click.pass_obj
def show_view(config_path: str, view: str, sql: bool) -> None:
    """Show the definition of a feature view as JSON, or its SQL."""
    from fhir_features.store import FeatureStore

    store = FeatureStore(config_path)
    print(store.sql(view) if sql else json.dumps(store.view(view).definition(), indent=2))


@command.command("test")
@click.option("--json", "as_json", is_flag=True, help="Print {patients, answers, failures} as JSON.")
@click.pass_obj
def test_views(config_path: str, as_json: bool) -> None:
    """Ask the features of the invented patients in feature_tests.md, beside features.py.

    Of each answer that is not as expected stand its line on that page, and what `explain` says of the rows that bear
    on it. No warehouse is needed. The exit code is 1 when an answer is not as expected.
    """
    from fhir_features.store import FeatureStore

    found = FeatureStore(config_path).test()
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=2, default=str))
    else:
        for each in found.failures:
            print(f"line {each.line}, {each.patient}")
            print(f"  {each.feature} at {each.asked_at:%Y-%m-%d %H:%M} is {each.got}, expected {each.expected}")
            for verdict in each.why:
                print(f"    {verdict}")
        print(f"{found.answers} answers of {found.patients} patients: {len(found.failures)} not as expected")
    if found.failures:
        sys.exit(1)
