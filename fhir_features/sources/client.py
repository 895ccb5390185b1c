"""How is a server asked so that an answer can be relied on? In: a source and an absolute URL. Out: the server's answer,
whole, after waiting and asking again where that helps. Credentials go to the origin of the base URL and nowhere else.
A URL's query never appears in an error: search parameters may name a patient."""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import importlib.metadata
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from fhir_features.config import Auth, Source
from fhir_features.errors import ConfigError, SourceNotFhir, SourceUnreachable
from fhir_features.times import UTC

if TYPE_CHECKING:
    import requests

TRIES = 5
FIRST_PAUSE_S = 1.0
# Servers ask for pauses of up to five hours; a pull that would wait so long is better begun again later.
LONGEST_PAUSE_S = 300.0
_TIMEOUTS_S = (20.0, 180.0)
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
# Passing faults of busy servers. Some give 500 and 504 for lasting ones, too, so tries are bounded.
_PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """What a server answered in the end. `place` is the URL without its query, `own` whether that is at the origin of
    the base URL; `date` is the server's own clock and `received_at` ours, both in UTC."""

    status: int
    place: str
    own: bool
    content_type: str
    body: bytes
    date: dt.datetime | None
    received_at: dt.datetime


class Client:
    """Asks one source. Used as a context, which closes its connections."""

    def __init__(self, name: str, source: Source) -> None:
        import requests

        assert source.base_url is not None
        self._name = name
        self._origin = _origin(source.base_url)
        self._authorization = _authorization(name, source.auth)
        self._session = requests.Session()
        self._session.auth = self._authorize
        self._session.headers["Accept"] = "application/fhir+json"
        self._session.headers["User-Agent"] = f"fhir-features/{importlib.metadata.version('fhir-features')}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, url: str) -> Answer:
        """Ask for a URL, and again after a pause for as long as the answer is a passing fault.

        Raises SourceUnreachable when the server does not answer or keeps answering with such a fault, SourceNotFhir
        when it gives a link that cannot be followed.
        """
        for attempt in range(TRIES):
            response, fault = self._try(url)
            if response is not None and response.status_code not in _PASSING:
                return self._answer(response)
            if attempt + 1 < TRIES:
                time.sleep(_pause_s(attempt, {} if response is None else response.headers))
        raise SourceUnreachable(
            f"source '{self._name}': {fault} at {place_of(url)}, {TRIES} times: "
            "see that the server is up and can be reached from here, then pull again"
        )

    def _try(self, url: str) -> tuple[requests.Response | None, str]:
        """One try: the response, if there is one, and what is to be said of it if it is the last."""
        import requests

        try:
            response = self._followed(url)
            return response, f"HTTP {response.status_code}"
        except requests.exceptions.SSLError:
            raise SourceUnreachable(
                f"source '{self._name}': no secure connection to {place_of(url)}: see that its certificate is valid "
                "and its authority known here (REQUESTS_CA_BUNDLE)"
            ) from None
        except requests.Timeout:
            return None, "no answer in time"
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return None, "no connection, or one that broke off,"
        except (requests.RequestException, ValueError):
            raise SourceNotFhir(
                f"source '{self._name}': {place_of(url)} is no address, or its answer no HTTP: correct 'base_url'"
            ) from None

    def _followed(self, url: str) -> requests.Response:
        # By hand, because a redirect decides anew whether credentials are sent.
        for _ in range(_REDIRECTS + 1):
            response = self._session.get(url, timeout=_TIMEOUTS_S, allow_redirects=False)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTING or location is None:
                return response
            url = urljoin(url, location)
        raise SourceNotFhir(
            f"source '{self._name}': more than {_REDIRECTS} redirects, the last to {place_of(url)}: correct 'base_url'"
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Set for every request, since without it requests would send what it finds in a .netrc file.
        if self._authorization and _origin(request.url or "") == self._origin:
            request.headers["Authorization"] = self._authorization
        return request

    def _answer(self, response: requests.Response) -> Answer:
        return Answer(
            status=response.status_code,
            place=place_of(response.url),
            own=_origin(response.url) == self._origin,
            content_type=response.headers.get("Content-Type", ""),
            body=response.content,
            date=_http_date(response.headers.get("Date", "")),
            received_at=dt.datetime.now(UTC),
        )


def place_of(url: str) -> str:
    """A URL without its query, user and password, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _authorization(name: str, auth: Auth) -> str | None:
    if auth.kind == "none":
        return None
    secret, where = _secret(auth)
    if not secret or (auth.kind == "bearer" and not (secret.isascii() and secret.isprintable())):
        raise ConfigError(f"source '{name}': {where} holds no secret that can be sent: put it there, then pull again")
    if auth.kind == "bearer":
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{auth.user}:{secret}".encode()).decode()


def _secret(auth: Auth) -> tuple[str, str]:
    """The secret, empty if there is none, and where it was looked for."""
    if auth.secret_env is not None:
        return os.environ.get(auth.secret_env, "").strip(), f"the environment variable {auth.secret_env}"
    assert auth.secret_file is not None
    try:
        secret = auth.secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        secret = ""
    return secret, f"the file {auth.secret_file}"


def _pause_s(attempt: int, headers: Mapping[str, str]) -> float:
    # https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds or an HTTP date.
    asked = headers.get("Retry-After", "").strip()
    until = _http_date(asked)
    if asked.isdecimal():
        pause = float(asked)
    elif until is not None:
        pause = (until - dt.datetime.now(UTC)).total_seconds()
    else:
        pause = FIRST_PAUSE_S * 2**attempt
    return min(max(pause, FIRST_PAUSE_S) * random.uniform(1.0, 1.25), LONGEST_PAUSE_S)


def _http_date(text: str) -> dt.datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
