"""Real servers for tests, each on a port of its own on this machine, with its data in a folder; skipped where missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_until_open(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    pytest.importorskip("redis", reason="the redis extra is not installed")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on the PATH")
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    wait_until_open(port)
    return server


@contextmanager
def redis_server(folder: Path) -> Iterator[dict[str, Any]]:
    """A Redis; in comes a folder, out comes the `online_store` of a feature_store.yaml."""
    port = free_port()
    server = start_redis(folder, port)
    try:
        yield {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
    finally:
        server.terminate()
        server.wait()


@contextmanager
def postgres_server(folder: Path) -> Iterator[dict[str, Any]]:
    """A PostgreSQL; in comes a folder, out comes the `online_store` of a feature_store.yaml."""
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    programs = [str(each) for each in Path("/usr/lib/postgresql").glob("*/bin")] + [os.environ["PATH"]]
    control = shutil.which("pg_ctl", path=os.pathsep.join(programs))
    if control is None:
        pytest.skip("there is no PostgreSQL: pg_ctl is neither on the PATH nor in /usr/lib/postgresql")
    data, port = folder / "data", free_port()
    # The server refuses to be root.
    as_user: list[str] = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for each in (folder, *list(folder.parents)[:3]):
            each.chmod(0o755)
        shutil.chown(folder, "postgres", "postgres")
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    for words in (
        ["init", "-s", "-o", "-U feast -A trust"],
        ["start", "-s", "-w", "-o", options, "-l", folder / "log"],
    ):
        subprocess.run([*as_user, control, "-D", data, *words], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        yield {
            "type": "postgres",
            "host": "127.0.0.1",
            "port": port,
            "database": "postgres",
            "user": "feast",
            "password": "feast",
            "sslmode": "disable",
        }
    finally:
        subprocess.run([*as_user, control, "-D", data, "stop", "-s", "-m", "immediate"], check=True, cwd="/")
