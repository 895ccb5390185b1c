"""`fhir-features features`: what is defined."""

from __future__ import annotations

import json

import click


@click.group()
def command() -> None:
    """Show the feature views of the project."""


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
