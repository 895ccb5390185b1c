"""What do resources refer to that no search and no export gives? Some servers give Medications, or the results of a
report, only to whoever asks for them by id. In: a run that has landed what was searched or exported. Out: the resources
of the types that the source follows which the run refers to and does not have, read one by one, and in turn what these
refer to. Each is asked for anew by every run that refers to it: it may have been corrected."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec

from fhir_features.config import Source
from fhir_features.errors import SourceNotFhir
from fhir_features.sources.ahead import Ahead
from fhir_features.sources.checkpoint import CHECKPOINT, OpenRun, TypeState
from fhir_features.sources.client import Client
from fhir_features.sources.patients import resource_ids
from fhir_features.sources.progress import Progress
from fhir_features.sources.reading import NOT_JSON, UnreadableRest, read_lines
from fhir_features.sources.searchset import NEWLINES, refusal
from fhir_features.sources.transport import Answer

# Which resources refer to those of a type, as far as that is read.
_REFERRING = {"Medication": ("MedicationRequest",), "Observation": ("DiagnosticReport", "Observation")}
_ID = r"([A-Za-z0-9\-.]{1,64})"


class _Referring(msgspec.Struct):
    medicationReference: Any = None
    result: Any = None
    hasMember: Any = None


def land_followed(name: str, source: Source, run: OpenRun, progress: Progress) -> list[str]:
    """Land what a run refers to of each type that the source follows; what a user should know.

    Raises SourceUnreachable, SourceRefused, SourceNotFhir, and ConfigError for a secret that is not there.
    """
    warnings: list[str] = []
    if source.follow:
        with Client(name, source) as client, closing(Ahead(client, source.connections)) as ahead:
            for resource_type in source.follow:
                warnings += _Following(name, source, run, resource_type, ahead, progress).land()
    return warnings


class _Following:
    def __init__(
        self, name: str, source: Source, run: OpenRun, resource_type: str, ahead: Ahead, progress: Progress
    ) -> None:
        assert source.base_url is not None
        self._name = name
        self._run = run
        self._type = resource_type
        self._ahead = ahead
        self._progress = progress
        self._base = source.base_url.rstrip("/")
        bases = "|".join(re.escape(url.rstrip("/")) for url in (self._base, *source.other_base_urls))
        # https://hl7.org/fhir/R4/references.html#literal: relative, or absolute on this server; of a version or none.
        self._reference = re.compile(rf"(?:(?:{bases})/)?{resource_type}/{_ID}(?:/_history/.*)?")

    def land(self) -> list[str]:
        state = self._run.type_state(TypeState(self._type, {}, since=None, followed=True))
        with closing(sqlite3.connect(self._run.folder / CHECKPOINT, isolation_level=None)) as database:
            if not state.complete:
                self._note_all(database)
                self._read_all(database, state)
                self._run.finish_type(state)
        return state.warnings

    def _note_all(self, database: sqlite3.Connection) -> None:
        """Keep what the run refers to and does not have; `number` is the order in which it is read."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS followed (number INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT, id TEXT, "
            "UNIQUE (type, id))"
        )
        if database.execute("SELECT 1 FROM followed WHERE type = ? LIMIT 1", (self._type,)).fetchone():
            return
        database.execute("BEGIN")
        self._note(database, self._referred())
        if database.execute("SELECT 1 FROM followed WHERE type = ? LIMIT 1", (self._type,)).fetchone():
            held = ((self._type, id) for id in resource_ids(self._type, self._run.folder, self._run.files()))
            database.executemany("DELETE FROM followed WHERE type = ? AND id = ?", held)
        database.execute("COMMIT")

    def _note(self, database: sqlite3.Connection, ids: Iterator[str]) -> None:
        rows = ((self._type, id) for id in ids)
        database.executemany("INSERT OR IGNORE INTO followed (type, id) VALUES (?, ?)", rows)

    def _referred(self) -> Iterator[str]:
        """The ids that the run's resources refer to, some of them repeatedly."""
        for file in self._run.files():
            if any(file.resources.get(each) for each in _REFERRING[self._type]):
                try:
                    for _, _, line in read_lines(self._run.folder, file):
                        yield from self._referred_by(line)
                except UnreadableRest:
                    continue  # Normalize puts the rest of the file into the quarantine.

    def _referred_by(self, resource: bytes) -> Iterator[str]:
        if b'"%s/' % self._type.encode() not in resource and b"/%s/" % self._type.encode() not in resource:
            return
        try:
            read = msgspec.json.decode(resource, type=_Referring)
        except NOT_JSON:
            return
        for element in (read.medicationReference, read.result, read.hasMember):
            for reference in element if isinstance(element, list) else [element]:
                text = reference.get("reference") if isinstance(reference, dict) else None
                if isinstance(text, str) and (found := self._reference.fullmatch(text)):
                    yield found[1]

    def _read_all(self, database: sqlite3.Connection, state: TypeState) -> None:
        after = "FROM followed WHERE type = ? AND number > ?"
        while ids := database.execute(
            f"SELECT number, id {after} ORDER BY number LIMIT 100", (self._type, state.done)
        ).fetchall():
            (left,) = database.execute(f"SELECT count(*) {after}", (self._type, state.done)).fetchone()
            for place, (number, id) in enumerate(ids):
                url = f"{self._base}/{self._type}/{id}"
                self._ahead.expect([url, *(f"{self._base}/{self._type}/{each}" for _, each in ids[place + 1 :])])
                _, answer = self._ahead.get(url)
                lines = self._lines(answer)
                for line in lines:
                    self._note(database, self._referred_by(line))
                state.unknown += not lines
                # The number counts with the page, so that nothing is read twice, or passed by, by a run that is killed.
                state.done = number
                self._run.store_page(state, [(id.encode(), line) for line in lines], answer.received_at)
                self._progress(self._name, f"{self._type} by id", state.pages, state.pages + left - place - 1)
        if state.unknown:
            state.warn(f"{state.unknown} of {state.pages} {self._type} that others refer to could not be had")

    def _lines(self, answer: Answer) -> list[bytes]:
        """The resource that an answer gives, on a line; none if the server does not have it, or not for us."""
        line = answer.body.removeprefix(b"\xef\xbb\xbf").translate(NEWLINES).strip()
        if answer.status == 200 and line.startswith(b"{"):
            return [line]
        if answer.status in (403, 404, 410):
            return []
        if answer.status == 200:
            raise SourceNotFhir(
                f"source '{self._name}': no JSON came from {self._base}/{self._type}/…: see that 'base_url' is that of "
                "a FHIR R4 server and that 'auth' is right, then pull again"
            )
        # The place of a read holds an id.
        raise refusal(self._name, self._type, answer, place=f"{self._base}/{self._type}/…")
