"""Bulk Data export for the scripted server of the tests: it exports the resources that the server holds, in files of ten
lines, and does whatever a test lets it do instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fhir_server import FhirServer, Reply, Request


@dataclass
class Job:
    """One export: what was asked for, and its files by address."""

    number: int
    parameters: dict[str, str]
    patients: set[str] | None
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    polls: int = 0
    is_deleted: bool = False


def ndjson(resources: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in resources)


class BulkServer:
    """`before` may answer a request instead; `members` are the ids of a group; `polls` is how often an export is not
    done yet; `deleted` and `errors` are lines of those files, and `change` may change a job before it is asked for."""

    def __init__(self, server: FhirServer) -> None:
        self.server = server
        self.jobs: list[Job] = []
        self.members: set[str] | None = None
        self.takes_patients = True
        self.polls = 1
        self.deleted: list[Any] = []
        self.errors: list[Any] = []
        self.before: Callable[[Request], Reply | None] = lambda request: None
        self.change: Callable[[Job], None] = lambda job: None
        server.scripted = self.answer

    def asked(self, *methods: str) -> list[str]:
        """The paths of the requests so far, of these methods or any."""
        return [each.path for each in self.server.requests if not methods or each.method in methods]

    def answer(self, request: Request) -> Reply | None:
        if reply := self.before(request):
            return reply
        if request.path.endswith("$export"):
            return self._kick_off(request)
        what, number, *rest = request.path.strip("/").split("/")
        if what not in ("files", "status"):
            return None
        job = self.jobs[int(number)]
        if job.is_deleted:
            return Reply(status=404)
        if request.method == "DELETE":
            job.is_deleted = True
            return Reply(status=202)
        if what == "files":
            return Reply(body=job.files["/".join(rest)], headers={"Content-Type": "application/fhir+ndjson"})
        job.polls += 1
        if job.polls <= self.polls:
            return Reply(status=202, headers={"X-Progress": f"{job.polls * 10}% of it", "Retry-After": "0"})
        return Reply(body=json.dumps(job.manifest).encode(), headers={"Content-Type": "application/json"})

    def _kick_off(self, request: Request) -> Reply:
        if request.headers.get("Prefer") != "respond-async":
            return Reply(status=400)
        parameters, patients = request.parameters, None
        if request.method == "POST":
            if not self.takes_patients:
                return Reply(status=400)
            told = json.loads(request.body)["parameter"]
            parameters = {each["name"]: each[key] for each in told for key in each if key != "name"}
            patients = {
                each["valueReference"]["reference"].removeprefix("Patient/")
                for each in told
                if each["name"] == "patient"
            }
        job = Job(len(self.jobs), parameters, patients)
        self._export(job)
        self.jobs.append(job)
        return Reply(status=202, headers={"Content-Location": f"{self.server.root}/status/{job.number}"})

    def _export(self, job: Job) -> None:
        root = f"{self.server.root}/files/{job.number}"
        output = []
        for kind in job.parameters["_type"].split(","):
            found = [each for each in self.server.resources if each["resourceType"] == kind and self._is_in(each, job)]
            for start in range(0, len(found), 10):
                name = f"{kind}-{start}"
                job.files[name] = ndjson(found[start : start + 10])
                output.append({"type": kind, "url": f"{root}/{name}", "count": len(found[start : start + 10])})
        job.manifest = {
            "transactionTime": "2099-01-01T00:00:00Z",
            "request": f"{self.server.base}/$export",
            "requiresAccessToken": True,
            "output": output,
            "deleted": [{"type": "Bundle", "url": f"{root}/deleted"}] if self.deleted else [],
            "error": [{"type": "OperationOutcome", "url": f"{root}/errors"}] if self.errors else [],
        }
        job.files["deleted"] = ndjson(self.deleted)
        job.files["errors"] = ndjson(self.errors)
        self.change(job)

    def _is_in(self, held: dict[str, Any], job: Job) -> bool:
        patient = held["id"] if held["resourceType"] == "Patient" else held.get("subject", {}).get("reference", "")[8:]
        return (
            held["meta"]["lastUpdated"] >= job.parameters.get("_since", "").removesuffix("Z")
            and (self.members is None or patient in self.members)
            and (job.patients is None or patient in job.patients)
        )
