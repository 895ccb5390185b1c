"""A server lets us in by tokens that are asked for, renewed and kept from everyone else."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fhir_server import FhirServer, Reply, Request, resource

from fhir_features.config import Config
from fhir_features.errors import ConfigError, SourceRefused, SourceUnreachable
from fhir_features.sources import landed_runs, pull, transport
from fhir_features.sources.auth import credentials

P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: object) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()  # type: ignore[attr-defined]


def jwk(key: object, **more: str) -> str:
    algorithm = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return json.dumps({**json.loads(algorithm.to_jwk(key)), **more})


class TokenServer:
    """Gives tokens `canary-1`, `canary-2`, … on a FHIR server, and lets the newest of them in.

    `before_token` may answer a request for a token instead; `lives_s` is how long tokens are said to live.
    """

    def __init__(self, server: FhirServer) -> None:
        self.server = server
        self.given = 0
        self.lives_s: object = 3600
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.configuration: dict[str, object] = {"token_endpoint": f"{server.root}/token"}
        self.before_token: Callable[[], Reply | None] = lambda: None
        self.before_page: Callable[[Request], Reply | None] = lambda request: None
        server.scripted = self.answer

    def answer(self, request: Request) -> Reply | None:
        if request.path == "/fhir/r4/.well-known/smart-configuration":
            return Reply(body=json.dumps(self.configuration).encode())
        if request.path == "/token":
            return self.token(request)
        if request.headers.get("Authorization") != f"Bearer canary-{self.given}":
            return Reply(status=401)
        return self.before_page(request)

    def token(self, request: Request) -> Reply:
        self.asked.append({key: values[0] for key, values in parse_qs(request.body.decode()).items()})
        self.headers.append(request.headers)
        if instead := self.before_token():
            return instead
        self.given += 1
        return Reply(body=json.dumps({"access_token": f"canary-{self.given}", "expires_in": self.lives_s}).encode())


@pytest.fixture
def tokens(server: FhirServer) -> TokenServer:
    server.resources = [resource("Patient", number) for number in range(25)]
    return TokenServer(server)


def smart(key: str, folder: Path, more: str = "") -> str:
    (folder / "key").write_text(key)
    return f'auth = {{ kind = "smart", client_id = "fs", key_file = "key"{more} }}'


# How a token is asked for


@pytest.mark.parametrize(
    ("key", "text", "algorithm", "kid"),
    [
        (P384, pem(P384), "ES384", None),
        (RSA, pem(RSA), "RS384", None),
        (P384, jwk(P384, kid="k1"), "ES384", "k1"),
        (RSA, json.dumps({"keys": [{"kty": "RSA", "kid": "public"}, json.loads(jwk(RSA, kid="k2"))]}), "RS384", "k2"),
    ],
    ids=["P-384 as PEM", "RSA as PEM", "P-384 as JWK", "RSA in a set"],
)
def test_a_signed_assertion_is_sent_to_the_endpoint_that_the_server_names(
    tokens, searching, tmp_path, key, text, algorithm, kid
):
    pull(searching(smart(text, tmp_path)))
    (form,) = tokens.asked
    assertion = form.pop("client_assertion")
    assert form == {
        "grant_type": "client_credentials",
        "scope": "system/Patient.read",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    assert "Authorization" not in tokens.headers[0]
    header = jwt.get_unverified_header(assertion)
    assert (header["alg"], header.get("kid")) == (algorithm, kid)
    claims = jwt.decode(assertion, key.public_key(), algorithms=[algorithm], audience=f"{tokens.server.root}/token")
    assert (claims["iss"], claims["sub"]) == ("fs", "fs")
    assert 0 < claims["exp"] - time.time() <= 300


def test_each_assertion_has_an_id_of_its_own_also_when_it_is_sent_again(tokens, searching, tmp_path):
    faults = iter([Reply(status=503), Reply(status=500), None])
    tokens.before_token = lambda: next(faults, None)
    pull(searching(smart(pem(P384), tmp_path)))
    ids = {jwt.decode(form["client_assertion"], options={"verify_signature": False})["jti"] for form in tokens.asked}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("capabilities", "more", "scopes"),
    [
        (["permission-v1", "permission-v2"], "", "system/Patient.read system/Condition.read"),
        (["permission-v2"], "", "system/Patient.rs system/Condition.rs"),
        ("nonsense", "", "system/Patient.read system/Condition.read"),
        (["permission-v2"], ', scopes = ["system/*.read"]', "system/*.read"),
    ],
)
def test_scopes_read_the_types_of_the_source_in_the_form_that_the_server_knows(
    tokens, searching, tmp_path, capabilities, more, scopes
):
    tokens.configuration["capabilities"] = capabilities
    pull(searching(smart(pem(P384), tmp_path, more), types='"Patient", "Condition"'))
    assert tokens.asked[0]["scope"] == scopes


def test_a_client_secret_is_sent_to_the_endpoint_that_is_configured(tokens, searching, monkeypatch):
    monkeypatch.setenv("WARD_SECRET", "s3:cret +ü\n")
    auth = f'client_id = "a b", secret_env = "WARD_SECRET", token_url = "{tokens.server.root}/token"'
    pull(searching(f'auth = {{ kind = "client-secret", {auth} }}'))
    assert base64.b64decode(tokens.headers[0]["Authorization"].removeprefix("Basic ")) == b"a+b:s3%3Acret+%2B%C3%BC"
    assert tokens.asked == [{"grant_type": "client_credentials", "scope": "system/Patient.read"}]
    assert "/fhir/r4/.well-known/smart-configuration" not in [request.path for request in tokens.server.requests]
    assert {request.headers.get("Epic-Client-ID") for request in tokens.server.requests[1:]} == {"a b"}


# When it is renewed


def test_one_token_is_enough_while_it_lives(tokens, searching, tmp_path):
    pull(searching(smart(pem(P384), tmp_path)))
    assert tokens.given == 1


@pytest.mark.parametrize("lives_s", [0, "0"])
def test_a_token_that_has_expired_is_replaced_before_it_is_refused(tokens, searching, tmp_path, lives_s):
    tokens.lives_s = lives_s
    pull(searching(smart(pem(P384), tmp_path)))
    pages = [request for request in tokens.server.requests if request.path == "/fhir/r4/Patient"]
    assert tokens.given == len(pages) == 3


@pytest.mark.parametrize("lives_s", [3600, "soon", None])
def test_a_token_that_is_refused_in_mid_scan_is_replaced_once_and_the_same_page_asked_for_again(
    tokens, searching, tmp_path, lives_s
):
    tokens.lives_s = lives_s
    offsets = []

    def revoke(request: Request) -> Reply | None:
        offsets.append(request.parameters.get("_offset"))
        if len(offsets) == 2:
            return Reply(status=401)
        return None

    tokens.before_page = revoke
    config = searching(smart(pem(P384), tmp_path))
    pull(config)
    assert offsets == [None, "10", "10", "20"]
    assert tokens.given == 2


@pytest.mark.parametrize("refused", ["/fhir/r4/$export", "/status/0", "/files/0/Patient-10"])
def test_a_token_that_is_refused_while_an_export_is_begun_waited_for_or_downloaded_is_replaced_once(
    tokens, exports, exporting, tmp_path, refused
):
    met = []

    def revoke(request: Request) -> Reply:
        if request.path == refused and request.method == "GET":
            met.append(request)
            if len(met) == 1:
                return Reply(status=401)
        return exports.answer(request)

    tokens.before_page, tokens.server.scripted = revoke, tokens.answer
    config = exporting(smart(pem(P384), tmp_path), types='"Patient"')
    pull(config)
    (run,) = landed_runs(config.warehouse.path / "landing")
    assert (run.types["Patient"].entries, tokens.given, len(exports.jobs)) == (25, 2, 1)


def test_a_token_that_is_refused_twice_is_one_line(tokens, searching, tmp_path):
    tokens.before_page = lambda _: Reply(status=401)
    with pytest.raises(SourceRefused, match="HTTP 401"):
        pull(searching(smart(pem(P384), tmp_path)))
    assert tokens.given == 2


def test_a_bare_400_to_a_client_that_had_a_token_passes(tokens, searching, tmp_path):
    replies = itertools.chain([None, Reply(status=400), Reply(status=400)], itertools.repeat(None))
    tokens.before_token = lambda: next(replies)
    tokens.lives_s = 0
    pull(searching(smart(pem(P384), tmp_path)))
    assert (len(tokens.asked), tokens.given) == (5, 3)


# What goes wrong


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Reply(status=400, body=b'{"error":"invalid_scope","error_description":"of Jane"}'),
            "HTTP 400 (invalid_scope)",
        ),
        (Reply(status=401, body=b'{"error":"of Jane"}'), "HTTP 401 and no token"),
        (Reply(body=b"<html>Jane"), "HTTP 200 and no token"),
        (Reply(body=b'{"access_token":"two\\nlines"}'), "HTTP 200 and no token"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), "HTTP 302 and no token"),
    ],
)
def test_a_refusal_of_a_first_token_is_one_line_and_final(tokens, searching, tmp_path, reply, said):
    tokens.before_token = lambda: reply
    with pytest.raises(SourceRefused) as raised:
        pull(searching(smart(pem(P384), tmp_path)))
    message = str(raised.value)
    assert message.startswith("source 'ward': ") and said in message and "'client_id'" in message
    assert "Jane" not in message
    assert len(tokens.asked) == 1


def test_an_endpoint_that_stays_busy_is_unreachable(tokens, searching, tmp_path):
    tokens.before_token = lambda: Reply(status=503)
    with pytest.raises(SourceUnreachable, match=r"HTTP 503 at http://127.0.0.1:\d+/token, 5 times"):
        pull(searching(smart(pem(P384), tmp_path)))
    assert len(tokens.asked) == transport.TRIES


@pytest.mark.parametrize("endpoint", [None, 7, "", "ftp://h/token", "//h/token"])
def test_a_server_that_names_no_endpoint_is_one_line(tokens, searching, tmp_path, endpoint):
    tokens.configuration = {"token_endpoint": endpoint, "grant_types_supported": None}
    with pytest.raises(
        SourceRefused, match="names no token endpoint that can be used: correct 'base_url', or set 'token_url'"
    ):
        pull(searching(smart(pem(P384), tmp_path)))
    assert tokens.asked == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "{",
        '{"kty":"RSA","d":"s3cret"}',
        '{"keys":[]}',
        '{"keys":7}',
        pem(P384).replace("A", "B"),
        pem(ec.generate_private_key(ec.SECP256R1())),
        jwk(ec.generate_private_key(ec.SECP256R1())),
        P384.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_used_is_one_line(tokens, searching, tmp_path, text):
    with pytest.raises(ConfigError, match=r"^source 'ward': the file .*key holds no private key") as raised:
        pull(searching(smart(text, tmp_path)))
    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert tokens.server.requests == []


def test_a_key_that_is_not_there_is_named(tokens, searching, tmp_path):
    config = searching(smart(pem(P384), tmp_path))
    (key_file,) = {each.auth.key_file for each in config.sources.values()}
    key_file.unlink()
    said = (
        f"source 'ward': the file {key_file} of its 'auth' cannot be read (No such file or directory): correct its path"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        pull(config)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "set 'auth', or correct its secret"), (403, "have the client or user of 'auth' allowed")]
)
def test_what_is_refused_says_whether_it_is_the_secret_or_what_it_may(server, searching, status, said):
    server.scripted = lambda _: Reply(status=status)
    with pytest.raises(SourceRefused, match=f"HTTP {status} at .*/Patient: {said}"):
        pull(searching())


# Where it must not go


def test_a_token_goes_to_its_origin_only(tokens, searching, tmp_path):
    other = FhirServer()
    try:
        other.resources = [resource("Patient", 1)]
        tokens.before_page = lambda _: Reply(status=307, headers={"Location": f"{other.base}/Patient"})
        pull(searching(smart(pem(P384), tmp_path)))
        assert [request.headers.get("Authorization") for request in other.requests] == [None]
        assert [request.headers.get("Epic-Client-ID") for request in other.requests] == [None]
    finally:
        other.stop()


def test_keys_and_tokens_are_in_no_log_no_error_no_repr_no_argument_and_no_file(
    tokens, searching, tmp_path, monkeypatch, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    key = pem(P384)
    monkeypatch.setenv("WARD_KEY", key)
    config: Config = searching('auth = { kind = "smart", client_id = "fs", key_env = "WARD_KEY" }')
    pull(config)
    tokens.before_page = lambda _: Reply(status=401, body=b"canary")
    with pytest.raises(SourceRefused) as raised:
        pull(config)
    command = [sys.executable, "-c", "from fhir_features.cli import main; main()", "--config", str(config.file), "pull"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == SourceRefused.exit_code
    held = credentials(config.sources["ward"], transport.Transport("ward"))
    assert held.header() == f"Bearer canary-{tokens.given}"
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    seen = [caplog.text, *capfd.readouterr(), str(raised.value), repr(held), repr(config), done.stdout, done.stderr]
    assert len(landed_runs(config.warehouse.path / "landing")) == 1
    assert not [text for text in [*seen, *written] if "canary-" in text or key.splitlines()[1] in text]
