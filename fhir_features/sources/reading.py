"""Which resources does a landed file hold? In: a run's folder and the record of one of its files. Out: its lines, or
the entries of its bundle, one after the other with their number and their time of receipt, in memory bounded by a
block of lines. What a broken file still gives is given; the place from which it gives no more is said."""

from __future__ import annotations

import datetime as dt
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zstandard

from fhir_features.errors import LandingError
from fhir_features.sources.landing import LandedFile, Receipt
from fhir_features.sources.splitting import entries, members

# Whoever decodes a line that is longer sets it aside: only so much of it, and one byte more, is given.
LONGEST_LINE = 128 << 20
LARGEST_BUNDLE = 256 << 20
# As many as a Bundle of that size has; an entry can be written in two bytes, and takes a hundred.
_MOST_PARTS = 12_000_000
_BLOCK = 1 << 16
# So many compressed bytes are taken at once: of zstd they can hold 8 MiB, of gzip a quarter.
_BITE = 256
# Resources compress a hundredfold at the very most; what expands more is meant to fill memory and disks.
_MOST_EXPANDED = 1000
_BOM = b"\xef\xbb\xbf"
# What decoding raises on bytes that are no JSON, of another shape, or nested beyond what any resource is.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_URN_REFERENCE = re.compile(rb'("reference"\s*:\s*")(urn:[^"\\]+)')


class UnreadableRest(LandingError):
    """From `line` on (counted as `read_lines` counts) a landed file cannot be read: `reason`; received at
    `received_at`.

    It is raised after everything before that place was given, so that exactly this place can go to the quarantine.
    """

    def __init__(self, name: str, line: int, received_at: dt.datetime, reason: str) -> None:
        super().__init__(f"{name} cannot be read from line {line} on: {reason}")
        self.line = line
        self.received_at = received_at
        self.reason = reason


def read_lines(run_folder: Path, landed_file: LandedFile) -> Iterator[tuple[int, dt.datetime, bytes]]:
    """The lines of a landed file: number from 1, time of receipt (UTC), bytes as received without the line's end.

    - format `ndjson`: a line is one resource. Blank lines are counted and not given. A byte order mark is left out. Of
      a line longer than LONGEST_LINE bytes the first LONGEST_LINE + 1 are given.
    - format `bundle`: the number is that of the entry, and the bytes are the entry's JSON object, not only its
      resource: fullUrl, resource, request and response as they are there, but for references within the Bundle (see
      `with_local_references`). So a deletion (request.method DELETE, in a
      Bundle of type transaction, batch or history: https://hl7.org/fhir/R4/bundle.html) is an entry without a
      resource.

    Raises UnreadableRest where a stream is cut off, corrupt or a bomb, or a bundle is none or larger than
    LARGEST_BUNDLE bytes; LandingError when there is no file.
    """
    numbered = _entries if landed_file.format == "bundle" else numbered_lines
    received_at = _Clock(landed_file.receipts)
    try:
        for number, line in numbered(_blocks(run_folder / landed_file.name)):
            yield number, received_at(number), line
    except Broken as broken:
        at = received_at(broken.line)
        raise UnreadableRest(landed_file.name, broken.line, at, broken.reason) from None
    except OSError as error:
        raise LandingError(
            f"landed file {landed_file.name} of run {run_folder.name} cannot be read ({error.strerror}): restore it"
        ) from None


class Broken(Exception):
    """From `line` on the lines of something cannot be read: `reason`."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class _Clock:
    """The time of receipt of lines that are asked for in rising order."""

    def __init__(self, receipts: tuple[Receipt, ...]) -> None:
        self._receipts = receipts
        self._at = 0

    def __call__(self, line: int) -> dt.datetime:
        while self._at + 1 < len(self._receipts) and self._receipts[self._at + 1].first_line <= line:
            self._at += 1
        return self._receipts[self._at].received_at


def numbered_lines(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of NDJSON that comes in blocks, with their numbers from 1; blank ones are counted and not given, and of
    one longer than LONGEST_LINE bytes only the first LONGEST_LINE + 1.

    Raises Broken where `decompressed` finds the stream cut off, corrupt or a bomb.
    """
    number, held = 0, 0
    rest: list[bytes] = []
    try:
        for block in blocks:
            if b"\n" in block:
                rest.append(block)
                *whole, last = b"".join(rest).split(b"\n")
                rest, held = [last], len(last)
                for line in whole:
                    number += 1
                    if text := _text(line, number):
                        yield number, text
            elif held <= LONGEST_LINE:
                rest.append(block)
                held += len(block)
    except _Corrupt as corrupt:
        raise Broken(number + 1, str(corrupt)) from None
    if text := _text(b"".join(rest), number + 1):
        yield number + 1, text


def _text(line: bytes, number: int) -> bytes:
    if len(line) > LONGEST_LINE:
        return line[: LONGEST_LINE + 1]
    return (line.removeprefix(_BOM) if number == 1 else line).strip(b" \t\r")


class _Bundle(msgspec.Struct):
    resourceType: Any = None
    entry: list[msgspec.Raw] = []


class _Resource(msgspec.Struct):
    resourceType: str
    id: str


class _Entry(msgspec.Struct):
    fullUrl: str
    resource: _Resource


def _entries(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    try:
        text = _whole(blocks).removeprefix(_BOM)
    except _Corrupt as corrupt:
        raise Broken(1, str(corrupt)) from None
    try:
        bundle = msgspec.json.decode(text, type=_Bundle)
        is_whole = True
    except NOT_JSON:
        found, is_whole = entries(text)
        if not found or members(text).get("resourceType") != b'"Bundle"':
            raise Broken(1, "it is not the JSON of a Bundle") from None
        bundle = _Bundle("Bundle", [msgspec.Raw(each) for each in found])
    if bundle.resourceType != "Bundle":
        raise Broken(1, "it is not a Bundle")
    yield from enumerate(with_local_references(bundle.entry), start=1)
    if not is_whole:
        raise Broken(len(bundle.entry) + 1, "the Bundle is cut off")


def _whole(blocks: Iterator[bytes]) -> bytes:
    held: list[bytes] = []
    size = parts = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        parts += block.count(b",")
        if size > LARGEST_BUNDLE or parts > _MOST_PARTS:
            raise _Corrupt(f"a Bundle has more than {LARGEST_BUNDLE >> 20} MiB or {_MOST_PARTS} elements")
    return b"".join(held)


def with_local_references(entries: Sequence[msgspec.Raw]) -> Iterator[bytes]:
    """The entries of a Bundle as they are there, but for references by a `urn:`: the resource in the Bundle that has it
    for its fullUrl, before or after, is named as Type/id, as on its server.

    https://hl7.org/fhir/R4/bundle.html#references
    """
    named: dict[bytes, bytes] = {}
    for entry in entries:
        if b'"urn:' in bytes(entry):
            try:
                read = msgspec.json.decode(entry, type=_Entry)
            except NOT_JSON:
                continue
            named[read.fullUrl.encode()] = f"{read.resource.resourceType}/{read.resource.id}".encode()
    for entry in entries:
        yield _URN_REFERENCE.sub(lambda found: found[1] + named.get(found[2], found[2]), bytes(entry))


class _Corrupt(Exception):
    """The compressed stream ends early, makes no sense, or holds more than can be meant."""


class _Decompressor(Protocol):
    """What zlib and zstandard have in common: one member of a gzip file, or one frame of a zstd file."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from decompressed(iter(lambda: file.read(_BLOCK), b""), path.suffix)


def decompressed(blocks: Iterator[bytes], suffix: str) -> Iterator[bytes]:
    """What blocks of a gzip (`.gz`) or zstd (`.zst`) stream hold, in blocks of at most 8 MiB. A stream that is cut off
    is not hidden, as by the libraries' own readers, and one that expands a thousandfold is not followed:
    `numbered_lines` raises Broken there."""
    new = _DECOMPRESSORS[suffix]
    member: _Decompressor | None = new()
    taken, given = 0, 0
    for block in blocks:
        for start in range(0, len(block), _BITE):
            bite = block[start : start + _BITE]
            taken += len(bite)
            while bite:
                member = member or new()
                try:
                    plain = member.decompress(bite)
                except (zlib.error, zstandard.ZstdError):
                    raise _Corrupt("its compressed stream is corrupt") from None
                given += len(plain)
                yield plain
                if given > max(LONGEST_LINE, _MOST_EXPANDED * taken):
                    raise _Corrupt(f"its compressed stream expands more than {_MOST_EXPANDED}fold")
                bite = b""
                if member.eof:
                    bite, member = member.unused_data, None
    if member is not None:
        raise _Corrupt("its compressed stream ends early")
