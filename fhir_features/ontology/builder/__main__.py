"""`python -m fhir_features.ontology.builder [DOWNLOADS]`: make all shipped artifacts, release diffs and the lock."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from fhir_features.ontology.artifacts import make_lock, write_lock
from fhir_features.ontology.builder import authored, groupers, icd9cm, icd10cm, ucum
from fhir_features.ontology.builder.sources import Sources
from fhir_features.ontology.catalog import Catalog
from fhir_features.ontology.diff import write_changes
from fhir_features.ontology.systems import shipped_folder


def main() -> None:
    """Build every artifact below the checkout's `ontologies/` and write the lock."""
    home = shipped_folder()
    sources = Sources(Path(sys.argv[1] if len(sys.argv) > 1 else "build/ontology-sources"))
    connection = duckdb.connect()
    manifests = [
        *icd10cm.build(connection, home, sources),
        *icd9cm.build(connection, home, sources),
        *groupers.build(connection, home, sources),
        *authored.build(connection, home),
    ]
    for manifest in manifests:
        print(f"{manifest.id}  {manifest.content_sha256}")
    ucum.build(home)
    lock = make_lock(home)
    write_lock(home, lock)
    write_changes(Catalog(home, lock), home, "icd10cm")
    print(f"lock  {lock.id}")


main()
