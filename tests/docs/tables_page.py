"""The tables of the store, from `lake/schema.py` and `lake/ledger.py`: columns and types as they are stated there, and
what the comments there say of them. Run this file to write docs/reference/tables.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from fhir_features.lake import ledger, schema
from fhir_features.lake.table import Table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"
INTRODUCTION = f"""# Tables

Generated from the code: do not edit. The store is a DuckLake (format {schema.FORMAT_VERSION} of this project) under
`warehouse/lake`: Parquet files and a catalog, one commit a run across all tables. Every table is append-only, and
carries `store_seq`, the number of the commit that brought a row. Instants are UTC with microseconds.

```python
from fhir_features import FeatureStore
from fhir_features.lake import create_views, newest_store_seq, reading

with reading(FeatureStore(".").lake) as con:
    create_views(con, newest_store_seq(con))  # views of the same names, as of a commit, with known_to
    print(con.sql("SELECT status, count(*) AS versions FROM observations GROUP BY ALL ORDER BY ALL").fetchall())
```

## Feature tables

`warehouse/features/VIEW/VERSION/*.parquet`, one file a build. The latest row of a patient at or before T is what was
answered at T.

| column | type | |
| --- | --- | --- |
| `site`, `patient_id` | VARCHAR | whom it is about |
| `answered_at` | TIMESTAMPTZ | the instant that is answered: Feast's timestamp |
| `published_at` | TIMESTAMPTZ | when the row was written: Feast's created timestamp |
| `store_seq` | BIGINT | the commit that was read |
| the features | DOUBLE, BIGINT, BOOLEAN, VARCHAR | by their names |

A training set has the columns of the entity frame or spine, in its rows' order, and the features after them.
"""
COMMON = {
    "site": "the organisation: a patient is (site, patient_id)",
    "patient_id": "the FHIR id of the patient",
    "resource_id": "the FHIR id of the resource",
    "resource_type": "the FHIR type of the resource",
    "effective_at": "when it was true of the patient",
    "known_at": "from when this version was what the care team could know",
    "encounter_id": "the encounter that it names",
    "source": "the source in the configuration that it came from",
    "run_id": "the pull that brought it",
    "store_seq": "the commit that brought the row",
    "code_id": "into `codings`",
    "unit_id": "into `units`",
    "version": "versionId, or what stands for it",
    "version_no": "the version's number in the lake",
    "state": "as in the event tables",
    "bucket": "bucket_of(site, patient_id)",
    "row_no": "its place in the run",
    "status": "the FHIR status",
    "code_text": "the free text beside the codes",
    "categories": "the codes of its categories",
    "interpretations": "the codes of its interpretations",
    "absent_reason": "why there is no value",
    "birth_text": "the birth date as written",
    "abatement_text": "as written",
    "replaced_by": "ids of the Patients that a merge put in its place",
    "replaces": "ids of the Patients in whose place it is",
    "type_code_ids": "into `codings`",
    "system": "the code system, by its short name or URI",
    "code": "the code",
    "display": "the name that stands with it",
    "lock_id": "the hash of the ontology lock",
    "valid_from": "from which day of coding; null: always",
    "valid_to": "until before which day",
    "rank": "0 is the canonical concept",
    "via": "how it was found: direct, a successor, a map",
    "flags": "what is to be known of it",
    "ucum": "the UCUM code, or null",
    "file": "the file in the landing",
    "line": "from 1; of a Bundle file the number of the entry",
    "entry": "from 1, of a Bundle that is one line",
    "json_path": "where in the resource",
    "rule": "the rule that it broke",
    "reason": "in words, without a value",
    "watermark": "up to when the source has been seen",
    "closed_at": "when it was closed",
    "received": "resource versions received",
    "normalized": "of them in the event tables",
    "quarantined": "set aside",
    "duplicates": "there already",
    "ignored": "of types that are not normalized",
}


def written() -> str:
    """The page as it is to be."""
    texts: dict[str, str] = {}
    meanings: dict[str, dict[str, str]] = {}
    for module in (schema, ledger):
        _read(Path(module.__file__), texts, meanings)
    names = {id(value): name for module in (ledger, schema) for name, value in vars(module).items()}
    parts = [INTRODUCTION]
    for table in schema.TABLES:
        name = names[id(table)]
        own = {**meanings.get("_EVENT", {}), **meanings.get("_ORIGIN", {}), **meanings[name]}
        parts += [f"## {table.name}\n", *([texts[name] + "\n"] if texts.get(name) else []), *_rows(table, own), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(table: Table, meanings: dict[str, str]) -> list[str]:
    lines = ["| column | type | |", "| --- | --- | --- |"]
    for column, kind in table.columns:
        meaning = (meanings.get(column) or COMMON.get(column, "")).replace("|", "\\|")
        lines.append(f"| `{column}` | {kind} | {meaning} |")
    return lines


def _read(file: Path, texts: dict[str, str], meanings: dict[str, dict[str, str]]) -> None:
    """What the comments of a module say of the columns in each of its constants, and of the constants."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or node.value is None:
            continue
        above = node.lineno - 2
        said: list[str] = []
        while lines[above].startswith("# "):
            said.insert(0, lines[above].removeprefix("# "))
            above -= 1
        texts[target.id] = " ".join(said)
        meanings[target.id] = {}
        for inner in ast.walk(node.value):
            if isinstance(inner, ast.Tuple) and (column := _column(inner)):
                comment = re.search(r"#\s*(.+)$", lines[(inner.end_lineno or inner.lineno) - 1])
                meanings[target.id][column] = comment[1] if comment else ""


def _column(pair: ast.Tuple) -> str | None:
    """The name of the column that a pair of a name and a type states."""
    texts = [each.value for each in pair.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return texts[0] if len(texts) == len(pair.elts) == 2 and texts[1].isupper() else None


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
