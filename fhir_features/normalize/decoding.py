"""Which lines of a run are decoded together, and by which process? A landed run in, the batches of its lines out.

The batches come in the order of the lines, whoever decoded them, so that what follows of them is the same with one
process and with many. A large run is decoded by processes of their own, which get lines and give batches over pipes
and hold no file; a small one here, since a process takes longer to start than to decode it.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple

from fhir_features.cores import cores
from fhir_features.errors import LakeError
from fhir_features.normalize.decode import Batch, Decoder, Place
from fhir_features.normalize.dialect import Dialect
from fhir_features.normalize.validation import Validation
from fhir_features.sources import LandedFile, LandedRun, Progress, UnreadableRest, read_lines
from fhir_features.times import epoch_us

_BATCH_LINES = 5_000
_BATCH_BYTES = 4 << 20
_LARGE_RUN_LINES = 150_000
# One process reads and stages as fast as this many decode.
_MOST_PROCESSES = 4


class Rest(NamedTuple):
    """The rest of a file that cannot be read: of which type it was, where that is known, and why."""

    resource_type: str | None
    reason: str


Line = tuple[str, Place, bytes | Rest]  # format of its file, place, content


def decoded(
    run: LandedRun, dialect: Dialect, validation: Validation, progress: Progress, processes: int | None = None
) -> Iterator[Batch]:
    """The batches of a run, at least one. Without `processes` as many decode as the run is worth.

    Raises LandingError for a file that is gone, LakeError when a process ends before its time.
    """
    lines = _lines(run, progress)
    if processes is None:
        large = sum(file.lines for file in run.files) >= _LARGE_RUN_LINES
        processes = min(cores(), _MOST_PROCESSES) if large else 1
    if processes > 1:
        yield from _decoded_elsewhere(_chunks(lines), dialect, validation, processes)
    else:
        yield from decoded_here(lines, dialect, validation)


def decoded_here(lines: Iterator[Line], dialect: Dialect, validation: Validation) -> Iterator[Batch]:
    """The batches of some lines, at least one, without another process."""
    decoder = Decoder(dialect, validation)
    for chunk in _chunks(lines):
        yield _decode(decoder, chunk)


def _lines(run: LandedRun, progress: Progress) -> Iterator[Line]:
    for file_no, file in enumerate(run.files):
        for line in lines_of(run.folder, file_no, file):
            yield line
            _, _, number, _ = line[1]
            if number % 1000 == 0:
                progress(run.source, f"file {file_no + 1}", number, file.lines)
        progress(run.source, f"file {file_no + 1}", file.lines, file.lines)


def lines_of(folder: Path, file_no: int, file: LandedFile) -> Iterator[Line]:
    """The lines of one landed file, and the rest of it that cannot be read. Raises LandingError when it is gone."""
    seen_at, received_us = None, 0
    try:
        for number, received_at, line in read_lines(folder, file):
            if received_at is not seen_at:
                seen_at, received_us = received_at, epoch_us(received_at)
            yield file.format, (received_us, file_no, number, None), line
    except UnreadableRest as rest:
        place = (epoch_us(rest.received_at), file_no, rest.line, None)
        yield file.format, place, Rest(file.resource_type, rest.reason)


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """The lines in lists, the last of which may be empty."""
    whole = True
    while whole:
        with _no_collection():
            chunk, whole = _chunk(lines)
        yield chunk


def _chunk(lines: Iterator[Line]) -> tuple[list[Line], bool]:
    """The lines that are decoded together next, and whether there may be more."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line[2])
        if len(chunk) == _BATCH_LINES or size >= _BATCH_BYTES:
            return chunk, True
    return chunk, False


def _decode(decoder: Decoder, chunk: list[Line]) -> Batch:
    with _no_collection():
        _take(decoder, chunk)
        return decoder.batch()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Rows make no cycles, so looking for some among the many that a batch holds would be for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _take(decoder: Decoder, chunk: list[Line]) -> None:
    for format, place, content in chunk:
        if isinstance(content, Rest):
            decoder.unreadable(*content, place)
        elif format == "bundle":
            decoder.entry(content, place)
        else:
            decoder.line(content, place)


def _decoded_elsewhere(
    chunks: Iterator[list[Line]], dialect: Dialect, validation: Validation, processes: int
) -> Iterator[Batch]:
    with ExitStack() as stack:
        idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(processes):
            idle.put(stack.enter_context(_process(dialect, validation)))

        def ask(chunk: list[Line]) -> Batch:
            process = idle.get()
            try:
                return _asked(process, chunk)
            finally:
                idle.put(process)

        pool = stack.enter_context(ThreadPoolExecutor(processes))
        waiting: deque[Future[Batch]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(ask, chunk))
            if len(waiting) > processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _process(dialect: Dialect, validation: Validation) -> Iterator[subprocess.Popen[bytes]]:
    serving = (
        "import sys; sys.path[:] = {path!r}; from {module} import serve; serve(sys.stdin.buffer, sys.stdout.buffer)"
    )
    command = [sys.executable, "-c", serving.format(path=sys.path, module=__name__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            pickle.dump((dialect, validation), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            yield process
        finally:
            process.kill()
            # What it was not told any more would be told to nobody.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _asked(process: subprocess.Popen[bytes], chunk: list[Line]) -> Batch:
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump(chunk, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        answer: Batch | Exception = pickle.load(process.stdout)
    except (EOFError, OSError):
        raise LakeError(
            "a process that decodes ended before its time: see that memory is free, then repeat this"
        ) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _WithoutPandas(MetaPathFinder):
    """Arrow imports pandas where it is, to see whether rows are some of it: 60 MB and half a second a process."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ImportError(f"{fullname} is not for this process")


def serve(chunks: BinaryIO, batches: BinaryIO) -> None:
    """Decode chunks as they come after the decoder's settings, until no more come; an error is an answer too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.meta_path.insert(0, _WithoutPandas())
    decoder = Decoder(*pickle.load(chunks))
    answer: Batch | Exception
    while True:
        try:
            chunk = pickle.load(chunks)
        except EOFError:
            return
        try:
            answer = _decode(decoder, chunk)
        except Exception as error:
            answer = error
        try:
            pickle.dump(answer, batches, protocol=pickle.HIGHEST_PROTOCOL)
            batches.flush()
        except BrokenPipeError:
            # Whoever asked was interrupted; what is left to be written would be a second error at the end.
            os._exit(0)
