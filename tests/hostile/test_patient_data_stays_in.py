"""What resources say of people is in the warehouse, and in nothing that tells of it; and the warehouse is its owner's.

Planted is a word of its own at every place of a resource that holds a text, but for ids and what refers to them: those
are what `quarantine show`, `get` and `explain` are asked for.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from project import NOW, Project

from fhir_features.cli import cli
from fhir_features.config import load_config
from fhir_features.ontology.coverage import Coverage, Covered
from fhir_features.private import owner_only
from fhir_features.report import Disclosure
from fhir_features.report.lake_facts import mapped

WORD = "Mustermann"
# What FHIR lets a resource of any type have, and data of hospitals has: https://hl7.org/fhir/R4/domainresource.html
ANY = {
    "text": {"status": "generated", "div": "<div>x</div>"},
    "contained": [{"resourceType": "Practitioner", "name": [{"family": "x", "given": ["x"]}]}],
    "extension": [{"url": "urn:x", "valueString": "x", "valueAddress": {"line": ["x"], "city": "x"}}],
    "identifier": [{"system": "urn:x", "value": "x", "type": {"text": "x"}}],
    "note": [{"text": "x", "authorString": "x"}],
    "language": "x",
    "implicitRules": "urn:x",
}
PERSON = {
    "name": [{"family": "x", "given": ["x"], "text": "x", "prefix": ["x"]}],
    "telecom": [{"system": "phone", "value": "x"}],
    "address": [{"line": ["x"], "city": "x", "postalCode": "x", "text": "x"}],
    "contact": [{"name": {"family": "x"}, "telecom": [{"value": "x"}]}],
    "photo": [{"url": "x", "title": "x", "data": "x"}],
}
KEYS = ("id", "reference", "resourceType")


def texts(element: Any) -> Iterator[tuple[Any, Any]]:
    """Each place of a text in a JSON value that is not an id, as what holds it and the key it has there."""
    places = element.items() if isinstance(element, dict) else enumerate(element) if isinstance(element, list) else ()
    for key, value in places:
        if isinstance(value, str) and key not in KEYS:
            yield element, key
        yield from texts(value)


def planted(resources: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Resources of each type with a word in one place each, whatever it breaks, and in all places that hold free text;
    and how many words that are."""
    of_type: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for resource in resources:
        of_type[resource["resourceType"]].append(resource)
    models = [(kind, model) for kind, several in of_type.items() for model in several[:3]]
    out, count = [], 0
    for kind, model in models:
        whole = {**model, **ANY, **(PERSON if kind == "Patient" else {})}
        for number in range(len(list(texts(whole)))):
            changed = copy.deepcopy(whole)
            holder, key = list(texts(changed))[number]
            holder[key] = f"{WORD}{count}"
            out.append({**changed, "id": f"planted-{count}"})
            count += 1
        out.append({**copy.deepcopy(whole), "id": f"free-{count}"})
        for holder, key in texts(out[-1]):
            if key in (
                "div",
                "display",
                "text",
                "valueString",
                "family",
                "value",
                "line",
                "city",
                "title",
            ) or isinstance(holder, list):
                holder[key] = f"{WORD}{count}"
                count += 1
    # A type that is none, and a subject that is no reference, are texts too.
    strange = [
        {"resourceType": WORD, "id": "a"},
        {"resourceType": "Observation", "id": "b", "subject": {"reference": WORD}},
    ]
    return [*out, *strange], count + 2


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], int]:
    """A project that received such resources: its folder, what each command said at any verbosity, and their number."""
    folder = tmp_path_factory.mktemp("told")
    project = Project(folder)
    resources, count = planted(project.resources)
    records: list[str] = []
    handler = logging.Handler(logging.NOTSET)
    handler.emit = lambda record: records.append(f"{record.getMessage()} {record.exc_info}")  # type: ignore[method-assign]
    before = logging.getLogger().level
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(1)
    said: dict[str, str] = {}

    def run(*words: str) -> None:
        done = CliRunner().invoke(cli, ["--config", str(folder), *words])
        said[" ".join(words[:2])] = (
            f"{done.output}{done.stderr}{done.exception!r}{getattr(done.exception, '__context__', '')!r}"
        )

    (folder / "north" / f"{WORD}.ndjson").write_text(
        "\n".join(json.dumps(each) for each in [*project.resources, *resources])
    )
    bundle = {"resourceType": "Bundle", "entry": [{"resource": each, "fullUrl": f"urn:{WORD}"} for each in resources]}
    (folder / "north" / f"{WORD}.json").write_text(json.dumps(bundle))
    (folder / "north" / f"cut-{WORD}.ndjson").write_text(json.dumps(resources[0])[:-20])
    (folder / "rows.csv").write_text(f"patient_id,event_timestamp\n{project.resources[0]['id']},{NOW.isoformat()}\n")
    commands = (
        ("doctor",),
        ("pull",),
        ("normalize", "--validate", "all"),
        ("normalize", "--json"),
        ("quarantine", "list"),
        ("quarantine", "show"),
        ("quarantine", "retry"),
        ("features", "list", "--json"),
        ("build", "--json"),
        ("get", str(folder / "rows.csv"), "--features", "diabetes", "--output", str(folder / "training.parquet")),
        ("reproduce", str(folder / "training.parquet.receipt.json")),
        ("report", "--output", str(folder / "report.html")),
        ("reconcile", "ward"),
        ("materialize",),
    )
    for words in commands:
        if words == ("materialize",):
            from feast.repo_config import load_repo_config
            from feast.repo_operations import apply_total

            repo = folder / "feature_repo"
            for name in ("features", "feast_objects"):
                sys.modules.pop(name, None)
            sys.path.insert(0, str(repo))
            apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)
            sys.path.remove(str(repo))
        run(*words)
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(before)
    said["logs"] = "\n".join(records)
    return folder, said, count


def test_no_command_says_any_of_it(told: tuple[Path, dict[str, str], int]) -> None:
    _, said, count = told
    assert count >= 500
    assert {name: text[max(text.find(WORD) - 200, 0) :][:400] for name, text in said.items() if WORD in text} == {}
    assert "received" in said["normalize --validate"] or "quarantined" in said["normalize --validate"]


def test_no_file_that_tells_of_the_data_has_any_of_it(told: tuple[Path, dict[str, str], int]) -> None:
    folder, _, _ = told
    outside = [folder / "training.parquet.receipt.json", folder / "feature_repo", folder / "warehouse" / "views"]
    files = [file for each in outside for file in ([each] if each.is_file() else each.rglob("*")) if file.is_file()]
    files += list(folder.glob("report.html"))
    assert any(file.name == "registry.db" for file in files)
    assert [file for file in files if WORD.encode() in file.read_bytes() and file.name != "online.db"] == []
    assert [path for path in (folder / "warehouse").rglob("*") if WORD in str(path)] == []


def test_what_is_written_is_its_owners_alone(told: tuple[Path, dict[str, str], int]) -> None:
    folder, _, _ = told
    written = [*(folder / "warehouse").rglob("*"), *folder.glob("training.*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in written}
    assert len(modes) > 20
    assert {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    online = folder / "feature_repo" / "data" / "online.db"
    assert stat.S_IMODE(online.stat().st_mode) & 0o077 == 0


def test_a_system_that_few_patients_have_is_not_named() -> None:
    def named(system: str, patients: int) -> str:
        coverage = Coverage((Covered(system, "north", "Observation", 99, 0, 0.0, patients, 0, 0),), (), ())
        (row,) = mapped(coverage, Disclosure(10))
        return row.system

    told = [named(WORD, 9), named(WORD, 10), named("loinc", 1), named("http://snomed.info/sct", 1)]
    assert told == ["another", WORD, "loinc", "http://snomed.info/sct"]


def test_a_warehouse_that_everybody_may_enter_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "fhir_features.toml").write_text("")
    warehouse = tmp_path / "warehouse"
    with owner_only():
        warehouse.mkdir()
    load_config(tmp_path)
    warehouse.chmod(0o750)
    load_config(tmp_path)
    warehouse.chmod(0o705)
    with pytest.warns(UserWarning, match=f"everybody on this machine may enter {warehouse}: run 'chmod o-rwx"):
        load_config(tmp_path)


def test_what_is_written_beside_it_is_as_the_user_has_set() -> None:
    before = os.umask(0o022)
    with owner_only():
        pass
    assert os.umask(before) == 0o022
