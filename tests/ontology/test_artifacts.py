"""Are the shipped artifacts what they claim to be, and may they be passed on?"""

import json
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from releases import rrf

from fhir_features.cli.ontology import command
from fhir_features.errors import OntologyError, UsageError
from fhir_features.ontology import Change, Ontologies, concept_set, load_ontologies, ontologies_under
from fhir_features.ontology.artifacts import LOCK_FILE, found_manifests, make_lock, read_lock, write_lock
from fhir_features.ontology.diff import GAINED, LOST, changes_text
from fhir_features.ontology.systems import HOME_VARIABLE, Concept, shipped_folder, ucum_file


def test_the_lock_names_all_that_is_shipped() -> None:
    assert read_lock(shipped_folder()) == make_lock(shipped_folder())


def test_every_hash_is_that_of_the_content(ontologies: Ontologies) -> None:
    assert len(list(ontologies.verify())) == len(ontologies.manifests)


def test_all_that_git_tracks_may_be_passed_on() -> None:
    checkout = shipped_folder().parent
    if not (checkout / ".git").exists():
        pytest.skip("this is no checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "ontologies"], cwd=checkout, capture_output=True, text=True, check=True
    )
    manifests = [checkout / name for name in tracked.stdout.splitlines() if name.endswith("/manifest.json")]
    facts = [json.loads(file.read_text(encoding="utf-8")) for file in manifests]
    assert [fact["id"] for fact in facts if not fact["licence"]["redistributable"]] == []
    assert all(fact["licence"]["attribution"] for fact in facts)
    tables = {name for name in tracked.stdout.splitlines() if Path(name).parts[1] in ("codesystem", "map")}
    described = {
        str((file.parent / table["file"]).relative_to(checkout))
        for file, fact in zip(manifests, facts, strict=True)
        for table in fact["tables"]
    }
    undescribed = {
        name for name in tables - described if "/changes/" not in name and not name.endswith("manifest.json")
    }
    assert undescribed == set()


@pytest.mark.parametrize(
    ("year", "rows", "billable"),
    [
        (2019, 94_444, 71_932),
        (2020, 94_765, 72_184),
        (2021, 95_358, 72_621),
        (2022, 95_528, 72_750),
        (2023, 96_795, 73_674),
        (2024, 97_296, 74_044),
        (2025, 97_584, 74_260),
        (2026, 98_186, 74_719),
    ],
)
def test_icd10cm_has_the_official_numbers_of_codes(ontologies: Ontologies, year: int, rows: int, billable: int) -> None:
    sql = "SELECT count(*), count(*) FILTER (selectable)\nFROM concept\nWHERE artifact = $artifact"
    assert ontologies._catalog.query(sql, {"artifact": f"icd10cm@FY{year}"}) == [(rows, billable)]


@pytest.mark.parametrize(
    ("year", "gained", "lost"),
    [
        (2020, 273, 21),
        (2021, 496, 59),
        (2022, 162, 33),
        (2023, 1218, 294),
        (2024, 395, 25),
        (2025, 252, 36),
        (2026, 487, 28),
    ],
)
def test_the_diffs_have_the_known_numbers_and_are_those_in_the_repository(
    ontologies: Ontologies, year: int, gained: int, lost: int
) -> None:
    changes = ontologies.changes(f"icd10cm@FY{year - 1}", f"icd10cm@FY{year}")
    assert (count(changes, GAINED), count(changes, LOST)) == (gained, lost)
    file = shipped_folder() / f"codesystem/icd10cm/changes/FY{year - 1}__FY{year}.tsv"
    assert file.read_text(encoding="utf-8") == changes_text(changes)


def count(changes: list[Change], kinds: frozenset[str]) -> int:
    return sum(change.kind in kinds for change in changes)


def test_a_diff_says_what_kind_of_change_it_was(ontologies: Ontologies) -> None:
    changes = {(change.code, change.kind): change for change in ontologies.changes("icd10cm@FY2025", "icd10cm@FY2026")}
    assert changes["G35", "billable_to_header"].successors[0] == "G35.A"
    assert changes["E11.A", "added"].after == "Type 2 diabetes mellitus without complications in remission"
    assert ("S30.1XXA", "retired") in changes
    with pytest.raises(UsageError, match="did you mean 'icd10cm@FY2026'"):
        ontologies.changes("icd10cm@FY2025", "icd10cm@FY2062")
    with pytest.raises(UsageError, match="different code systems"):
        ontologies.changes("icd10cm@FY2025", "icd9cm@v32")


def test_a_new_release_can_add_to_a_set_or_slip_past_it(ontologies: Ontologies) -> None:
    diabetes, sclerosis, tension = ontologies.impacts(
        [concept_set("icd10cm:E11", descendants=True), concept_set("icd10cm:G35"), concept_set("icd10cm:I10")],
        "icd10cm@FY2025",
        "icd10cm@FY2026",
    )
    assert [str(concept) for concept in diabetes.gained] == ["icd10cm:E11.A"]
    assert sclerosis.retired[0].concept == Concept("icd10cm", "G35")
    assert Concept("icd10cm", "G35.A") in sclerosis.retired[0].missed
    assert (diabetes.changes_something, sclerosis.changes_something, tension.changes_something) == (True, True, False)


def test_a_diff_of_a_map_lists_the_pairs_that_one_version_has(ontologies: Ontologies) -> None:
    changes = ontologies.changes("icd10cm__hcc28@PY2026", "icd10cm__hcc28@PY2027")
    assert (len(changes), {change.kind for change in changes}) == (18, {"unmapped"})
    assert (changes[0].code, changes[0].before) == ("C83.39", "20")
    with pytest.raises(UsageError, match="different code systems"):
        ontologies.changes("icd10cm__hcc28@PY2026", "icd10cm__hcc24@PY2026")


def test_a_release_of_a_classification_comes_with_its_members(ontologies: Ontologies) -> None:
    before = ontologies.up_to("hcc28@PY2025")
    assert not {"hcc28@PY2026", "icd10cm__hcc28@PY2026"} & {manifest.id for manifest in before.manifests}
    (lymphoma,) = ontologies.impacts([concept_set("hcc28:20")], "hcc28@PY2025", "hcc28@PY2026")
    changes = ontologies.changes("icd10cm__hcc28@PY2025", "icd10cm__hcc28@PY2026")
    gained = {change.code for change in changes if change.after == "20"}
    assert {concept.code for concept in lymphoma.gained} >= gained != set()


def test_a_release_changes_the_digest_of_the_sets_that_it_touches_alone(ontologies: Ontologies) -> None:
    before = ontologies.up_to("icd10cm@FY2025")
    assert before.lock_id != ontologies.lock_id
    for concept, touched in (("icd10cm:I10", False), ("icd10cm:E11", True)):
        concepts = concept_set(concept, descendants=True)
        assert (before.digest(concepts) != ontologies.digest(concepts)) == touched


@pytest.mark.parametrize(
    ("concept", "member", "other"),
    [
        ("ccsr:END002", "E11.9", "E11.65"),
        ("elixhauser:DIAB_UNCX", "E11.9", "E11.65"),
        ("hcc28:38", "E11.9", "I10"),
        ("hcc24:19", "E11.9", "E11.65"),
        ("ccir:chronic", "E11.9", "J20.9"),
    ],
)
def test_a_class_stands_for_its_codes(ontologies: Ontologies, concept: str, member: str, other: str) -> None:
    ontologies.check(concept_set(concept))
    codes = {found.code for found in ontologies.expand(concept_set(concept))}
    assert member in codes
    assert other not in codes


def own_home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    artifact = "codesystem/cvx/starter-1"
    shutil.copytree(shipped_folder() / artifact, home / "codesystem/cvx/copy")
    manifest = home / "codesystem/cvx/copy/manifest.json"
    manifest.write_text(manifest.read_text().replace("starter-1", "copy"), encoding="utf-8")
    write_lock(home, make_lock(home))
    return home


def test_an_artifact_that_was_changed_is_found_out(tmp_path: Path) -> None:
    home = own_home(tmp_path)
    table = home / "codesystem/cvx/copy/concept.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("MMR", "MRM"), encoding="utf-8")
    with pytest.raises(OntologyError, match=r"cvx@copy: .*concept.tsv differs from its manifest"):
        list(load_ontologies(home).verify())


def test_an_artifact_that_is_not_what_was_locked_is_refused(tmp_path: Path) -> None:
    home = own_home(tmp_path)
    lock = home / LOCK_FILE
    (external,) = [artifact for artifact in read_lock(home).artifacts if artifact.location == "external"]
    lock.write_text(
        lock.read_text().replace(
            f'external","content_sha256":"{external.content_sha256}', 'external","content_sha256":"0'
        )
    )
    with pytest.raises(OntologyError, match="cvx@copy is not the content that was locked"):
        _ = load_ontologies(home).manifests


def test_another_ucum_than_the_locked_one_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = own_home(tmp_path)
    other = tmp_path / "ucum-essence.xml"
    other.write_bytes(ucum_file().read_bytes().replace(b"yotta", b"jotta"))
    monkeypatch.setattr("fhir_features.ontology.artifacts.ucum_file", lambda: other)
    with pytest.raises(OntologyError, match="written for other resolver rules, code systems or units"):
        load_ontologies(home)
    write_lock(home, make_lock(home))
    with pytest.raises(OntologyError, match=r"ucum@2\.2: ucumvert holds another version of UCUM"):
        list(load_ontologies(home).verify())


def test_a_folder_without_a_lock_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OntologyError, match="write it with `fhir-features ontology lock`"):
        load_ontologies(tmp_path)


def test_the_manifests_of_a_home_are_found(tmp_path: Path) -> None:
    assert [manifest.id for manifest in found_manifests(own_home(tmp_path))] == ["cvx@copy"]


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(command, list(arguments), env=environment)


def test_the_command_line_lists_and_shows() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert "icd10cm@FY2026" in {row["id"] for row in listed}
    assert json.loads(run("show", "icd10cm@FY2026").stdout)["effective_from"] == "2025-10-01"
    assert isinstance(run("show", "nothing").exception, UsageError)


def test_the_command_line_resolves_on_a_date() -> None:
    (row,) = json.loads(run("resolve", "icd10cm", "G35", "--on", "2026-01-15", "--json").stdout)
    assert (row["status"], row["candidates"][0]) == ("retired", "icd10cm:G35.A")
    assert "valid" in run("resolve", "icd10cm", "G35", "--on", "2024-01-15").stdout


def test_the_command_line_finds_and_compares() -> None:
    assert "icd10cm:E11.A" in run("search", "diabetes remission").stdout
    compared = run("diff", "icd10cm@FY2025", "icd10cm@FY2026")
    assert compared.stdout.split("\n")[0].split() == ["code", "change", "before", "after", "successors"]
    assert "487 usable codes gained, 28 lost" in compared.stderr


def test_the_command_line_locks_what_was_imported(tmp_path: Path) -> None:
    home = own_home(tmp_path)
    (home / LOCK_FILE).unlink()
    tried = json.loads(run("lock", "--dry-run", "--json", FHIR_FEATURES_ONTOLOGIES=str(home)).stdout)
    assert "cvx@copy" in tried["added"]
    assert not (home / LOCK_FILE).exists()
    locked = run("lock", FHIR_FEATURES_ONTOLOGIES=str(home))
    assert locked.exit_code == 0
    assert ["+", "cvx@copy"] in [line.split() for line in locked.stdout.splitlines()]
    assert json.loads(run("lock", "--json", FHIR_FEATURES_ONTOLOGIES=str(home)).stdout)["added"] == []
    verified = json.loads(run("verify", "--json", FHIR_FEATURES_ONTOLOGIES=str(home)).stdout)
    assert "cvx@copy" in {row["id"] for row in verified}
    assert isinstance(run("lock", FHIR_FEATURES_ONTOLOGIES="").exception, UsageError)


def test_the_command_line_imports(tmp_path: Path) -> None:
    home = {"FHIR_FEATURES_ONTOLOGIES": str(tmp_path / "home")}
    command_line = ["import", "rrf", str(rrf(tmp_path / "release")), "--version", "20251006", "--json"]
    tried = json.loads(run(*command_line, "--dry-run", **home).stdout)
    assert not list((tmp_path / "home").rglob("manifest.json"))
    assert json.loads(run(*command_line, **home).stdout) == tried
    assert tried[0]["tables"] == {"concept": 5, "designation": 1, "edge": 3, "history": 1}
    assert (tmp_path / "home/codesystem/rxnorm/20251006/manifest.json").exists()


def test_every_command_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/ontologies.md").read_text(encoding="utf-8")
    assert isinstance(command, click.Group)
    assert [name for name in command.commands if f"`ontology {name}" not in page] == []


def test_an_earlier_lock_is_still_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = own_home(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    before = load_ontologies().lock
    (home / LOCK_FILE).write_text(make_lock(shipped_folder()).text(), encoding="utf-8")
    assert load_ontologies().lock != before
    assert ontologies_under(before).lock_id == before.id
    assert "cvx@copy" in {manifest.id for manifest in ontologies_under(before).manifests}


def test_what_of_an_earlier_lock_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = own_home(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    before = load_ontologies().lock
    (external,) = [artifact for artifact in before.artifacts if artifact.location == "external"]
    shutil.rmtree(home / external.folder)
    with pytest.raises(OntologyError, match=f"needs cvx@copy with the hash {external.content_sha256}, which is gone"):
        ontologies_under(before)
    with pytest.raises(OntologyError, match="needs resolver rules"):
        ontologies_under(before.model_copy(update={"facts_sha256": "0" * 64}))
