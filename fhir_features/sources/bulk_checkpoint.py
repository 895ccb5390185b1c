"""How far have the exports of an unfinished run come? In: the run. Out: for each of its exports the address of its
status and what came of it, and which files have been downloaded; kept in the run's own checkpoint. Addresses of files
may be signed, so that only their hashes are kept."""

from __future__ import annotations

import datetime as dt
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from fhir_features.sources.bulk_export import KickOff
from fhir_features.sources.bulk_files import Lines
from fhir_features.sources.bulk_results import TypeResult
from fhir_features.sources.checkpoint import CHECKPOINT, OpenRun
from fhir_features.sources.landing import LandedFile

_TABLES = (
    "CREATE TABLE IF NOT EXISTS exports (number INTEGER PRIMARY KEY, state TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS downloads (number INTEGER PRIMARY KEY, url_hash BLOB UNIQUE NOT NULL, lines TEXT)",
)


class ExportState(msgspec.Struct):
    """How far an export has come: `kick_off` is the job that the server has for it, `watermark` (UTC) the instant up to
    which a finished one has seen the source, and `types` and `warnings` what came of it."""

    kick_offs: int = 0
    kick_off: KickOff | None = None
    watermark: dt.datetime | None = None
    types: dict[str, TypeResult] = {}
    warnings: list[str] = []


def begun_exports(folder: Path) -> list[str]:
    """The addresses of the status of the exports that an unfinished run has begun and not ended."""
    with closing(sqlite3.connect(folder / CHECKPOINT)) as database:
        try:
            rows = database.execute("SELECT state FROM exports ORDER BY number").fetchall()
        except sqlite3.DatabaseError:
            return []  # It has not come so far.
    states = [msgspec.json.decode(text, type=ExportState) for (text,) in rows]
    return [state.kick_off.status_url for state in states if state.kick_off is not None]


class ExportCheckpoint:
    """The exports and downloads of an unfinished run. Used by one thread."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._database = sqlite3.connect(run.folder / CHECKPOINT, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")
        for table in _TABLES:
            self._database.execute(table)

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def export(self, number: int) -> ExportState:
        """How far an export has come, by its number in the run."""
        row = self._database.execute("SELECT state FROM exports WHERE number = ?", (number,)).fetchone()
        return msgspec.json.decode(row[0], type=ExportState) if row else ExportState()

    def save(self, number: int, state: ExportState) -> None:
        """Keep how far an export has come."""
        row = (number, msgspec.json.encode(state).decode())
        self._database.execute("INSERT OR REPLACE INTO exports VALUES (?, ?)", row)

    def number(self, url: str) -> int:
        """The number in the run of the file at an address, from 1: the next one for one that was not seen before."""
        url_hash = hashlib.sha256(url.encode()).digest()
        self._database.execute(
            "INSERT OR IGNORE INTO downloads SELECT count(*) + 1, ?, NULL FROM downloads", (url_hash,)
        )
        number, *_ = self._database.execute("SELECT number FROM downloads WHERE url_hash = ?", (url_hash,)).fetchone()
        return int(number)

    def keep_download(self, number: int, lines: Lines, file: LandedFile | None) -> None:
        """Keep what came of a file, and count it in the run if it is landed."""
        # In this order: a file of which only the first is known is downloaded again.
        row = (msgspec.json.encode(lines).decode(), number)
        self._database.execute("UPDATE downloads SET lines = ? WHERE number = ?", row)
        if file is not None:
            self._run.add_file(file, number)

    def download(self, number: int) -> Lines | None:
        """What came of a file; null before it is landed."""
        (text,) = self._database.execute("SELECT lines FROM downloads WHERE number = ?", (number,)).fetchone()
        lines = msgspec.json.decode(text, type=Lines) if text else None
        if lines is None or not lines.kept:
            return lines
        row = self._database.execute("SELECT 1 FROM files WHERE rowid = ?", (number,)).fetchone()
        return lines if row else None
