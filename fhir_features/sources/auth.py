"""With what does a source's server let us in? In: its `auth`, which says where secrets are. Out: the Authorization
header of the next request, and a new one when the server refused it. Access tokens are asked for as SMART Backend
Services do (https://hl7.org/fhir/smart-app-launch/backend-services.html), or with a client secret
(https://www.rfc-editor.org/rfc/rfc6749#section-4.4). Keys, secrets and tokens are held in memory only."""

from __future__ import annotations

import base64
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote_plus, urlencode

import msgspec

from fhir_features.auth_config import Auth
from fhir_features.config import Source
from fhir_features.errors import ConfigError, SourceRefused
from fhir_features.sources.transport import PASSING, TRIES, Answer, Transport, answer_of, place_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

# At most 300: https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html#authentication-jwt-header-values
_ASSERTION_LIVES_S = 240
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Where a server does not say how long a token lives; it may be refused earlier, and is then replaced.
_TOKEN_LIVES_S = 300.0
_LONGEST_MARGIN_S = 60.0


class Credentials(Protocol):
    """What lets a request in."""

    def header(self) -> str | None:
        """The Authorization header of a request that is sent now."""

    def renew(self, refused: str) -> bool:
        """Replace the header that the server refused; whether there is another one now."""


def credentials(source: Source, transport: Transport) -> Credentials:
    """The credentials of a source. Raises ConfigError for a secret or a key that is not there or cannot be used."""
    auth, name = source.auth, transport.name
    if auth.kind == "none":
        return _Fixed(None)
    if auth.kind == "smart":
        key, kid = _private_key(name, *_secret(name, auth.key_env, auth.key_file))
        return _Token(source, transport, _with_assertion(auth, key, auth.kid or kid))
    secret, where = _secret(name, auth.secret_env, auth.secret_file)
    if not secret or (auth.kind == "bearer" and not _can_be_sent(secret)):
        raise ConfigError(f"source '{name}': {where} holds no secret that can be sent: put it there, then pull again")
    if auth.kind == "bearer":
        return _Fixed(f"Bearer {secret}")
    if auth.kind == "basic":
        return _Fixed(_basic(f"{auth.user}:{secret}"))
    # https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1: both are encoded as in a form first.
    header = _basic(f"{quote_plus(auth.client_id or '')}:{quote_plus(secret)}")
    return _Token(source, transport, lambda token_url: ({"Authorization": header}, {}))


class _Fixed:
    def __init__(self, header: str | None) -> None:
        self._header = header

    def header(self) -> str | None:
        return self._header

    def renew(self, refused: str) -> bool:
        return False


# The headers and form fields by which a client proves at a token endpoint who it is, made anew for each request.
_Proof = Callable[[str], tuple[dict[str, str], dict[str, str]]]


class _SmartConfiguration(msgspec.Struct):
    token_endpoint: Any = None
    capabilities: Any = None


class _TokenAnswer(msgspec.Struct):
    access_token: Any = None
    expires_in: Any = None
    error: Any = None


class _Token:
    """An access token: asked for when it is needed first, and anew when it has nearly expired or was refused."""

    def __init__(self, source: Source, transport: Transport, proof: _Proof) -> None:
        self._source = source
        self._transport = transport
        self._proof = proof
        self._lock = threading.Lock()
        self._endpoint: tuple[str, str] | None = None
        self._header: str | None = None
        self._good_until = 0.0

    def header(self) -> str:
        with self._lock:
            if self._header is None or time.monotonic() >= self._good_until:
                self._ask()
            assert self._header is not None
            return self._header

    def renew(self, refused: str) -> bool:
        with self._lock:
            # Another thread may have met the same refusal before.
            if self._header == refused:
                self._ask()
            return True

    def _ask(self) -> None:
        self._endpoint = self._endpoint or self._discovered()
        token_url, scopes = self._endpoint
        asked_at = time.monotonic()
        answer = self._answered(token_url, scopes)
        token = _decoded(answer.body, _TokenAnswer)
        if answer.status != 200 or not _can_be_sent(token.access_token):
            raise self._refusal(answer, token)
        lives = token.expires_in
        lives_s = float(lives) if str(lives).isdecimal() and len(str(lives)) < 10 else _TOKEN_LIVES_S
        self._header = f"Bearer {token.access_token}"
        self._good_until = asked_at + lives_s - min(_LONGEST_MARGIN_S, lives_s / 10)

    def _answered(self, token_url: str, scopes: str) -> Answer:
        def attempt() -> Any:
            headers, fields = self._proof(token_url)
            form = {"grant_type": "client_credentials", "scope": scopes, **fields}
            return self._transport.send("POST", token_url, lambda _: {**_FORM, **headers}, urlencode(form).encode())

        for tries in range(1, TRIES + 1):
            response = self._transport.persist(attempt, token_url)
            # Epic has been seen to answer so, now and then, to a client that it had given tokens before.
            if self._header is None or response.status_code != 400 or tries == TRIES:
                break
            self._transport.pause(tries, response.headers)
        return answer_of(response, own=False, body=response.content)

    def _discovered(self) -> tuple[str, str]:
        """The token endpoint and the scopes to ask for there."""
        auth, name = self._source.auth, self._transport.name
        scopes = auth.scopes or tuple(f"system/{each}.read" for each in self._source.all_types)
        if auth.token_url is not None:
            return auth.token_url, " ".join(scopes)
        assert self._source.base_url is not None
        url = f"{self._source.base_url.rstrip('/')}/.well-known/smart-configuration"
        response = self._transport.persist(lambda: self._transport.send("GET", url, lambda _: _JSON), url)
        found = _decoded(response.content if response.status_code == 200 else b"", _SmartConfiguration)
        endpoint = found.token_endpoint
        # A token that is asked for without encryption would give the client's secret away.
        safe = isinstance(endpoint, str) and endpoint.startswith(("https://", url.partition("//")[0] + "//"))
        if not safe:
            raise SourceRefused(
                f"source '{name}': {place_of(url)} (HTTP {response.status_code}) names no token endpoint that can be "
                "used: correct 'base_url', or set 'token_url' in its auth"
            )
        said = found.capabilities if isinstance(found.capabilities, list) else []
        if auth.scopes is None and "permission-v2" in said and "permission-v1" not in said:
            scopes = tuple(scope.removesuffix(".read") + ".rs" for scope in scopes)
        return endpoint, " ".join(scopes)

    def _refusal(self, answer: Answer, token: _TokenAnswer) -> Exception:
        if answer.status in PASSING:
            return self._transport.unreachable(answer.fault, answer.place)
        why = f" ({token.error})" if isinstance(token.error, str) and token.error in _OAUTH_ERRORS else ""
        return SourceRefused(
            f"source '{self._transport.name}': HTTP {answer.status}{why} and no token from {answer.place}: see that "
            "'client_id', its key or secret, and 'scopes' are as they are registered there"
        )


_JSON = {"Accept": "application/json"}
_FORM = {**_JSON, "Content-Type": "application/x-www-form-urlencoded"}
# https://www.rfc-editor.org/rfc/rfc6749#section-5.2
_OAUTH_ERRORS = (
    *("invalid_request", "invalid_client", "invalid_grant"),
    *("unauthorized_client", "unsupported_grant_type", "invalid_scope"),
)


def _with_assertion(auth: Auth, key: _PrivateKey, kid: str | None) -> _Proof:
    def proof(token_url: str) -> tuple[dict[str, str], dict[str, str]]:
        import jwt

        claims = {
            "iss": auth.client_id,
            "sub": auth.client_id,
            "aud": token_url,
            "jti": str(uuid.uuid4()),
            "exp": int(time.time()) + _ASSERTION_LIVES_S,
        }
        assertion = jwt.encode(claims, key, algorithm=_algorithm(key), headers={"kid": kid} if kid else None)
        return {}, {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}

    return proof


if TYPE_CHECKING:
    _PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey


def _algorithm(key: Any) -> str | None:
    """The algorithm that a private key signs with, of the two that SMART servers know; null for other keys."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        return "RS384"
    return "ES384" if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1) else None


def _private_key(name: str, text: str, where: str) -> tuple[_PrivateKey, str | None]:
    """The private key in a text, PEM or JWK or a set of JWKs, and its id if it has one."""
    # What these libraries raise on a wrong key is of many kinds, and may quote it.
    try:
        key, kid = _from_jwk(text) if text.startswith("{") else (_from_pem(text), None)
    except Exception:
        key, kid = None, None
    if key is None or _algorithm(key) is None:
        raise ConfigError(
            f"source '{name}': {where} holds no private key that can be used: put one there, RSA or P-384, "
            "as PEM without a password or as JWK"
        )
    return key, kid


def _from_pem(text: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(text.encode(), password=None)


def _from_jwk(text: str) -> tuple[Any, str | None]:
    import jwt

    parsed = msgspec.json.decode(text)
    jwk = next(each for each in parsed.get("keys", [parsed]) if "d" in each)
    return jwt.PyJWK(jwk, algorithm="RS384" if jwk["kty"] == "RSA" else "ES384").key, jwk.get("kid")


def _secret(name: str, variable: str | None, file: Path | None) -> tuple[str, str]:
    """The secret, empty if there is none, and where it was looked for. Raises ConfigError for a file that is missing or
    may not be read."""
    if variable is not None:
        return os.environ.get(variable, "").strip(), f"the environment variable {variable}"
    assert file is not None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"source '{name}': the file {file} of its 'auth' cannot be read ({error.strerror}): correct its path "
            "or its permissions"
        ) from None
    except UnicodeDecodeError:
        secret = ""
    return secret, f"the file {file}"


def _basic(user_and_secret: str) -> str:
    return "Basic " + base64.b64encode(user_and_secret.encode()).decode()


def _can_be_sent(token: Any) -> bool:
    return isinstance(token, str) and token != "" and token.isascii() and token.isprintable()


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return kind()
