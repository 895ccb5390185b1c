"""Which files of a folder have not been landed yet? In: a source of kind `files` and the hashes of what is landed
already. Out: NDJSON files and Bundles, plain or compressed, copied into the run's folder byte for byte, each counted
and numbered. A broken file is landed as it is: reading it back says from which line on it is broken."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec
import zstandard

from fhir_features.config import RESOURCE_TYPES, Source
from fhir_features.errors import SourceIncomplete, SourceUnreachable
from fhir_features.sources.checkpoint import OpenRun
from fhir_features.sources.landing import LandedFile, LandedType, Receipt, sha256_of
from fhir_features.sources.progress import Progress
from fhir_features.sources.reading import NOT_JSON, UnreadableRest, read_lines

_BLOCK = 1 << 20
_FILE_NAME = re.compile(r"[^.].*?(\.(?:ndjson|jsonl|json))(\.gz|\.zst)?", re.IGNORECASE)
_RESOURCE_TYPE = re.compile(r"[A-Z][A-Za-z]{1,39}")


def land_files(name: str, source: Source, run: OpenRun, landed: set[str], progress: Progress) -> None:
    """Land the files of a source's folder, and of the folders in it, whose SHA-256 is not in `landed`.

    Raises SourceUnreachable when a folder cannot be read, SourceIncomplete when a file cannot be.
    """
    assert source.path is not None
    paths = found_files(name, source.path)
    done = landed | {file.original_sha256 or "" for file in run.files()}
    for number, path in enumerate(paths, start=1):
        progress(name, "files", number, len(paths))
        try:
            if sha256_of(path) in done:
                continue
            file = _land(run, path, source.path)
        except OSError as error:
            # A file's name may hold a patient's, so its place stands for it.
            raise SourceIncomplete(
                f"source '{name}': file {number} of {len(paths)} of its folder, in the order of their names, "
                f"cannot be landed ({error.strerror}): correct that, then pull again"
            ) from None
        run.add_file(file)
        done.add(file.original_sha256 or "")


def files_types(source: Source, run: OpenRun) -> dict[str, LandedType]:
    """What a run knows of each type that the source reads: a folder is all there is, as of the run's start."""
    files = run.files()
    return {
        resource_type: LandedType(
            request={},
            since=None,
            watermark=run.started_at,
            complete=True,
            entries=sum(file.resources.get(resource_type, 0) for file in files),
            pages=sum(resource_type in file.resources for file in files),
        )
        for resource_type in source.resource_types
    }


def files_warnings(source: Source, run: OpenRun) -> list[str]:
    """What a user should know of the files that were landed."""
    files = run.files()
    others = sum(file.lines - sum(file.resources.get(name, 0) for name in source.resource_types) for file in files)
    warnings = []
    if others:
        warnings.append(f"{others} lines or entries hold no resource of the types that are read: landed all the same")
    if broken := [file.name for file in files if file.unreadable_from is not None]:
        warnings.append(f"not readable to the end, the rest will be quarantined: {', '.join(broken)}")
    return warnings


def found_files(name: str, folder: Path) -> list[Path]:
    """The files of a folder, and of the folders in it, that may hold resources, in the order of their names.

    Raises SourceUnreachable when a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise SourceUnreachable(
            f"source '{name}': its folder {folder} cannot be read ({error.strerror}): correct 'path' or its permissions"
        )

    found = [Path(root) / file for root, _, files in os.walk(folder, onerror=refuse) for file in files]
    named = sorted(path for path in found if _FILE_NAME.fullmatch(path.name))
    return [path for path in named if path.is_file() or path.is_symlink()]


def _land(run: OpenRun, path: Path, folder: Path) -> LandedFile:
    ending, compression = endings(path)
    copy = run.folder / f"copy{compression or '.zst'}"
    original_sha256 = _copy(path, copy, compress=not compression)
    draft = LandedFile(
        name=copy.name,
        original=os.fsencode(path.relative_to(folder)).decode(errors="replace"),
        format="bundle" if ending == ".json" else "ndjson",
        resource_type=None,
        resources={},
        lines=0,
        bytes=copy.stat().st_size,
        sha256=sha256_of(copy),
        original_sha256=original_sha256,
        receipts=(Receipt(first_line=1, received_at=run.opened_at),),
    )
    lines, resources, unreadable_from = _counted(run.folder, draft)
    only_type = next(iter(resources)) if list(resources.values()) == [lines] else None
    stem = only_type if only_type in RESOURCE_TYPES else "mixed"
    landed = f"{stem}-{run.next_number():04d}{'.json' if draft.format == 'bundle' else '.ndjson'}{copy.suffix}"
    copy.replace(run.folder / landed)
    counts = {"lines": lines, "resources": resources, "unreadable_from": unreadable_from}
    return draft.model_copy(update={"name": landed, "resource_type": only_type, **counts})


def endings(path: Path) -> tuple[str, str]:
    """How the name of a file that was found ends: its kind, and its compression or nothing, in lower case."""
    match = _FILE_NAME.fullmatch(path.name)
    assert match is not None
    return match[1].lower(), (match[2] or "").lower()


def _copy(path: Path, copy: Path, compress: bool) -> str:
    """Copy a file, compressing a plain one; the SHA-256 of what was read."""
    read = hashlib.sha256()
    with path.open("rb") as source, copy.open("wb") as out:
        compressor = zstandard.ZstdCompressor().compressobj() if compress else None
        while block := source.read(_BLOCK):
            read.update(block)
            out.write(compressor.compress(block) if compressor else block)
        if compressor:
            out.write(compressor.flush())
        out.flush()
        os.fsync(out.fileno())
    return read.hexdigest()


class _Resource(msgspec.Struct):
    resourceType: Any = None


class _Entry(msgspec.Struct):
    resource: _Resource | None = None


def _counted(folder: Path, file: LandedFile) -> tuple[int, dict[str, int], int | None]:
    """The lines of a landed file, how many resources of each type are in them, and from which line it is unreadable."""
    lines, resources, unreadable_from = 0, Counter[str](), None
    try:
        for _, _, line in read_lines(folder, file):
            lines += 1
            resource_type = _resource_type(line, file.format)
            if isinstance(resource_type, str) and _RESOURCE_TYPE.fullmatch(resource_type):
                resources[resource_type] += 1
    except UnreadableRest as rest:
        unreadable_from = rest.line
    return lines, dict(sorted(resources.items())), unreadable_from


def _resource_type(line: bytes, format: Literal["ndjson", "bundle"]) -> Any:
    try:
        if format == "ndjson":
            return msgspec.json.decode(line, type=_Resource).resourceType
        resource = msgspec.json.decode(line, type=_Entry).resource
        return resource and resource.resourceType
    except NOT_JSON:
        return None
