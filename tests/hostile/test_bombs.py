"""What is made to fill memory is set aside by its place and with a reason, and what lies beside it is read."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from landing import observation, patient, rows, warehouse

from fhir_features.normalize import RunSummary, normalize
from fhir_features.sources import pull, reading

GOOD = json.dumps(patient()).encode()
MIB = 1 << 20


def received(folder: Path, files: dict[str, bytes]) -> tuple[RunSummary, list[tuple[object, ...]]]:
    """What becomes of files in the folder of a source: its summary, and the line, rule and reason of what is set aside."""
    config = warehouse(folder)
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    pull(config)
    (summary,) = normalize(config)
    return summary, rows(config, "SELECT line, rule, reason FROM lake.quarantine ORDER BY file, line")


def packed(suffix: str, first: bytes, *parts: tuple[bytes, int]) -> bytes:
    """A line and parts, each so many times a MiB of its first bytes, compressed without being held."""
    compressor = zstandard.ZstdCompressor().compressobj() if suffix == ".zst" else zlib.compressobj(wbits=31)
    out = [compressor.compress(first + b"\n")]
    for part, times in parts:
        block = part * (MIB // len(part))
        out += [compressor.compress(block) for _ in range(times)]
    return b"".join([*out, compressor.flush()])


def test_compressed_bombs_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", MIB)
    # So little that deflate, which cannot do a thousandfold over many lines, is above it.
    monkeypatch.setattr(reading, "_MOST_EXPANDED", 100)
    fillings = {"zeros": b"\0", "blank lines": b"\n", "spaces": b" ", "objects": b"{" + b" " * 1021 + b"}\n"}
    bombs = {
        f"{name}.ndjson{suffix}": packed(suffix, json.dumps(patient(name + suffix)).encode(), (filling, 2))
        for name, filling in fillings.items()
        for suffix in (".gz", ".zst")
    }
    summary, quarantine = received(tmp_path, {**bombs, "z.ndjson": json.dumps(observation()).encode()})
    assert summary.versions == {"Observation": 1, "Patient": len(bombs)}
    told = [reason for _, rule, reason in quarantine if rule == "unreadable"]
    assert told == ["its compressed stream expands more than 100fold"] * len(bombs)


def test_a_bundle_that_is_a_bomb_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_BUNDLE", MIB)
    monkeypatch.setattr(reading, "_MOST_PARTS", 1000)
    bundle = b'{"resourceType":"Bundle","entry":[%s]}'
    large, many = bundle % (b"0" * 2 * MIB), bundle % (b"{}," * 2000 + b"{}")
    summary, quarantine = received(
        tmp_path, {"a.json": large, "b.json": many, "c.json": bundle % (b'{"resource":%s}' % GOOD)}
    )
    assert summary.versions == {"Patient": 1}
    assert quarantine == [(1, "unreadable", "a Bundle has more than 1 MiB or 1000 elements")] * 2


def many_elements() -> bytes:
    return json.dumps(observation("bomb"))[:-1].encode() + b',"component":[%s{}]}' % (b"{}," * 2_500_000)


def many_entries() -> bytes:
    return b'{"resourceType":"Bundle","entry":[%s{}]}' % (b"{}," * 100_000)


def many_codings() -> bytes:
    return json.dumps(observation("bomb", code={"coding": [{}] * 1001})).encode()


def deep() -> bytes:
    return json.dumps(observation("bomb"))[:-1].encode() + b',"extension":%s%s}' % (b"[" * 10_000, b"]" * 10_000)


def out_of_range() -> bytes:
    return json.dumps(observation("bomb"))[:-1].encode() + b',"extension":[{"url":"urn:x","valueDecimal":1e400}]}'


def bundles_in_bundles() -> bytes:
    inner: dict[str, object] = {"resourceType": "Bundle", "entry": [{"resource": patient("hidden")}]}
    for _ in range(20):
        inner = {"resourceType": "Bundle", "entry": [{"resource": inner}]}
    return json.dumps(inner).encode()


BOMBS: list[tuple[Callable[[], bytes], str, str]] = [
    (many_elements, "size", "it has more than 5000000 elements"),
    (many_entries, "size", "it has more than 100000 entries: give them as a file of their own"),
    (many_codings, "size", "a concept in it has more than 1000 codings"),
    (deep, "json", "it is nested too deeply"),
    (out_of_range, "type", "Number out of range"),
    (bundles_in_bundles, "bundle", "a Bundle inside a Bundle is not read"),
]


def test_lines_that_are_bombs_are_set_aside(tmp_path: Path) -> None:
    lines = [
        line
        for number, (bomb, _, _) in enumerate(BOMBS)
        for line in (bomb(), json.dumps(patient(f"p{number}")).encode())
    ]
    summary, quarantine = received(tmp_path, {"a.ndjson": b"\n".join(lines)})
    assert summary.normalized == len(BOMBS)
    assert quarantine == [(2 * number + 1, rule, reason) for number, (_, rule, reason) in enumerate(BOMBS)]


def test_a_line_that_is_too_long_is_set_aside_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", MIB)
    monkeypatch.setattr("fhir_features.normalize.decode.LONGEST_LINE", MIB)
    # Of digits that compress as little as those of resources.
    digits = random.Random(1).randbytes(MIB).hex().encode()
    long = b'{"resourceType":"Patient","id":"long","text":"%s"}' % digits
    summary, quarantine = received(tmp_path, {"a.ndjson": b"\n".join([GOOD, long, json.dumps(observation()).encode()])})
    assert (summary.normalized, quarantine) == (2, [(2, "size", "it is longer than 1 MiB")])
