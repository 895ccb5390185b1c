"""`fhir-features ontology`: which releases are in use, what is in them, and what a new one changes."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fhir_features.cli import completing
from fhir_features.cli.printing import print_json, print_table
from fhir_features.cli.progress import working
from fhir_features.cli.teaching import Group, examples
from fhir_features.errors import UsageError
from fhir_features.ontology import Concept, ConceptSet, Impact, Ontologies, load_ontologies
from fhir_features.ontology.importers import KINDS
from fhir_features.ontology.systems import HOME_VARIABLE

if TYPE_CHECKING:
    from fhir_features.ontology.artifacts import Manifest


@click.group(cls=Group, epilog=examples("fhir-features ontology list", "fhir-features ontology unmapped"))
def command() -> None:
    """Show, import, lock and compare the ontologies in use.

    They are the shipped ones, unless FHIR_FEATURES_ONTOLOGIES names a folder with imported releases and its own lock.
    """


@command.command("list", epilog=examples("fhir-features ontology list"))
@click.option("--json", "as_json", is_flag=True, help="Print a list of {id, title, content, redistributable, rows}.")
def list_artifacts(as_json: bool) -> None:
    """List the code systems and maps in the lock."""
    known = load_ontologies()
    rows: list[dict[str, Any]] = [
        {
            "id": manifest.id,
            "title": manifest.title,
            "content": manifest.content,
            "redistributable": manifest.licence.redistributable,
            "rows": max((table.rows for table in manifest.tables), default=0),
        }
        for manifest in known.manifests
    ]
    if as_json:
        print_json(rows)
        return
    print_table(("id", "rows", "content", "title"), [(r["id"], r["rows"], r["content"], r["title"]) for r in rows])
    print(f"lock {known.lock_id}", file=sys.stderr)


@command.command("show", epilog=examples("fhir-features ontology show icd10cm@FY2026"))
@click.argument("artifact", shell_complete=completing.artifacts)
def show_artifact(artifact: str) -> None:
    """Show the manifest of one artifact, such as icd10cm@FY2026, as JSON."""
    for manifest in load_ontologies().manifests:
        if manifest.id == artifact:
            print_json(manifest.model_dump(mode="json", exclude_none=True))
            return
    raise UsageError(f"there is no artifact '{artifact}' in the lock: see `fhir-features ontology list`")


@command.command("import", epilog=examples("fhir-features ontology import rf2 SnomedCT_release.zip --dry-run"))
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--version", help="The version, for a release that does not say it.")
@click.option("--dry-run", is_flag=True, help="Check the release and count its rows, but write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {id, tables: {name: rows}, content_sha256}.")
def import_release(kind: str, path: Path, version: str | None, dry_run: bool, as_json: bool) -> None:
    """Import an official release into the folder of FHIR_FEATURES_ONTOLOGIES.

    PATH is the release as its publisher ships it: a folder, a file or a zip. It is imported whole or not at all, and
    counts from the next `fhir-features ontology lock`.
    """
    from fhir_features.ontology import importers

    home = _own_folder()
    with working("ontology import") as work:
        manifests = importers.import_release(kind, path, home, version, work.step, dry_run)
        work.done(sum(table.rows for each in manifests for table in each.tables), "rows read")
    if as_json:
        print_json([_imported_row(manifest) for manifest in manifests])
        return
    print_table(
        ("id", "table", "rows"),
        [(manifest.id, table.name, table.rows) for manifest in manifests for table in manifest.tables],
    )


@command.command("verify", epilog=examples("fhir-features ontology verify"))
@click.option("--json", "as_json", is_flag=True, help="Print a list of {id, content_sha256}.")
def verify(as_json: bool) -> None:
    """Recompute the hash of every table in the lock. Ends with code 30 at the first that differs."""
    found = []
    with working("ontology verify") as work:
        known = load_ontologies()
        for number, manifest in enumerate(known.verify(), start=1):
            work.progress("ontologies", "artifacts", number, len(known.manifests))
            found.append({"id": manifest.id, "content_sha256": manifest.content_sha256})
        work.done(len(found), "artifacts")
    if as_json:
        print_json(found)
        return
    print_table(("id", "content sha256"), [(row["id"], row["content_sha256"]) for row in found])


@command.command("lock", epilog=examples("fhir-features ontology lock --dry-run"))
@click.option("--dry-run", is_flag=True, help="Print what would change, but write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print {lock_id, artifacts, added: [id], removed: [id]}.")
def lock(dry_run: bool, as_json: bool) -> None:
    """Write the lock over the shipped artifacts and all that were imported into FHIR_FEATURES_ONTOLOGIES.

    Prints what it has that the lock before it had not, or had with other content (+), and the reverse (-).
    """
    from fhir_features.ontology.artifacts import lock_changes, make_lock, write_lock

    home = _own_folder()
    made = make_lock(home)
    added, removed = lock_changes(home, made)
    if not dry_run:
        write_lock(home, made)
    if as_json:
        found = {"lock_id": made.id, "artifacts": len(made.artifacts), "added": added, "removed": removed}
        print_json(found)
        return
    print_table(("change", "id"), [(sign, name) for sign, names in (("+", added), ("-", removed)) for name in names])
    print(f"lock {made.id}, {len(made.artifacts)} artifacts", file=sys.stderr)


@command.command("diff", epilog=examples("fhir-features ontology diff icd10cm@FY2025 icd10cm@FY2026"))
@click.argument("old", shell_complete=completing.artifacts)
@click.argument("new", shell_complete=completing.artifacts)
@click.option("--json", "as_json", is_flag=True, help="Print a list of {code, kind, before, after, successors}.")
def diff(old: str, new: str, as_json: bool) -> None:
    """List what changed between two releases, such as icd10cm@FY2025 and icd10cm@FY2026, or two versions of a map.

    A code is added or retired if one may use it (bill it) in one of the releases alone.
    """
    from fhir_features.ontology.diff import GAINED, LOST

    changes = load_ontologies().changes(old, new)
    if as_json:
        print_json(changes)
        return
    print_table(
        ("code", "change", "before", "after", "successors"),
        [(c.code, c.kind, c.before, c.after, " ".join(c.successors) or None) for c in changes],
    )
    gained, lost = (sum(change.kind in kinds for change in changes) for kinds in (GAINED, LOST))
    what = "pairs" if "__" in new else "usable codes"
    print(f"{gained:,} {what} gained, {lost:,} lost", file=sys.stderr)


@command.command("impact", epilog=examples("fhir-features ontology impact icd10cm@FY2025 icd10cm@FY2026"))
@click.argument("old", shell_complete=completing.artifacts)
@click.argument("new", shell_complete=completing.artifacts)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a list of {view, feature, concepts, gained, lost, retired, rows, patients}.",
)
@click.pass_obj
def show_impact(config_path: str, old: str, new: str, as_json: bool) -> None:
    """Say what a new release does to each concept set of each feature: codes gained and lost, successors missed.

    `rows` and `patients` of the warehouse have one of the codes that are gained, lost or retired. Ends with code 1 if
    anything changes.
    """
    known = load_ontologies()
    defined = list(_concept_sets(config_path))
    found = known.impacts([concepts for _, _, concepts in defined], old, new)
    affected = _affected(config_path, known, found)
    if as_json:
        rows = zip(defined, found, affected, strict=True)
        print_json([_impact_row(*defines, change, data) for defines, change, data in rows])
    else:
        _print_impacts(defined, found, affected)
    if any(change.changes_something for change in found):
        sys.exit(1)


@command.command(
    "unmapped", epilog=examples("fhir-features ontology unmapped", "fhir-features ontology unmapped --html")
)
@click.option("--json", "as_json", is_flag=True, help="Print {covered: [...], unmapped: [...], frequent: [...]}.")
@click.option("--html", "as_html", is_flag=True, help="Print an HTML page that needs nothing else.")
@click.pass_obj
def unmapped(config_path: str, as_json: bool, as_html: bool) -> None:
    """Report how much of the warehouse is understood, by system, site and resource type, and which codes are not.

    The codes are ranked by the rows that have them.
    """
    from fhir_features.config import load_config
    from fhir_features.lake import code_counts, reading
    from fhir_features.ontology.coverage import code_coverage

    known = load_ontologies()
    with reading(load_config(config_path).warehouse.path / "lake") as con:
        codings = con.execute(
            "SELECT * EXCLUDE (store_seq) FROM lake.codings ORDER BY code_id, ordinal"
        ).to_arrow_table()
        report = code_coverage(codings, known.resolve_dictionary(codings), code_counts(con))
    if as_json or as_html:
        print(report.json() if as_json else report.html(), end="")
        return
    print_table(
        ("system", "site", "type", "rows", "resolved", "percent", "patients"),
        [dataclasses.astuple(covered)[:7] for covered in report.covered],
    )
    print_table(
        ("rows", "system", "code", "display", "site", "type", "why", "patients"),
        [dataclasses.astuple(code) for code in report.unmapped],
    )
    if not report.unmapped:
        print("every code stands for a concept" if report.covered else "the lake has no codes yet", file=sys.stderr)


@command.command("search", epilog=examples("fhir-features ontology search 'type 2 diabetes' --system icd10cm"))
@click.argument("term")
@click.option("--system", help="Only one code system, such as icd10cm.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {system, code, name, artifact}.")
def search(term: str, system: str | None, as_json: bool) -> None:
    """Find concepts by the words of their names."""
    found = load_ontologies().search(term, system)
    if as_json:
        rows = [{**hit.concept._asdict(), "name": hit.name, "artifact": hit.artifact} for hit in found]
        print_json(rows)
        return
    print_table(("concept", "name", "artifact"), [(str(hit.concept), hit.name, hit.artifact) for hit in found])


@command.command("resolve", epilog=examples("fhir-features ontology resolve icd10cm E11.9 --on 2024-03-05"))
@click.argument("system")
@click.argument("code")
@click.option("--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="Only what holds on this date of coding.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="A list of {code_id, valid_from, valid_to, rank, system, code, display, status, via, flags, candidates}.",
)
def resolve(system: str, code: str, day: dt.datetime | None, as_json: bool) -> None:
    """Say what a code stands for, and when. SYSTEM is a short name, a URI or an OID."""
    known = load_ontologies()
    rows = known.resolve_code(system, code, day.date() if day else None)
    retired = {row.concept for row in rows if row.concept and row.status == "retired"}
    candidates: dict[Concept | None, list[tuple[str, Concept]]] = {code: known.candidates(code) for code in retired}
    if as_json:
        found = [
            {
                **dataclasses.asdict(row),
                "candidates": [str(code) for _, code in candidates.get(row.concept, ())],
            }
            for row in rows
        ]
        print_json(found)
        return
    print_table(
        ("from", "to", "rank", "status", "concept", "name", "via", "flags"),
        [
            (
                row.valid_from,
                row.valid_to,
                row.rank,
                row.status,
                str(row.concept) if row.concept else None,
                row.display,
                row.via,
                ", ".join(row.flags) or None,
            )
            for row in rows
        ],
    )
    print_table(
        ("retired", "successor", "by"),
        [(str(code), str(successor), kind) for code in sorted(retired) for kind, successor in candidates[code]],
    )


def _own_folder() -> Path:
    home = os.environ.get(HOME_VARIABLE)
    if not home:
        raise UsageError(f"imports need a folder of their own: name it in the environment as {HOME_VARIABLE}")
    return Path(home)


def _concept_sets(config_path: str) -> Iterator[tuple[str, str, ConceptSet]]:
    """The view, the feature and each concept set that it rests on, those in its expressions too."""
    from fhir_features.features.compile import leaves
    from fhir_features.store import FeatureStore

    for view in FeatureStore(config_path).views.values():
        for feature in view.features:
            sets = [getattr(getattr(value, "rows", None), "concepts", None) for value in leaves(feature.value)]
            for concepts in dict.fromkeys(found for found in sets if found is not None):
                yield view.name, feature.name, concepts


def _affected(config_path: str, known: Ontologies, impacts: Sequence[Impact]) -> list[tuple[int, int]]:
    """The rows and patients that each impact concerns, under the lock that the warehouse was resolved under."""
    from fhir_features.config import load_config
    from fhir_features.lake import reading, rows_and_patients

    lake = load_config(config_path).warehouse.path / "lake"
    if not lake.exists():
        print("the warehouse is empty: nothing is said of rows and patients", file=sys.stderr)
        return [(0, 0)] * len(impacts)
    with reading(lake) as con:
        return [
            rows_and_patients(
                con,
                known.lock_id,
                [(c.system, c.code) for c in (*each.gained, *each.lost, *(gone.concept for gone in each.retired))],
            )
            for each in impacts
        ]


def _imported_row(manifest: Manifest) -> dict[str, object]:
    return {
        "id": manifest.id,
        "tables": {table.name: table.rows for table in manifest.tables},
        "content_sha256": manifest.content_sha256,
    }


def _impact_row(
    view: str, feature: str, concepts: ConceptSet, found: Impact, data: tuple[int, int]
) -> dict[str, object]:
    return {
        "view": view,
        "feature": feature,
        "concepts": str(concepts),
        "gained": [str(concept) for concept in found.gained],
        "lost": [str(concept) for concept in found.lost],
        "retired": [
            {"concept": str(retired.concept), "missed": [str(concept) for concept in retired.missed]}
            for retired in found.retired
        ],
        "rows": data[0],
        "patients": data[1],
    }


def _print_impacts(
    defined: Sequence[tuple[str, str, ConceptSet]], found: Sequence[Impact], affected: Sequence[tuple[int, int]]
) -> None:
    of_features = [(f"{view}:{name}", str(concepts)) for view, name, concepts in defined]
    print_table(
        ("feature", "gained", "lost", "retired", "rows", "patients", "concepts"),
        [
            (feature, len(change.gained), len(change.lost), len(change.retired), *data, concepts)
            for (feature, concepts), change, data in zip(of_features, found, affected, strict=True)
        ],
    )
    print_table(
        ("feature", "change", "code", "successors that would be missed"),
        [
            (feature, *row)
            for (feature, _), change in zip(of_features, found, strict=True)
            for row in _changed_codes(change)
        ],
    )


def _changed_codes(change: Impact) -> Iterator[tuple[str, str, str | None]]:
    for kind, concepts in (("gained", change.gained), ("lost", change.lost)):
        yield from ((kind, str(concept), None) for concept in concepts)
    for retired in change.retired:
        yield "retired", str(retired.concept), " ".join(map(str, retired.missed)) or None
