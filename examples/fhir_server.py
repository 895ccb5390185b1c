"""A FHIR server on this machine, for the demo: sekmet-fhir, started on a free loopback port and always stopped."""

from __future__ import annotations

import datetime as dt
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from fhir_features.synthetic import Resource

_SETTINGS = """
base_url: {base_url}
host: 127.0.0.1
port: {port}
data_dir: {folder}/data
simulator: {{enabled: false}}
log_inbound: false
"""
_SECONDS_TO_START = 60


@contextmanager
def fhir_server(program: Path, folder: Path, settings: str = "") -> Iterator[str]:
    """Run `sekmet serve` with its data in a folder and more lines of settings; the address of its FHIR API. Stopped
    when the context ends."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base_url = f"http://127.0.0.1:{port}/fhir"
    file = folder / "settings.yaml"
    file.write_text(_SETTINGS.format(base_url=base_url, port=port, folder=folder) + settings)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, "serve", "-c", file], stdout=log, stderr=log)
        try:
            _wait_for(server, base_url, folder / "log")
            yield base_url
        finally:
            server.terminate()
            server.wait()


def put(base_url: str, resources: Sequence[Resource]) -> dt.datetime:
    """Put resources onto a server under their own ids; the instant (UTC) at which all were there."""
    with requests.Session() as session:
        for resource in resources:
            address = f"{base_url}/{resource['resourceType']}/{resource['id']}"
            session.put(address, json=resource).raise_for_status()
    return dt.datetime.now(dt.UTC)


def _wait_for(server: subprocess.Popen[bytes], base_url: str, log: Path) -> None:
    for _ in range(_SECONDS_TO_START * 10):
        if server.poll() is not None:
            break
        try:
            if requests.get(f"{base_url}/metadata", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise SystemExit(f"the FHIR server did not start: see {log}")
