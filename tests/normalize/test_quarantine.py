"""What is set aside can be counted, found, and tried again; what then passes is as if it had passed at once."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from landing import at, land, observation, patient, rows, warehouse

from fhir_features.cli import cli
from fhir_features.config import Config
from fhir_features.errors import LakeError, LandingError
from fhir_features.lake import EVENT_TABLES, create_views, newest_store_seq, reading
from fhir_features.normalize import decode, normalize, retry, set_aside

RUNS = ("2024-03-06 00:00", "2024-03-08 00:00", "2024-03-10 00:00")
UNREAD = {"modifierExtension": [{"url": "urn:unread"}]}
MENDED = {"known_modifiers": ["urn:unread"]}
# A category whose results are known later than what cannot be read, of which no category is known.
CLOCKS = {"known_at": {"Observation/laboratory": "received"}}


@contextmanager
def unnamed() -> Iterator[None]:
    """A package with a fault: of what has `urn:unnamed` in it, it can read nothing at all."""
    with pytest.MonkeyPatch.context() as patch:
        resource = decode.Decoder._resource

        def faulty(self: Any, line: bytes, place: Any) -> Any:
            if b"urn:unnamed" in line and b'"entry"' not in line:
                return decode.Rejected(decode.Name(), "fault", None, "not understood")
            return resource(self, line, place)

        patch.setattr(decode.Decoder, "_resource", faulty)
        yield


def category(system: str, code: str) -> dict[str, Any]:
    return {"category": [{"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}]}


def stay(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": id, "period": {"start": "2024-03-04", "end": "2024-03-07"}, **more}


def diagnosis(id: str, encounter: str, **more: Any) -> dict[str, Any]:
    recorded = {"encounter": {"reference": f"Encounter/{encounter}"}, "recordedDate": "2024-03-04"}
    return {
        "resourceType": "Condition",
        "id": id,
        **category("condition-category", "encounter-diagnosis"),
        **recorded,
        **more,
    }


def order(id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "MedicationRequest", "id": id, "intent": "order", "authoredOn": "2024-03-05", **more}


def history(seed: int) -> list[list[dict[str, Any]]]:
    """Runs of versions of results, diagnoses, orders and stays, in no order, some of them repeated, a third unread."""
    dice = random.Random(seed)
    runs: list[list[dict[str, Any]]] = [[patient(f"p{n}") for n in range(3)], []]
    for number in range(60):
        subject = {"subject": {"reference": f"Patient/p{number % 3}"}}
        for version, day_hour in enumerate(sorted(dice.sample(range(1, 60), 3)), start=1):
            updated = f"2024-03-{5 + day_hour // 24:02}T{day_hour % 24:02}:00:00Z"
            meta = {"versionId": str(version), "lastUpdated": None if number % 5 == 0 else updated}
            common = {"meta": {key: value for key, value in meta.items() if value}, **subject}
            laboratory = category("observation-category", "laboratory") if dice.random() < 0.5 else {}
            lines = [
                observation(f"o{number}", **common, **laboratory, valueQuantity={"value": version}),
                diagnosis(
                    f"c{number}", f"e{number}", **common, **dice.choice([{}, {"abatementDateTime": "2024-03-06"}])
                ),
                order(f"m{number}", **common, status=dice.choice(["active", "stopped"])),
            ]
            for line in lines:
                fault = dice.choice([{}, {}, {}, {}, UNREAD, UNREAD, {"implicitRules": "urn:unnamed"}])
                for _ in range(dice.choice([1, 1, 2])):
                    runs[dice.randrange(2)].append(line | fault)
            runs[dice.randrange(2)].append(
                stay(f"e{number}", **common, status=dice.choice(["in-progress", "finished"]))
            )
    return runs


def landed(folder: Path, runs: list[list[Any]], **source: Any) -> Config:
    folder.mkdir(exist_ok=True)
    config = warehouse(folder, **source)
    for received, lines in zip(RUNS, runs, strict=False):
        land(config, lines, at(received))
    return config


def answers(config: Config) -> dict[str, list[tuple[Any, ...]]]:
    """All that was known at some time: what a version is called, and rows that never counted, are no part of it."""
    sql = "SELECT * EXCLUDE (store_seq, version, version_no) FROM {table} WHERE coalesce(known_to > known_at, true) ORDER BY ALL"
    with reading(config.warehouse.path / "lake") as con:
        create_views(con, newest_store_seq(con))
        return {table.name: con.execute(sql.format(table=table.name)).fetchall() for table in EVENT_TABLES.values()}


def balances(config: Config) -> list[tuple[int, ...]]:
    """Of each run: received, normalized, quarantined, duplicates, ignored."""
    sums = ", ".join(f"sum({name})" for name in ("received", "normalized", "quarantined", "duplicates", "ignored"))
    return rows(config, f"SELECT {sums} FROM lake.commits WHERE run_id IS NOT NULL GROUP BY run_id ORDER BY run_id")


def test_what_passes_a_retry_is_as_if_it_had_passed_at_once(tmp_path: Path) -> None:
    """Of the versions read again, some have predecessors that they closed too early, some prove when others began."""
    runs = history(1)
    straight = landed(tmp_path / "straight", runs, **CLOCKS, **MENDED)
    faulty = landed(tmp_path / "mended", runs, **CLOCKS)
    normalize(straight)
    with unnamed():
        first = normalize(faulty)
    assert sum(summary.quarantined for summary in first) > 100
    mended = warehouse(tmp_path / "mended", **CLOCKS, **MENDED)
    tried = retry(mended)
    assert answers(mended) == answers(straight)
    assert balances(mended) == balances(straight)
    assert [(summary.tried, summary.quarantined) for summary in tried] == [(s.quarantined, 0) for s in first]
    closed = "(site, resource_type, resource_id, version, state, closed_at, reason)"
    assert rows(
        mended,
        f"SELECT count(*) - count(DISTINCT {closed}), bool_or(reason = 'reopened'), bool_or(reason = 'witnessed'), "
        "(SELECT count(*) FROM lake.quarantine) FROM lake.closings",
    ) == [(0, True, True, sum(s.quarantined for s in first))]


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "entry": [{"resource": each} for each in resources]}


def version(number: int, **more: Any) -> dict[str, Any]:
    meta = {"versionId": str(number), "lastUpdated": f"2024-03-05T{13 + number}:00:00Z"}
    return observation("f", meta=meta, valueQuantity={"value": number}, **more)


MIXED = bundle(observation("a"), observation("b", **UNREAD), {"resourceType": "Claim"}, observation("c", **UNREAD))
UNSEEN = bundle(observation("d"), observation("e"))
LINES = [MIXED, UNSEEN, version(1, **UNREAD), observation("g", **UNREAD, status="Mustermann"), b'{"id": "Mustermann']


def command(config: Config, *arguments: str) -> str:
    done = CliRunner().invoke(cli, ["--config", str(config.file), "quarantine", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_commands_count_show_and_try_what_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = landed(tmp_path / "w", [LINES])
    with monkeypatch.context() as patch:
        patch.setattr(decode, "entries", failing_with(UNSEEN, decode.entries))
        (summary,) = normalize(config)
        assert (summary.received, summary.normalized, summary.quarantined, summary.ignored) == (8, 1, 6, 1)
        assert [line.split() for line in command(config, "list").splitlines()] == [
            ["source", "type", "rule", "versions"],
            ["ward", "Bundle", "json", "1"],
            ["ward", "Observation", "modifier-extension", "4"],
            ["ward", "-", "json", "1"],
        ]
        rule = "modifier-extension  $.modifierExtension  a modifier extension is not understood"
        shown = [re.sub(r"  +", "  ", line) for line in command(config, "show").splitlines()[1:]]
        place = f"ward/{summary.run_id}/files-0001.ndjson.zst"
        assert f"{place}:1 entry 2  Observation/b  {rule}" in shown and f"{place}:3  Observation/f  {rule}" in shown
        assert len(shown) == 6 and "Mustermann" not in "".join(shown)
        assert [row.line for row in set_aside(config, source="ward", resource_type="Bundle", rule="json")] == [2]
        heads, line = (line.split() for line in command(config, "retry").splitlines())
        assert heads == ["commit", "source", "run", "tried", "normalized", "duplicates", "ignored", "quarantined"]
        assert line == ["-", "ward", summary.run_id, "6", "0", "0", "0", "6"]

    config = warehouse(tmp_path / "w", **MENDED)
    with monkeypatch.context() as patch, pytest.raises(LakeError):
        patch.setattr("fhir_features.normalize.retrying.insert_balance", failing)
        retry(config)
    (said,) = json.loads(command(config, "retry", "--json"))
    outcomes = {"tried": 6, "normalized": 5, "quarantined": 2, "duplicates": 0, "ignored": 0}
    assert said == {"source": "ward", "run_id": summary.run_id, "store_seq": 2, **outcomes}
    assert [(row.line, row.entry, row.rule) for row in set_aside(config)] == [(4, None, "code"), (5, None, "json")]
    assert balances(config) == [(9, 6, 2, 0, 1)]

    land(config, [version(1, **UNREAD), version(2)], at(RUNS[1]))
    (later,) = normalize(config)
    assert (later.normalized, later.duplicates) == (1, 1)
    intervals = "SELECT value_number, strftime(known_at, '%d %H'), strftime(known_to, '%d %H') FROM observations"
    assert rows(config, f"{intervals} WHERE resource_id = 'f' ORDER BY ALL") == [
        (1, "05 14", "05 15"),
        (2, "05 15", None),
    ]

    (config.warehouse.path / "landing" / "ward" / summary.run_id).rename(tmp_path / "elsewhere")
    with pytest.raises(LandingError, match=f"^ward/{summary.run_id} is missing from the landing"):
        retry(config)


def failing_with(unseen: dict[str, Any], read: Any) -> Any:
    def entries(line: bytes) -> Any:
        if line == json.dumps(unseen).encode():
            raise msgspec.DecodeError("not understood")
        return read(line)

    return entries


def failing(*_: object) -> None:
    raise LakeError("the disk is full")


def test_what_cannot_be_put_in_order_any_more_stays_set_aside(tmp_path: Path) -> None:
    """Without versions, the second 7 was taken for a repetition of the first: nobody knows that it came after the 8."""
    seven, eight = observation(), observation(valueQuantity={"value": 8}, **UNREAD)
    normalize(landed(tmp_path, [[seven], [eight], [seven]]))
    config = warehouse(tmp_path, **MENDED)
    (summary,) = retry(config)
    assert (summary.normalized, summary.quarantined) == (0, 1)
    assert retry(config)[0].store_seq is None
    rules = "(SELECT list(rule ORDER BY store_seq) FROM lake.quarantine)"
    assert rows(config, f"SELECT value_number, known_to, {rules} FROM observations") == [
        (7.5, None, ["modifier-extension", "order"])
    ]
