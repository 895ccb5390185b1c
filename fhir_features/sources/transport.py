"""How is a request sent so that passing faults do no harm? In: one try, as a function. Out: the last answer, after
waiting and trying again where that helps. Nothing here knows credentials: who sends a request says for each address
that it goes to, redirects too, which headers it carries. A URL's query never appears in an error: search parameters may
name a patient."""

from __future__ import annotations

import datetime as dt
import email.utils
import importlib.metadata
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from fhir_features.errors import SourceNotFhir, SourceUnreachable
from fhir_features.times import UTC

if TYPE_CHECKING:
    import requests

TRIES = 5
FIRST_PAUSE_S = 1.0
# Servers ask for pauses of up to five hours; whoever can wait so long asks again in between.
LONGEST_PAUSE_S = 300.0
# Passing faults of busy servers. Some give 500 and 504 for lasting ones, too, so tries are bounded.
PASSING = (408, 429, 500, 502, 503, 504)
# Pages of servers have a few megabytes. Whatever a server sends, and however it is compressed, no more is taken.
LARGEST_BODY = 256 << 20
_BLOCK = 1 << 16
_TIMEOUTS_S = (20.0, 180.0)
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """What a server answered in the end. `place` is the URL without its query, `own` whether that is at the origin of
    the base URL; `date` is the server's own clock and `received_at` ours, both in UTC. `headers` are found by any
    case."""

    status: int
    place: str
    own: bool
    headers: Mapping[str, str]
    body: bytes
    date: dt.datetime | None
    received_at: dt.datetime

    @property
    def content_type(self) -> str:
        """The media type that the body is said to have, empty if none is."""
        return self.headers.get("Content-Type", "")

    @property
    def fault(self) -> str:
        """What the status is, for a message."""
        return f"HTTP {self.status}"


# The headers of a request that goes to this URL.
HeadersFor = Callable[[str], Mapping[str, str]]


class BrokenOff(Exception):
    """The connection could not be made or broke off, for the reason that `str` gives: trying again may help."""


class Transport:
    """The connections to one source's servers. May be used by several threads; ended by `close`."""

    def __init__(self, name: str) -> None:
        import requests

        self.name = name
        self._closed = threading.Event()
        self._session = requests.Session()
        # Without an auth of its own requests would send what it finds in a .netrc file.
        self._session.auth = lambda request: request
        self._session.headers["Accept"] = "application/fhir+json"
        self._session.headers["User-Agent"] = f"fhir-features/{importlib.metadata.version('fhir-features')}"

    def close(self) -> None:
        """Close the connections, and end all pauses."""
        self._closed.set()
        self._session.close()

    def send(
        self, method: str, url: str, headers_for: HeadersFor, body: bytes | None = None, *, stream: bool = False
    ) -> requests.Response:
        """Try once, and follow redirects of what only reads. The body is read, unless it is to be streamed.

        Raises BrokenOff, SourceUnreachable without a secure connection, SourceNotFhir for what is no address, and for a
        body of more than LARGEST_BODY bytes.
        """
        import requests

        try:
            # By hand, because a redirect decides anew which headers are sent.
            for _ in range(_REDIRECTS + 1):
                response = self._session.request(
                    method,
                    url,
                    headers=dict(headers_for(url)),
                    data=body,
                    timeout=_TIMEOUTS_S,
                    allow_redirects=False,
                    stream=True,
                )
                location = response.headers.get("Location")
                if method != "GET" or response.status_code not in _REDIRECTING or location is None:
                    if not stream:
                        self._read(response)
                    return response
                response.close()
                url = urljoin(url, location)
        except requests.exceptions.SSLError:
            raise SourceUnreachable(
                f"source '{self.name}': no secure connection to {place_of(url)}: see that it speaks TLS there, that "
                "its certificate is valid and its authority known here (REQUESTS_CA_BUNDLE)"
            ) from None
        except requests.Timeout:
            raise BrokenOff("no answer in time") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            raise BrokenOff("no connection, or one that broke off,") from None
        except (requests.RequestException, ValueError):
            raise SourceNotFhir(
                f"source '{self.name}': {place_of(url)} is no address, or its answer no HTTP: correct 'base_url'"
            ) from None
        raise SourceNotFhir(
            f"source '{self.name}': more than {_REDIRECTS} redirects, the last to {place_of(url)}: correct 'base_url'"
        )

    def _read(self, response: requests.Response) -> None:
        """Read the body, which `response.content` then is, within bounds."""
        blocks: list[bytes] = []
        size = 0
        with response:
            for block in response.iter_content(_BLOCK):
                blocks.append(block)
                size += len(block)
                if size > LARGEST_BODY:
                    raise SourceNotFhir(
                        f"source '{self.name}': {place_of(response.url)} sent more than {LARGEST_BODY >> 20} MiB at "
                        "once: set a smaller 'page_size', or tell those who run the server"
                    )
        response._content = b"".join(blocks)

    def persist(
        self, attempt: Callable[[], requests.Response], url: str, until: dt.datetime | None = None
    ) -> requests.Response:
        """The response to an attempt, made again after a pause while it is a passing fault: TRIES times, or while the
        server says that it is busy until an instant (UTC), if one is given.

        Raises SourceUnreachable when the last attempt broke off, and what the attempt raises.
        """
        attempts, tries = 0, 0
        while True:
            attempts += 1
            response, fault = None, ""
            try:
                response = attempt()
            except BrokenOff as broken:
                fault = str(broken)
            is_waiting = until is not None and _is_busy(response) and dt.datetime.now(UTC) < until
            tries += not is_waiting
            if response is not None and (response.status_code not in PASSING or tries >= TRIES):
                return response
            if tries >= TRIES:
                raise self.unreachable(fault, url)
            self.pause(attempts, {} if response is None else response.headers)

    def unreachable(self, fault: str, url: str) -> SourceUnreachable:
        """The error for a fault that stayed, such as `HTTP 503`."""
        return SourceUnreachable(
            f"source '{self.name}': {fault} at {place_of(url)}, {TRIES} times: "
            "see that the server is up and can be reached from here, then pull again"
        )

    def pause(self, tries: int, headers: Mapping[str, str]) -> None:
        """Wait as long as the answer to the try of this number (from 1) asks, or longer from try to try.

        Raises SourceUnreachable when the transport is closed meanwhile.
        """
        self._closed.wait(pause_s(tries, headers))
        self.check_open()

    def check_open(self) -> None:
        """Raise SourceUnreachable when the transport was closed by another thread."""
        if self._closed.is_set():
            raise SourceUnreachable(f"source '{self.name}': the pull was ended: pull again")


def _is_busy(response: requests.Response | None) -> bool:
    """Whether a server says that it is there and has no time now."""
    if response is None:
        return False
    return response.status_code == 429 or (response.status_code == 503 and "Retry-After" in response.headers)


def answer_of(response: requests.Response, own: bool, body: bytes = b"") -> Answer:
    """The answer that a response is, with its body if that has been read."""
    return Answer(
        status=response.status_code,
        place=place_of(response.url),
        own=own,
        headers=response.headers,
        body=body,
        date=http_date(response.headers.get("Date", "")),
        received_at=dt.datetime.now(UTC),
    )


def place_of(url: str) -> str:
    """A URL without its query, user and password, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL (https://www.rfc-editor.org/rfc/rfc6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def pause_s(tries: int, headers: Mapping[str, str]) -> float:
    """How long to wait after the try of this number (from 1), in seconds: what Retry-After asks, within bounds."""
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds or an HTTP date.
    asked = headers.get("Retry-After", "").strip()
    until = http_date(asked)
    if asked.isdecimal():
        pause = float(asked)
    elif until is not None:
        pause = (until - dt.datetime.now(UTC)).total_seconds()
    else:
        pause = FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20)
    return min(max(pause, FIRST_PAUSE_S) * random.uniform(1.0, 1.25), LONGEST_PAUSE_S)


def http_date(text: str) -> dt.datetime | None:
    """The instant (UTC) of an HTTP date, null if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
