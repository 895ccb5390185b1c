"""What does a pull cost? One command, one line a measurement; each pull in a process of its own.

    python benchmarks/pull.py [--pages 4000]

whole    a first pull of a tenth of the pages, and of all, 50 resources each: CPU, and peak memory, which must not grow
nothing  the pull after it, when nothing has changed: requests for each type, and wall time

The server is one of this file's, in a process of its own: it makes pages as they are asked for.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = 50
TYPES = ("Patient", "Observation")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=4000)
    arguments = parser.parse_args()
    for pages in (arguments.pages // 10, arguments.pages):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = multiprocessing.Pipe()
            server = multiprocessing.Process(target=serve, args=(pages, theirs), daemon=True)
            server.start()
            configure(Path(folder), ours.recv())
            for what in ("whole", "nothing"):
                wall, cpu, memory = measured(Path(folder))
                ours.send("requests")
                print(
                    f"{what:<8} {pages:>7,} pages a type  {ours.recv():>7,} requests  {wall:7.2f} s wall  "
                    f"{cpu:7.2f} s CPU  {memory:6.1f} MB peak",
                    flush=True,
                )
            server.terminate()
            server.join()


def measured(folder: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak memory (MB) of a pull, less what starting Python and its imports takes."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=pull_in, args=(folder, theirs))
    process.start()
    wall, cpu, memory = ours.recv()
    process.join()
    return wall, cpu, memory


def pull_in(folder: Path, out: Connection) -> None:
    """Pull, and tell what it took."""
    import requests  # noqa: F401  # what every pull imports, before the clock starts

    from fhir_features.config import load_config
    from fhir_features.sources import pull

    config = load_config(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    pull(config)
    took = (time.perf_counter() - wall, time.process_time() - cpu)
    out.send((*took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def configure(folder: Path, base_url: str) -> None:
    """A source of both types on the server."""
    types = ", ".join(f'"{name}"' for name in TYPES)
    (folder / "fhir_features.toml").write_text(
        f'[sources.s]\nkind = "search"\nsite = "s"\ntimezone = "UTC"\nbase_url = "{base_url}"\n'
        f"resource_types = [{types}]\npage_size = {PAGE}\n"
    )


def serve(pages: int, out: Connection) -> None:
    """Serve so many pages of each type, and an empty history; tell how many requests came since the last time."""
    requests = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            nonlocal requests
            requests += 1
            body = page(self.path, pages, f"http://127.0.0.1:{self.server.server_port}")  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    out.send(f"http://127.0.0.1:{http.server_port}")
    while out.recv():
        out.send(requests)
        requests = 0


def page(target: str, pages: int, root: str) -> bytes:
    """A page of a searchset, or a history in which nothing happened."""
    parts = urlsplit(target)
    if parts.path.endswith("/_history"):
        return json.dumps({"resourceType": "Bundle", "type": "history", "total": 0}).encode()
    kind, number = parts.path[1:], int(parse_qs(parts.query).get("page", ["0"])[0])
    entries = [{"resource": made(kind, number * PAGE + n)} for n in range(PAGE)]
    link = [{"relation": "next", "url": f"{root}/{kind}?page={number + 1}"}] if number + 1 < pages else []
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": pages * PAGE, "link": link, "entry": entries}
    return json.dumps(bundle).encode()


def made(kind: str, number: int) -> dict[str, Any]:
    """A resource of the size of a laboratory result."""
    return {
        "resourceType": kind,
        "id": f"{kind.lower()}-{number}",
        "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00.000Z"},
        "status": "final",
        "category": [{"coding": [{"system": "http://hl7.org/fhir/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4", "display": "Hemoglobin A1c"}]},
        "subject": {"reference": f"Patient/patient-{number % 1000}"},
        "effectiveDateTime": "2026-01-01T08:00:00+01:00",
        "issued": "2026-01-01T14:00:00.000+01:00",
        "valueQuantity": {"value": number % 100 / 10, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"},
    }


if __name__ == "__main__":
    main()
