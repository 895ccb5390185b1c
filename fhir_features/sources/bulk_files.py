"""What is in a file of an export? In: its address and what the manifest says of it. Out: a landed file of its lines,
each as received, and the reason why it is not whole, if however often it was asked for it was not. Memory is bounded by
a line and a block; what is written has a temporary name until it is whole."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zstandard

from fhir_features.errors import SourceNotFhir, SourceRefused
from fhir_features.files import sha256_of, sync
from fhir_features.sources.bulk_export import Expired
from fhir_features.sources.bulk_manifest import ExportedFile
from fhir_features.sources.client import Client
from fhir_features.sources.landing import LandedFile, Receipt
from fhir_features.sources.reading import LONGEST_LINE, NOT_JSON, Broken, decompressed, numbered_lines
from fhir_features.sources.transport import PASSING, TRIES, Answer, BrokenOff
from fhir_features.times import UTC

_T = TypeVar("_T")
_GZIP = b"\x1f\x8b"
CUT_OFF = "its last line is cut off"


@dataclass(frozen=True)
class Lines:
    """What came of a file of an export: `received` lines, of which `kept` were written, so many of each resource type;
    `trouble` says why it is not whole, if it is not."""

    received: int
    kept: int
    resources: dict[str, int]
    trouble: str | None


class FileReader:
    """Reads the files of one source's exports. May be used by several threads."""

    def __init__(self, name: str, client: Client) -> None:
        self._name = name
        self._client = client

    def land(
        self, exported: ExportedFile, path: Path, *, keep: Callable[[bytes], bool], backfill: bool
    ) -> tuple[Lines, LandedFile | None]:
        """Download a file of resources, without the lines that are not to be kept, to a path of NDJSON in zstd; what
        came of it, and the file that is to be landed unless it would be empty.

        Asked for again are a connection that broke off, a file that is cut off and, once, one of fewer lines than the
        manifest counts. Raises Expired, SourceUnreachable, SourceRefused, SourceNotFhir.
        """
        part = path.with_name(f"part-{threading.get_ident()}")

        def written(lines: Iterator[bytes], tries: int) -> Lines:
            read = _written(lines, part, keep)
            if read.trouble and tries < TRIES:
                raise BrokenOff(read.trouble)
            if tries == 1 and read.received < (exported.count or 0):
                raise BrokenOff("fewer lines than are counted")
            return read

        read = self._read(exported, written)
        if not read.kept:
            part.unlink()
            return read, None
        part.replace(path)
        sync(path.parent)
        landed = LandedFile(
            name=path.name,
            format="ndjson",
            resource_type=next(iter(read.resources)) if list(read.resources.values()) == [read.kept] else None,
            resources=read.resources,
            lines=read.kept,
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            backfill=backfill,
            receipts=(Receipt(first_line=1, received_at=dt.datetime.now(UTC)),),
        )
        return read, landed

    def lines(self, exported: ExportedFile) -> list[bytes]:
        """The lines of a file that is not landed; of one that is cut off, what is there. Raises as `land` does."""
        lines: list[bytes] = []

        def collected(more: Iterator[bytes], tries: int) -> None:
            lines.clear()
            try:
                lines.extend(more)
            except Broken as broken:
                if tries < TRIES:
                    raise BrokenOff(broken.reason) from None

        self._read(exported, collected)
        return lines

    def _read(self, exported: ExportedFile, consume: Callable[[Iterator[bytes], int], _T]) -> _T:
        fault = ""
        for tries in range(1, TRIES + 1):
            answer: Answer | None = None
            try:
                with self._client.stream(exported.url, authorized=exported.authorized) as (answer, blocks):
                    if answer.status == 200:
                        return consume(self._lines(answer, blocks), tries)
                    if answer.status not in PASSING:
                        raise self._refusal(answer)
                    fault = answer.fault
            except BrokenOff as broken:
                fault = str(broken)
            if tries < TRIES:
                self._client.pause(tries, answer)
        raise self._client.unreachable(fault, exported.url)

    def _lines(self, answer: Answer, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for number, line in numbered_lines(_plain(blocks)):
            if number == 1 and line.startswith(b"<"):
                raise SourceNotFhir(
                    f"source '{self._name}': a web page or XML came from {answer.place} instead of NDJSON: "
                    "see that 'auth' is right, or tell those who run the server"
                )
            if number == 1 and line.startswith(_GZIP):
                raise Broken(number, "it is compressed more than twice")
            if len(line) > LONGEST_LINE:
                raise Broken(number, f"a line is longer than {LONGEST_LINE >> 20} MiB")
            yield line

    def _refusal(self, answer: Answer) -> Exception:
        # The address of a file in a store that is not the server's own is signed until an instant. After that S3 and
        # Azure answer 403; Google, and S3 where the session that signed it ended first, 400 (ExpiredToken).
        if answer.status in (404, 410) or (answer.status in (400, 403) and not answer.own):
            return Expired()
        told = f"source '{self._name}': {answer.fault} at {answer.place}, a file of the export"
        if answer.status in (401, 403):
            who = "set 'auth' and its secret" if answer.own else "credentials are not sent there"
            return SourceRefused(f"{told}: {who}, and see with those who run the server what is needed for it")
        return SourceNotFhir(f"{told}: tell those who run the server")


def _plain(blocks: Iterator[bytes], layers: int = 2) -> Iterator[bytes]:
    """What blocks hold that are compressed or not, once by the server or also before: gzip is known by its beginning,
    since headers say it wrongly."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(_GZIP):
            break
    whole = chain([head], blocks)
    is_packed = layers > 0 and head.startswith(_GZIP)
    yield from _plain(decompressed(whole, ".gz"), layers - 1) if is_packed else whole


class _Resource(msgspec.Struct):
    resourceType: Any = None


def _written(lines: Iterator[bytes], path: Path, keep: Callable[[bytes], bool]) -> Lines:
    """Write lines as NDJSON in zstd, whole and synced."""
    received, resources, kept, trouble = 0, Counter[str](), 0, None
    is_json = True
    with path.open("wb") as file:
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as out:
            try:
                for line in lines:
                    received += 1
                    resource_type, is_json = _type_of(line)
                    if is_json and not keep(line):
                        continue
                    kept += 1
                    resources[resource_type] += bool(resource_type)
                    out.write(line + b"\n")
            except Broken as broken:
                trouble = broken.reason
        file.flush()
        os.fsync(file.fileno())
    # A line that is no JSON goes to the quarantine; as the last one, it says that there should have been more.
    trouble = trouble or (None if is_json else CUT_OFF)
    return Lines(received, kept, dict(sorted((+resources).items())), trouble)


def _type_of(line: bytes) -> tuple[str, bool]:
    """The resource type of a line, empty if it has none; and whether it is JSON."""
    try:
        resource_type = msgspec.json.decode(line, type=_Resource).resourceType
    except msgspec.ValidationError:
        return "", True
    except NOT_JSON:
        return "", False
    return (resource_type if isinstance(resource_type, str) and resource_type.isalpha() else ""), True
