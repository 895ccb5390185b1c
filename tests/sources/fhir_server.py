"""A FHIR server on loopback for the tests: it searches and pages by offset over resources in memory, as simple servers
do, and answers whatever a test scripts instead. It is driven over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit


@dataclass
class Request:
    """What the server was asked: path with query, path alone, parameters, headers, and by which method with what."""

    target: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""


@dataclass
class Reply:
    """What a test lets the server answer. A `length` that is not the body's breaks the connection off."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def resource(kind: str, number: int, version: int = 1, updated: str = "2026-01-01T00:00:00.000Z") -> dict[str, Any]:
    return {
        "resourceType": kind,
        "id": f"{kind.lower()}-{number}",
        "meta": {"versionId": str(version), "lastUpdated": updated},
    }


class FhirServer:
    """`resources` holds what is searched, in the order in which it is paged; `scripted`, when set, may answer instead;
    `after_page` is called after each page with the number of requests so far, and may change what is there. With
    `history` set to a list, what `update` and `delete` do is kept there, oldest first, and can be asked for."""

    def __init__(self) -> None:
        self.resources: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.scripted: Callable[[Request], Reply | None] = lambda request: None
        self.after_page: Callable[[int], None] = lambda count: None
        self.date: str | None = None
        self.total = True
        self.link: Callable[[str], str] = lambda target: f"{self.root}{target}"
        self.kept_parameters = lambda parameters: parameters
        self.history: list[dict[str, Any]] | None = None
        self.keeps_since_in_links = True
        self.fetch_size = 1_000_000
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet: in two, each answer waits for the acknowledgement of the first.
            wbufsize = 1 << 16

            def do_GET(self) -> None:
                server._handle(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Clients are killed in these tests; that is no error of the server."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._http.server_port}"
        self.base = f"{self.root}/fhir/r4"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def update(self, changed: dict[str, Any]) -> None:
        """A new version, at the end of the order, as in servers that page in the order of writing."""
        self.resources = [held for held in self.resources if held["id"] != changed["id"]] + [changed]
        if self.history is not None:
            request = {"method": "PUT", "url": f"{changed['resourceType']}/{changed['id']}"}
            self.history.append({"resource": changed, "request": request, "response": {"status": "200"}})

    def delete(self, gone: dict[str, Any], at: str) -> None:
        """A deletion, of which only the history tells."""
        self.resources = [held for held in self.resources if held["id"] != gone["id"]]
        if self.history is not None:
            request = {"method": "DELETE", "url": f"{gone['resourceType']}/{gone['id']}"}
            self.history.append({"request": request, "response": {"status": "204", "lastModified": at}})

    def bundle(self, request: Request) -> bytes:
        kind = request.path.rpartition("/")[2]
        parameters = self.kept_parameters(request.parameters)
        bounds = (
            parse_qs(urlsplit(request.target).query).get("_lastUpdated", []) if "_lastUpdated" in parameters else []
        )
        found = [
            {"resource": r, "search": {"mode": "match"}}
            for r in self.resources
            if r["resourceType"] == kind and _is_within(r["meta"]["lastUpdated"], bounds) and _matches(r, parameters)
        ]
        if parameters.get("_summary") == "count":
            return json.dumps({"resourceType": "Bundle", "type": "searchset", "total": len(found)}).encode()
        # As in a URL, bounds may repeat.
        return self._paged("searchset", request, parameters | ({"_lastUpdated": bounds} if bounds else {}), found)

    def history_bundle(self, request: Request) -> bytes:
        assert self.history is not None
        kind = request.path.split("/")[-2]
        since = request.parameters.get("_since", "").removesuffix("Z")
        found = [
            entry
            for entry in reversed(self.history)
            if entry["request"]["url"].startswith(f"{kind}/")
            and (entry["response"].get("lastModified") or entry["resource"]["meta"]["lastUpdated"]) >= since
        ]
        kept = dict(request.parameters)
        if not self.keeps_since_in_links:
            kept.pop("_since", None)
        return self._paged("history", request, kept, found)

    def _paged(self, kind: str, request: Request, parameters: dict[str, Any], found: list[dict[str, Any]]) -> bytes:
        offset, count = int(parameters.get("_offset", 0)), int(parameters.get("_count", 20))
        link = [{"relation": "self", "url": f"{self.root}{request.path}?{urlencode(parameters, doseq=True)}"}]
        if offset + count < min(len(found), self.fetch_size):
            target = f"{request.path}?{urlencode(parameters | {'_offset': str(offset + count)}, doseq=True)}"
            link.append({"relation": "next", "url": self.link(target)})
        bundle = {"resourceType": "Bundle", "type": kind, "link": link, "entry": found[offset : offset + count]}
        return json.dumps(bundle | ({"total": len(found)} if self.total else {})).encode()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        parameters = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        request = Request(handler.path, parts.path, parameters, dict(handler.headers.items()), handler.command, body)
        self.requests.append(request)
        scripted = self.scripted(request)
        reply = scripted or self._reply(request)
        handler.send_response_only(reply.status)
        handler.send_header("Date", self.date or formatdate(usegmt=True))
        handler.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        for key, value in reply.headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(reply.body)
        handler.close_connection = reply.length is not None
        if scripted is None:
            self.after_page(len(self.requests))

    def _reply(self, request: Request) -> Reply:
        headers = {"Content-Type": "application/fhir+json"}
        *_, kind, name = request.path.split("/")
        if kind[0].isupper() and name != "_history":
            held = [each for each in self.resources if (each["resourceType"], each["id"]) == (kind, name)]
            return Reply(body=json.dumps(held[0]).encode(), headers=headers) if held else Reply(status=404)
        if not request.path.endswith("/_history"):
            return Reply(body=self.bundle(request), headers=headers)
        if self.history is None:
            return Reply(status=404)
        return Reply(body=self.history_bundle(request), headers=headers)


def _matches(resource: dict[str, Any], parameters: dict[str, str]) -> bool:
    """Whether a resource is what `_id`, `patient` and `category` ask for, as far as they do."""
    said = {
        "_id": resource.get("id"),
        "patient": resource.get("subject", {}).get("reference", "").removeprefix("Patient/"),
        "category": resource.get("category", [{}])[0].get("coding", [{}])[0].get("code"),
    }
    return all(said[name] == asked for name, asked in parameters.items() if name in said)


def _is_within(updated: str, bounds: list[str]) -> bool:
    """Compared as text, as simple servers do: to the second."""
    return all(
        updated[:19] >= bound[2:].removesuffix("Z")
        if bound.startswith("ge")
        else updated[:19] < bound[2:].removesuffix("Z")
        for bound in bounds
    )
