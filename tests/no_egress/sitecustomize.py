"""Denies connections to any other machine, and the looking up of its name: in the tests, and in the programs that they
start, which find this file through PYTHONPATH.

What was denied is written to the file that EGRESS_DENIED names, so that nothing can hide it by catching the error.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any

_HERE = {"", "localhost", "0.0.0.0", "::"}


def _is_here(host: Any) -> bool:
    if host is None:
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return name in _HERE or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _deny(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        # That of a Unix socket is no tuple.
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        with Path(os.environ["EGRESS_DENIED"]).open("a") as denied:
            denied.write(f"{event} {host!r} by {sys.argv[:1]}\n")
        raise ConnectionRefusedError(f"a test may not reach {host!r}: only this machine")


sys.addaudithook(_deny)
