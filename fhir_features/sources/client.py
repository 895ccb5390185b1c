"""How is a server asked so that an answer can be relied on? In: a source and an absolute URL. Out: the server's answer,
whole or block by block, after waiting and asking again where that helps. Credentials go to the origin of the base URL
and nowhere else; a token that is refused once is replaced by a new one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fhir_features.config import Source
from fhir_features.errors import SourceUnreachable
from fhir_features.sources.auth import credentials
from fhir_features.sources.transport import PASSING, Answer, BrokenOff, Transport, answer_of, origin_of

if TYPE_CHECKING:
    import requests

_BLOCK = 1 << 16
# https://hl7.org/fhir/uv/bulkdata/export.html#bulk-data-output-file-request; blocks are given as they are sent, and of
# what a server might compress with, gzip alone is understood.
_OF_FILES = {"Accept": "application/fhir+ndjson, */*;q=0.1", "Accept-Encoding": "gzip"}


class Client:
    """Asks one source. Used as a context, which closes its connections; may be used by several threads.

    Raises ConfigError for a secret that is not there.
    """

    def __init__(self, name: str, source: Source) -> None:
        assert source.base_url is not None
        self._origin = origin_of(source.base_url)
        self._client_id = source.auth.client_id
        self._transport = Transport(name)
        self._credentials = credentials(source, self._transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def get(self, url: str) -> Answer:
        """Ask for a URL, and again after a pause for as long as the answer is a passing fault.

        Raises SourceUnreachable when the server does not answer or keeps answering with such a fault, SourceNotFhir
        when it gives a link that cannot be followed, SourceRefused when it gives no token.
        """
        answer = self.ask("GET", url)
        if answer.status in PASSING:
            raise self.unreachable(answer.fault, answer.place)
        return answer

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        until: dt.datetime | None = None,
    ) -> Answer:
        """As `get`, by any method; but a fault that stays is an answer too, and while the server says that it is busy
        it is asked again until an instant (UTC), if one is given."""
        response = self._transport.persist(lambda: self._sent(method, url, headers or {}, body), url, until)
        return answer_of(response, self._is_own(response.url), response.content)

    @contextmanager
    def stream(self, url: str, *, authorized: bool) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Ask once for a URL: the answer without its body, and the blocks of the body as they were sent, compressed or
        not. Without `authorized` the request carries no credentials.

        Raises BrokenOff, also while the blocks are read, SourceUnreachable, SourceNotFhir, SourceRefused.
        """
        response = self._sent("GET", url, _OF_FILES, None, authorized=authorized, stream=True)
        with response:
            yield answer_of(response, self._is_own(response.url)), self._blocks(response)

    def pause(self, tries: int, answer: Answer | None) -> None:
        """Wait before the next try, as `Transport.pause`."""
        self._transport.pause(tries, answer.headers if answer else {})

    def unreachable(self, fault: str, url: str) -> SourceUnreachable:
        """The error for a fault that stayed, as `Transport.unreachable`."""
        return self._transport.unreachable(fault, url)

    def _sent(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        authorized: bool = True,
        stream: bool = False,
    ) -> requests.Response:
        authorization = self._credentials.header() if authorized else None

        def headers_for(address: str) -> Mapping[str, str]:
            if not authorized or not self._is_own(address):
                return headers
            own = {"Authorization": authorization, "Epic-Client-ID": self._client_id}
            return {**headers, **{key: value for key, value in own.items() if value}}

        response = self._transport.send(method, url, headers_for, body, stream=stream)
        refused = response.status_code == 401 and authorization is not None and self._is_own(response.url)
        if refused and self._credentials.renew(authorization or ""):
            response.close()
            authorization = self._credentials.header()
            response = self._transport.send(method, url, headers_for, body, stream=stream)
        return response

    def _is_own(self, url: str) -> bool:
        return origin_of(url) == self._origin

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        import urllib3

        try:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                self._transport.check_open()
                yield block
        except urllib3.exceptions.HTTPError:
            raise BrokenOff("a connection that broke off") from None
