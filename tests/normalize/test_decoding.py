"""Who decodes makes no difference: the same batches from one process and from two, in the order of the lines."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from landing import at, land, observation, patient, warehouse

from fhir_features.errors import LakeError
from fhir_features.normalize import decoding
from fhir_features.normalize.decode import Batch
from fhir_features.normalize.decoding import decoded
from fhir_features.normalize.dialect import Dialect
from fhir_features.normalize.validation import Validation
from fhir_features.sources import LandedRun
from fhir_features.sources.progress import silent


def _lines(count: int) -> Iterator[dict[str, Any] | bytes]:
    draw = random.Random(5)
    for n in range(count):
        code = {"coding": [{"system": "http://loinc.org", "code": f"{draw.randrange(30)}-1"}]}
        yield draw.choice(
            [
                observation(f"o{n}", code=code, valueQuantity={"value": n, "unit": f"u{draw.randrange(9)}"}),
                observation(f"o{n}", status="finished"),
                observation(f"o{n}", note={"text": "not a list"}),
                observation(f"o{n}", valueQuantity={"value": "7"}, meta={"versionId": "1"}),
                patient(f"p{n}"),
                {"resourceType": "Device", "id": f"d{n}"},
                {"resourceType": "Bundle", "entry": [{"resource": patient(f"q{n}")}, {}, {"resource": observation()}]},
                b'{"resourceType": "Observ',
            ]
        )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LandedRun:
    monkeypatch.setattr(decoding, "_BATCH_LINES", 20)
    return land(warehouse(tmp_path), list(_lines(150)), at("2024-03-20 00:00"))


def _contents(batches: list[Batch]) -> list[Any]:
    """What the batches hold. A process knows only what it met itself, so codings and units are what all of them met."""
    rows = [
        (
            b.received,
            b.ignored,
            b.versions.to_pylist(),
            b.quarantine.to_pylist(),
            b.findings.to_pylist(),
            {k: t.to_pylist() for k, t in b.rows.items()},
        )
        for b in batches
    ]
    codings = {row for batch in batches for row in batch.codings}
    return [rows, codings, {row for batch in batches for row in batch.units}]


def test_one_process_and_two_give_the_same(run: LandedRun) -> None:
    alone, shared = (list(decoded(run, Dialect(), Validation.ALL, silent, processes)) for processes in (1, 2))
    assert len(alone) == 8
    assert sum(batch.quarantine.num_rows for batch in alone) > 20
    assert sum(batch.findings.num_rows for batch in alone) > 10
    assert _contents(shared) == _contents(alone)


def test_an_error_in_a_process_is_raised_here(run: LandedRun) -> None:
    (line, *_), *_ = decoding._chunks(decoding._lines(run, silent))
    with decoding._process(Dialect(), Validation.OFF) as process, pytest.raises(TypeError):
        decoding._asked(process, [(*line[:2], 7)])  # type: ignore[list-item]


def test_a_process_that_ends_before_its_time_is_told_of(run: LandedRun) -> None:
    with (
        decoding._process(Dialect(), Validation.OFF) as process,
        pytest.raises(LakeError, match="ended before its time"),
    ):
        process.kill()
        decoding._asked(process, [])


def test_a_process_that_ended_before_it_was_asked_is_told_of_too(
    run: LandedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding.sys, "executable", "/bin/true")
    with pytest.raises(LakeError, match="a process that decodes ended before its time"):
        list(decoded(run, Dialect(), Validation.OFF, silent, 2))


def test_a_process_that_ended_before_it_was_asked_anything_is_not_missed() -> None:
    with decoding._process(Dialect(), Validation.OFF) as process:
        process.kill()
        process.wait()
    assert process.returncode


def test_a_process_whose_answer_nobody_takes_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    with decoding._process(Dialect(), Validation.SAMPLE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.close()
        pickle.dump([], process.stdin)
        process.stdin.flush()
        assert process.wait(30) == 0
    assert capfd.readouterr().err == ""
