"""What is known of a Bulk Data export that somebody else downloaded? In: its `manifest.json` and the files beside it.
Out: the files that it names, which the server's errors keep from being whole, and up to when it has been seen
(https://hl7.org/fhir/uv/bulkdata/export.html#response---output-manifest)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fhir_features.errors import SourceIncomplete, SourceNotFhir
from fhir_features.sources.bulk_manifest import Remark, read_manifest, remarks
from fhir_features.sources.reading import Broken, decompressed, numbered_lines

MANIFEST = "manifest.json"
_BLOCK = 1 << 16
_COMPRESSED = (".gz", ".zst")
_PLAIN = (".ndjson", ".jsonl", ".json")


@dataclass(frozen=True)
class KeptExport:
    """An export that lies in a folder: when it was true (UTC), null where it does not say; its files, deletions first;
    and those that tell what the server could not export."""

    transaction_time: dt.datetime | None
    files: tuple[Path, ...]
    errors: tuple[Path, ...]


@dataclass(frozen=True)
class Told:
    """What some exports tell: up to when (UTC) they have seen their server, null where none says so, what the server
    remarked, and what a user should know."""

    seen_up_to: dt.datetime | None
    remarks: tuple[Remark, ...]
    warnings: tuple[str, ...]

    def lacking(self, resource_type: str) -> tuple[str, ...]:
        """Why a type is not whole. An error that does not say what it concerns may concern everything."""
        fatal = [each for each in self.remarks if each.is_fatal]
        own = [each.text for each in fatal if resource_type in (each.resource_types or (resource_type,))]
        return tuple(dict.fromkeys(f"the server could not export everything: {text}" for text in own))


def kept_export(name: str, manifest: Path, beside: Sequence[Path]) -> KeptExport:
    """The export of a manifest, of the files that lie `beside` it or in folders there. They are called as the last part
    of their addresses, whatever their endings say of compression.

    Raises SourceNotFhir for a manifest that is none, SourceIncomplete when a file is not there.
    """
    try:
        read = read_manifest(manifest.read_bytes(), "")
    except ValueError:
        raise SourceNotFhir(
            f"source '{name}': a {MANIFEST} in its folder is not that of a Bulk Data export: correct or remove it"
        ) from None
    by_name = {_plain_name(path.name): path for path in reversed(beside) if path != manifest}
    wanted = [(file.what, by_name.get(_plain_name(unquote(urlsplit(file.url).path)))) for file in read.files]
    if missing := sum(path is None for _, path in wanted):
        raise SourceIncomplete(
            f"source '{name}': {missing} of the {len(wanted)} files that a {MANIFEST} in its folder names are not "
            "there under the last part of their addresses: put them beside it, then pull again"
        )
    return KeptExport(
        transaction_time=read.transaction_time,
        files=tuple(path for what, path in wanted if path is not None and what != "error"),
        errors=tuple(path for what, path in wanted if path is not None and what == "error"),
    )


def told_by(exports: Sequence[KeptExport], asked: Sequence[str]) -> Told:
    """What exports tell of the types that are asked for."""
    noted = tuple(remark for each in exports for path in each.errors for remark in _remarks(path, asked))
    warnings = [f"the server remarked on the export: {each.text}" for each in noted if not each.is_fatal]
    if any(each.transaction_time is None for each in exports):
        warnings.append("an export does not say its transactionTime: it counts as of when it was landed")
    times = [each.transaction_time for each in exports if each.transaction_time is not None]
    return Told(max(times, default=None), noted, tuple(dict.fromkeys(warnings)))


def _remarks(path: Path, asked: Sequence[str]) -> Iterator[Remark]:
    try:
        with path.open("rb") as file:
            blocks: Iterator[bytes] = iter(lambda: file.read(_BLOCK), b"")
            plain = decompressed(blocks, path.suffix.lower()) if path.suffix.lower() in _COMPRESSED else blocks
            for _, line in numbered_lines(plain):
                yield from remarks(line, asked)
    except Broken:
        yield Remark("errors that cannot be read", True, ())


def _plain_name(path: str) -> str:
    name = path.rpartition("/")[2]
    for endings in (_COMPRESSED, _PLAIN):
        name = next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), name)
    return name
