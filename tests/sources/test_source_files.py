"""A folder of files is landed as it is, once, and what is broken in it is found at its exact place."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fhir_features.config import Config, load_config
from fhir_features.errors import LandingError, SourceIncomplete, SourceNotFhir, SourceUnreachable
from fhir_features.sources import LandedRun, UnreadableRest, landed_runs, pull, read_lines, reading, verify_run

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "synthea_r4"
PATIENTS = [json.dumps({"resourceType": "Patient", "id": f"p{n}"}).encode() for n in range(3)]


def configured(folder: Path, *types: str) -> Config:
    (folder / "in").mkdir(exist_ok=True)
    listed = f"resource_types = {json.dumps(types)}\n" if types else ""
    (folder / "fhir_features.toml").write_text(
        f'[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "UTC"\npath = "in"\n{listed}'
    )
    return load_config(folder)


def pulled(config: Config) -> LandedRun:
    pull(config)
    return landed_runs(config.warehouse.path / "landing")[-1]


def lines_of(run: LandedRun) -> list[tuple[int, bytes]]:
    return [(number, line) for file in run.files for number, _, line in read_lines(run.folder, file)]


def broken_rest(run: LandedRun) -> tuple[list[bytes], UnreadableRest]:
    """What the only file of a run gives before it breaks, and how it breaks."""
    read: list[bytes] = []
    with pytest.raises(UnreadableRest) as raised:
        for _, _, line in read_lines(run.folder, run.files[0]):
            read.append(line)
    return read, raised.value


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("Patient.ndjson", lambda data: data),
        ("Patient.jsonl", lambda data: data),
        ("Patient.ndjson.gz", gzip.compress),
        ("Patient.ndjson.zst", zstandard.ZstdCompressor().compress),
        ("deep/er/PATIENT.NDJSON.GZ", gzip.compress),
        ("Patient.ndjson.gz", lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:])),
    ],
)
def test_a_file_is_landed_with_the_bytes_of_its_lines(tmp_path, name, packed):
    config = configured(tmp_path)
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(b"\n".join(PATIENTS)))

    run = pulled(config)

    assert lines_of(run) == list(enumerate(PATIENTS, start=1))
    (file,) = run.files
    assert (file.original, file.resource_type, file.lines, file.resources) == (name, "Patient", 3, {"Patient": 3})
    assert file.name.startswith("Patient-0001.ndjson.")
    assert run.types["Patient"].watermark == run.started_at
    assert [at for _, at, _ in read_lines(run.folder, file)] == [run.started_at] * 3


def test_a_compressed_file_is_landed_byte_for_byte(tmp_path):
    config = configured(tmp_path)
    received = gzip.compress(PATIENTS[0])
    (tmp_path / "in" / "a.ndjson.gz").write_bytes(received)
    run = pulled(config)
    assert (run.folder / run.files[0].name).read_bytes() == received


def test_blank_lines_are_counted_and_not_given_and_a_byte_order_mark_is_left_out(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + PATIENTS[0] + b"\r\n\r\n \n" + PATIENTS[1] + b"\r\n")
    run = pulled(config)
    assert lines_of(run) == [(1, PATIENTS[0]), (4, PATIENTS[1])]
    assert run.files[0].lines == 2


def test_a_bundle_gives_its_entries_whole_and_deletions_among_them(tmp_path):
    config = configured(tmp_path)
    entries = [
        b'{"fullUrl": "urn:uuid:1",\n  "resource": {"resourceType":"Patient","id":"p1","identifier":[{"value":"urn:uuid:1"}]}}',
        b'{"request":{"method":"DELETE","url":"Patient/p2"}}',
    ]
    bundle = b'{"resourceType":"Bundle","type":"transaction","entry":[' + b" , ".join(entries) + b"]}"
    (tmp_path / "in" / "Jane_Doe_1c.json").write_bytes(bundle)

    run = pulled(config)

    assert lines_of(run) == [(1, entries[0]), (2, entries[1])]
    assert (run.files[0].format, run.files[0].lines, run.files[0].resources) == ("bundle", 2, {"Patient": 1})
    assert run.files[0].original == "Jane_Doe_1c.json"
    assert not [path for path in run.folder.iterdir() if "Jane" in path.name]


TIME = "2026-01-05T10:00:00.000Z"


def export(folder: Path, errors: list[dict[str, Any]] | None = None, **more: Any) -> None:
    """An export as its files and manifest.json lie in a folder that somebody downloaded it into."""
    folder.mkdir(parents=True, exist_ok=True)
    address = "https://fhir.example.org/bulk/7/"
    deleted = {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Patient/p9"}}]}
    (folder / "Patient-1.ndjson.gz").write_bytes(gzip.compress(PATIENTS[0] + b"\n" + PATIENTS[1] + b"\n", mtime=0))
    (folder / "removed.ndjson").write_bytes(json.dumps(deleted).encode())
    (folder / "left-over.ndjson").write_bytes(PATIENTS[2])
    manifest = {
        "transactionTime": TIME,
        "request": f"{address}$export",
        "requiresAccessToken": True,
        "output": [{"type": "Patient", "url": f"{address}Patient-1.ndjson?expires=1"}],
        "deleted": [{"type": "Bundle", "url": f"{address}removed.ndjson"}],
        "error": [],
    }
    if errors is not None:
        lines = [json.dumps({"resourceType": "OperationOutcome", "issue": [each]}) for each in errors]
        (folder / "errors.ndjson").write_text("\n".join(lines))
        manifest["error"] = [{"type": "OperationOutcome", "url": "errors.ndjson"}]
    (folder / "manifest.json").write_text(json.dumps(manifest | more))


def test_of_an_export_the_files_that_its_manifest_names_are_landed_deletions_first(tmp_path):
    config = configured(tmp_path, "Patient", "Observation")
    export(tmp_path / "in" / "monday", [{"severity": "warning", "code": "timeout", "diagnostics": "Jane"}])
    (tmp_path / "in" / "alone.ndjson").write_bytes(PATIENTS[2])

    (summary,) = pull(config)

    (run,) = landed_runs(config.warehouse.path / "landing")
    assert [file.original for file in run.files] == [
        "alone.ndjson",
        "monday/removed.ndjson",
        "monday/Patient-1.ndjson.gz",
    ]
    assert {of.watermark.isoformat() for of in summary.types} == {"2026-01-05T10:00:00+00:00"}
    assert all(of.complete for of in run.types.values())
    assert "the server remarked on the export: warning timeout" in summary.warnings
    assert pull(config)[0].run_id is None
    export(tmp_path / "in" / "tuesday", transactionTime="2026-01-06T10:00:00Z")
    (tmp_path / "in" / "tuesday" / "Patient-1.ndjson.gz").write_bytes(gzip.compress(PATIENTS[2] + b" "))
    assert pulled(config).types["Patient"].watermark.day == 6


@pytest.mark.parametrize(
    ("issue", "lacking"),
    [
        ({"severity": "error", "code": "exception", "diagnostics": "of Observation"}, ["Observation"]),
        ({"severity": "fatal", "code": "exception"}, ["Observation", "Patient"]),
    ],
)
def test_what_an_export_could_not_give_keeps_the_watermark(tmp_path, issue, lacking):
    config = configured(tmp_path, "Patient", "Observation")
    export(tmp_path / "in", [issue])
    with pytest.raises(SourceIncomplete, match="the server could not export everything"):
        pull(config)
    (run,) = landed_runs(config.warehouse.path / "landing")
    assert sorted(name for name, of in run.types.items() if not of.complete) == lacking


def test_a_manifest_that_names_what_is_not_there_or_is_none_is_one_line(tmp_path):
    config = configured(tmp_path)
    export(tmp_path / "in", output=[{"url": "https://fhir.example.org/Jane_Doe.ndjson"}])
    with pytest.raises(SourceIncomplete, match=r"1 of the 2 files that a manifest\.json in its folder names") as raised:
        pull(config)
    assert "Jane" not in str(raised.value)
    (tmp_path / "in" / "manifest.json").write_text('{"name": "of something else"}')
    with pytest.raises(SourceNotFhir, match=r"a manifest\.json in its folder is not that of a Bulk Data export"):
        pull(config)
    export(tmp_path / "in", transactionTime="soon")
    run = pulled(config)
    assert (run.types["Patient"].watermark, len(run.warnings)) == (run.started_at, 2)


def test_an_unchanged_folder_makes_no_second_run_and_a_new_file_only_itself(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(PATIENTS[0])
    first = pulled(config)
    (again,) = pull(config)
    assert again.run_id is None
    assert again.types[0].watermark == first.started_at
    assert landed_runs(config.warehouse.path / "landing") == [first]

    (tmp_path / "in" / "b.ndjson").write_bytes(PATIENTS[1])
    (tmp_path / "in" / "copy-of-a.ndjson").write_bytes(PATIENTS[0])
    assert lines_of(pulled(config)) == [(1, PATIENTS[1])]


@pytest.mark.parametrize("cut", [1, 8, 60])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_stream_gives_its_whole_lines_and_then_the_line_where_it_ends(tmp_path, suffix, cut):
    config = configured(tmp_path)
    lines = [json.dumps({"resourceType": "Patient", "id": os.urandom(400).hex()}).encode() for _ in range(900)]
    pack = gzip.compress if suffix == "gz" else zstandard.ZstdCompressor().compress
    received = pack(b"\n".join(lines) + b"\n")
    (tmp_path / "in" / f"a.ndjson.{suffix}").write_bytes(received[:-cut])
    (tmp_path / "in" / "b.ndjson").write_bytes(PATIENTS[0])

    (summary,) = pull(config)
    run = landed_runs(config.warehouse.path / "landing")[-1]

    read, rest = broken_rest(run)
    assert read == lines[: len(read)]
    assert len(read) > 100
    assert rest.line == len(read) + 1 == run.files[0].unreadable_from
    assert "ends early" in rest.reason
    assert rest.received_at == run.started_at
    assert (run.folder / run.files[0].name).read_bytes() == received[:-cut]
    assert run.files[1].resources == {"Patient": 1}
    assert any("not readable to the end" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("name", "received", "reason"),
    [
        ("a.ndjson.gz", b"no gzip at all", "corrupt"),
        ("a.ndjson.gz", b"", "ends early"),
        ("a.ndjson.zst", b"", "ends early"),
        ("a.json", b'{"resourceType":"Bundle","entry":[{"resource":', "not the JSON"),
        ("a.json", b'{"resourceType":"Bundle","entry":7}', "not the JSON"),
        ("a.json", b"", "not the JSON"),
        ("a.json", b"[]", "not the JSON"),
        ("a.json", PATIENTS[0], "not a Bundle"),
        ("a.json.gz", gzip.compress(b'{"resourceType":"Bundle"}', mtime=0)[:-3], "ends early"),
    ],
)
def test_what_cannot_be_read_at_all_is_landed_and_broken_from_its_first_line(tmp_path, name, received, reason):
    config = configured(tmp_path)
    (tmp_path / "in" / name).write_bytes(received)
    run = pulled(config)
    read, rest = broken_rest(run)
    assert (read, rest.line) == ([], 1)
    assert reason in rest.reason


@pytest.mark.parametrize("cut", [0, 3])
def test_an_entry_that_is_no_json_does_not_take_its_bundle_with_it(tmp_path, cut):
    config = configured(tmp_path)
    entries = [
        b'{"resource":%s}' % each for each in (PATIENTS[0], b'{"resourceType":"Patient","id":"a\tb"}', PATIENTS[1])
    ]
    bundle = b'{"resourceType":"Bundle","type":"collection","entry":[%s]}' % b",".join(entries)
    (tmp_path / "in" / "a.json").write_bytes(bundle[: len(bundle) - cut])
    run = pulled(config)
    if cut:
        read, rest = broken_rest(run)
        assert (read, rest.line, rest.reason) == (entries[:2], 3, "the Bundle is cut off")
    else:
        assert [line for _, line in lines_of(run)] == entries


def test_lines_that_are_no_json_are_given_as_they_are(tmp_path):
    config = configured(tmp_path)
    lines = [b'{"resourceType":', b"\xff\xfe", b"[]", b'{"resourceType":7}', PATIENTS[0]]
    (tmp_path / "in" / "a.ndjson").write_bytes(b"\n".join(lines))
    run = pulled(config)
    assert [line for _, line in lines_of(run)] == lines
    assert (run.files[0].lines, run.files[0].resources, run.files[0].resource_type) == (5, {"Patient": 1}, None)
    assert "4 lines or entries" in run.warnings[0]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    config = configured(tmp_path)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(SourceUnreachable, match=r"^source 'ward': its folder .* cannot be read \(No such file"):
        pull(config)


def test_an_empty_folder_is_said(tmp_path):
    (summary,) = pull(configured(tmp_path))
    assert summary.run_id is None
    assert "no NDJSON file and no Bundle" in summary.warnings[0]


def test_a_file_that_cannot_be_landed_is_named_by_its_place_not_by_its_name(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "Jane_Doe.ndjson").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceIncomplete, match="file 1 of 1") as raised:
        pull(config)
    assert "Jane" not in str(raised.value)


def test_a_landed_file_that_was_changed_is_found(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(PATIENTS[0])
    run = pulled(config)
    verify_run(run)
    landed = run.folder / run.files[0].name
    changed = bytearray(landed.read_bytes())
    changed[-1] ^= 1
    landed.write_bytes(changed)
    with pytest.raises(LandingError, match=f"^ward/{run.run_id}/Patient-0001.ndjson.zst differs"):
        verify_run(run)
    landed.unlink()
    with pytest.raises(LandingError, match=f"^ward/{run.run_id}/Patient-0001.ndjson.zst is missing"):
        verify_run(run)


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(PATIENTS[0])
    run = pulled(config)
    (run.folder / "run.json").write_text('{"version": 2}')
    with pytest.raises(LandingError, match=f"^ward/{run.run_id}/run.json cannot be read"):
        landed_runs(config.warehouse.path / "landing")


def test_a_pull_that_is_killed_leaves_nothing_that_is_believed_and_the_next_one_ends_it(tmp_path):
    config = configured(tmp_path)
    line = json.dumps({"resourceType": "Patient", "id": "x" * 500}).encode()
    for number in range(60):
        (tmp_path / "in" / f"{number:02}.ndjson").write_bytes((line.replace(b"x", b"%d" % number, 1) + b"\n") * 3000)
    landing = config.warehouse.path / "landing"
    child = subprocess.Popen(
        [sys.executable, "-c", "from fhir_features.cli import main; main()", "--config", str(tmp_path), "pull"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while child.poll() is None and not list(landing.glob("*/*/Patient-0003*")):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert landed_runs(landing) == []
    (unfinished,) = landing.glob("ward/*/")

    run = pulled(config)

    assert run.folder == unfinished
    verify_run(run)
    assert len(run.files) == 60
    assert sum(file.lines for file in run.files) == 60 * 3000
    received = {file.receipts[0].received_at for file in run.files}
    assert min(received) == run.started_at < max(received)
    assert {path.name for path in run.folder.iterdir()} == {"run.json", *(file.name for file in run.files)}


@pytest.mark.skipif(not SAMPLE.exists(), reason="the Synthea sample is not beside this checkout")
def test_the_synthea_sample_is_landed_whole(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in").rmdir()
    (tmp_path / "in").symlink_to(SAMPLE)
    (summary,) = pull(config)
    assert {of.resource_type: of.received for of in summary.types} == {
        "Patient": 50,
        "Encounter": 2143,
        "Observation": 7852,
        "Condition": 330,
        "MedicationRequest": 1423,
    }


HOSTILE = [
    b"[" * 200_000,
    b'{"resourceType":' * 200_000,
    b'{"resourceType":"\\ud800"}',
    b'{"resourceType":"\xff"}',
    b'{"resourceType":"Patient","id":1e999}',
    b"\x00" * 100,
]


def test_hostile_lines_are_given_as_they_are(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(b"\n".join(HOSTILE))
    assert [line for _, line in lines_of(pulled(config))] == HOSTILE


@pytest.mark.parametrize("received", [HOSTILE[0], b'{"resourceType":"Bundle","entry":[' + b"[" * 200_000])
def test_a_hostile_bundle_is_broken_from_its_first_entry(tmp_path, received):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.json").write_bytes(received)
    read, rest = broken_rest(pulled(config))
    assert (read, rest.line) == ([], 1)


def test_of_a_line_without_end_no_more_is_read_than_tells_that_it_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(reading, "_MOST_EXPANDED", 1 << 20)
    config = configured(tmp_path)
    lines = [PATIENTS[0], b"x" * (4 << 20), PATIENTS[1], b" " * (2 << 20), b"y" * (3 << 20)]
    (tmp_path / "in" / "a.ndjson").write_bytes(b"\n".join(lines))
    longest = (1 << 20) + 1
    assert [line for _, line in lines_of(pulled(config))] == [
        PATIENTS[0],
        b"x" * longest,
        PATIENTS[1],
        b" " * longest,
        b"y" * longest,
    ]


def test_names_that_are_no_text_and_files_that_are_no_files(tmp_path):
    config = configured(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/J\xf6rg.ndjson")).write_bytes(PATIENTS[0])
    os.mkfifo(tmp_path / "in" / "pipe.ndjson")
    (tmp_path / "in" / "folder.ndjson").mkdir()
    (tmp_path / "in" / "._a.ndjson").write_bytes(b"no resource, but what some systems leave")
    (tmp_path / "in" / "notes.txt").write_text("no resource")
    run = pulled(config)
    assert lines_of(run) == [(1, PATIENTS[0])]
    assert run.files[0].original == "J\N{REPLACEMENT CHARACTER}rg.ndjson"


def test_a_landing_that_cannot_be_written_is_one_line(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(PATIENTS[0])
    config.warehouse.path.write_text("a file where the warehouse should be")
    with pytest.raises(LandingError, match=r"^source 'ward': its landing .* cannot be written \(Not a directory\)"):
        pull(config)


def test_a_folder_in_the_landing_that_is_no_run_is_left_alone(tmp_path):
    config = configured(tmp_path)
    (tmp_path / "in" / "a.ndjson").write_bytes(PATIENTS[0])
    notes = config.warehouse.path / "landing" / "ward" / "notes"
    notes.mkdir(parents=True)
    pulled(config)
    assert notes.exists()
