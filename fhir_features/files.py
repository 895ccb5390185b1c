"""How is a file written so that it is there whole or not at all, whatever ends the process or the machine? It is
written aside, synced, given its name, and its folder is synced: only then may anything say that it is there.

Who writes holds a lock on what is written aside, so that what a process that was killed has left can be told from what
another one is writing. Locks are those of the kernel: they end with the process that has them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fhir_features.errors import FhirFeaturesError, LakeError, LakeLocked, UsageError

_ASIDE = ".aside-"

# As DuckDB passes them on, whose classes do not tell them from other errors.
_REFUSALS = (
    *map(os.strerror, (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM)),
    "readonly database",
    "disk is full",
    "disk I/O error",
    "unable to open database file",
    "Could not sync",
)

_SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')

# What was found to be as it was written, by this process.
_intact: set[tuple[Path, str]] = set()


@contextmanager
def alone(lock: Path, what: str, *, refused: type[FhirFeaturesError] = LakeError) -> Iterator[None]:
    """Hold a lock file, as the only process.

    Raises LakeLocked when another one does: "`what` by process 4711 …"; `refused` when the disk refuses.
    """
    with ExitStack() as held:
        with disk_errors(refused, str(lock)):
            make_folder(lock.parent)
            # Not opened with "w": that would wipe out what the holder has written. And without a buffer, which would
            # be written once more when the file is closed, after the disk had refused it.
            file = held.enter_context(lock.open("ab", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LakeLocked(f"{what} by {_holder(lock)}: wait until it has ended, then run this again") from None
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            file.truncate(0)
            file.write(
                json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}).encode() + b"\n"
            )
        yield


def _holder(lock: Path) -> str:
    """Who holds a lock, as it has said."""
    try:
        said = json.loads(lock.read_bytes())
        return f"process {said['process']} on {said['host']} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def written_aside(file: Path, *, replace: bool = True) -> Iterator[Path]:
    """A path to write to: what is there at the end of the block gets its name, synced, or nothing does.

    Raises FileExistsError when the name is taken and not to be replaced.
    """
    make_folder(file.parent)
    # Readers of a folder of Parquet take all that ends in .parquet.
    descriptor, aside = _new_aside(file.parent)
    try:
        yield aside
        os.fsync(descriptor)
        if replace:
            aside.replace(file)
        else:
            os.link(aside, file)
        sync(file.parent)
    finally:
        aside.unlink(missing_ok=True)
        os.close(descriptor)


def _new_aside(folder: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_ASIDE, suffix=".tmp", dir=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Who clears up may have had the lock first.
        if Path(name).exists():
            return descriptor, Path(name)
        os.close(descriptor)


@contextmanager
def folder_aside(parent: Path) -> Iterator[Path]:
    """A folder in another one to write to, which is gone at the end of the block, with what was not moved out of it."""
    make_folder(parent)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=parent))
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def left_aside(folder: Path, *, remove: bool) -> list[Path]:
    """What is aside in a folder and those below it though nobody is writing it any more, which is removed if wanted."""
    return [path for path in sorted(folder.rglob(f"{_ASIDE}*")) if _is_left(path, remove)]


def _is_left(path: Path, remove: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def parquet_in(folder: Path, *, below: bool = False) -> str:
    """The pattern of all Parquet files in a folder, or also below it, whatever wildcards are in its own name."""
    return f"{glob.escape(str(folder))}/{'**/' if below else ''}*.parquet"


def parquet_at(path: str, folder: Path) -> str:
    """The pattern of the Parquet files that a path names: a file, a folder or a pattern, relative to a folder."""
    found = folder / path
    if found.is_dir():
        return parquet_in(found, below=True)
    return glob.escape(str(found)) if found.exists() else str(Path(glob.escape(str(folder))) / path)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that they survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync(folder.parent)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(record: str) -> bytes:
    """A JSON object on lines of its own as it is written: at its end the SHA-256 of what it would be without that."""
    body = record.encode()
    return body.removesuffix(b"\n}") + b',\n "sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()


def unsealed(content: bytes) -> bytes:
    """A record without its seal, which those of before there were any do not have.

    Raises ValueError when it is not as it was written.
    """
    seal = _SEAL.search(content)
    if seal is None:
        return content
    body = content[: seal.start()] + b"\n}"
    if hashlib.sha256(body).hexdigest().encode() != seal[1]:
        raise ValueError("not as it was written")
    return body


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file that never changes has the bytes that it was written with: it is read for that once a process."""
    if (path, sha256) not in _intact:
        try:
            if sha256_of(path) != sha256:
                return False
        except OSError:
            return False
        _intact.add((path, sha256))
    return True


def check_folder(path: Path) -> None:
    """Refuse a file of a user that is to be written into a folder that is not there. Raises UsageError."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} to: create it, or name another one")


@contextmanager
def disk_errors(error_class: type[FhirFeaturesError], what: str) -> Iterator[None]:
    """Say in one line when the disk refuses to write: it is full, failing, or not ours. Raises `error_class`."""
    try:
        yield
    except Exception as error:
        why = refusal(error)
        if why is None:
            raise
        raise error_class(f"{what} cannot be written ({why}): correct that, then run this again") from None


def refusal(error: Exception) -> str | None:
    """What the disk has refused, in the words of the system or of SQLite; None for an error of another kind."""
    if isinstance(error, FhirFeaturesError):
        return None
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return next((words for words in _REFUSALS if words in str(error)), None)
