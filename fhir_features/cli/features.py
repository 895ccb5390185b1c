"""`fhir-features features`: what is defined, and whether it says what is meant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import Group, examples

if TYPE_CHECKING:
    from fhir_features.features.view_diff import ViewDiff


@click.group(cls=Group, epilog=examples("fhir-features features list", "fhir-features features test"))
def command() -> None:
    """Show the feature views of the project, compare their versions, and test them."""


@command.command(
    "list", epilog=examples("fhir-features features list", "fhir-features features list --all  # earlier versions, too")
)
@click.option("--all", "with_earlier", is_flag=True, help="Also the earlier versions that were built or asked for.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {view, version, in_use, cadence, features}.")
@click.pass_obj
def list_views(config_path: str, with_earlier: bool, as_json: bool) -> None:
    """List the feature views with their versions. An earlier one is asked for as VIEW@VERSION."""
    from fhir_features.store import FeatureStore

    store = FeatureStore(config_path)
    in_use = store.versions()
    rows = [
        {
            "view": each.name,
            "version": each.version,
            "in_use": each in in_use,
            "cadence": each.definition["cadence"],
            "features": [feature["name"] for feature in each.definition["features"]],
        }
        for each in [*in_use, *(store.earlier_versions() if with_earlier else ())]
    ]
    if as_json:
        print_json(rows)
        return
    headings = ("view", "version", "cadence", "features", *(["in use"] if with_earlier else []))
    print_table(
        headings,
        [
            (
                row["view"],
                row["version"][:12],
                row["cadence"],
                len(row["features"]),
                *(["yes" if row["in_use"] else "no"] if with_earlier else []),
            )
            for row in rows
        ],
    )


@command.command(
    "show", epilog=examples("fhir-features features show diabetes", "fhir-features features show diabetes --sql")
)
@click.argument("view", metavar="VIEW[@VERSION]", shell_complete=completing.views)
@click.option("--sql", is_flag=True, help="Print the statement that answers the view.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it: {version, name, features, …}.")
@click.pass_obj
def show_view(config_path: str, view: str, sql: bool, as_json: bool) -> None:
    """Show the features of a feature view: kind, unit, window, and what each answers."""
    from fhir_features.notebook import feature_table
    from fhir_features.store import FeatureStore

    store = FeatureStore(config_path)
    locked = store.locked(view)
    if sql:
        print(store.sql(locked.view))
    elif as_json:
        print_json({"version": locked.version, **locked.view.model_dump(mode="json")})
    else:
        print(f"{locked.view.name}@{locked.version[:12]}, {locked.view.cadence}\n")
        print_table(*feature_table(locked.view))


@command.command("diff", epilog=examples("fhir-features features diff diabetes@1a2b3c diabetes"))
@click.argument("before", metavar="VIEW[@VERSION]", shell_complete=completing.views)
@click.argument("after", metavar="VIEW[@VERSION]", shell_complete=completing.views)
@click.option("--json", "as_json", is_flag=True, help="Print {before, after, fields, features} as JSON.")
@click.pass_obj
def diff_versions(config_path: str, before: str, after: str, as_json: bool) -> None:
    """Show what differs between two versions: features, their fields, and the codes of their concept sets.

    Ends with code 1 when anything differs.
    """
    from fhir_features.store import FeatureStore

    found = FeatureStore(config_path).diff(before, after)
    if as_json:
        print_json(found)
    else:
        _print_diff(found)
    if not found.same:
        sys.exit(1)


def _print_diff(found: ViewDiff) -> None:
    rows: list[tuple[str | None, ...]] = [(None, field.path, field.before, field.after) for field in found.fields]
    for feature in found.features:
        if feature.change != "changed":
            rows.append((feature.feature, feature.change, None, None))
        rows += [(feature.feature, field.path, field.before, field.after) for field in feature.fields]
        rows += [(feature.feature, "code", None, code) for code in feature.codes_gained]
        rows += [(feature.feature, "code", code, None) for code in feature.codes_lost]
    print_table(("feature", "what", f"before {found.before[:12]}", f"after {found.after[:12]}"), rows)
    if found.same:
        print("they are the same", file=sys.stderr)
    elif not rows:
        print("they differ in the facts on code systems or units that they rest on", file=sys.stderr)


@command.command("test", epilog=examples("fhir-features features test"))
@click.option("--json", "as_json", is_flag=True, help="Print {patients, answers, failures} as JSON.")
@click.pass_obj
def test_views(config_path: str, as_json: bool) -> None:
    """Ask the features of the invented patients in feature_tests.md, beside features.py.

    Of each answer that is not as expected stand its line on that page, and what `explain` says of the rows that bear
    on it. No warehouse is needed. The exit code is 1 when an answer is not as expected.
    """
    from fhir_features.store import FeatureStore

    with working("features test"):
        found = FeatureStore(config_path).test()
    if as_json:
        print_json(found)
    else:
        print_table(("patients", "answers", "not as expected"), [(found.patients, found.answers, len(found.failures))])
        print_table(
            ("line", "patient", "feature", "asked at", "expected", "answer"),
            [(str(of.line), of.patient, of.feature, of.asked_at, of.expected, of.got) for of in found.failures],
        )
        print_table(("line", "why"), [(str(of.line), verdict) for of in found.failures for verdict in of.why])
    if found.failures:
        sys.exit(1)
