"""A source whose certificate nobody vouches for is not asked for anything."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fhir_features.errors import SourceUnreachable
from fhir_features.sources import pull


def _certificate(folder: Path) -> Path:
    """A certificate of localhost that is signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    return file


@pytest.mark.parametrize("trusted", [False, True])
def test_the_certificate_of_a_server_is_verified(trusted, searching, tmp_path, monkeypatch):
    file = _certificate(tmp_path)
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("TOKEN", "s3cret")
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    config = searching(
        'auth = { kind = "bearer", secret_env = "TOKEN" }', base_url=f"https://localhost:{server.server_port}/fhir"
    )
    with pytest.raises(Exception, match="HTTP 404" if trusted else "no secure connection") as raised:
        pull(config)
    assert isinstance(raised.value, SourceUnreachable) is not trusted
    assert asked == (["Bearer s3cret"] if trusted else [])
    server.shutdown()
    server.server_close()
