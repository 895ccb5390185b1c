"""Where a source gives a correction an id of its own, an identifier that it declares says which result it corrects."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

from landing import at, land, observation, rows, warehouse

from fhir_features.normalize import normalize

ACCESSION = "https://lab.example.org/accession"
RUNS = ("2024-03-11 00:00", "2024-03-12 00:00", "2024-03-13 00:00")
INTERVALS = """
SELECT resource_id, strftime(known_at, '%d %H'), strftime(known_to, '%d %H')
FROM observations
WHERE (known_to > known_at OR known_to IS NULL) AND resource_id LIKE $1
ORDER BY known_at, resource_id"""


def _result(resource_id: str, updated: str, accession: str | None, **more: Any) -> dict[str, Any]:
    meta = {"versionId": "1", "lastUpdated": f"2024-03-{updated.replace(' ', 'T')}:00:00Z"}
    identifier = [{"system": "urn:other", "value": "1"}, {"system": ACCESSION, "value": accession}]
    return observation(resource_id, meta=meta, **({"identifier": identifier} if accession else {}), **more)


def _of(accession: str) -> list[dict[str, Any]]:
    """A preliminary result, the final one and a correction, each with an id of its own."""
    return [
        _result(f"{accession}-b", "05 15", accession, status="preliminary"),
        _result(f"{accession}-a", "07 10", accession),
        _result(f"{accession}-c", "09 10", accession, status="corrected"),
    ]


def _deleted(resource_id: str) -> dict[str, Any]:
    entry = {"request": {"method": "DELETE", "url": f"Observation/{resource_id}"}}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


def test_results_that_share_an_identifier_are_one(tmp_path: Path) -> None:
    """In whichever order they come. A deletion, which does not say its identity, has that of its id."""
    config = warehouse(tmp_path, one_result_by=["urn:none", ACCESSION])
    orders = [[_of(f"r{number}")[place] for place in order] for number, order in enumerate(permutations(range(3)))]
    preliminary, final, _ = _of("gone")
    gone = [[preliminary, final], [_deleted("gone-a")], [preliminary, _result("gone-a", "12 10", None)]]
    for run, received in enumerate(RUNS):
        land(config, [*(order[run] for order in orders), *gone[run]], at(received))
    for summary in normalize(config):
        assert summary.received == summary.normalized + summary.duplicates
    for number in range(len(orders)):
        a, b, c = (f"r{number}-{name}" for name in "abc")
        assert rows(config, INTERVALS, f"r{number}-%") == [
            (b, "05 14", "07 10"),
            (a, "07 10", "09 10"),
            (c, "09 10", None),
        ]
    assert rows(config, INTERVALS, "gone-%") == [
        ("gone-b", "05 14", "07 10"),
        ("gone-a", "07 10", "12 00"),
        ("gone-a", "12 10", None),
    ]


def test_without_a_word_of_the_source_each_id_is_a_result(tmp_path: Path) -> None:
    config = warehouse(tmp_path)
    land(config, _of("r"), at(RUNS[0]))
    normalize(config)
    assert {known_to for *_, known_to in rows(config, INTERVALS, "r-%")} == {None}
