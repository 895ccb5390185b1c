"""Which files of a folder have not been landed yet? In: a source of kind `files` and the hashes of what is landed
already. Out: NDJSON files and Bundles, plain or compressed (of an export whose manifest lies beside its files, those
that it names), copied into the run's folder byte for byte, each counted and numbered. A broken file is landed as it is:
reading it back says from which line on it is broken."""

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
from fhir_features.files import sha256_of, sync
from fhir_features.sources.checkpoint import OpenRun
from fhir_features.sources.kept_export import MANIFEST, KeptExport, Told, kept_export, told_by
from fhir_features.sources.landing import LandedFile, LandedType, Receipt
from fhir_features.sources.progress import Progress
from fhir_features.sources.reading import NOT_JSON, UnreadableRest, read_lines

_BLOCK = 1 << 20
_FILE_NAME = re.compile(r"[^.].*?(\.(?:ndjson|jsonl|json))(\.gz|\.zst)?", re.IGNORECASE)
_RESOURCE_TYPE = re.compile(r"[A-Z][A-Za-z]{1,39}")


def land_files(
    name: str, source: Source, run: OpenRun, landed: set[str], progress: Progress
) -> tuple[dict[str, LandedType], list[str]]:
    """Land the files of a source's folder, and of the folders in it, whose SHA-256 is not in `landed`: what the run
    knows of each type, and what a user should know of it as a whole.

    Raises SourceUnreachable when a folder cannot be read, SourceNotFhir for a manifest that is none, SourceIncomplete
    when a file cannot be read or is named by a manifest and not there.
    """
    assert source.path is not None
    paths, exports = found_files(name, source.path)
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
    originals = {file.original for file in run.files()}
    of_run = [each for each in exports if any(_original(path, source.path) in originals for path in each.files)]
    told = told_by(of_run, source.resource_types)
    return _types(source, run, told), [*_warnings(source, run), *told.warnings]


def _types(source: Source, run: OpenRun, told: Told) -> dict[str, LandedType]:
    """What a run knows of each type that the source reads. A folder is all there is, as of the run's start, but for
    exports, which are as of their own time."""
    files = run.files()
    lacking = {resource_type: told.lacking(resource_type) for resource_type in source.resource_types}
    return {
        resource_type: LandedType(
            request={},
            since=None,
            watermark=min(told.seen_up_to or run.started_at, run.started_at),
            complete=not lacking[resource_type],
            entries=sum(file.resources.get(resource_type, 0) for file in files),
            pages=sum(resource_type in file.resources for file in files),
            warnings=lacking[resource_type],
        )
        for resource_type in source.resource_types
    }


def _warnings(source: Source, run: OpenRun) -> list[str]:
    """What a user should know of the files that were landed."""
    files = run.files()
    others = sum(file.lines - sum(file.resources.get(name, 0) for name in source.resource_types) for file in files)
    warnings = []
    if others:
        warnings.append(f"{others} lines or entries hold no resource of its resource_types: landed all the same")
    if broken := [file.name for file in files if file.unreadable_from is not None]:
        warnings.append(f"not readable to the end, the rest will be quarantined: {', '.join(broken)}")
    return warnings


def found_files(name: str, folder: Path) -> tuple[list[Path], list[KeptExport]]:
    """The files of a folder, and of the folders in it, that may hold resources, in the order of their names; and the
    exports that lie there, whose files are those that their manifests name, deletions first.

    Raises SourceUnreachable when a folder cannot be read, SourceNotFhir for a manifest that is none, SourceIncomplete
    when files that one names are not there.
    """

    def refuse(error: OSError) -> None:
        raise SourceUnreachable(
            f"source '{name}': its folder {folder} cannot be read ({error.strerror}): correct 'path' or its permissions"
        )

    found = [Path(root) / file for root, _, files in os.walk(folder, onerror=refuse) for file in files]
    named = sorted(path for path in found if _FILE_NAME.fullmatch(path.name))
    files = [path for path in named if path.is_file() or path.is_symlink()]
    manifests = {path.parent: path for path in files if path.name == MANIFEST}
    beside: dict[Path, list[Path]] = {parent: [] for parent in manifests}
    alone: list[Path] = []
    for path in files:
        export = next((parent for parent in path.parents if parent in manifests), None)
        (alone if export is None else beside[export]).append(path)
    exports = {manifests[each]: kept_export(name, manifests[each], beside[each]) for each in manifests}
    in_order = sorted([*((path, (path,)) for path in alone), *((path, each.files) for path, each in exports.items())])
    return [path for _, paths in in_order for path in paths], list(exports.values())


def _land(run: OpenRun, path: Path, folder: Path) -> LandedFile:
    ending, compression = endings(path)
    copy = run.folder / f"copy{compression or '.zst'}"
    original_sha256 = _copy(path, copy, compress=not compression)
    draft = LandedFile(
        name=copy.name,
        original=_original(path, folder),
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
    sync(run.folder)
    counts = {"lines": lines, "resources": resources, "unreadable_from": unreadable_from}
    return draft.model_copy(update={"name": landed, "resource_type": only_type, **counts})


def endings(path: Path) -> tuple[str, str]:
    """How the name of a file that was found ends: its kind, and its compression or nothing, in lower case."""
    match = _FILE_NAME.fullmatch(path.name)
    assert match is not None
    return match[1].lower(), (match[2] or "").lower()


def _original(path: Path, folder: Path) -> str:
    return os.fsencode(path.relative_to(folder)).decode(errors="replace")


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
