"""How does a pull of many small searches not wait for each of them in turn? In: the addresses that will be asked for
next. Out: their answers in whichever order they are wanted, several on their way at a time. Servers take long to answer
and allow few connections, so that this is what a pull patient by patient takes its time for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fhir_features.sources.client import Client
from fhir_features.sources.transport import Answer
from fhir_features.times import UTC


class Ahead:
    """Asks a client for some addresses before their answers are wanted. Used by one thread; ended by `close`."""

    def __init__(self, client: Client, connections: int) -> None:
        self._client = client
        self._connections = connections
        self._pool = ThreadPoolExecutor(connections)
        self._asked: dict[str, Future[tuple[dt.datetime, Answer]]] = {}

    def close(self) -> None:
        """Ask for nothing more. What is on its way ends with the client's connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def expect(self, urls: Sequence[str]) -> None:
        """Ask for the first of some addresses now, and for none that was expected before and is not among them."""
        wanted = urls[: self._connections]
        for url in self._asked.keys() - set(wanted):
            self._asked.pop(url).cancel()
        for url in wanted:
            if url not in self._asked:
                self._asked[url] = self._pool.submit(self._get, url)

    def get(self, url: str) -> tuple[dt.datetime, Answer]:
        """When (UTC) an address was asked for, and the answer. Raises as `Client.get`."""
        future = self._asked.pop(url, None)
        return self._get(url) if future is None else future.result()

    def _get(self, url: str) -> tuple[dt.datetime, Answer]:
        asked_at = dt.datetime.now(UTC)
        return asked_at, self._client.get(url)
