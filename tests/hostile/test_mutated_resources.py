"""Whatever comes in place of a resource is normalized, ignored or set aside with a reason, and counted; nothing else.

2,000 mutated resources, always the same ones; by hand 100,000: make fuzz
"""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from hostile.mutations import mutated
from landing import TYPES, at, land, rows, warehouse

from fhir_features.features import FeatureView, condition, medication, observation, patient
from fhir_features.normalize import normalize
from fhir_features.normalize.decode import Decoder
from fhir_features.normalize.dialect import Dialect
from fhir_features.normalize.validation import Validation
from fhir_features.store import FeatureStore
from fhir_features.synthetic import population

CASES = int(os.environ.get("MUTATED_RESOURCES", "2000"))
DIALECT = Dialect(("https://north.example/",), frozenset({"urn:x"}), validity_is_taken=True)
RULES = {
    *("json", "encoding", "type", "resource-type", "subject", "id", "code", "required", "value"),
    *("modifier-extension", "bundle", "deletion", "size", "instant"),
}
# What the lake is asked afterwards, over the codes that the resources had before.
hba1c = observation("loinc:4548-4", unit="%")
VIEW = FeatureView(
    name="hostile",
    entity=patient,
    features=[
        hba1c.last().named("last"),
        hba1c.mean().named("mean"),
        condition("icd10cm:E11", descendants=True).active().named("active"),
        medication("rxnorm:6809", ingredient=True).active(assume="90d").named("on_metformin"),
        patient.age().named("age"),
    ],
)


def lines() -> Iterator[bytes]:
    by_type = defaultdict(list)
    for resource in population(patients=5, seed=1, now=dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)):
        by_type[resource["resourceType"]].append(resource)
    types = sorted(by_type)
    for seed in range(CASES):
        of_type = by_type[types[seed % len(types)]]
        yield mutated(of_type[seed // len(types) % len(of_type)], seed)


def test_the_decoder_takes_every_mutated_resource() -> None:
    decoder, rules, received = Decoder(DIALECT, Validation.ALL), Counter[str](), 0
    for number, line in enumerate(lines(), start=1):
        # As a line of NDJSON, as an entry of a Bundle, and as the resource of one.
        decoder.line(line, (0, 0, number, None))
        decoder.entry(line, (0, 0, number, None))
        decoder.entry(b'{"resource":%s}' % line, (0, 0, number, None))
        if number % 1000 == 0 or number == CASES:
            batch = decoder.batch()
            assert all(batch.quarantine["reason"].to_pylist())
            named = Counter(batch.versions["outcome"].to_pylist())
            assert (
                batch.received
                == batch.quarantine.num_rows + batch.ignored.total() + named["normalized"] + named["deleted"]
            )
            rules.update(batch.quarantine["rule"].to_pylist())
            received += batch.received
    assert received == 3 * CASES
    assert set(rules) <= RULES
    assert min(rules[rule] for rule in ("json", "encoding", "type", "resource-type", "id", "subject")) > 0


def test_they_are_normalized_and_asked_for_as_any(tmp_path: Path) -> None:
    config = warehouse(tmp_path, resource_types=[*TYPES, "Medication"])
    sent = [line for line in lines() if line.strip(b" \t\r")]
    land(config, sent, at("2026-03-20 00:00"))
    (summary,) = normalize(config, validation=Validation.OFF)
    assert summary.received == len(sent)
    assert len(sent) == summary.normalized + summary.quarantined + summary.duplicates + summary.ignored
    assert summary.normalized > CASES / 50
    assert rows(config, "SELECT count(*) FROM lake.quarantine WHERE reason IS NULL") == [(0,)]
    store = FeatureStore(tmp_path)
    patients = pl.DataFrame(
        rows(config, "SELECT DISTINCT patient_id FROM lake.versions WHERE patient_id IS NOT NULL"),
        ["patient_id"],
        orient="row",
    )
    training = store.get_historical_features(patients.with_columns(event_timestamp=at("2026-03-19 00:00")), [VIEW])
    assert training.to_polars().height == patients.height
