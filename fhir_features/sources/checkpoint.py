"""How far has a pull come? An unfinished run: its folder, and beside the landed files a small SQLite database that says
which of their bytes count. A page's lines are written and synced before the transaction that counts them, so a pull
that is killed at any instant goes on from the last page that it stored, and nothing half is ever believed.
In: a source's folder in the landing. Out: the run to go on with, and at the end a finished one."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import zstandard

from fhir_features.files import make_folder, sha256_of, sync
from fhir_features.sources.landing import (
    RECORD,
    RUN_FOLDERS,
    LandedFile,
    LandedRun,
    Receipt,
    run_id_of,
    started_at_of,
    write_record,
)
from fhir_features.times import UTC

CHECKPOINT = "unfinished.sqlite"
# Pages that are received within this time share one receipt, so that a run's record stays small however many they are.
RECEIPT_LASTS = dt.timedelta(seconds=1)
_TABLES = (
    "CREATE TABLE run (plan TEXT NOT NULL)",
    "CREATE TABLE files (name TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE types (stem TEXT PRIMARY KEY, state TEXT NOT NULL)",
    "CREATE TABLE receipts (stem TEXT, first_line INTEGER, received_at TEXT NOT NULL, PRIMARY KEY (stem, first_line))",
    "CREATE TABLE patients (number INTEGER PRIMARY KEY, id TEXT NOT NULL, known INTEGER NOT NULL)",
    "CREATE TABLE landed (content BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE scanned (resource BLOB PRIMARY KEY) WITHOUT ROWID",
)


class TypeState(msgspec.Struct):
    """How far one resource type has been read, or the backfill of it, or what others refer to of it (`followed`: then
    `done` is the number of the last that was read). Instants are UTC.

    `request` is what every search of it says, `since` the lower bound on meta.lastUpdated that held, `history` whether
    the history of the type is read. It may take many searches (one a patient and category): `done` are read, and in
    `unknown` of them the server did not know the patient. A search that could not be read to its end is read in
    windows of meta.lastUpdated, between `cuts`: `window` is the number of the one that is being read, from 0, and
    `counted` how many resources those before it had.

    Of the search that is being read: `next_url` is the page to read next, null for the first of a scan (no `scan_pages`
    yet) and after its last; `ids` counts the distinct ids of this scan, `total` is the largest Bundle.total that it
    gave and `last_total` the newest, `barren` the pages since the last one with a new id, `lines_before` the lines that
    counted when it began. `lines` and `bytes` are what counts of the landed file, `receipt_began` when the first of the
    pages came that share its last receipt; `entries` and `pages` are what was received for it, over all searches and
    scans.
    """

    resource_type: str
    request: dict[str, str]
    since: dt.datetime | None
    backfill: bool = False
    followed: bool = False
    history: bool = False
    done: int = 0
    unknown: int = 0
    cuts: list[dt.datetime] = []
    window: int = 0
    counted: int = 0
    watermark: dt.datetime | None = None
    next_url: str | None = None
    scan_pages: int = 0
    ids: int = 0
    total: int | None = None
    last_total: int | None = None
    barren: int = 0
    lines_before: int = 0
    lines: int = 0
    bytes: int = 0
    receipt_began: dt.datetime | None = None
    entries: int = 0
    pages: int = 0
    warnings: list[str] = []
    complete: bool = False

    @property
    def stem(self) -> str:
        """What names it in a run: the beginning of its file's name."""
        part = "-backfill" if self.backfill else "-followed" if self.followed else ""
        return self.resource_type + part

    def warn(self, text: str) -> None:
        """Keep a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)


class OpenRun:
    """A run that is being written, by the one process that holds the source's lock.

    `started_at` is when it was begun, `opened_at` when this process began or continued it (UTC): what is received now
    was not known when a run that was interrupted started.
    """

    def __init__(self, folder: Path, opened_at: dt.datetime) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.started_at = started_at_of(folder.name)
        self.opened_at = opened_at
        self._database = sqlite3.connect(folder / CHECKPOINT, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Let go of the run; it can be continued."""
        self._database.close()

    def discard(self) -> None:
        """Remove the run, of which nothing was landed."""
        self.close()
        shutil.rmtree(self.folder)

    def finish(self, run: LandedRun) -> None:
        """Make it a finished run."""
        kept = {CHECKPOINT, *(file.name for file in run.files)}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        write_record(run)
        self.close()
        (self.folder / CHECKPOINT).unlink()

    def files(self) -> list[LandedFile]:
        """The files that are landed whole, in their order."""
        rows = self._database.execute("SELECT record FROM files ORDER BY rowid").fetchall()
        return [LandedFile.model_validate_json(record) for (record,) in rows]

    def next_number(self) -> int:
        """The number of the file that is added next, from 1."""
        count, *_ = self._database.execute("SELECT count(*) + 1 FROM files").fetchone()
        return int(count)

    def add_file(self, file: LandedFile, place: int | None = None) -> None:
        """Count a file that lies in the folder, whole and synced: as the last one, or at its place in the run."""
        row = (place, file.name, file.model_dump_json())
        self._database.execute("INSERT INTO files (rowid, name, record) VALUES (?, ?, ?)", row)

    def type_state(self, new: TypeState) -> TypeState:
        """How far a type has come that would begin as `new`."""
        row = self._database.execute("SELECT state FROM types WHERE stem = ?", (new.stem,)).fetchone()
        return msgspec.json.decode(row[0], type=TypeState) if row else new

    def set_patients(self, patients: Iterable[tuple[str, bool]]) -> None:
        """Keep whom to ask about: ids and whether they were asked about before, which one of several words decides."""
        with self._transaction():
            self._database.execute("CREATE TEMP TABLE named (id TEXT PRIMARY KEY, known INTEGER)")
            self._database.executemany(
                "INSERT INTO named VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET known = max(known, excluded.known)",
                patients,
            )
            self._database.execute(
                "INSERT INTO patients (id, known) SELECT id, known FROM named ORDER BY known DESC, rowid"
            )
            self._database.execute("DROP TABLE named")

    def count_patients(self) -> tuple[int, int]:
        """How many patients there are to ask about, and how many of them were asked about before: the first ones."""
        count, known = self._database.execute("SELECT count(*), coalesce(sum(known), 0) FROM patients").fetchone()
        return int(count), int(known)

    def patient(self, number: int) -> str:
        """The id of a patient to ask about, by number from 1."""
        (id,) = self._database.execute("SELECT id FROM patients WHERE number = ?", (number,)).fetchone()
        return str(id)

    def next_search(self, state: TypeState) -> None:
        """Count a search as read, and begin the next one of its type."""
        state.done += 1
        state.cuts, state.window, state.counted = [], 0, 0
        self.begin_scan(state)

    def next_window(self, state: TypeState) -> None:
        """Count a window of a search as read, and begin the next one."""
        state.window += 1
        state.counted += state.ids
        self.begin_scan(state)

    def begin_scan(self, state: TypeState) -> None:
        """Start reading a search from its first page; what is landed of it stays, and is not landed again."""
        state.next_url, state.scan_pages, state.ids, state.barren = None, 0, 0, 0
        state.total = state.last_total = None
        state.lines_before = state.lines
        with self._transaction():
            self._database.execute("DELETE FROM scanned")
            self._save(state)

    def store_page(self, state: TypeState, resources: Sequence[tuple[bytes, bytes]], received_at: dt.datetime) -> None:
        """Land the resources (identity, line) of a page that are not landed yet, and count the page.

        Two resources are the same when their bytes are: these hold type, id and version, and a version whose content
        differs must not be lost because a server left its versionId alone (TIME rule 6).
        """
        with self._transaction():
            new_ids = sum(self._add("scanned", "resource", identity) for identity, _ in resources)
            lines = [line for _, line in resources if self._add("landed", "content", hashlib.sha256(line).digest())]
            if lines:
                self._receive(state, received_at)
                self._append(self._path(state), state, lines)
            state.ids += new_ids
            state.barren = 0 if new_ids else state.barren + 1
            state.entries += len(resources)
            state.pages += 1
            state.scan_pages += 1
            self._save(state)

    def finish_type(self, state: TypeState) -> None:
        """Record the file of a type that has been read completely."""
        state.complete = True
        path = self._path(state)
        with self._transaction():
            if state.lines:
                os.truncate(path, state.bytes)
                self.add_file(self._searched_file(state, path))
            self._database.execute("DELETE FROM landed")
            self._database.execute("DELETE FROM scanned")
            self._save(state)

    def _receive(self, state: TypeState, received_at: dt.datetime) -> None:
        """Note when the lines after those that count were received: at the end of the receipt that they share."""
        began = state.receipt_began
        if began is not None and dt.timedelta(0) <= received_at - began < RECEIPT_LASTS:
            last = "first_line = (SELECT max(first_line) FROM receipts WHERE stem = $stem)"
            self._database.execute(
                f"UPDATE receipts SET received_at = $at WHERE stem = $stem AND {last}",
                {"at": received_at.isoformat(), "stem": state.stem},
            )
        else:
            receipt = (state.stem, state.lines + 1, received_at.isoformat())
            self._database.execute("INSERT INTO receipts VALUES (?, ?, ?)", receipt)
            state.receipt_began = received_at

    def _path(self, state: TypeState) -> Path:
        return self.folder / f"{state.stem}-0001.ndjson.zst"

    def _append(self, path: Path, state: TypeState, lines: list[bytes]) -> None:
        frame = zstandard.ZstdCompressor().compress(b"\n".join(lines) + b"\n")
        is_new = not path.exists()
        with path.open("wb" if is_new else "r+b") as file:
            # What a pull that was killed had written after its last transaction does not count.
            file.truncate(state.bytes)
            file.seek(state.bytes)
            file.write(frame)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync(path.parent)
        state.bytes += len(frame)
        state.lines += len(lines)

    def _searched_file(self, state: TypeState, path: Path) -> LandedFile:
        receipts = self._database.execute(
            "SELECT first_line, received_at FROM receipts WHERE stem = ? ORDER BY first_line", (state.stem,)
        )
        return LandedFile(
            name=path.name,
            format="ndjson",
            resource_type=state.resource_type,
            resources={state.resource_type: state.lines},
            lines=state.lines,
            bytes=state.bytes,
            sha256=sha256_of(path),
            backfill=state.backfill or state.followed,
            receipts=tuple(
                Receipt(first_line=first, received_at=dt.datetime.fromisoformat(at)) for first, at in receipts
            ),
        )

    def _add(self, table: str, column: str, key: bytes) -> int:
        return self._database.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (key,)).rowcount

    def _save(self, state: TypeState) -> None:
        row = (state.stem, msgspec.json.encode(state).decode())
        self._database.execute("INSERT OR REPLACE INTO types VALUES (?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def open_run(source_folder: Path, plan: str, abandon: Callable[[Path], None] = lambda _: None) -> OpenRun:
    """The run of a source to go on with: the unfinished one if it was asked the same (`plan`), else a new one.

    `abandon` is called with the folder of one that is given up, before it is removed.
    """
    now = dt.datetime.now(UTC)
    for folder in sorted(source_folder.glob(RUN_FOLDERS)):
        if (folder / RECORD).exists():
            (folder / CHECKPOINT).unlink(missing_ok=True)
        elif _plan_of(folder) == plan:
            return OpenRun(folder, now)
        else:
            if (folder / CHECKPOINT).exists():
                abandon(folder)
            shutil.rmtree(folder)
    folder = source_folder / run_id_of(now)
    make_folder(folder)
    with closing(sqlite3.connect(folder / CHECKPOINT, isolation_level=None)) as database:
        database.execute("BEGIN")
        for table in _TABLES:
            database.execute(table)
        database.execute("INSERT INTO run VALUES (?)", (plan,))
        database.execute("COMMIT")
    return OpenRun(folder, now)


def _plan_of(folder: Path) -> str | None:
    if not (folder / CHECKPOINT).exists():
        return None
    with closing(sqlite3.connect(folder / CHECKPOINT)) as database:
        try:
            row = database.execute("SELECT plan FROM run").fetchone()
        except sqlite3.DatabaseError:
            return None
    return str(row[0]) if row else None
